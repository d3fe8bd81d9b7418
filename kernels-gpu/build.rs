//! Finds the PTX that belongs to the present sources: the checked-in one, or a fresh one where the sources
//! have changed. See `cuda_builder`.

use std::env;
use std::process::ExitCode;

use cuda_builder::PrebuiltPtx;

fn main() -> ExitCode {
    println!("cargo::rustc-check-cfg=cfg(cuda_arch_ge_80, cuda_arch_ge_90)");
    println!("cargo::rerun-if-changed=build.rs");
    // The build for the GPU runs this script as well; it has no PTX to include.
    let for_gpu =
        env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|architecture| architecture == "nvptx64");
    if for_gpu || env::var_os("CARGO_FEATURE_PTX").is_none() {
        return ExitCode::SUCCESS;
    }
    match PrebuiltPtx::new(".").and_then(|kernels| kernels.resolve()) {
        Ok(levels) => {
            for ptx in levels {
                let level = ptx.arch.to_string().to_uppercase();
                println!("cargo::rustc-env=KERNELS_PTX_{level}={}", ptx.path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
