//! Builds Rust GPU kernels, keeps checked-in PTX current, and assembles it for every GPU.

mod assemble;
mod build;
mod check;
mod doctor;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cuda_builder::{CudaBuilderError, NvvmArch};

/// Builds Rust GPU kernels to PTX, keeps checked-in PTX current, and assembles it for every GPU.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  cuda-builder doctor
      which compiler builds the kernels, and if none, why and what to install
  cuda-builder build kernels-gpu
      refresh the checked-in PTX in kernels-gpu/ptx
  cuda-builder build kernels-gpu --arch sm_90 -o /tmp/ptx
      build for one architecture, elsewhere
  cuda-builder check kernels-gpu -o /tmp/fresh
      is the checked-in PTX what the sources give?
  cuda-builder assemble kernels-gpu/ptx/*.ptx
      registers, shared memory and spills of every kernel on every GPU"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say which compilers were looked at, which one serves, and whether ptxas is there.
    Doctor {
        /// The assembler to look at, instead of the one found.
        #[arg(long)]
        ptxas: Option<PathBuf>,
    },
    /// Build a kernel crate and write its PTX, by default to the checked-in files.
    Build {
        /// The folder of the kernel crate.
        krate: PathBuf,
        /// The architectures to build for, by default the crate's levels.
        #[arg(long, value_delimiter = ',')]
        arch: Vec<NvvmArch>,
        /// The folder to write to, by default `ptx` below the crate.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Rebuild the PTX and compare it with the checked-in files. With the compiler they were made with they
    /// must be equal byte for byte; with another it says so, and leaves the fresh PTX for tests.
    Check {
        /// The folder of the kernel crate.
        krate: PathBuf,
        /// The folder for the fresh PTX.
        #[arg(short, long, default_value = "target/ptx")]
        output: PathBuf,
    },
    /// Assemble PTX files for every GPU they run on, and print what each kernel needs. Spilled registers
    /// are a failure.
    Assemble {
        /// The PTX files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The GPUs, by default all. A file is assembled for those at or above its own architecture.
        #[arg(long, value_delimiter = ',')]
        arch: Vec<NvvmArch>,
        /// Only the GPUs whose drivers choose the file among these, the highest that they can take; and the newest GPU, for all whose
        /// drivers may know no higher one.
        #[arg(long)]
        chosen: bool,
        /// The assembler; otherwise PTXAS, the PATH, the CUDA toolkit, or the Python package nvidia-cuda-nvcc.
        #[arg(long)]
        ptxas: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Doctor { ptxas } => Ok(doctor::run(ptxas.as_deref())),
        Command::Build { krate, arch, output } => build::run(&krate, &arch, output.as_deref()),
        Command::Check { krate, output } => check::run(&krate, &output),
        Command::Assemble { files, arch, chosen, ptxas } => {
            assemble::run(&files, &arch, chosen, ptxas.as_deref())
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &CudaBuilderError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
