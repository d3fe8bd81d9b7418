//! `cuda-builder doctor`

use std::path::Path;

use cuda_builder::Compiler;
use cuda_builder::assembler::Assembler;

/// Prints what was found; true if kernels can be built here.
pub(crate) fn run(ptxas: Option<&Path>) -> bool {
    println!("compilers for GPU kernels:");
    for candidate in Compiler::candidates() {
        let (mark, text) = match &candidate.result {
            Ok(compiler) => ("yes", &compiler.version),
            Err(reason) => ("no ", reason),
        };
        println!("  {mark}  {} ({}): {text}", candidate.rustc.display(), candidate.origin);
    }
    let found = match Compiler::find() {
        Ok(compiler) => {
            let rustc = compiler.rustc.display();
            println!("kernels are built with {rustc} and {}", compiler.cargo.display());
            true
        }
        Err(error) => {
            println!("{error}");
            false
        }
    };

    println!("\nassembler (only for `cuda-builder assemble`):");
    match Assembler::find(ptxas).and_then(|assembler| {
        let version = assembler.version()?;
        Ok((assembler, version))
    }) {
        Ok((assembler, version)) => println!("  yes  {}: {version}", assembler.path().display()),
        Err(error) => println!("  no   {error}"),
    }
    found
}
