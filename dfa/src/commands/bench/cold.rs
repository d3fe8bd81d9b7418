//! The first call in a fresh process, with nothing loaded and nothing compiled: how long until there is a result?

use std::env;
use std::process;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use deformable_aggregation::{Backend, BorderRule, DType};
use serde::Serialize;

use super::Args;
use super::choice::{Subject, chosen};
use crate::compare::l2_bound;
use crate::data::Results;
use crate::engines::{self, BackendName};
use crate::gpu::Number;
use crate::judge;
use crate::output;
use crate::scenario;
use crate::system::Origin;
use crate::with_dtype;

/// Set to `1`, it keeps the driver from using kernels that it compiled for an earlier process.
const CACHE_VARIABLE: &str = "CUDA_CACHE_DISABLE";

/// What `--json` prints; times in milliseconds.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    origin: Origin,
    backend: &'static str,
    device: String,
    workload: &'static str,
    dtype: String,
    open_ms: f64,
    /// The first call, with copies, and the same again.
    forward_ms: [f64; 2],
    backward_ms: [f64; 2],
    /// From opening the backend to the first output.
    first_output_ms: f64,
    /// From opening the backend to the first gradients, the forward pass in between called once.
    first_gradients_ms: f64,
    passed: bool,
}

/// Opens one backend and calls it, on arrays of the host: that asked for, else a GPU, else the CPU. `false` if a result is
/// wrong.
///
/// The process must not have opened the backend before. Where the driver's cache is not switched off, another process is
/// started with it switched off, which does the work.
///
/// # Errors
///
/// A backend that cannot be used.
pub(super) fn run(args: &Args) -> Result<bool> {
    ensure!(args.backend.len() <= 1, "--cold: choose one backend");
    let subjects = chosen(args);
    let [subject] = &subjects[..] else {
        bail!("--cold: choose one workload, one scenario and one element type");
    };
    subject.check_memory()?;
    if env::var_os(CACHE_VARIABLE).is_none_or(|value| value != "1") {
        return in_another_process();
    }
    with_dtype!(subject.dtype, T => measure::<T>(args, subject))
}

/// Does the same in a process in which the driver compiles everything again.
fn in_another_process() -> Result<bool> {
    let program = env::current_exe().context("finding this program")?;
    let status = process::Command::new(program)
        .args(env::args_os().skip(1))
        .env(CACHE_VARIABLE, "1")
        .status()
        .context("starting this program again")?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("the process that measures ended with {status}"),
    }
}

fn open(args: &Args) -> Result<Backend> {
    let named = args.backend.first().map(|name| name.open());
    named.unwrap_or_else(|| Ok(Backend::auto()))
}

fn measure<T: Number>(args: &Args, subject: &Subject) -> Result<bool> {
    let spinner = output::spinner("drawing inputs");
    let data = scenario::generate::<T>(&subject.workload, subject.landing, args.seed)?;
    spinner.set_message("opening the backend");
    let start = Instant::now();
    let backend = open(args)?;
    let open = start.elapsed();
    ensure!(
        T::DTYPE != DType::F64 || !BackendName::of(&backend).has_kernels(),
        "the backend does not compute in fp64"
    );
    let operator = deformable_aggregation::DeformableAggregation::new(data.shape.clone())
        .with_backend(backend.clone())
        .with_border_rule(BorderRule::Operator);

    let forward = || timed(|| operator.forward(data.inputs()));
    let backward = || timed(|| operator.backward(data.inputs(), data.grad_output.view()));
    let (output, first_forward) = forward()?;
    let (gradients, first_backward) = backward()?;
    let results = Results { output, gradients };
    let forward_ms = [first_forward, forward()?.1].map(milli);
    let backward_ms = [first_backward, backward()?.1].map(milli);

    spinner.set_message("fp64 reference");
    let judged = judge::sampled(&data, args.seed)?;
    let passed = judge::largest_errors(&results, &judged)
        .into_iter()
        .all(|error| error <= l2_bound(T::DTYPE));
    spinner.finish_and_clear();
    let report = Report {
        origin: Origin::here(),
        backend: backend.name(),
        device: engines::device(&backend),
        workload: subject.workload.id,
        dtype: T::DTYPE.to_string(),
        open_ms: milli(open),
        forward_ms,
        backward_ms,
        first_output_ms: milli(open + first_forward),
        first_gradients_ms: milli(open + first_forward + first_backward),
        passed,
    };
    if args.json {
        output::json(&report)?;
    } else {
        print(&report, subject)?;
    }
    Ok(passed)
}

fn timed<R>(
    run: impl FnOnce() -> deformable_aggregation::Result<R>,
) -> deformable_aggregation::Result<(R, Duration)> {
    let start = Instant::now();
    let result = run()?;
    Ok((result, start.elapsed()))
}

fn milli(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn print(report: &Report, subject: &Subject) -> Result<()> {
    output::line(&format!("{} on {}: {}\n", subject.label(), report.backend, report.device))?;
    let time = |milli: f64| output::duration(Duration::from_secs_f64(milli / 1e3));
    let rows = [
        vec!["open the backend".to_owned(), time(report.open_ms), "-".to_owned()],
        vec!["forward".to_owned(), time(report.forward_ms[0]), time(report.forward_ms[1])],
        vec!["backward".to_owned(), time(report.backward_ms[0]), time(report.backward_ms[1])],
        vec!["until the first output".to_owned(), time(report.first_output_ms), "-".to_owned()],
        vec![
            "until the first gradients".to_owned(),
            time(report.first_gradients_ms),
            "-".to_owned(),
        ],
    ];
    output::line(&output::table(&["", "first", "again"], 1, &rows))?;
    output::line(
        "\nCalls take arrays of the host and give such: copies to and from a GPU are in the times.",
    )?;
    super::print::verdict(report.passed)
}
