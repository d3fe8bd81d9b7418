//! `dfa bench`: times against the memory-bandwidth floor and against the published algorithm.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use deformable_aggregation::{Algorithm, BorderRule, DType, Element};
use indicatif::ProgressBar;
use ndarray::{Axis, Slice};
use serde::Serialize;

use crate::compare::l2_bound;
use crate::data::{Data, Quantity, Results};
use crate::engines::{BackendName, Engine, Selection};
use crate::gpu::{self, Number};
use crate::scenario::{self, Footprint, Scenario, Touched};
use crate::system::{System, available_memory, copy_bandwidth};
use crate::timing::{Direction, Limits, Timing, measure, runner};
use crate::workloads::{WORKLOADS, Workload};
use crate::{judge, output, vectors, with_dtype};

/// Arguments of `dfa bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help())]
pub struct Args {
    /// What to measure when no workload is named
    #[arg(long, value_enum, default_value_t = Suite::Smoke)]
    suite: Suite,
    /// Workloads by id, instead of a suite
    #[arg(long, value_delimiter = ',', value_name = "ID,...", value_parser = super::workload())]
    workload: Vec<&'static Workload>,
    /// Where the key points land [default: rig; the full suite has both]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    scenario: Vec<Scenario>,
    /// Element types [default: fp32; the full suite has fp32, fp16 and bf16]
    #[arg(long, value_delimiter = ',', value_name = "TYPE,...", value_parser = super::dtype())]
    dtype: Vec<DType>,
    /// Backends [default: cpu, and cuda where it can be used]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    backend: Vec<BackendName>,
    /// Directions
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME,...",
        default_value = "forward,backward"
    )]
    direction: Vec<Direction>,
    /// Measure the published algorithm as well, where the backend has it
    #[arg(long)]
    naive: bool,
    /// Most runs of each measurement
    #[arg(long, value_name = "N", default_value_t = 50)]
    runs: usize,
    /// Time after which no further run of a measurement starts
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Seed of the inputs
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Write the inputs of the one chosen workload and scenario, for other programs
    #[arg(long, value_name = "FILE.npz")]
    save_inputs: Option<PathBuf>,
}

/// A choice of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// W1 with the rig, fp32
    Smoke,
    /// W1, W2, W5, W6 and W13 with rig and dense, in all GPU types
    Full,
}

fn after_help() -> String {
    let workloads: Vec<String> = WORKLOADS
        .iter()
        .map(|workload| {
            format!(
                "  {:<4} {:<46} batch {:>2}, {:>2} cameras, {:>7} x {:>3} points",
                workload.id,
                workload.model,
                workload.batch,
                workload.cameras,
                workload.anchors,
                workload.points
            )
        })
        .collect();
    format!(
        "Workloads:\n{}\n
Examples:
  dfa bench
  dfa bench --suite full --json > bench.json
  dfa bench --workload W1,W2 --scenario rig,dense --dtype fp32,fp16 --naive
  dfa bench --workload W1 --save-inputs w1.npz

The floor is the time that a copy at the bandwidth measured in the same run needs for the bytes that have to move: every
touched feature row, all locations, the weights of visible samples and the output once; backward also writes all three
gradients once. Errors are relative L2 errors of the last sample of the batch against sums in fp64.",
        workloads.join("\n")
    )
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Row {
    workload: &'static str,
    model: &'static str,
    source: &'static str,
    sizes: Sizes,
    scenario: Scenario,
    dtype: String,
    backend: &'static str,
    algorithm: String,
    direction: Direction,
    runs: usize,
    median_us: f64,
    min_us: f64,
    max_us: f64,
    touched: Touched,
    floor_bytes: usize,
    copy_bytes_per_second: f64,
    floor_us: f64,
    over_floor: f64,
    /// Time of the published algorithm over the time of this row.
    #[serde(skip_serializing_if = "Option::is_none")]
    naive_over_fast: Option<f64>,
    /// Whether the backend has several algorithms.
    #[serde(skip)]
    has_algorithms: bool,
    errors: Vec<QuantityError>,
    error_bound: f64,
    passed: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Sizes {
    batch: usize,
    cameras: usize,
    levels: &'static [(usize, usize)],
    anchors: usize,
    points: usize,
    embed_dims: usize,
    groups: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct QuantityError {
    quantity: Quantity,
    relative_l2: f64,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    command: Vec<String>,
    system: System,
    seed: u64,
    devices: Vec<String>,
    skipped: Vec<String>,
    passed: bool,
    results: Vec<Row>,
}

/// What is run on every workload.
struct Plan<'a> {
    args: &'a Args,
    /// Engines with the copy bandwidth of their memory in bytes per second.
    engines: Vec<(Engine, f64)>,
    spinner: ProgressBar,
}

/// Runs the subcommand; `false` if a result is wrong.
///
/// # Errors
///
/// A backend asked for that cannot be used, too little memory for a workload asked for, or an unwritable file.
pub fn run(args: &Args) -> Result<bool> {
    let (workloads, scenarios, dtypes) = chosen(args);
    let spinner = output::spinner("measuring the copy bandwidth");
    if let Some(path) = &args.save_inputs {
        let (&[workload], &[scenario]) = (&workloads[..], &scenarios[..]) else {
            bail!("--save-inputs: choose one workload and one scenario");
        };
        check_memory(workload, DType::F32)?;
        vectors::save(path, &scenario::generate::<f32>(workload, scenario, args.seed)?)?;
    }
    let plan = Plan { args, engines: engines(args)?, spinner };
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for workload in workloads {
        for &scenario in &scenarios {
            for &dtype in &dtypes {
                if let Err(reason) = check_memory(workload, dtype) {
                    // A suite goes on without what does not fit; what was asked for by name has to run.
                    ensure!(args.workload.is_empty(), reason);
                    skipped.push(reason.to_string());
                    continue;
                }
                with_dtype!(dtype, T => rows.extend(plan.measure::<T>(workload, scenario)?));
            }
        }
    }
    plan.spinner.finish_and_clear();
    ensure!(
        !rows.is_empty() || !skipped.is_empty(),
        "none of the backends has these element types"
    );

    let passed = rows.iter().all(|row| row.passed);
    let devices = plan.engines.iter().map(|(engine, _)| device(engine)).collect();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect(),
        system: System::new(),
        seed: args.seed,
        devices,
        skipped,
        passed,
        results: rows,
    };
    if args.json {
        output::json(&report)?;
    } else {
        print(&plan, &report)?;
    }
    Ok(passed)
}

fn chosen(args: &Args) -> (Vec<&'static Workload>, Vec<Scenario>, Vec<DType>) {
    let full = args.workload.is_empty() && args.suite == Suite::Full;
    let workloads = match (&args.workload[..], full) {
        ([], false) => vec!["W1"],
        ([], true) => vec!["W1", "W2", "W5", "W6", "W13"],
        (named, _) => named.iter().map(|workload| workload.id).collect(),
    };
    let or = |asked: &[Scenario], full_suite: &[Scenario]| match (asked, full) {
        ([], true) => full_suite.to_vec(),
        ([], false) => vec![Scenario::Rig],
        (asked, _) => asked.to_vec(),
    };
    let dtypes = match (&args.dtype[..], full) {
        ([], true) => vec![DType::F32, DType::F16, DType::Bf16],
        ([], false) => vec![DType::F32],
        (asked, _) => asked.to_vec(),
    };
    (
        workloads.into_iter().filter_map(Workload::by_id).collect(),
        or(&args.scenario, &[Scenario::Rig, Scenario::Dense]),
        dtypes,
    )
}

/// The engines to measure, each with the copy bandwidth of its memory.
fn engines(args: &Args) -> Result<Vec<(Engine, f64)>> {
    let selection = Selection::new(&args.backend)?;
    // Measured once for each memory, so that fast and naive kernels are held against the same floor.
    let mut host = None;
    let mut engines: Vec<(Engine, f64)> = Vec::new();
    for engine in selection.engines {
        let unasked =
            args.backend.is_empty() && !matches!(engine.name, BackendName::Cpu | BackendName::Cuda);
        if unasked || (engine.algorithm == Algorithm::Naive && !args.naive) {
            continue;
        }
        let same = engines.iter().find(|(other, _)| other.name == engine.name);
        let bandwidth = match same {
            Some((_, bandwidth)) => *bandwidth,
            None => {
                engine.copy_bandwidth()?.unwrap_or_else(|| *host.get_or_insert_with(copy_bandwidth))
            }
        };
        engines.push((engine, bandwidth));
    }
    Ok(engines)
}

/// Whether the host has the memory for a workload; where the system does not tell, it is tried.
fn check_memory(workload: &Workload, dtype: DType) -> Result<()> {
    let size = Footprint::new(workload, dtype.size_bytes());
    // Backends sum 16-bit gradients in fp32, and the judge works in fp64 on one sample of the batch.
    let sums = if dtype.size_bytes() == 2 { 2 * size.results } else { 0 };
    let needed = size.inputs + size.results + sums + 2 * size.judge;
    if let Some(available) = available_memory().filter(|available| needed > *available) {
        bail!(
            "{} in {dtype} needs {} of memory, {} are available",
            workload.id,
            output::bytes(needed as f64),
            output::bytes(available as f64)
        );
    }
    Ok(())
}

impl Plan<'_> {
    /// Measures and checks all engines and directions on one workload.
    fn measure<T: Number>(&self, workload: &Workload, scenario: Scenario) -> Result<Vec<Row>> {
        let engines: Vec<_> =
            self.engines.iter().filter(|(engine, _)| engine.supports(T::DTYPE)).collect();
        if engines.is_empty() {
            return Ok(Vec::new());
        }
        let what = format!("{} {} {}", workload.id, scenario.name(), T::DTYPE);
        self.spinner.set_message(format!("{what}: drawing inputs"));
        let data = scenario::generate::<T>(workload, scenario, self.args.seed)?;
        let touched = Touched::count(&data);
        self.spinner.set_message(format!("{what}: fp64 reference"));
        let exact = {
            let last = data.part(Slice::from(-1..), Slice::from(..))?;
            judge::exact(&last, BorderRule::Operator, rayon::current_num_threads().min(2))?
        };
        let mut rows = Vec::new();
        for (engine, bandwidth) in engines {
            self.spinner.set_message(format!("{what}: {}", engine.label()));
            let subject = Subject { workload, scenario, data: &data, touched, exact: &exact };
            rows.extend(self.measure_engine(&subject, engine, *bandwidth)?);
        }
        set_naive_ratios(&mut rows);
        Ok(rows)
    }

    fn measure_engine<T: Number>(
        &self,
        subject: &Subject<'_, T>,
        engine: &Engine,
        bandwidth: f64,
    ) -> Result<Vec<Row>> {
        let Subject { workload, scenario, data, touched, exact } = *subject;
        let limits = Limits {
            warm_up: 2,
            runs: self.args.runs,
            time: Duration::from_secs_f64(self.args.seconds.max(0.0)),
        };
        let mut runner = runner(engine, data, BorderRule::Operator)?;
        let mut timings = Vec::new();
        for &direction in &self.args.direction {
            timings.push((direction, measure(runner.as_mut(), direction, limits)?));
        }
        // Results of a direction that is not measured are wanted for the check all the same.
        for direction in [Direction::Forward, Direction::Backward] {
            if !self.args.direction.contains(&direction) {
                runner.run(direction)?;
            }
        }
        let errors = judge::errors(&last_item(&runner.results()?), exact);
        let bound = l2_bound(T::DTYPE);
        let row = |(direction, timing): (Direction, Timing)| {
            let element = T::DTYPE.size_bytes();
            let (bytes, quantities) = match direction {
                Direction::Forward => (touched.forward_bytes(&data.shape, element), 0..1),
                Direction::Backward => (touched.backward_bytes(&data.shape, element), 1..4),
            };
            let errors: Vec<_> = quantities
                .map(|index| QuantityError {
                    quantity: Quantity::ALL[index],
                    relative_l2: errors[index],
                })
                .collect();
            let micro = |time: Duration| time.as_secs_f64() * 1e6;
            let floor_us = bytes as f64 / bandwidth * 1e6;
            Row {
                workload: workload.id,
                model: workload.model,
                source: workload.source,
                sizes: Sizes::new(workload),
                scenario,
                dtype: T::DTYPE.to_string(),
                backend: engine.name.name(),
                algorithm: engine.algorithm.to_string(),
                direction,
                runs: timing.runs,
                median_us: micro(timing.median),
                min_us: micro(timing.min),
                max_us: micro(timing.max),
                touched,
                floor_bytes: bytes,
                copy_bytes_per_second: bandwidth,
                floor_us,
                over_floor: micro(timing.median) / floor_us,
                naive_over_fast: None,
                has_algorithms: engine.name.has_naive(),
                passed: errors.iter().all(|error| error.relative_l2 <= bound),
                errors,
                error_bound: bound,
            }
        };
        Ok(timings.into_iter().map(row).collect())
    }
}

/// What the engines are measured on.
struct Subject<'a, T: Element> {
    workload: &'a Workload,
    scenario: Scenario,
    data: &'a Data<T>,
    touched: Touched,
    exact: &'a Results<f64>,
}

impl Sizes {
    fn new(workload: &Workload) -> Self {
        Self {
            batch: workload.batch,
            cameras: workload.cameras,
            levels: workload.levels,
            anchors: workload.anchors,
            points: workload.points,
            embed_dims: workload.embed_dims,
            groups: workload.groups,
        }
    }
}

/// The results of the last sample of the batch: where indices that overflow go wrong first.
fn last_item<T: Element>(results: &Results<T>) -> Results<T> {
    let last = Slice::from(-1..);
    let gradients = &results.gradients;
    Results {
        output: results.output.slice_axis(Axis(0), last).to_owned(),
        gradients: deformable_aggregation::Gradients {
            feature_maps: gradients.feature_maps.slice_axis(Axis(0), last).to_owned(),
            sampling_locations: gradients.sampling_locations.slice_axis(Axis(0), last).to_owned(),
            weights: gradients.weights.slice_axis(Axis(0), last).to_owned(),
        },
    }
}

/// Writes into every other row how much longer the naive row beside it took.
fn set_naive_ratios(rows: &mut [Row]) {
    let naive: Vec<_> = rows
        .iter()
        .filter(|row| row.algorithm == Algorithm::Naive.to_string())
        .map(|row| (row.backend, row.direction, row.median_us))
        .collect();
    for row in rows.iter_mut().filter(|row| row.algorithm != Algorithm::Naive.to_string()) {
        row.naive_over_fast = naive
            .iter()
            .find(|(backend, direction, _)| (*backend, *direction) == (row.backend, row.direction))
            .map(|(_, _, median)| median / row.median_us);
    }
}

/// What an engine runs on.
fn device(engine: &Engine) -> String {
    gpu::description(&engine.backend).unwrap_or_else(|| System::new().description())
}

fn print(plan: &Plan<'_>, report: &Report) -> Result<()> {
    for (engine, bandwidth) in &plan.engines {
        let rate = output::bytes(*bandwidth);
        output::line(&format!("{}: {}, copies {rate}/s", engine.label(), device(engine)))?;
    }
    let rows: Vec<Vec<String>> = report.results.iter().map(cells).collect();
    let heading = [
        "workload",
        "scenario",
        "dtype",
        "backend",
        "direction",
        "check",
        "median",
        "min",
        "max",
        "runs",
        "bytes",
        "floor",
        "x floor",
        "naive/fast",
        "error",
    ];
    output::line(&format!("\n{}", output::table(&heading, 6, &rows)))?;
    for reason in &report.skipped {
        output::line(&output::styled(output::FAINT, &format!("skipped: {reason}")))?;
    }
    if plan.args.naive && !plan.engines.iter().any(|(engine, _)| engine.name.has_naive()) {
        output::line("The CPU backends have no naive kernels; --naive changes nothing for them.")?;
    }
    output::line(&if report.passed {
        output::styled(output::GOOD, "\nAll results agree with the fp64 reference.")
    } else {
        output::styled(output::BAD, "\nWRONG RESULTS: see the rows marked FAIL.")
    })
}

fn cells(row: &Row) -> Vec<String> {
    let time = |micro: f64| output::duration(Duration::from_secs_f64(micro / 1e6));
    let error = row.errors.iter().map(|error| error.relative_l2).fold(0.0, f64::max);
    let backend = if row.has_algorithms {
        format!("{} {}", row.backend, row.algorithm)
    } else {
        row.backend.to_owned()
    };
    vec![
        row.workload.to_owned(),
        row.scenario.name().to_owned(),
        row.dtype.clone(),
        backend,
        row.direction.name().to_owned(),
        if row.passed { "pass" } else { "FAIL" }.to_owned(),
        time(row.median_us),
        time(row.min_us),
        time(row.max_us),
        row.runs.to_string(),
        output::bytes(row.floor_bytes as f64),
        time(row.floor_us),
        format!("{:.1}", row.over_floor),
        row.naive_over_fast.map_or("-".to_owned(), |ratio| format!("{ratio:.1}")),
        format!("{error:.1e}"),
    ]
}
