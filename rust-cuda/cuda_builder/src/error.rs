//! What can go wrong.

use std::path::{Path, PathBuf};

use crate::NvvmArch;

/// Why kernels could not be built, or why the PTX at hand cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaBuilderError {
    /// No compiler on this machine can build kernels.
    #[error("no compiler for GPU kernels was found.\n{looked_at}\n{}", how_to_install())]
    NoCompiler {
        /// One line for each compiler that was looked at: which, and why it does not serve.
        looked_at: String,
    },
    /// The compiler refused the kernels.
    #[error("building {} for {arch} failed ({status}):\n{messages}", krate.display())]
    BuildFailed {
        /// The kernel crate.
        krate: PathBuf,
        /// The architecture it was built for.
        arch: NvvmArch,
        /// How the compiler ended.
        status: String,
        /// What it printed.
        messages: String,
    },
    /// Kernels contain code that calls or traps, most often a panic (an index, a division, an overflow check).
    #[error(
        "the kernels for {arch} are not free of calls and traps: {}. A panic that the compiler could \
         not rule out is the usual cause (an index, an integer division, an unwrap)",
        found.join("; ")
    )]
    PanicCode {
        /// The architecture the kernels were built for.
        arch: NvvmArch,
        /// `entry: instruction` for each one found.
        found: Vec<String>,
    },
    /// The compiler's output holds no kernel.
    #[error("{} has no kernel (no `.entry`): are the kernels public and marked #[kernel]?", path.display())]
    NoKernel {
        /// The compiler's output.
        path: PathBuf,
    },
    /// `max_threads` names kernels that do not exist.
    #[error("max_threads: no kernel's name begins with `{prefix}`; the kernels are {}", entries.join(", "))]
    NoSuchEntry {
        /// The prefix that was given.
        prefix: String,
        /// The kernels there are.
        entries: Vec<String>,
    },
    /// The checked-in PTX does not belong to the sources, and nothing here can rebuild it.
    #[error(
        "the PTX in {} does not belong to the kernel sources ({reason}), and it cannot be rebuilt here:\n\
         {compiler}\nWith a compiler at hand, refresh the checked-in PTX with:\n  \
         cargo run -p deformable-aggregation-cuda-builder --features cli -- build {}",
        path.display(), krate.display()
    )]
    StalePtx {
        /// The checked-in file.
        path: PathBuf,
        /// What differs.
        reason: String,
        /// The kernel crate.
        krate: PathBuf,
        /// Why there is no compiler.
        compiler: Box<CudaBuilderError>,
    },
    /// The settings in `[package.metadata.cuda-builder]` cannot be used.
    #[error("{}: [package.metadata.cuda-builder]: {reason}", path.display())]
    Settings {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not an architecture we know.
    #[error("unknown architecture `{text}`: expected one of {}", NvvmArch::ALL.map(|arch| arch.to_string()).join(", "))]
    UnknownArch {
        /// What was given.
        text: String,
    },
    /// The assembler could not be found or did not accept a file.
    #[error("ptxas: {reason}")]
    Assembler {
        /// What went wrong, and what to do.
        reason: String,
    },
    /// A file or folder could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl CudaBuilderError {
    /// For `map_err`: an I/O error of this path.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

fn how_to_install() -> String {
    let version = crate::compiler::TESTED_VERSION;
    format!(
        "Kernels need a rustc (tested: {version}) with its library source. Install one of:\n  \
         Debian 12:  apt-get install rustc-web cargo-web rust-web-src\n  \
         rustup:     rustup toolchain install {version} --profile minimal --component rust-src\n\
         or name one in CUDA_BUILDER_RUSTC (and its cargo in CUDA_BUILDER_CARGO)."
    )
}
