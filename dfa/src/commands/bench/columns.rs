//! Tables of rows that do not all have the same entries.

use std::time::Duration;

use crate::output;

/// A column: its heading, how its entries are aligned, and what it has for a row.
pub(super) struct Column<R> {
    heading: &'static str,
    is_name: bool,
    entry: fn(&R) -> Option<String>,
}

/// A column of words.
pub(super) const fn name<R>(heading: &'static str, entry: fn(&R) -> Option<String>) -> Column<R> {
    Column { heading, is_name: true, entry }
}

/// A column of numbers.
pub(super) const fn number<R>(heading: &'static str, entry: fn(&R) -> Option<String>) -> Column<R> {
    Column { heading, is_name: false, entry }
}

/// A time in microseconds, for people.
pub(super) fn time(micro: f64) -> String {
    output::duration(Duration::from_secs_f64(micro / 1e6))
}

/// A ratio, for people.
pub(super) fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// A line for each row below the headings. Names come first. Columns in which no row has an entry are left out.
pub(super) fn table<R>(columns: &[Column<R>], rows: &[R]) -> String {
    let columns: Vec<_> = columns
        .iter()
        .filter(|column| rows.iter().any(|row| (column.entry)(row).is_some()))
        .collect();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let entry = |column: &&Column<R>| (column.entry)(row).unwrap_or_else(|| "-".to_owned());
            columns.iter().map(entry).collect()
        })
        .collect();
    let headings: Vec<&str> = columns.iter().map(|column| column.heading).collect();
    let names = columns.iter().filter(|column| column.is_name).count();
    output::table(&headings, names, &cells)
}
