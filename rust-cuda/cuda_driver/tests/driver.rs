//! What programs that link `cust` meet: no driver, a driver (a small stand-in built here), an old driver,
//! and a file that is none.
//!
//! A process loads its driver once, so each test runs the body of its own name again in a process of its own.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

use std::path::Path;
use std::process::Command;
use std::ptr::without_provenance_mut as address;

use cuda_driver::{LIBRARY_VARIABLE, LoadError};
use cust::CudaFlags;
use cust::error::CudaError;
use cust::sys;

/// Runs the test `name` in a new process with this driver library; true in that process.
fn in_own_process(name: &str, library: &Path) -> bool {
    const CHILD: &str = "CUDA_DRIVER_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().expect("the test knows its own file"))
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env(LIBRARY_VARIABLE, library)
        .output()
        .expect("the test can run itself");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{name} in its own process: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Compiles a C file to a shared library. `None`, and a line that says so, where there is no C compiler.
fn shared_library(source: &Path, folder: &Path) -> Option<std::path::PathBuf> {
    let library = folder.join("libcuda.so.1");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).output();
    match compiled {
        Ok(output) => {
            let messages = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "the C compiler refused {source:?}: {messages}");
            Some(library)
        }
        Err(error) => {
            println!("skipped because the C compiler `cc` cannot be run: {error}");
            None
        }
    }
}

fn fake_driver(folder: &Path) -> Option<std::path::PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_driver.c");
    shared_library(&source, folder)
}

#[test]
fn without_a_driver_init_is_an_ordinary_error() {
    let missing = Path::new("/nonexistent/libcuda.so.1");
    if !in_own_process("without_a_driver_init_is_an_ordinary_error", missing) {
        return;
    }
    assert_eq!(cust::init(CudaFlags::empty()), Err(CudaError::NoDevice));
    assert_eq!(cust::device::Device::num_devices(), Err(CudaError::NoDevice));
    assert_eq!(cust::CudaApiVersion::get().err(), Some(CudaError::NoDevice));
    // The text of the error names the file and what to do.
    let text = CudaError::NoDevice.to_string();
    assert!(text.contains("/nonexistent/libcuda.so.1"), "{text}");
    assert!(text.contains(LIBRARY_VARIABLE), "{text}");
    assert!(CudaError::IllegalAddress.to_string().contains("unknown error"));

    match cuda_driver::status() {
        Err(error @ LoadError::NotFound { attempts }) => {
            assert_eq!(attempts.len(), 1);
            assert_eq!(attempts[0].path, missing);
            assert!(error.to_string().contains("No such file"), "{error}");
        }
        other => panic!("expected NotFound, got {other:?}"),
    }
}

#[test]
fn calls_reach_the_driver_with_their_arguments() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(library) = fake_driver(folder.path()) else { return };
    if !in_own_process("calls_reach_the_driver_with_their_arguments", &library) {
        return;
    }
    let launch = |last: usize| {
        // SAFETY: the stand-in only compares the values, so pointers to nothing are fine; where no driver
        // is loaded the stub looks at none of them.
        unsafe {
            sys::cuLaunchKernel(
                address(1001),
                1002,
                1003,
                1004,
                1005,
                1006,
                1007,
                1008,
                address(1009),
                address(1010),
                address(last),
            )
        }
    };
    assert_eq!(launch(1011) as u32, 100, "nothing is loaded before cuInit");
    assert_eq!(cust::init(CudaFlags::empty()), Ok(()));
    assert_eq!(launch(1011) as u32, 0);
    assert_eq!(launch(1012) as u32, 710, "the last of eleven arguments arrives");

    assert_eq!(cust::device::Device::num_devices(), Ok(3));
    // SAFETY: the stand-in only compares the values.
    let set = |address, count| unsafe {
        sys::cuMemsetD32Async(address, 7, count, std::ptr::null_mut()) as u32
    };
    assert_eq!(set(0x1234_5678_9abc_def0, 0xfedc_ba98_7654_3210), 0);
    assert_eq!(set(0x1234_5678_9abc_def0, 0x7654_3210), 719, "all 64 bits arrive");
    let mut milliseconds = 0.0;
    // SAFETY: the first argument is valid for writing; the stand-in only compares the others.
    let code = unsafe { sys::cuEventElapsedTime(&raw mut milliseconds, address(8), address(8)) };
    assert_eq!((code as u32, milliseconds), (0, 0.25));

    let driver = cuda_driver::status().expect("the stand-in is loaded");
    assert_eq!(driver.version(), (12, 34));
    assert_eq!(driver.path().file_name(), Some("libcuda.so.1".as_ref()));
}

#[test]
fn a_function_the_driver_lacks_is_not_supported() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(library) = fake_driver(folder.path()) else { return };
    if !in_own_process("a_function_the_driver_lacks_is_not_supported", &library) {
        return;
    }
    // The stand-in has no error texts either; ours stay.
    let driver = cuda_driver::load().expect("the stand-in is loaded");
    assert!(driver.missing().contains(&"cuCtxSynchronize"));
    assert!(!driver.missing().contains(&"cuLaunchKernel"));
    // SAFETY: a function without parameters; the driver lacks it.
    let code = unsafe { sys::cuCtxSynchronize() };
    assert_eq!(code, sys::cudaError_enum::CUDA_ERROR_NOT_SUPPORTED);
    assert!(CudaError::NotSupported.to_string().contains("does not have this function"));
}

#[test]
fn a_library_that_is_no_driver_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("other.c");
    std::fs::write(&source, "int something_else(void) { return 0; }\n").expect("a file");
    let Some(library) = shared_library(&source, folder.path()) else { return };
    if !in_own_process("a_library_that_is_no_driver_is_refused", &library) {
        return;
    }
    match cuda_driver::status() {
        Err(LoadError::Unusable { reason, .. }) => assert!(reason.contains("cuInit"), "{reason}"),
        other => panic!("expected Unusable, got {other:?}"),
    }
    assert_eq!(cust::init(CudaFlags::empty()), Err(CudaError::NoDevice));
}

#[test]
fn a_driver_that_refuses_to_work_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("stub.c");
    // What the CUDA toolkit's link-time stub does.
    let text =
        "int cuInit(unsigned f) { return 34; }\nint cuDriverGetVersion(int *v) { return 34; }\n";
    std::fs::write(&source, text).expect("a file");
    let Some(library) = shared_library(&source, folder.path()) else { return };
    if !in_own_process("a_driver_that_refuses_to_work_is_refused", &library) {
        return;
    }
    match cuda_driver::status() {
        Err(LoadError::Unusable { reason, .. }) => assert!(reason.contains("34"), "{reason}"),
        other => panic!("expected Unusable, got {other:?}"),
    }
}

#[test]
fn every_function_of_cust_raw_is_defined() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    // Only this platform's packages: the others need not have been downloaded.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--filter-platform", &platform])
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let library = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "cust_raw")
        .and_then(|package| package["targets"][0]["src_path"].as_str())
        .expect("cust_raw is a dependency");
    let bindings = Path::new(library).with_file_name("cuda.rs");
    let bindings = std::fs::read_to_string(bindings).expect("the bindings are one file");

    let defined: Vec<&str> = cuda_driver::functions().collect();
    let declared: Vec<&str> = bindings
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub fn ")?.split('(').next())
        .collect();
    assert!(declared.len() > 300, "only {} functions found", declared.len());
    let undefined: Vec<_> = declared.iter().filter(|name| !defined.contains(name)).collect();
    assert!(undefined.is_empty(), "not defined: {undefined:?}");
}
