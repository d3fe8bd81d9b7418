//! `cuda-builder build`

use std::path::Path;

use cuda_builder::{Compiler, CudaBuilder, CudaBuilderError, NvvmArch, PrebuiltPtx};

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
    for &arch in archs {
        let path = folder.join(format!("{arch}.ptx"));
        let path = CudaBuilder::new(krate).arch(arch).copy_to(path).build_with(&compiler)?;
        println!("{arch}: {}", path.display());
    }
    Ok(true)
}
