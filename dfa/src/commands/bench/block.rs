//! The attention block at the sizes of Sparse4D v3: whole passes, every kernel, and how they compare with the operator alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use deformable_aggregation::block::BlockGradients;
use deformable_aggregation::{Backend, BorderRule, DType, Element};
use ndarray::{Array3, Axis, s};
use serde::Serialize;

use super::Args;
use super::choice::Subject;
use crate::block::BlockData;
use crate::block_scene;
use crate::compare::relative_l2;
use crate::engines::{Engine, Selection};
use crate::gpu::{self, BlockTimes, Number};
use crate::output;
use crate::scenario::{self, Scenario};
use crate::system::System;
use crate::timing::{Direction, Limits, measure, runner};
use crate::with_dtype;
use crate::workloads::Workload;

/// Anchors of each sampled batch item that are computed again in fp64.
const SAMPLED: usize = 24;

/// What `--json` prints; times in microseconds.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    command: Vec<String>,
    system: System,
    device: String,
    passed: bool,
    results: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    workload: &'static str,
    batch: usize,
    anchors: usize,
    dtype: String,
    /// How linear layers are multiplied out.
    arithmetic: &'static str,
    forward_us: f64,
    forward_backward_us: f64,
    /// Both passes as one CUDA graph.
    graph_us: f64,
    launches: [usize; 2],
    kernels: [Vec<Kernel>; 2],
    /// The operator alone, forward and backward, on data of the same scenario.
    operator_us: [f64; 2],
    forward_over_operator: f64,
    forward_backward_over_operator: f64,
    /// Relative L2 errors of the sampled anchors: the largest, or the median where layers round.
    errors: Vec<(&'static str, f64)>,
    error_bound: f64,
    passed: bool,
}

#[derive(Serialize)]
struct Kernel {
    name: &'static str,
    median_us: f64,
}

/// Measures the block on a GPU; `false` if a result is wrong.
///
/// # Errors
///
/// If there is no GPU, or what it reports.
pub(super) fn run(args: &Args) -> Result<bool> {
    let engines = Selection::new(&args.backend)?.engines;
    let engine = engines.into_iter().find(|engine| gpu::description(&engine.backend).is_some());
    let Some(engine) = engine else {
        Backend::cuda(0)?;
        anyhow::bail!("--block: measures kernels on a GPU, and `cuda` is not among the backends");
    };
    let workloads = if args.workload.is_empty() {
        ["W1", "W2"].into_iter().filter_map(Workload::by_id).copied().collect()
    } else {
        super::choice::named(args)
    };
    let dtypes = if args.dtype.is_empty() {
        vec![DType::F32, DType::F16, DType::Bf16]
    } else {
        args.dtype.clone()
    };
    ensure!(!dtypes.contains(&DType::F64), "--block: there are no kernels for fp64");
    let spinner = output::spinner("the attention block");
    let mut rows = Vec::new();
    for workload in workloads {
        let workload = args.sized(workload);
        for &dtype in &dtypes {
            spinner.set_message(format!("{} {dtype}", workload.id));
            with_dtype!(dtype, T => measure_in::<T>(args, &engine, &workload, &mut rows)?);
        }
    }
    spinner.finish_and_clear();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect(),
        system: System::new(),
        device: gpu::description(&engine.backend).unwrap_or_default(),
        passed: rows.iter().all(|row| row.passed),
        results: rows,
    };
    if args.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(report.passed)
}

fn measure_in<T: Number>(
    args: &Args,
    engine: &Engine,
    workload: &Workload,
    rows: &mut Vec<Row>,
) -> Result<()> {
    Subject::new(*workload, Scenario::Rig, T::DTYPE).check_memory()?;
    let limits = Limits {
        warm_up: 2,
        runs: args.runs,
        time: Duration::from_secs_f64(args.seconds.max(0.0)),
    };
    let operator_us = operator_alone::<T>(args, engine, workload, limits)?;
    let exact = block_scene::generate::<f64>(workload, args.seed)?;
    let data = exact.converted::<T>()?;
    drop(exact);
    let judged = judge(&data)?;
    let arithmetics: &[_] = match T::DTYPE {
        DType::F32 => &[("fp32", false, 1e-4), ("tf32", true, 5e-3)],
        DType::F16 => &[("tensor cores", true, 1e-2)],
        _ => &[("tensor cores", true, 8e-2)],
    };
    for &(arithmetic, tensor_cores, bound) in arithmetics {
        let Some((times, output, gradients)) =
            T::gpu_block(&engine.backend, &data, tensor_cores, limits)?
        else {
            continue;
        };
        let of_anchors = if tensor_cores { median } else { largest };
        let errors = errors(&judged, &output, &gradients, of_anchors);
        let micro = |time: Duration| time.as_secs_f64() * 1e6;
        let BlockTimes { forward, both, graph, kernels } = times;
        let [of_forward, of_backward] = operator_us;
        rows.push(Row {
            workload: workload.id,
            batch: workload.batch,
            anchors: workload.anchors,
            dtype: T::DTYPE.to_string(),
            arithmetic,
            forward_us: micro(forward.median),
            forward_backward_us: micro(both.median),
            graph_us: micro(graph.median),
            launches: kernels.each_ref().map(Vec::len),
            kernels: kernels.map(|kernels| {
                let kernel = |(name, time)| Kernel { name, median_us: micro(time) };
                kernels.into_iter().map(kernel).collect()
            }),
            operator_us,
            forward_over_operator: micro(forward.median) / of_forward,
            forward_backward_over_operator: micro(both.median) / (of_forward + of_backward),
            passed: errors.iter().all(|(_, error)| *error <= bound),
            errors,
            error_bound: bound,
        });
    }
    Ok(())
}

/// Medians of the operator's forward and backward pass in microseconds.
fn operator_alone<T: Number>(
    args: &Args,
    engine: &Engine,
    workload: &Workload,
    limits: Limits,
) -> Result<[f64; 2]> {
    let data = scenario::generate::<T>(workload, Scenario::Rig, args.seed)?;
    let mut runner = runner(engine, &data, BorderRule::Operator)?;
    let mut median = |direction| -> Result<f64> {
        Ok(measure(runner.as_mut(), direction, limits)?.median.as_secs_f64() * 1e6)
    };
    Ok([median(Direction::Forward)?, median(Direction::Backward)?])
}

/// Some anchors of a batch item, computed in fp64.
struct Judged {
    item: usize,
    output: Array3<f64>,
    gradients: BlockGradients<f64>,
}

/// The first anchors of the first and the last batch item by the CPU in fp64. What an anchor gets does not depend on the others.
fn judge<T: Element>(data: &BlockData<T>) -> Result<Vec<Judged>> {
    let batch = data.instance_feature.dim().0;
    let mut items = vec![0, batch - 1];
    items.dedup();
    items
        .into_iter()
        .map(|item| {
            let part = part_of(data, item).converted::<f64>()?;
            let cpu = Engine {
                name: crate::engines::BackendName::Cpu,
                backend: Backend::Cpu,
                algorithm: deformable_aggregation::Algorithm::Fast,
            };
            let block = part.block(&cpu)?;
            let (output, context) = block.forward_with_context(part.inputs(), part.mode())?;
            let gradients = context.backward(part.grad_output.view())?;
            Ok(Judged { item, output, gradients })
        })
        .collect()
}

/// The first anchors of one batch item.
fn part_of<T: Element>(data: &BlockData<T>, item: usize) -> BlockData<T> {
    let anchors = SAMPLED.min(data.instance_feature.dim().1);
    let of_item = |array: &Array3<T>| array.slice(s![item..=item, ..anchors, ..]).to_owned();
    let items = Axis(0);
    let range = (item..=item).into();
    BlockData {
        config: data.config.clone(),
        parameters: data.parameters.clone(),
        instance_feature: of_item(&data.instance_feature),
        anchor: data.anchor.slice(s![item..=item, ..anchors, ..]).to_owned(),
        anchor_embed: data.anchor_embed.as_ref().map(of_item),
        feature_maps: data.feature_maps.slice_axis(items, range).to_owned(),
        layout: data.layout.clone(),
        projection_mat: data.projection_mat.slice_axis(items, range).to_owned(),
        image_wh: data.image_wh.as_ref().map(|sizes| sizes.slice_axis(items, range).to_owned()),
        masks: None,
        grad_output: of_item(&data.grad_output),
    }
}

/// The relative L2 errors of the anchors for each quantity that they have for themselves, as one number.
///
/// That is the largest where layers are exact in fp32. Where they round to fewer bits it is the median: the rounding moves key
/// points a little, and one that it moves over a line between pixel centres has another derivative.
fn errors<T: Element>(
    judged: &[Judged],
    output: &Array3<T>,
    gradients: &BlockGradients<T>,
    of_anchors: fn(Vec<f64>) -> f64,
) -> Vec<(&'static str, f64)> {
    let wide = |array: &Array3<T>| array.mapv(T::to_f64);
    let exact_of = |get: fn(&Judged) -> Option<&Array3<f64>>| {
        judged.iter().map(move |judged| (judged.item, get(judged)))
    };
    let anchor = gradients.anchor.mapv(Into::into);
    let embedding = gradients.anchor_embed.as_ref().map(wide);
    [
        ("output", Some(wide(output)), exact_of(|judged| Some(&judged.output))),
        (
            "instance feature gradient",
            Some(wide(&gradients.instance_feature)),
            exact_of(|judged| Some(&judged.gradients.instance_feature)),
        ),
        ("anchor gradient", Some(anchor), exact_of(|judged| Some(&judged.gradients.anchor))),
        (
            "anchor embedding gradient",
            embedding,
            exact_of(|judged| judged.gradients.anchor_embed.as_ref()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, actual, exact)| {
        let actual = actual?;
        let errors =
            exact.filter_map(|(item, exact)| Some((item, exact?))).flat_map(|(item, exact)| {
                let of_item = actual.index_axis(Axis(0), item);
                let exact = exact.index_axis(Axis(0), 0);
                let rows = exact.rows().into_iter().zip(of_item.rows());
                rows.map(|(exact, actual)| {
                    relative_l2(actual.iter().copied(), exact.iter().copied())
                })
                .collect::<Vec<_>>()
            });
        Some((name, of_anchors(errors.collect())))
    })
    .collect()
}

/// The largest number; NaN if one is, and zero of none.
fn largest(numbers: Vec<f64>) -> f64 {
    numbers.into_iter().fold(0.0, |largest, number| {
        if number.is_nan() || number > largest { number } else { largest }
    })
}

/// The number in the middle, NaN counted as the largest; zero of none.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

fn print(report: &Report) -> Result<()> {
    output::line(&format!("The attention block on {}\n", report.device))?;
    let micro = |time: f64| format!("{time:.1}");
    let rows: Vec<Vec<String>> = report
        .results
        .iter()
        .map(|row| {
            let worst = row.errors.iter().fold(0.0_f64, |worst, (_, error)| worst.max(*error));
            vec![
                format!("{}, batch {}", row.workload, row.batch),
                row.dtype.clone(),
                row.arithmetic.to_owned(),
                micro(row.forward_us),
                micro(row.forward_backward_us),
                micro(row.graph_us),
                format!("{} + {}", row.launches[0], row.launches[1]),
                format!("{:.2}", row.forward_over_operator),
                format!("{:.2}", row.forward_backward_over_operator),
                format!("{worst:.1e}"),
                (if row.passed { "yes" } else { "FAIL" }).to_owned(),
            ]
        })
        .collect();
    let heading = [
        "workload",
        "dtype",
        "linear",
        "forward",
        "fwd + bwd",
        "as graph",
        "launches",
        "fwd / op",
        "both / op",
        "error",
        "passed",
    ];
    output::line(&output::table(&heading, 3, &rows))?;
    output::line("\nTimes in µs. Kernels, with an event between any two:")?;
    for row in &report.results {
        output::line(&format!("\n{} {} {}", row.workload, row.dtype, row.arithmetic))?;
        for (pass, kernels) in ["forward", "backward"].into_iter().zip(&row.kernels) {
            let kernels: Vec<Vec<String>> = kernels
                .iter()
                .map(|kernel| {
                    vec![pass.to_owned(), kernel.name.to_owned(), micro(kernel.median_us)]
                })
                .collect();
            output::line(&output::table(&["pass", "kernel", "µs"], 2, &kernels))?;
        }
    }
    super::print::verdict(report.passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_is_no_number_is_not_passed_over() {
        assert!(largest(vec![1.0, f64::NAN, 2.0]).is_nan());
        assert_eq!(largest(vec![1.0, 3.0, 2.0]), 3.0);
        assert!(median(vec![f64::NAN, 1.0, f64::NAN]).is_nan());
        assert_eq!(median(vec![f64::NAN, 1.0, 2.0]), 2.0);
        assert_eq!((largest(vec![]), median(vec![])), (0.0, 0.0));
    }
}
