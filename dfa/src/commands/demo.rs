//! `dfa demo`: one real-sized call on every backend, judged in fp64, and a picture of the scene.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use deformable_aggregation::{BorderRule, DType};
use ndarray::Slice;

use crate::compare::l2_bound;
use crate::data::{Data, Quantity};
use crate::engines::{BackendName, Engine, Selection};
use crate::gpu::{self, Number};
use crate::picture::{self, Notes};
use crate::scenario::{self, Scenario, Touched};
use crate::system::System;
use crate::timing::{Direction, Limits, measure, runner};
use crate::workloads::Workload;
use crate::{judge, output, with_dtype};

/// Anchors that the emulator runs: it checks every access of every thread, which takes its time.
const EMULATED_ANCHORS: usize = 64;

/// Arguments of `dfa demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dfa demo
  dfa demo --picture demo.png
  dfa demo --workload W4 --backend cpu,cuda --dtype bf16

The scene is a ring of cameras that looks at random 3D boxes, as in the workload's model; features and weights are
random. Errors are relative L2 errors against sums in fp64 of the same inputs.")]
pub struct Args {
    /// Sizes of which model (see `dfa bench --help`); one sample of its batch is run
    #[arg(long, value_name = "ID", default_value = "W1", value_parser = super::workload())]
    workload: &'static Workload,
    /// Where to write a picture of the scene
    #[arg(long, value_name = "FILE.png")]
    picture: Option<PathBuf>,
    /// Backends [default: all that can be used here]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    backend: Vec<BackendName>,
    /// Element type
    #[arg(long, value_name = "TYPE", default_value = "fp32", value_parser = super::dtype())]
    dtype: DType,
    /// Seed of the scene and of the random numbers
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

/// What one engine did.
struct Outcome {
    engine: String,
    anchors: usize,
    forward: Duration,
    backward: Duration,
    errors: [f64; 4],
}

/// Runs the subcommand; `false` if an error is out of bounds.
///
/// # Errors
///
/// A backend asked for that cannot be used, or a picture that cannot be written.
pub fn run(args: &Args) -> Result<bool> {
    with_dtype!(args.dtype, T => run_in::<T>(args))
}

fn run_in<T: Number>(args: &Args) -> Result<bool> {
    let selection = Selection::new(&args.backend)?;
    let workload = Workload { batch: 1, ..*args.workload };
    let spinner = output::spinner("drawing the scene");
    let data = scenario::generate::<T>(&workload, Scenario::Rig, args.seed)?;
    let touched = Touched::count(&data);
    spinner.set_message("computing the fp64 reference");
    let start = Instant::now();
    let exact = judge::exact(&data, BorderRule::Operator, judge::threads())?;
    let judged = start.elapsed();

    let mut outcomes = Vec::new();
    for engine in selection.engines.iter().filter(|engine| engine.supports(T::DTYPE)) {
        spinner.set_message(format!("running {}", engine.label()));
        outcomes.push(if engine.name == BackendName::Emulator {
            let few =
                data.part(Slice::from(..), Slice::from(..EMULATED_ANCHORS.min(workload.anchors)))?;
            let exact = judge::exact(&few, BorderRule::Operator, 1)?;
            outcome(engine, &few, &exact)?
        } else {
            outcome(engine, &data, &exact)?
        });
    }
    spinner.finish_and_clear();

    let bound = l2_bound(T::DTYPE);
    let machine = machine(&selection.engines);
    print(args, &workload, touched, judged, &outcomes, bound, &machine)?;
    for status in &selection.missing {
        let reason = status.usable.as_ref().err().map_or("", String::as_str);
        let note = format!("not run: {}: {reason}", status.name);
        output::line(&output::styled(output::FAINT, &note))?;
    }
    if let Some(path) = &args.picture {
        let scene = scenario::scene(&workload, args.seed, 0);
        let image = picture::render(&scene, &notes(args, &workload, touched, &outcomes, machine))?;
        image.save(path).with_context(|| format!("cannot write {}", path.display()))?;
        output::line(&format!("picture: {}", path.display()))?;
    }
    Ok(outcomes.iter().all(|outcome| outcome.errors.iter().all(|error| *error <= bound)))
}

fn outcome<T: Number>(
    engine: &Engine,
    data: &Data<T>,
    exact: &crate::data::Results<f64>,
) -> Result<Outcome> {
    // The slow backends are here for their results; one run tells enough of their time.
    let slow = matches!(engine.name, BackendName::Reference | BackendName::Emulator);
    let limits = if slow {
        Limits { warm_up: 0, runs: 1, time: Duration::ZERO }
    } else {
        Limits { warm_up: 1, runs: 20, time: Duration::from_secs(2) }
    };
    let mut runner = runner(engine, data, BorderRule::Operator)?;
    let forward = measure(runner.as_mut(), Direction::Forward, limits)?.median;
    let backward = measure(runner.as_mut(), Direction::Backward, limits)?.median;
    Ok(Outcome {
        engine: engine.label(),
        anchors: data.shape.anchors(),
        forward,
        backward,
        errors: judge::item_errors(&runner.results()?, 0, exact),
    })
}

/// Processor and GPU.
fn machine(engines: &[Engine]) -> String {
    let processor = System::new().description();
    match engines.iter().find_map(|engine| gpu::description(&engine.backend)) {
        Some(gpu) => format!("{processor}; {gpu}"),
        None => processor,
    }
}

/// One row for each engine: name, anchors, times, errors.
fn rows(outcomes: &[Outcome]) -> Vec<Vec<String>> {
    outcomes
        .iter()
        .map(|outcome| {
            let mut row = vec![
                outcome.engine.clone(),
                output::grouped(outcome.anchors),
                output::duration(outcome.forward),
                output::duration(outcome.backward),
            ];
            row.extend(outcome.errors.map(|error| format!("{error:.1e}")));
            row
        })
        .collect()
}

const HEADING: [&str; 8] =
    ["backend", "anchors", "forward", "backward", "out", "grad_feat", "grad_loc", "grad_weights"];

fn print(
    args: &Args,
    workload: &Workload,
    touched: Touched,
    judged: Duration,
    outcomes: &[Outcome],
    bound: f64,
    machine: &str,
) -> Result<()> {
    output::line(&format!(
        "{} {}: {}, one sample, {}",
        output::styled(output::HEADING, "Workload"),
        workload.id,
        workload.model,
        args.dtype
    ))?;
    output::line(&format!(
        "{} anchors x {} points, {} cameras, {} levels, {} channels: {} samples count, on {} of {} feature rows",
        output::grouped(workload.anchors),
        workload.points,
        workload.cameras,
        workload.levels.len(),
        workload.embed_dims,
        output::grouped(touched.samples),
        output::grouped(touched.rows),
        output::grouped(workload.rows()),
    ))?;
    output::line(&format!("{machine}\n"))?;
    output::line(&output::table(&HEADING, 1, &rows(outcomes)))?;
    output::line(&format!(
        "\nRelative L2 errors against sums in fp64 of the same inputs ({} on all cores); each must be at most {bound:.0e}.",
        output::duration(judged)
    ))?;
    if outcomes.iter().any(|outcome| outcome.anchors != workload.anchors) {
        output::line(&format!(
            "The emulator checks every memory access of every thread, so it runs {EMULATED_ANCHORS} anchors only."
        ))?;
    }
    let names: Vec<&str> = outcomes
        .iter()
        .flat_map(|outcome| outcome.errors.iter().zip(Quantity::ALL))
        .filter(|(error, _)| **error > bound)
        .map(|(_, quantity)| quantity.name())
        .collect();
    output::line(&if names.is_empty() {
        output::styled(output::GOOD, "All backends agree.")
    } else {
        output::styled(output::BAD, &format!("Out of bounds: {}.", names.join(", ")))
    })
}

/// What the picture says.
fn notes(
    args: &Args,
    workload: &Workload,
    touched: Touched,
    outcomes: &[Outcome],
    machine: String,
) -> Notes {
    let heading = HEADING.map(str::to_owned).to_vec();
    let remarks = vec![
        "Relative L2 errors against sums in fp64 of the same inputs.".to_owned(),
        format!(
            "{} samples (key point, camera, level) count; they touch {} of {} feature rows.",
            output::grouped(touched.samples),
            output::grouped(touched.rows),
            output::grouped(workload.rows()),
        ),
        machine,
    ];
    Notes {
        title: format!("Deformable aggregation on a ring of {} cameras", workload.cameras),
        subtitle: format!(
            "{}, {}. Every dot is a key point of a 3D box, projected into the image and sampled there on {} feature levels.",
            workload.model,
            args.dtype,
            workload.levels.len()
        ),
        table: std::iter::once(heading).chain(rows(outcomes)).collect(),
        remarks,
    }
}
