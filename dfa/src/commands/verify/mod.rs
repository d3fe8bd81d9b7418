//! `dfa verify`: every backend against vectors from files or against the fp64 reference.

mod block;
mod key_points;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use deformable_aggregation::{
    BorderRule, DType, Element, feature_maps_format, feature_maps_unformat, reference,
};
use ndarray::Array5;
use serde::Serialize;

use crate::block::vectors::{BlockCase, KeyPointCase};
use crate::cases;
use crate::compare::{Measure, compare, golden_bound, same_inputs_bound, terms};
use crate::data::{Quantity, Results};
use crate::engines::{BackendName, Engine, Selection};
use crate::output;
use crate::vectors::{FormatCase, Golden, Kind, OperatorCase, Vectors};
use crate::with_dtype;

/// Random cases when neither files nor a number are given.
const DEFAULT_CASES: u64 = 20;

/// Arguments of `dfa verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dfa verify
  dfa verify --cases 200 --seed 7 --dtype fp16,bf16
  dfa verify --vectors tests/golden/op_*.npz --backend cpu,cuda --verbose
  dfa verify --backend emulator --rule grid --json

A file without results in it (such as one written by `dfa bench --save-inputs`) is judged by the fp64 reference.

Bounds. Golden files, whose results come from the unrounded inputs: fp32 4e-6 of the largest result (equal for
op_exact and op_tiny); fp16 2e-3 of the terms' magnitude plus 1e-3 of the result, bf16 eight times that. Random
cases, judged on the inputs after rounding to the type: (16 + 2 sqrt(terms)) roundings of fp32 of the terms'
magnitude, plus one rounding of the result where it is stored in 16 bits. Files of the attention block and of key
points: 1e-11 of the largest entry of each array in fp64 and 3e-5 in fp32; in fp16 and bf16, against fp64 on the same
rounded inputs, 1e-2 and 8e-2. NaN never passes.")]
pub struct Args {
    /// Files of vectors (.npz); the kind is recognised from the arrays
    #[arg(long, value_name = "FILE.npz", num_args = 1..)]
    vectors: Vec<PathBuf>,
    /// Backends [default: all that can be used here]
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    backend: Vec<BackendName>,
    /// Element types [default: all that the backend has]
    #[arg(long, value_delimiter = ',', value_name = "TYPE,...", value_parser = super::dtype())]
    dtype: Vec<DType>,
    /// Border rule: `op` counts strictly inside the image, `grid` is that of grid_sample [default: both]
    #[arg(long, value_delimiter = ',', value_name = "RULE", value_parser = super::rule())]
    rule: Vec<BorderRule>,
    /// Random cases [default: 20, or none with --vectors]
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Seed of the random cases
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Print every comparison instead of the worst of each case
    #[arg(long, short)]
    verbose: bool,
    /// Print the comparisons as JSON
    #[arg(long)]
    json: bool,
}

/// One comparison.
#[derive(Clone, Debug, Serialize)]
struct Check {
    case: String,
    rule: String,
    backend: String,
    dtype: String,
    quantity: String,
    #[serde(flatten)]
    measure: Measure,
    /// Why there is nothing to compare; such a check fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    seed: u64,
    random_cases: u64,
    unusable_backends: Vec<[String; 2]>,
    passed: bool,
    failed: usize,
    checks: &'a [Check],
}

/// What is run on every case.
struct Plan {
    engines: Vec<Engine>,
    dtypes: Vec<DType>,
    rules: Vec<BorderRule>,
}

/// Runs the subcommand; `false` if a comparison failed.
///
/// # Errors
///
/// An unreadable file, or a backend asked for that cannot be used.
pub fn run(args: &Args) -> Result<bool> {
    let selection = Selection::new(&args.backend)?;
    let plan = Plan {
        engines: selection.engines,
        dtypes: or_all(&args.dtype, &[DType::F64, DType::F32, DType::F16, DType::Bf16]),
        rules: or_all(&args.rule, &[BorderRule::Operator, BorderRule::GridSample]),
    };
    let usable = |dtype| plan.engines.iter().any(|engine| engine.supports(dtype));
    ensure!(
        plan.dtypes.iter().any(|&dtype| usable(dtype)),
        "none of the chosen backends computes in {}",
        plan.dtypes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    );
    let random_cases = match args.cases {
        Some(cases) => cases,
        None if args.vectors.is_empty() => DEFAULT_CASES,
        None => 0,
    };
    ensure!(random_cases > 0 || !args.vectors.is_empty(), "nothing to verify: --cases 0");

    let bar = output::progress(args.vectors.len() + random_cases as usize, "verifying");
    let mut checks = Vec::new();
    for path in &args.vectors {
        file_case(&plan, &mut Vectors::open(path)?, &mut checks)?;
        bar.inc(1);
    }
    for number in 0..random_cases {
        random_case(&plan, args.seed, number, &mut checks)?;
        bar.inc(1);
    }
    bar.finish_and_clear();

    let failed = checks.iter().filter(|check| !check.measure.passed).count();
    let missing = &selection.missing;
    if args.json {
        let reason = |status: &deformable_aggregation::BackendStatus| {
            [status.name.to_owned(), status.usable.clone().err().unwrap_or_default()]
        };
        output::json(&Report {
            version: env!("CARGO_PKG_VERSION"),
            seed: args.seed,
            random_cases,
            unusable_backends: missing.iter().map(reason).collect(),
            passed: failed == 0,
            failed,
            checks: &checks,
        })?;
    } else {
        print(args, &plan, &checks)?;
        for status in missing {
            let reason = status.usable.as_ref().err().map_or("", String::as_str);
            let note = format!("not checked: {}: {reason}", status.name);
            output::line(&output::styled(output::FAINT, &note))?;
        }
    }
    Ok(failed == 0)
}

fn or_all<T: Clone>(asked: &[T], all: &[T]) -> Vec<T> {
    if asked.is_empty() { all.to_vec() } else { asked.to_vec() }
}

/// A case from a file.
fn file_case(plan: &Plan, vectors: &mut Vectors, checks: &mut Vec<Check>) -> Result<()> {
    match vectors.kind {
        Kind::Operator => {
            let case = OperatorCase::read(vectors)?;
            for &dtype in &plan.dtypes {
                with_dtype!(dtype, T => operator_case::<T>(plan, &case, checks)?);
            }
        }
        Kind::Format => checks.extend(format_case(&FormatCase::read(vectors)?)?),
        Kind::KeyPoints => {
            key_points::key_point_case(plan, &KeyPointCase::read(vectors)?, checks)?;
        }
        Kind::Block => block::block_case(plan, &BlockCase::read(vectors)?, checks)?,
    }
    Ok(())
}

/// An operator case in one element type, against its golden results or, without any, against the reference.
fn operator_case<T: Element>(
    plan: &Plan,
    case: &OperatorCase,
    checks: &mut Vec<Check>,
) -> Result<()> {
    let data = case.data.converted::<T>();
    if case.goldens.is_empty() {
        return against_reference(plan, &case.name, &data, checks);
    }
    for golden in case.goldens.iter().filter(|golden| plan.rules.contains(&golden.rule)) {
        let magnitudes = match &golden.magnitudes {
            Some(magnitudes) => magnitudes.clone(),
            None => {
                let exact = &case.data;
                let (inputs, grad) = (exact.inputs(), exact.grad_output.view());
                flat(reference::magnitudes(&exact.shape, golden.rule, inputs, grad)?)
            }
        };
        for engine in plan.engines.iter().filter(|engine| engine.takes(&data)) {
            let results = engine.run(&data, golden.rule)?;
            for quantity in Quantity::ALL {
                let measure = golden_measure(case, golden, &magnitudes, &results, quantity);
                checks.push(check(&case.name, golden.rule, engine, T::DTYPE, quantity, measure));
            }
        }
    }
    Ok(())
}

/// Compares one quantity with the golden one.
fn golden_measure<T: Element>(
    case: &OperatorCase,
    golden: &Golden,
    magnitudes: &[Vec<f64>; 4],
    results: &Results<T>,
    quantity: Quantity,
) -> Measure {
    let expected = &golden.expected[quantity as usize];
    let magnitudes = &magnitudes[quantity as usize];
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let equal = case.exactness.results && T::DTYPE == DType::F32;
    let one_sided = |index: usize| {
        quantity == Quantity::SamplingLocations
            && !case.exactness.positions
            && case.kink.get(index).copied().unwrap_or(false)
    };
    compare(&results.values(quantity), expected, |index| {
        if one_sided(index) {
            None
        } else if equal {
            Some(0.0)
        } else {
            // A file with too few magnitudes gives a bound that nothing meets.
            let magnitude = magnitudes.get(index).copied().unwrap_or(f64::NAN);
            Some(golden_bound(T::DTYPE, largest, magnitude, expected[index]))
        }
    })
}

/// A random case in every element type.
fn random_case(plan: &Plan, seed: u64, number: u64, checks: &mut Vec<Check>) -> Result<()> {
    let name = format!("random {seed}/{number}");
    let data = cases::random(seed, number)?;
    for &dtype in &plan.dtypes {
        with_dtype!(dtype, T => {
            against_reference(plan, &name, &data.converted::<T>(), checks)?;
        });
    }
    Ok(())
}

/// Compares all engines with sums in fp64 of the same inputs.
fn against_reference<T: Element>(
    plan: &Plan,
    name: &str,
    data: &crate::data::Data<T>,
    checks: &mut Vec<Check>,
) -> Result<()> {
    for &rule in &plan.rules {
        let grad_output = data.grad_output.view();
        let exact = reference::exact(&data.shape, rule, data.inputs(), grad_output)?;
        let magnitudes = reference::magnitudes(&data.shape, rule, data.inputs(), grad_output)?;
        let (exact, magnitudes) = (flat(exact), flat(magnitudes));
        for engine in plan.engines.iter().filter(|engine| engine.takes(data)) {
            let results = engine.run(data, rule)?;
            for quantity in Quantity::ALL {
                let (expected, magnitudes) =
                    (&exact[quantity as usize], &magnitudes[quantity as usize]);
                let terms = terms(&data.shape, quantity);
                let measure = compare(&results.values(quantity), expected, |index| {
                    let (magnitude, expected) = (magnitudes[index], expected[index]);
                    Some(same_inputs_bound(T::DTYPE, quantity, terms, magnitude, expected))
                });
                checks.push(check(name, rule, engine, T::DTYPE, quantity, measure));
            }
        }
    }
    Ok(())
}

/// The four arrays of the reference, flat, in the order of [`Quantity::ALL`].
fn flat(sums: reference::Sums) -> [Vec<f64>; 4] {
    let results = Results { output: sums.output, gradients: sums.gradients };
    Quantity::ALL.map(|quantity| results.values(quantity))
}

/// Packing and unpacking: every number must be equal.
fn format_case(case: &FormatCase) -> Result<Vec<Check>> {
    let single: Vec<Vec<Array5<f32>>> = case
        .maps
        .iter()
        .map(|levels| levels.iter().map(|maps| maps.mapv(|value| value as f32)).collect())
        .collect();
    let views: Vec<Vec<_>> =
        single.iter().map(|levels| levels.iter().map(|maps| maps.view()).collect()).collect();
    let packed = feature_maps_format(&views)?;
    let unpacked = feature_maps_unformat(packed.feature_maps.view(), &packed.layout)?;

    let equal = |actual: &[f64], expected: &[f64]| compare(actual, expected, |_| Some(0.0));
    let integers = |values: &[i64]| values.iter().map(|&value| value as f64).collect::<Vec<_>>();
    let whole = |array: ndarray::ArrayD<i64>| integers(&array.into_iter().collect::<Vec<_>>());
    let maps = |groups: &[Vec<Array5<f64>>]| -> Vec<f64> {
        // The sizes go first, so that maps of other sizes with the same numbers do not pass.
        let sizes = groups.iter().flatten().flat_map(|maps| maps.shape().to_vec());
        let sizes = sizes.map(|size| size as f64).collect::<Vec<_>>();
        sizes.into_iter().chain(groups.iter().flatten().flatten().copied()).collect()
    };
    let unpacked: Vec<Vec<Array5<f64>>> = unpacked
        .iter()
        .map(|levels| levels.iter().map(|maps| maps.mapv(f64::from)).collect())
        .collect();
    let feature_maps: Vec<f64> = packed.feature_maps.iter().copied().map(f64::from).collect();
    let expected: Vec<f64> = case.feature_maps.iter().copied().collect();
    let starts = packed.layout.scale_start_index();
    let measures = [
        ("feat", equal(&feature_maps, &expected)),
        (
            "spatial_shape",
            equal(
                &whole(packed.layout.spatial_shapes().into_dyn()),
                &whole(case.spatial_shapes.clone().into_dyn()),
            ),
        ),
        (
            "scale_start_index",
            equal(&whole(starts.into_dyn()), &whole(case.scale_start_index.clone().into_dyn())),
        ),
        ("unpacked maps", equal(&maps(&unpacked), &maps(&case.unpacked))),
    ];
    Ok(measures
        .into_iter()
        .map(|(quantity, measure)| Check {
            case: case.name.clone(),
            rule: "-".to_owned(),
            backend: "library".to_owned(),
            dtype: DType::F32.to_string(),
            quantity: quantity.to_owned(),
            measure,
            note: None,
        })
        .collect())
}

fn check(
    case: &str,
    rule: BorderRule,
    engine: &Engine,
    dtype: DType,
    quantity: Quantity,
    measure: Measure,
) -> Check {
    Check {
        case: case.to_owned(),
        rule: rule.to_string(),
        backend: engine.label(),
        dtype: dtype.to_string(),
        quantity: quantity.name().to_owned(),
        measure,
        note: None,
    }
}

/// A case that could not be compared: it fails.
fn not_compared(case: &str, note: String) -> Check {
    let dash = || "-".to_owned();
    let nothing = compare(&[], &[f64::NAN], |_| None);
    Check {
        case: case.to_owned(),
        rule: dash(),
        backend: dash(),
        dtype: dash(),
        quantity: dash(),
        measure: nothing,
        note: Some(note),
    }
}

fn print(args: &Args, plan: &Plan, checks: &[Check]) -> Result<()> {
    let engines: Vec<String> = plan.engines.iter().map(Engine::label).collect();
    output::line(&format!("Backends: {}\n", engines.join(", ")))?;
    output::line(&if args.verbose { every_check(checks) } else { worst_of_cases(checks) })?;
    let failures: Vec<Check> =
        checks.iter().filter(|check| !check.measure.passed).cloned().collect();
    if !failures.is_empty() && !args.verbose {
        output::line(&format!("\n{}", output::styled(output::BAD, "Failed comparisons")))?;
        output::line(&every_check(&failures))?;
    }
    let total = checks.len();
    let summary = if failures.is_empty() {
        output::styled(output::GOOD, &format!("all {total} comparisons passed"))
    } else {
        output::styled(output::BAD, &format!("{} of {total} comparisons failed", failures.len()))
    };
    output::line(&format!("\n{summary}"))
}

/// One line for each comparison.
fn every_check(checks: &[Check]) -> String {
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| {
            vec![
                check.case.clone(),
                check.backend.clone(),
                check.dtype.clone(),
                check.rule.clone(),
                check.quantity.clone(),
                verdict(check),
                format!("{:.2e}", check.measure.error),
                format!("{:.2e}", check.measure.bound),
                format!("{:.3}", check.measure.ratio),
            ]
        })
        .collect();
    let heading =
        ["case", "backend", "dtype", "rule", "quantity", "result", "error", "bound", "error/bound"];
    output::table(&heading, 6, &rows)
}

/// One line for each case: its worst comparison.
fn worst_of_cases(checks: &[Check]) -> String {
    let rows: Vec<Vec<String>> = checks
        .chunk_by(|a, b| a.case == b.case)
        .map(|checks| {
            let worst = checks
                .iter()
                .max_by(|a, b| a.measure.ratio.total_cmp(&b.measure.ratio))
                .expect("chunks are not empty");
            vec![
                worst.case.clone(),
                format!("{} {} {}", worst.backend, worst.dtype, worst.rule),
                worst.quantity.clone(),
                verdict(worst),
                checks.len().to_string(),
                format!("{:.2e}", worst.measure.error),
                format!("{:.2e}", worst.measure.bound),
                format!("{:.3}", worst.measure.ratio),
            ]
        })
        .collect();
    let heading = ["case", "worst on", "in", "result", "checks", "error", "bound", "error/bound"];
    output::table(&heading, 4, &rows)
}

fn verdict(check: &Check) -> String {
    match &check.note {
        Some(note) => note.clone(),
        None if check.measure.passed => "pass".to_owned(),
        None => "FAIL".to_owned(),
    }
}
