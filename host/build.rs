//! Says on which targets the `cuda` feature has something to build.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(cuda_backend)");
    let target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let supported =
        target("OS") == "linux" && ["x86_64", "aarch64"].contains(&target("ARCH").as_str());
    if env::var_os("CARGO_FEATURE_CUDA").is_some() && supported {
        println!("cargo::rustc-cfg=cuda_backend");
    }
}
