//! Builds a small kernel crate, where a compiler for kernels is installed.

use std::fs;
use std::path::{Path, PathBuf};

use cuda_builder::{Compiler, CudaBuilder, CudaBuilderError, Header, NvvmArch, ptx};

const KERNELS: &str = include_str!("fixture/lib.rs");

/// The compiler; without one, says that the test is skipped.
fn compiler() -> Option<Compiler> {
    match Compiler::find() {
        Ok(compiler) => Some(compiler),
        Err(error) => {
            println!("skipped because kernels cannot be compiled here: {error}");
            None
        }
    }
}

fn krate(folder: &Path, source: &str) -> PathBuf {
    let krate = folder.join("kernels");
    fs::create_dir_all(krate.join("src")).expect("a folder");
    let manifest = "[package]\nname = \"fixture\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
                    [workspace]\n\
                    [package.metadata.cuda-builder]\nmax-threads = { add = 256 }\n";
    fs::write(krate.join("Cargo.toml"), manifest).expect("a file");
    fs::write(krate.join("src/lib.rs"), source).expect("a file");
    krate
}

/// All tests share one folder, so that `core` is compiled once for each architecture.
fn builder(krate: &Path, arch: NvvmArch) -> CudaBuilder {
    CudaBuilder::new(krate)
        .arch(arch)
        .target_dir(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvptx"))
}

fn build(krate: &Path, arch: NvvmArch, compiler: &Compiler) -> String {
    let path = builder(krate, arch).build_with(compiler).expect("the kernels compile");
    fs::read_to_string(path).expect("the PTX is there")
}

#[test]
fn each_architecture_gets_its_own_ptx() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let krate = krate(folder.path(), KERNELS);

    // 1.0 and 2.0 as PTX spells them.
    let old = build(&krate, NvvmArch::Compute75, &compiler);
    assert!(old.contains(".version 7.0\n.target sm_75\n"), "{old}");
    assert!(old.contains("0f3F800000") && !old.contains("0f40000000"), "{old}");
    let new = build(&krate, NvvmArch::Compute80, &compiler);
    assert!(new.contains(".version 7.0\n.target sm_80\n"), "{new}");
    assert!(new.contains("0f40000000") && !new.contains("0f3F800000"), "{new}");

    assert_eq!(ptx::entries(&new), ["add_constant", "divide"]);
    assert_eq!(ptx::target(&new), Some(NvvmArch::Compute80));
    assert_eq!(new.matches(".maxntid 256, 1, 1\n{").count(), 1);
    let header = Header::read(&new).expect("a header");
    assert_eq!(header.compiler, compiler.version);
    assert_eq!(header.max_threads, "add=256");
    assert_eq!(header.sources.len(), 64);
}

#[test]
fn the_checkout_does_not_show_in_the_ptx() {
    let Some(compiler) = compiler() else { return };
    let [one, other] = ["a", "some/where/else"].map(|name| {
        let folder = tempfile::tempdir().expect("a folder");
        let krate = krate(&folder.path().join(name), KERNELS);
        build(&krate, NvvmArch::Compute80, &compiler)
    });
    assert_eq!(one, other);
}

#[test]
fn another_version_of_the_kernels_does_not_get_the_first_ones_ptx() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let krate = krate(folder.path(), KERNELS);
    let first = build(&krate, NvvmArch::Compute80, &compiler);
    let lighter = builder(&krate, NvvmArch::Compute80).release(false).allow_calls(true);
    let lighter = lighter.build_with(&compiler).expect("the kernels compile");
    let lighter = fs::read_to_string(lighter).expect("the PTX is there");
    assert_ne!(lighter, first);
    assert_eq!(build(&krate, NvvmArch::Compute80, &compiler), first);

    fs::write(krate.join("src/lib.rs"), KERNELS.replace("2.0", "4.0")).expect("a file");
    let changed = build(&krate, NvvmArch::Compute80, &compiler);
    assert!(changed.contains("0f40800000"), "{changed}");
    assert_ne!(Header::read(&changed).map(|h| h.sources), Header::read(&first).map(|h| h.sources));
}

#[test]
fn a_panic_in_a_kernel_is_an_error_that_names_it() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let divisor = "let Some(by) = core::num::NonZeroU32::new(by) else { return };";
    assert!(KERNELS.contains(divisor));
    let krate = krate(folder.path(), &KERNELS.replace(divisor, ""));
    match builder(&krate, NvvmArch::Compute80).build_with(&compiler) {
        Err(CudaBuilderError::PanicCode { found, .. }) => {
            assert!(found.iter().all(|call| call.starts_with("divide: ")), "{found:?}");
            assert!(found[0].contains("call"), "{found:?}");
        }
        other => panic!("expected PanicCode, got {other:?}"),
    }
    let allowed = builder(&krate, NvvmArch::Compute80).allow_calls(true).build_with(&compiler);
    assert!(allowed.is_ok(), "{allowed:?}");
}

#[test]
fn what_the_compiler_says_is_in_the_error() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let krate = krate(folder.path(), &KERNELS.replace("count: u32", "count: Missing"));
    match builder(&krate, NvvmArch::Compute80).build_with(&compiler) {
        Err(error @ CudaBuilderError::BuildFailed { .. }) => {
            assert!(error.to_string().contains("cannot find type `Missing`"), "{error}");
        }
        other => panic!("expected BuildFailed, got {other:?}"),
    }
}

#[test]
fn a_copy_is_written_where_asked() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let krate = krate(folder.path(), KERNELS);
    let copy = folder.path().join("new/folder/kernels.ptx");
    let path = builder(&krate, NvvmArch::Compute80).copy_to(&copy).build_with(&compiler);
    assert_eq!(path.expect("the kernels compile"), copy);
    assert!(fs::read_to_string(copy).expect("the copy").contains(".entry add_constant"));
}

#[test]
fn a_crate_without_kernels_is_an_error() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let krate = krate(
        folder.path(),
        "#![no_std]\n#[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }\n",
    );
    let result = builder(&krate, NvvmArch::Compute80).build_with(&compiler);
    assert!(matches!(result, Err(CudaBuilderError::NoKernel { .. })), "{result:?}");
}
