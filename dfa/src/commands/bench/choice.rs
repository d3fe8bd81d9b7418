//! Which workloads, scenarios and element types are measured.

use anyhow::{Result, bail};
use clap::ValueEnum;
use deformable_aggregation::{Algorithm, DType};

use super::Args;
use crate::engines::{BackendName, Engine, Selection};
use crate::judge;
use crate::output;
use crate::scenario::{Footprint, Landing, Scenario};
use crate::system::available_memory;
use crate::workloads::Workload;

/// A choice of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Suite {
    /// W1 with the rig, fp32
    Smoke,
    /// W1, W2, W6 and W13 with the rig and W2 dense, in all GPU types, beside the published algorithm
    Full,
}

/// The workloads of the full suite, each with its scenario.
const FULL: [(&str, Scenario); 5] = [
    ("W1", Scenario::Rig),
    ("W2", Scenario::Rig),
    ("W2", Scenario::Dense),
    ("W6", Scenario::Rig),
    ("W13", Scenario::Rig),
];

/// What backends are measured on.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The sizes.
    pub(super) workload: Workload,
    /// Where key points land.
    pub(super) landing: Landing,
    /// The name of that.
    pub(super) scenario: String,
    /// The element type.
    pub(super) dtype: DType,
}

impl Subject {
    pub(super) fn new(workload: Workload, scenario: Scenario, dtype: DType) -> Self {
        let landing = scenario.into();
        Self { workload, landing, scenario: scenario.name().to_owned(), dtype }
    }

    /// For people.
    pub(super) fn label(&self) -> String {
        format!("{} {} {}", self.workload.id, self.scenario, self.dtype)
    }

    /// Whether the host has the memory for it; where the system does not tell, it is tried.
    ///
    /// # Errors
    ///
    /// How much is needed and how much there is, if that is less.
    pub(super) fn check_memory(&self) -> Result<()> {
        let size = Footprint::new(&self.workload, self.dtype.size_bytes());
        // Backends sum 16-bit gradients in fp32, and the judge works in fp64 on some samples of the batch.
        let sums = if self.dtype.size_bytes() == 2 { 2 * size.results } else { 0 };
        let batch = self.workload.batch.max(1);
        let judged = judge::sampled_items(batch, 0).len() as u64;
        let parts = judge::threads() as u64;
        let judge = (judged + parts) * size.judge + parts * size.inputs / batch as u64;
        let needed = size.inputs + size.results + sums + judge;
        if let Some(available) = available_memory().filter(|available| needed > *available) {
            bail!(
                "{} with batch {batch} in {} needs {} of memory, {} are available",
                self.workload.id,
                self.dtype,
                output::bytes(needed as f64),
                output::bytes(available as f64)
            );
        }
        Ok(())
    }
}

/// The backends to be measured, with the algorithms that are.
///
/// # Errors
///
/// A backend asked for that cannot be used.
pub(super) fn engines(args: &Args) -> Result<Vec<Engine>> {
    let mut engines = Selection::new(&args.backend)?.engines;
    engines.retain(|engine| {
        let usual = matches!(engine.name, BackendName::Cpu | BackendName::Cuda);
        (usual || !args.backend.is_empty())
            && (engine.algorithm != Algorithm::Naive || args.measures_naive())
    });
    Ok(engines)
}

/// Everything to be measured, in the order of the table.
pub(super) fn chosen(args: &Args) -> Vec<Subject> {
    let full = args.is_full();
    let pairs: Vec<(Workload, Scenario)> = if full {
        let asked =
            |scenario: &Scenario| args.scenario.is_empty() || args.scenario.contains(scenario);
        FULL.into_iter()
            .filter(|(_, scenario)| asked(scenario))
            .filter_map(|(id, scenario)| Some((*Workload::by_id(id)?, scenario)))
            .collect()
    } else {
        let scenarios = or(&args.scenario, &[Scenario::Rig]);
        named(args)
            .into_iter()
            .flat_map(|workload| scenarios.iter().map(move |&scenario| (workload, scenario)))
            .collect()
    };
    let usual: &[_] = if full { &[DType::F32, DType::F16, DType::Bf16] } else { &[DType::F32] };
    let dtypes = or(&args.dtype, usual);
    pairs
        .into_iter()
        .map(|(workload, scenario)| (args.sized(workload), scenario))
        .flat_map(|(workload, scenario)| {
            dtypes.iter().map(move |&dtype| Subject::new(workload, scenario, dtype))
        })
        .collect()
}

/// The workloads asked for by id, or the first.
pub(super) fn named(args: &Args) -> Vec<Workload> {
    let first = Workload::by_id("W1").into_iter();
    if args.workload.is_empty() {
        first.copied().collect()
    } else {
        args.workload.iter().map(|workload| **workload).collect()
    }
}

/// What was asked for, or the usual.
fn or<A: Clone>(asked: &[A], usual: &[A]) -> Vec<A> {
    if asked.is_empty() { usual.to_vec() } else { asked.to_vec() }
}
