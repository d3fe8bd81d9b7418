//! The table for people.

use anyhow::Result;

use super::columns::{self, Column, name, number, ratio, time};
use super::measure::Bench;
use super::row::{Bandwidths, Report, Row};
use crate::output;

const COLUMNS: &[Column<Row>] = &[
    name("dtype", |row| Some(row.dtype.clone())),
    name("backend", |row| Some(row.engine())),
    name("pass", |row| Some(row.direction.name().to_owned())),
    name("check", |row| Some(if row.passed { "ok" } else { "FAIL" }.to_owned())),
    number("median", |row| Some(time(row.median_us))),
    number("min", |row| Some(time(row.min_us))),
    number("replay", |row| row.replay_us.map(time)),
    number("DRAM", |row| Some(time(row.floors.dram_floor_us))),
    number("x DRAM", |row| Some(ratio(row.floors.over_dram_floor))),
    number("L2", |row| row.floors.l2_floor_us.map(time)),
    number("x L2", |row| row.floors.over_l2_floor.map(ratio)),
    number("naive/this", |row| row.naive_over_this.map(ratio)),
    number("/fast", |row| row.over_fast.map(ratio)),
    number("/fp32", |row| row.over_fp32.map(ratio)),
    number("launches", |row| Some(row.cost?.launches.to_string())),
    number("workspace", |row| Some(output::bytes(row.cost?.workspace_bytes as f64))),
    number("error", |row| Some(format!("{:.1e}", row.error()))),
];

/// Prints the machines, the table and the verdict.
///
/// # Errors
///
/// If stdout cannot be written.
pub(super) fn print(bench: &Bench<'_>, report: &Report, naive_asked: bool) -> Result<()> {
    machines(bench)?;
    output::line(&table(&report.results))?;
    for reason in &report.skipped {
        output::line(&output::styled(output::FAINT, &format!("skipped: {reason}")))?;
    }
    let has_naive = bench.machines.iter().any(|machine| machine.engine.name.has_kernels());
    if naive_asked && !has_naive {
        output::line("The CPU backends have no naive kernels; --naive changes nothing for them.")?;
    }
    verdict(report.passed)
}

/// One line for each machine.
///
/// # Errors
///
/// If stdout cannot be written.
pub(super) fn machines(bench: &Bench<'_>) -> Result<()> {
    for machine in &bench.machines {
        let Bandwidths { copy, l2 } = machine.bandwidths;
        let cache =
            l2.map_or(String::new(), |l2| format!(", reads its L2 at {}/s", output::bytes(l2)));
        output::line(&format!(
            "{}: {}, copies {}/s{cache}",
            machine.engine.name.name(),
            machine.engine.device(),
            output::bytes(copy)
        ))?;
    }
    Ok(())
}

/// Says whether all results agree.
///
/// # Errors
///
/// If stdout cannot be written.
pub(super) fn verdict(passed: bool) -> Result<()> {
    output::line(&if passed {
        output::styled(output::GOOD, "\nAll results agree with the fp64 reference.")
    } else {
        output::styled(output::BAD, "\nWRONG RESULTS: see the rows marked FAIL.")
    })
}

/// All rows, with a line above those of each workload and scenario.
fn table(rows: &[Row]) -> String {
    let table = columns::table(COLUMNS, rows);
    let mut lines = table.lines();
    let mut text = format!("\n{}", lines.next().unwrap_or_default());
    let mut above = String::new();
    for (line, row) in lines.zip(rows) {
        let title = title(row);
        if title != above {
            text += &format!("\n{}", output::styled(output::HEADING, &title));
            above = title;
        }
        text += &format!("\n{line}");
    }
    text
}

/// What the rows of one workload and scenario have in common.
fn title(row: &Row) -> String {
    format!(
        "{} {}: {}; batch {}, {} samples with {} taps on {} rows",
        row.workload,
        row.scenario,
        row.model,
        row.sizes.batch,
        output::grouped(row.touched.samples),
        output::grouped(row.touched.taps),
        output::grouped(row.touched.rows),
    )
}
