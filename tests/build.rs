//! Sets `lab_cuda` where single kernels can be run on a GPU: with the feature `cuda`, where there is a driver.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(lab_cuda)");
    let is = |name: &str, values: &[&str]| env::var(name).is_ok_and(|it| values.contains(&&*it));
    if env::var_os("CARGO_FEATURE_CUDA").is_some()
        && is("CARGO_CFG_TARGET_OS", &["linux"])
        && is("CARGO_CFG_TARGET_ARCH", &["x86_64", "aarch64"])
    {
        println!("cargo::rustc-cfg=lab_cuda");
    }
}
