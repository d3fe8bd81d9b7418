//! `cuda-builder assemble`

use std::fs;
use std::path::{Path, PathBuf};

use cuda_builder::assembler::{Assembler, Usage};
use cuda_builder::{CudaBuilderError, NvvmArch, ptx};

/// Assembles every file for every GPU it runs on and prints a table; false if a kernel spills or a file is not
/// accepted.
pub(crate) fn run(
    files: &[PathBuf],
    archs: &[NvvmArch],
    ptxas: Option<&Path>,
) -> Result<bool, CudaBuilderError> {
    let assembler = Assembler::find(ptxas)?;
    println!("{}: {}", assembler.path().display(), assembler.version()?);
    let archs = if archs.is_empty() { &NvvmArch::ALL[..] } else { archs };

    let mut good = true;
    for file in files {
        let text = fs::read_to_string(file)
            .map_err(|source| CudaBuilderError::Io { path: file.clone(), source })?;
        let Some(oldest) = ptx::target(&text) else {
            println!("\n{}: not PTX for an architecture we know", file.display());
            good = false;
            continue;
        };
        println!("\n{} ({oldest})", file.display());
        let mut rows = Vec::new();
        for &arch in archs.iter().filter(|&&arch| arch >= oldest) {
            match assembler.assemble(file, arch) {
                Ok(usages) => rows.extend(usages.into_iter().map(|usage| (arch, usage))),
                Err(error) => {
                    println!("  {error}");
                    good = false;
                }
            }
        }
        good &= print_table(rows);
    }
    Ok(good)
}

/// One line for each kernel and GPU, kernel by kernel; false if one spills.
fn print_table(mut rows: Vec<(NvvmArch, Usage)>) -> bool {
    rows.sort_by(|(arch, usage), (other_arch, other)| {
        usage.entry.cmp(&other.entry).then(arch.cmp(other_arch))
    });
    let width = rows.iter().map(|(_, usage)| usage.entry.len()).max().unwrap_or_default().max(6);
    println!(
        "  {:width$}  {:7}  {:>9}  {:>8}  {:>7}  {:>7}",
        "kernel", "gpu", "registers", "shared B", "stack B", "spill B"
    );
    let mut good = true;
    for (arch, usage) in &rows {
        let Usage { entry, registers, shared_bytes, stack_bytes, spill_bytes } = usage;
        let remark = if *spill_bytes > 0 { "  SPILLS" } else { "" };
        good &= *spill_bytes == 0;
        println!(
            "  {entry:width$}  {arch:7}  {registers:>9}  {shared_bytes:>8}  {stack_bytes:>7}  \
             {spill_bytes:>7}{remark}"
        );
    }
    good
}
