//! The subcommands, one module each.

pub mod bench;
pub mod demo;
pub mod info;
pub mod verify;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use deformable_aggregation::{BorderRule, DType};

use crate::workloads::{WORKLOADS, Workload};

/// Deformable aggregation (Sparse4D, SparseDrive): demonstrate, verify and measure it on this machine.
#[derive(Debug, Parser)]
#[command(name = "dfa", version, arg_required_else_help = true)]
#[command(after_help = "Examples:
  dfa info                       what can compute here, and what is missing for the rest
  dfa demo --picture demo.png    one real-sized call on every backend, with a picture
  dfa verify                     every backend against the fp64 reference
  dfa bench --suite smoke        times against the memory-bandwidth floor

Exit codes: 0 all is well, 1 a check failed, 2 wrong usage or unreadable input.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show processor, GPUs, driver and which backends can be used, and why not
    Info(info::Args),
    /// Run one real-sized call forward and backward on every backend and draw the scene
    Demo(demo::Args),
    /// Compare every backend with vectors from files or with the fp64 reference on random cases
    Verify(verify::Args),
    /// Measure times against the memory-bandwidth floor and against the published algorithm
    Bench(bench::Args),
}

impl Command {
    /// Runs the subcommand; `false` if a check failed.
    ///
    /// # Errors
    ///
    /// Unreadable input, a backend that cannot be used, too little memory.
    pub fn run(&self) -> anyhow::Result<bool> {
        match self {
            Self::Info(args) => info::run(args),
            Self::Demo(args) => demo::run(args),
            Self::Verify(args) => verify::run(args),
            Self::Bench(args) => bench::run(args),
        }
    }
}

/// Reads an element type.
pub(crate) fn dtype() -> impl TypedValueParser<Value = DType> {
    PossibleValuesParser::new(["fp64", "fp32", "fp16", "bf16"]).try_map(|name| name.parse())
}

/// Reads a border rule.
pub(crate) fn rule() -> impl TypedValueParser<Value = BorderRule> {
    PossibleValuesParser::new(["op", "grid"]).try_map(|name| name.parse())
}

/// Reads the id of a workload.
pub(crate) fn workload() -> impl TypedValueParser<Value = &'static Workload> {
    PossibleValuesParser::new(WORKLOADS.iter().map(|workload| workload.id))
        .try_map(|id| Workload::by_id(&id).ok_or("unknown workload"))
}
