//! The measured figures as a Markdown table, as documentation has them: one line for each workload and type.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use deformable_aggregation::Algorithm;

use super::measure::Bench;
use super::row::Row;
use crate::output;
use crate::timing::Direction;

/// Writes the tables, one for each backend.
///
/// # Errors
///
/// If the file cannot be written.
pub(super) fn write(path: &Path, bench: &Bench<'_>, rows: &[Row]) -> Result<()> {
    let mut text = String::new();
    for machine in &bench.machines {
        let name = machine.engine.name.name();
        let rows: Vec<&Row> = rows.iter().filter(|row| row.backend == name).collect();
        let l2 = machine
            .bandwidths
            .l2
            .map_or(String::new(), |l2| format!(", reads of its L2 {} TB/s", round(l2 / 1e12)));
        let copy = round(machine.bandwidths.copy / 1e12);
        text += &format!("{}: copies {copy} TB/s{l2}. Times in µs.\n\n", machine.engine.device());
        text += &table(&rows);
        text.push('\n');
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn table(rows: &[&Row]) -> String {
    let mut text = String::from(
        "| workload | dtype | forward | DRAM | L2 | naive / ours | backward | DRAM | L2 | naive / ours | repeatable | / fast |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut done: Vec<(String, &str)> = Vec::new();
    for row in rows {
        let key = (subject(row), row.dtype.as_str());
        if done.contains(&key) {
            continue;
        }
        let find = |algorithm, direction| {
            rows.iter().copied().find(|other| {
                (subject(other), other.dtype.as_str()) == key
                    && (other.algorithm, other.direction) == (algorithm, direction)
            })
        };
        let forward = find(Algorithm::Fast, Direction::Forward);
        let backward = find(Algorithm::Fast, Direction::Backward);
        let repeatable = find(Algorithm::Repeatable, Direction::Backward);
        let mut cells = vec![key.0.clone(), key.1.to_owned()];
        for row in [forward, backward] {
            cells.extend([
                entry(row, |row| Some(time(row))),
                entry(row, |row| Some(micro(row.floors.dram_floor_us))),
                entry(row, |row| row.floors.l2_floor_us.map(micro)),
                entry(row, |row| row.naive_over_this.map(round)),
            ]);
        }
        cells.extend([
            entry(repeatable, |row| Some(time(row))),
            entry(repeatable, |row| row.over_fast.map(round)),
        ]);
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        done.push(key);
    }
    text
}

/// Workload and scenario, with the batch where it is not the listed one.
fn subject(row: &Row) -> String {
    format!("{} `{}`, batch {}", row.workload, row.scenario, row.sizes.batch)
}

fn entry(row: Option<&Row>, value: impl Fn(&Row) -> Option<String>) -> String {
    row.and_then(value).unwrap_or_else(|| "–".to_owned())
}

/// The median, and in brackets how it compares with fp32.
fn time(row: &Row) -> String {
    let ratio = row.over_fp32.map_or(String::new(), |ratio| format!(" ({ratio:.2})"));
    format!("{}{ratio}", micro(row.median_us))
}

/// Microseconds with three digits or all before the point.
fn micro(micro: f64) -> String {
    if micro < 1000.0 { round(micro) } else { output::grouped(micro.round() as usize) }
}

fn round(number: f64) -> String {
    let digits = match number.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{number:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        let rounded = [0.0123, 1.234, 12.34, 123.4, 1234.5, 1_234_567.0].map(micro);
        assert_eq!(rounded, ["0.01", "1.23", "12.3", "123", "1,235", "1,234,567"]);
    }
}
