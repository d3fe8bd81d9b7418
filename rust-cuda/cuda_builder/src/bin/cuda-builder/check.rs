//! `cuda-builder check`

use std::fs;
use std::path::Path;

use cuda_builder::{Compiler, CudaBuilderError, PrebuiltPtx, PtxState};

use crate::build;

/// Compares the checked-in PTX with what the sources give; true if nothing speaks against it.
pub(crate) fn run(krate: &Path, output: &Path) -> Result<bool, CudaBuilderError> {
    let prebuilt = PrebuiltPtx::new(krate)?;
    let compiler = Compiler::find()?;
    println!("rebuilding with {}: {}", compiler.rustc.display(), compiler.version);

    let mut good = true;
    let fresh = build::levels(krate, prebuilt.levels(), output, &compiler)?;
    for (&level, fresh) in prebuilt.levels().iter().zip(fresh) {
        let checked_in = prebuilt.path(level);
        let header = match prebuilt.state(level)? {
            PtxState::Current(header) => Some(header),
            PtxState::Stale(reason) => {
                println!("{level}: {} is stale: {reason}", checked_in.display());
                good = false;
                None
            }
        };
        let Some(header) = header else { continue };
        if header.compiler != compiler.version {
            println!(
                "{level}: not comparable: checked in from {}; fresh PTX in {}",
                header.compiler,
                fresh.display()
            );
        } else if read(&checked_in)? == read(&fresh)? {
            println!("{level}: equal, byte for byte");
        } else {
            let (checked_in, fresh) = (checked_in.display(), fresh.display());
            println!("{level}: {checked_in} differs from the fresh {fresh}");
            good = false;
        }
    }
    if !good {
        println!("refresh the checked-in PTX with: cuda-builder build {}", krate.display());
    }
    Ok(good)
}

fn read(path: &Path) -> Result<Vec<u8>, CudaBuilderError> {
    fs::read(path).map_err(|source| CudaBuilderError::Io { path: path.to_owned(), source })
}
