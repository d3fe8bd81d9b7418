//! The block's tables for people.

use anyhow::Result;

use super::{Kernel, OnGpu, Report, Row};
use crate::commands::bench::columns::{self, Column, name, number, ratio, time};
use crate::commands::bench::print::verdict;
use crate::engines::Engine;
use crate::output;

const COLUMNS: &[Column<Row>] = &[
    name("workload", |row| Some(format!("{}, batch {}", row.workload, row.batch))),
    name("dtype", |row| Some(row.dtype.clone())),
    name("backend", |row| Some(row.backend.to_owned())),
    name("linear", |row| Some(row.arithmetic.to_owned())),
    name("check", |row| Some(if row.passed { "ok" } else { "FAIL" }.to_owned())),
    number("forward", |row| Some(time(row.forward_us))),
    number("fwd + bwd", |row| Some(time(row.forward_backward_us))),
    number("as graph", |row| row.on_gpu.as_ref().map(|on_gpu| time(on_gpu.graph_us))),
    number("launches", |row| {
        let [forward, backward] = row.on_gpu.as_ref()?.launches;
        Some(format!("{forward} + {backward}"))
    }),
    number("fwd / op", |row| Some(ratio(row.forward_over_operator))),
    number("both / op", |row| Some(ratio(row.forward_backward_over_operator))),
    number("error", |row| Some(format!("{:.1e}", row.error()))),
];

/// Prints the machines, the passes, the kernels of a GPU and the verdict.
///
/// # Errors
///
/// If stdout cannot be written.
pub(super) fn print(engines: &[Engine], report: &Report) -> Result<()> {
    for engine in engines {
        output::line(&format!("{}: {}", engine.name.name(), engine.device()))?;
    }
    output::line(&format!("\n{}", columns::table(COLUMNS, &report.results)))?;
    let on_gpu = report.results.iter().filter_map(|row| Some((row, row.on_gpu.as_ref()?)));
    for (index, (row, on_gpu)) in on_gpu.enumerate() {
        if index == 0 {
            output::line("\nKernels, with an event between any two:")?;
        }
        output::line(&format!("\n{} {} {}", row.workload, row.dtype, row.arithmetic))?;
        output::line(&kernels(on_gpu))?;
    }
    verdict(report.passed)
}

/// All kernels of both passes.
fn kernels(on_gpu: &OnGpu) -> String {
    let columns = [
        name("pass", |&(pass, _): &(&str, &Kernel)| Some(pass.to_owned())),
        name("kernel", |&(_, kernel)| Some(kernel.name.to_owned())),
        number("median", |&(_, kernel)| Some(time(kernel.median_us))),
    ];
    let passes = ["forward", "backward"].into_iter().zip(&on_gpu.kernels);
    let rows: Vec<_> = passes
        .flat_map(|(pass, kernels)| kernels.iter().map(move |kernel| (pass, kernel)))
        .collect();
    columns::table(&columns, &rows)
}
