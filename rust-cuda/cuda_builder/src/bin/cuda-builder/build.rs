//! `cuda-builder build`

use std::path::{Path, PathBuf};

use cuda_builder::{Compiler, CudaBuilder, CudaBuilderError, NvvmArch, PrebuiltPtx};
use rayon::prelude::*;

/// Builds each architecture into the folder, and says what it wrote.
pub(crate) fn run(
    krate: &Path,
    archs: &[NvvmArch],
    output: Option<&Path>,
) -> Result<bool, CudaBuilderError> {
    let prebuilt = PrebuiltPtx::new(krate)?;
    let archs = if archs.is_empty() { prebuilt.levels() } else { archs };
    let folder = output.map_or_else(|| prebuilt.folder(), Path::to_owned);

    let compiler = Compiler::find()?;
    println!("building with {}: {}", compiler.rustc.display(), compiler.version);
    for (arch, path) in archs.iter().zip(levels(krate, archs, &folder, &compiler)?) {
        println!("{arch}: {}", path.display());
    }
    Ok(true)
}

/// Builds the architectures into a folder, several at a time: the compiler has one thread for each.
pub(crate) fn levels(
    krate: &Path,
    archs: &[NvvmArch],
    folder: &Path,
    compiler: &Compiler,
) -> Result<Vec<PathBuf>, CudaBuilderError> {
    archs
        .par_iter()
        .map(|&arch| {
            let path = folder.join(format!("{arch}.ptx"));
            CudaBuilder::new(krate).arch(arch).copy_to(path).build_with(compiler)
        })
        .collect()
}
