//! `cuda-builder assemble`

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cuda_builder::assembler::{Assembler, Usage, gpus};
use cuda_builder::{CudaBuilderError, NvvmArch, ptx};
use rayon::prelude::*;

/// Assembles every file for every GPU it runs on, or those that it is `chosen` on, and prints a table; false if a kernel spills or
/// a file is not accepted.
pub(crate) fn run(
    files: &[PathBuf],
    archs: &[NvvmArch],
    chosen: bool,
    ptxas: Option<&Path>,
) -> Result<bool, CudaBuilderError> {
    let assembler = Assembler::find(ptxas)?;
    let archs = if archs.is_empty() { &NvvmArch::ALL[..] } else { archs };
    print(&[format!("{}: {}", assembler.path().display(), assembler.version()?)])?;
    let levels = files.iter().map(|file| level(file)).collect::<Result<Vec<_>, _>>()?;
    let mut good = true;
    for (file, level) in files.iter().zip(&levels) {
        let (lines, file_is_good) = match *level {
            Some(level) => {
                let others: Vec<_> = levels.iter().flatten().copied().filter(|_| chosen).collect();
                assemble(&assembler, file, level, gpus(level, &others, archs))
            }
            None => {
                let name = file.display();
                (vec![format!("\n{name}: not PTX for an architecture we know")], false)
            }
        };
        print(&lines)?;
        good &= file_is_good;
    }
    Ok(good)
}

/// The architecture that a file was made for.
fn level(file: &Path) -> Result<Option<NvvmArch>, CudaBuilderError> {
    let text = fs::read_to_string(file)
        .map_err(|source| CudaBuilderError::Io { path: file.to_owned(), source })?;
    Ok(ptx::target(&text))
}

/// The report of one file, and whether nothing is wrong with it.
fn assemble(
    assembler: &Assembler,
    file: &Path,
    level: NvvmArch,
    archs: Vec<NvvmArch>,
) -> (Vec<String>, bool) {
    let mut good = true;
    let mut lines = vec![format!("\n{} ({level})", file.display())];
    let mut rows = Vec::new();
    let results: Vec<_> =
        archs.into_par_iter().map(|arch| (arch, assembler.assemble(file, arch))).collect();
    for (arch, result) in results {
        match result {
            Ok(usages) => rows.extend(usages.into_iter().map(|usage| (arch, usage))),
            Err(error) => {
                lines.push(format!("  {error}"));
                good = false;
            }
        }
    }
    good &= rows.iter().all(|(_, usage)| usage.spill_bytes == 0);
    lines.append(&mut table(rows));
    (lines, good)
}

/// One line for each kernel and GPU, kernel by kernel.
fn table(mut rows: Vec<(NvvmArch, Usage)>) -> Vec<String> {
    rows.sort_by(|(arch, usage), (other_arch, other)| {
        usage.entry.cmp(&other.entry).then(arch.cmp(other_arch))
    });
    let width = rows.iter().map(|(_, usage)| usage.entry.len()).max().unwrap_or_default().max(6);
    let mut lines = vec![format!(
        "  {:width$}  {:7}  {:>9}  {:>8}  {:>7}  {:>7}",
        "kernel", "gpu", "registers", "shared B", "stack B", "spill B"
    )];
    for (arch, usage) in &rows {
        let Usage { entry, registers, shared_bytes, stack_bytes, spill_bytes } = usage;
        let remark = if *spill_bytes > 0 { "  SPILLS" } else { "" };
        lines.push(format!(
            "  {entry:width$}  {arch:7}  {registers:>9}  {shared_bytes:>8}  {stack_bytes:>7}  \
             {spill_bytes:>7}{remark}"
        ));
    }
    lines
}

/// The table is long and often piped; a reader that has seen enough is an error, not a panic.
fn print(lines: &[String]) -> Result<(), CudaBuilderError> {
    writeln!(io::stdout(), "{}", lines.join("\n"))
        .map_err(|source| CudaBuilderError::Io { path: "standard output".into(), source })
}
