//! `dfa bench`: times against the memory-bandwidth floor and against the published algorithm.

mod block;
mod choice;
mod cold;
mod columns;
mod markdown;
mod measure;
mod print;
mod row;
mod sweep;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use deformable_aggregation::DType;

use self::choice::{Subject, Suite, chosen};
use self::measure::Bench;
use self::row::{Report, set_ratios};
use self::sweep::Sweep;
use crate::engines::BackendName;
use crate::scenario::{self, Scenario};
use crate::system::Origin;
use crate::timing::Direction;
use crate::workloads::{WORKLOADS, Workload};
use crate::{output, vectors};

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
    /// Samples per batch, instead of the workload's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// Where the key points land [default: rig; the full suite has W2 dense as well]
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
    /// Measure the published algorithm as well, where the backend has it [the full suite does]
    #[arg(long)]
    naive: bool,
    /// Measure ten runs in a row as a CUDA graph as well: the time without the gaps between launches
    #[arg(long)]
    graph: bool,
    /// Most runs of each measurement
    #[arg(long, value_name = "N", default_value_t = 50)]
    runs: usize,
    /// Time after which no further run of a measurement starts
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Seed of the inputs
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Measure the whole attention block of Sparse4D v3 instead [default: W1 and W2, all GPU types]
    #[arg(long, conflicts_with_all = ["suite", "scenario", "direction", "naive", "graph", "cold", "sweep", "save_inputs", "markdown"])]
    block: bool,
    /// Measure the first calls of a fresh process instead, with the driver's cache of compiled kernels switched off
    #[arg(long, conflicts_with_all = ["suite", "naive", "graph", "sweep", "save_inputs", "markdown"])]
    cold: bool,
    /// Measure one size after the other from small to large instead, starting from one workload [default: W2 on a GPU, a
    /// small W1 elsewhere]
    #[arg(long, value_delimiter = ',', value_name = "SIZE,...", conflicts_with_all = ["suite", "scenario", "naive", "graph"])]
    sweep: Vec<Sweep>,
    /// Draw what a sweep measured
    #[arg(long, value_name = "FILE.png", requires = "sweep")]
    picture: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Write the figures as Markdown tables as well
    #[arg(long, value_name = "FILE.md")]
    markdown: Option<PathBuf>,
    /// Write the inputs of the one chosen workload and scenario, for other programs
    #[arg(long, value_name = "FILE.npz")]
    save_inputs: Option<PathBuf>,
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
  dfa bench --suite full --markdown bench.md --json > bench.json
  dfa bench --workload W1 --graph
  dfa bench --workload W6 --batch 12
  dfa bench --workload W1,W2 --scenario rig,dense --dtype fp32,fp16 --naive
  dfa bench --block
  dfa bench --cold
  dfa bench --sweep channels,batch --picture sweep.png
  dfa bench --workload W1 --save-inputs w1.npz

DRAM is the time that a copy at the bandwidth measured in the same run needs for the bytes that have to move: every touched
feature row, all locations, the weights of visible samples and the output once; backward also writes all three gradients once.
L2 is the time that reading every tap once takes at the bandwidth of the GPU's second-level cache, measured as well. Errors are
relative L2 errors against sums in fp64, of the first and the last sample of the batch and one between them.",
        workloads.join("\n")
    )
}

impl Args {
    /// Whether the full suite is to be measured.
    fn is_full(&self) -> bool {
        self.workload.is_empty() && self.suite == Suite::Full
    }

    /// Whether the published algorithm is to be measured as well.
    fn measures_naive(&self) -> bool {
        self.naive || self.is_full()
    }

    /// The workload with the batch asked for.
    fn sized(&self, workload: Workload) -> Workload {
        Workload { batch: self.batch.map_or(workload.batch, usize::from), ..workload }
    }
}

/// Runs the subcommand; `false` if a result is wrong.
///
/// # Errors
///
/// A backend asked for that cannot be used, too little memory for a workload asked for, or an unwritable file.
pub fn run(args: &Args) -> Result<bool> {
    if args.block {
        return block::run(args);
    }
    if args.cold {
        return cold::run(args);
    }
    if !args.sweep.is_empty() {
        return sweep::run(args);
    }
    let subjects = chosen(args);
    if let Some(path) = &args.save_inputs {
        save_inputs(args, path, &subjects)?;
    }
    let bench = Bench::new(args)?;
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for subject in &subjects {
        if let Err(reason) = subject.check_memory() {
            // A suite goes on without what does not fit; what was asked for by name has to run.
            ensure!(args.workload.is_empty(), reason);
            skipped.push(reason.to_string());
            continue;
        }
        rows.extend(bench.measure(subject)?);
    }
    bench.spinner.finish_and_clear();
    ensure!(
        !rows.is_empty() || !skipped.is_empty(),
        "none of the backends has these element types"
    );
    set_ratios(&mut rows);

    let passed = rows.iter().all(|row| row.passed);
    let report = Report {
        origin: Origin::here(),
        seed: args.seed,
        devices: bench.machines.iter().map(|machine| machine.engine.device()).collect(),
        skipped,
        passed,
        results: rows,
    };
    if let Some(path) = &args.markdown {
        markdown::write(path, &bench, &report.results)?;
    }
    if args.json {
        output::json(&report)?;
    } else {
        print::print(&bench, &report, args.naive)?;
    }
    Ok(passed)
}

fn save_inputs(args: &Args, path: &Path, subjects: &[Subject]) -> Result<()> {
    let [subject] = subjects else {
        bail!("--save-inputs: choose one workload, one scenario and one element type");
    };
    subject.check_memory()?;
    let data = scenario::generate::<f32>(&subject.workload, subject.landing, args.seed)?;
    vectors::save(path, &data)
}
