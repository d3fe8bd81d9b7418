//! What the commands print: aligned tables, colours where the terminal has them, progress on stderr.

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Style of headings.
pub const HEADING: Style = Style::new().bold();
/// Style of what passed.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Style of what failed.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Style of side remarks.
pub const FAINT: Style = Style::new().dimmed();

/// Text in a style; the escape codes are dropped again where stdout does not take them.
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Writes a line to stdout. A reader that went away (`dfa … | head`) is no error.
///
/// # Errors
///
/// Any other failure to write.
pub fn line(text: &str) -> Result<()> {
    match writeln!(anstream::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a value as JSON to stdout.
///
/// # Errors
///
/// As for [`line()`].
pub fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// An aligned table without rules; the first `names` columns are aligned left, the others right.
pub fn table(heading: &[&str], names: usize, rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.to_vec());
    for row in rows {
        table.add_row(row.clone());
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= names {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let mut lines = text.lines().map(str::trim_end);
    let first = styled(HEADING, lines.next().unwrap_or_default());
    lines.fold(first, |text, line| format!("{text}\n{line}"))
}

/// A progress bar on stderr for that many steps; hidden when stderr is not a terminal.
pub fn progress(steps: usize, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar:.cyan} {pos}/{len}")
        .expect("a valid template");
    ProgressBar::new(steps as u64).with_style(style).with_message(what.to_owned())
}

/// A spinner on stderr for work of unknown length.
pub fn spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// A time in the unit that suits it.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds >= 1.0 => format!("{seconds:.2} s"),
        _ if seconds >= 1e-1 => format!("{:.0} ms", seconds * 1e3),
        _ if seconds >= 1e-2 => format!("{:.1} ms", seconds * 1e3),
        _ if seconds >= 1e-3 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{:.1} µs", seconds * 1e6),
    }
}

/// A number of bytes in the unit that suits it.
pub fn bytes(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let step = ((bytes.max(1.0).log10() / 3.0) as usize).min(UNITS.len() - 1);
    format!("{:.3} {}", bytes / 1_000_f64.powi(step as i32), UNITS[step])
}

/// A number with its thousands set apart.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "2".to_owned()]];
        let text = anstream::adapter::strip_str(&table(&["name", "n"], 1, &rows)).to_string();
        assert_eq!(text, "name   n\na     10\nlong   2");
    }

    #[test]
    fn units_suit_the_size() {
        assert_eq!(duration(Duration::from_micros(1_500)), "1.50 ms");
        assert_eq!(duration(Duration::from_nanos(5_250)), "5.2 µs");
        assert_eq!(bytes(4.2e12), "4.200 TB");
        assert_eq!(bytes(0.0), "0.000 B");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
