//! The attention block at the sizes of Sparse4D v3: whole passes, every kernel, and how they compare with the operator alone.

mod judge;
mod print;

use anyhow::{Result, ensure};
use deformable_aggregation::{Algorithm, BorderRule, DType};
use serde::Serialize;

use self::judge::Judged;
use super::Args;
use super::choice::{Subject, engines};
use super::measure::{limits, micro};
use crate::block::BlockData;
use crate::block::scene;
use crate::block::times::{BlockTimes, GpuTimes, measured_block};
use crate::engines::Engine;
use crate::gpu::{self, Number};
use crate::output;
use crate::scenario::{self, Scenario};
use crate::system::Origin;
use crate::timing::{Direction, measure, runner};
use crate::with_dtype;
use crate::workloads::Workload;

/// What `--json` prints; times in microseconds.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    origin: Origin,
    seed: u64,
    devices: Vec<String>,
    passed: bool,
    results: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    workload: &'static str,
    batch: usize,
    anchors: usize,
    dtype: String,
    backend: &'static str,
    /// How linear layers are multiplied out.
    arithmetic: &'static str,
    forward_us: f64,
    forward_backward_us: f64,
    /// What a GPU has besides.
    #[serde(flatten)]
    on_gpu: Option<OnGpu>,
    /// The operator alone, forward and backward, on data of the same scenario.
    operator_us: [f64; 2],
    forward_over_operator: f64,
    forward_backward_over_operator: f64,
    /// Relative L2 errors of the sampled anchors: the largest, or the median where something rounds to fewer bits than fp32 has.
    errors: Vec<(&'static str, f64)>,
    error_bound: f64,
    passed: bool,
}

#[derive(Serialize)]
struct OnGpu {
    /// Both passes as one CUDA graph.
    graph_us: f64,
    launches: [usize; 2],
    kernels: [Vec<Kernel>; 2],
}

#[derive(Serialize)]
struct Kernel {
    name: &'static str,
    median_us: f64,
}

/// A way to multiply out linear layers.
struct Arithmetic {
    name: &'static str,
    /// Whether some numbers are rounded to fewer bits than fp32 has.
    rounds: bool,
    error_bound: f64,
}

/// Measures the block on every backend; `false` if a result is wrong.
///
/// # Errors
///
/// A backend that cannot be used, too little memory, or what a backend reports.
pub(super) fn run(args: &Args) -> Result<bool> {
    let mut engines = engines(args)?;
    engines.retain(|engine| engine.algorithm == Algorithm::Fast);
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
    let spinner = output::spinner("the attention block");
    let mut rows = Vec::new();
    for workload in workloads {
        let workload = args.sized(workload);
        for &dtype in &dtypes {
            spinner.set_message(format!("{} {dtype}", workload.id));
            with_dtype!(dtype, T => measure_in::<T>(args, &engines, &workload, &mut rows)?);
        }
    }
    spinner.finish_and_clear();
    ensure!(!rows.is_empty(), "none of the backends has these element types");
    let report = Report {
        origin: Origin::here(),
        seed: args.seed,
        devices: engines.iter().map(Engine::device).collect(),
        passed: rows.iter().all(|row| row.passed),
        results: rows,
    };
    if args.json {
        output::json(&report)?;
    } else {
        print::print(&engines, &report)?;
    }
    Ok(report.passed)
}

fn measure_in<T: Number>(
    args: &Args,
    engines: &[Engine],
    workload: &Workload,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let engines: Vec<_> = engines.iter().filter(|engine| engine.supports(T::DTYPE)).collect();
    if engines.is_empty() {
        return Ok(());
    }
    Subject::new(*workload, Scenario::Rig, T::DTYPE).check_memory()?;
    let of_operator = operator_alone::<T>(args, &engines, workload)?;
    let exact = scene::generate::<f64>(workload, args.seed)?;
    let data = exact.converted::<T>()?;
    drop(exact);
    let judged = judge::judge(&data)?;
    for (engine, operator_us) in engines.into_iter().zip(of_operator) {
        for arithmetic in arithmetics(engine, T::DTYPE) {
            let case = (workload, &data, &judged[..]);
            rows.push(row(args, engine, case, &arithmetic, operator_us)?);
        }
    }
    Ok(())
}

/// The ways in which a backend multiplies out linear layers around elements of that type.
fn arithmetics(engine: &Engine, dtype: DType) -> Vec<Arithmetic> {
    let way = |name, rounds, error_bound| Arithmetic { name, rounds, error_bound };
    let of_16_bits = if engine.name.has_kernels() { "tensor cores" } else { "fp32" };
    match dtype {
        DType::F64 => vec![way("fp64", false, 1e-9)],
        DType::F32 if gpu::description(&engine.backend).is_some() => {
            vec![way("fp32", false, 1e-4), way("tf32", true, 5e-3)]
        }
        DType::F32 => vec![way("fp32", false, 1e-4)],
        DType::F16 => vec![way(of_16_bits, true, 1e-2)],
        DType::Bf16 => vec![way(of_16_bits, true, 8e-2)],
    }
}

/// Measures and checks the block in one way.
fn row<T: Number>(
    args: &Args,
    engine: &Engine,
    (workload, data, judged): (&Workload, &BlockData<T>, &[Judged]),
    arithmetic: &Arithmetic,
    operator_us: [f64; 2],
) -> Result<Row> {
    let &Arithmetic { name, rounds, error_bound } = arithmetic;
    let (times, output, gradients) = measured_block(engine, data, rounds, limits(args))?;
    let BlockTimes { forward, both, on_gpu } = times;
    let of_anchors = if rounds { judge::median } else { judge::largest };
    let errors = judge::errors(judged, &output, &gradients, of_anchors);
    let (forward_us, forward_backward_us) = (micro(forward.median), micro(both.median));
    let [of_forward, of_backward] = operator_us;
    Ok(Row {
        workload: workload.id,
        batch: workload.batch,
        anchors: workload.anchors,
        dtype: T::DTYPE.to_string(),
        backend: engine.name.name(),
        arithmetic: name,
        forward_us,
        forward_backward_us,
        on_gpu: on_gpu.map(OnGpu::new),
        operator_us,
        forward_over_operator: forward_us / of_forward,
        forward_backward_over_operator: forward_backward_us / (of_forward + of_backward),
        passed: errors.iter().all(|(_, error)| *error <= error_bound),
        errors,
        error_bound,
    })
}

impl OnGpu {
    fn new(times: GpuTimes) -> Self {
        Self {
            graph_us: micro(times.graph.median),
            launches: times.kernels.each_ref().map(Vec::len),
            kernels: times.kernels.map(|kernels| {
                let kernel = |(name, time)| Kernel { name, median_us: micro(time) };
                kernels.into_iter().map(kernel).collect()
            }),
        }
    }
}

impl Row {
    /// The largest of the errors; NaN if one is.
    fn error(&self) -> f64 {
        judge::largest(self.errors.iter().map(|(_, error)| *error).collect())
    }
}

/// Medians of the operator's forward and backward pass on each engine, in microseconds.
fn operator_alone<T: Number>(
    args: &Args,
    engines: &[&Engine],
    workload: &Workload,
) -> Result<Vec<[f64; 2]>> {
    let data = scenario::generate::<T>(workload, Scenario::Rig, args.seed)?;
    let of_engine = |engine: &&Engine| -> Result<[f64; 2]> {
        let mut runner = runner(engine, &data, BorderRule::Operator)?;
        let mut median = |direction| -> Result<f64> {
            Ok(micro(measure(runner.as_mut(), direction, limits(args))?.median))
        };
        Ok([median(Direction::Forward)?, median(Direction::Backward)?])
    };
    engines.iter().map(of_engine).collect()
}
