//! The CUDA driver API, loaded at run time: programs that link it start on machines without a GPU.
//!
//! A program that uses [`cust`](https://docs.rs/cust) normally links `libcuda`, which comes with NVIDIA's
//! driver: where there is no driver, the program does not even start. This crate defines every `cu…`
//! function that `cust` can refer to. Each definition is one jump through a table. The table starts with
//! stubs that return `CUDA_ERROR_NO_DEVICE`; the first `cuInit` (or [`load`]) opens `libcuda.so.1` and puts
//! the driver's functions in their place. So one program uses the GPU where there is one, and gets an
//! ordinary `Err` from `cust::init` where there is none.
//!
//! # Use
//!
//! A crate that depends on `cust` depends on this crate as well and mentions it once, so that the compiler
//! links it:
//!
//! ```
//! use cuda_driver as _;
//! ```
//!
//! At build time the linker and the build script of `cust` still look for a `libcuda`. The folder `link/` of
//! this crate has one that is empty; name it in the environment variable `CUDA_LIBRARY_PATH`, for instance
//! in `.cargo/config.toml`:
//!
//! ```toml
//! [env]
//! CUDA_LIBRARY_PATH = { value = "path/to/cuda_driver/link", relative = true }
//! ```
//!
//! # At run time
//!
//! [`status`] says whether the driver was found, which file and version it is, and if not, why. The variable
//! `CUDA_DRIVER_LIBRARY` names a driver library to use instead of the system's. Functions that an old driver
//! does not have return `CUDA_ERROR_NOT_SUPPORTED`.
//!
//! Linux on x86-64 and aarch64. On other targets the crate is empty but for [`status`], which says so.
//!
//! ```
//! match cuda_driver::status() {
//!     Ok(driver) => println!("{driver}"),
//!     Err(error) => println!("{error}"),
//! }
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

#[cfg_attr(
    all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")),
    path = "linux/mod.rs"
)]
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "unsupported.rs"
)]
mod platform;

/// The environment variable that names a driver library to use instead of the system's.
pub const LIBRARY_VARIABLE: &str = "CUDA_DRIVER_LIBRARY";

/// The driver library that this process uses.
#[derive(Debug)]
pub struct Driver {
    path: PathBuf,
    version: i32,
    missing: Vec<&'static str>,
    /// Keeps the library open: the trampolines lead into it.
    _library: platform::Library,
}

impl Driver {
    /// The file that was loaded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The CUDA version the driver supports, as (major, minor).
    pub fn version(&self) -> (i32, i32) {
        (self.version / 1000, self.version % 1000 / 10)
    }

    /// The functions this driver does not have; calling one returns `CUDA_ERROR_NOT_SUPPORTED`.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.version();
        write!(f, "CUDA {major}.{minor} driver {}", self.path.display())
    }
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No library could be opened.
    #[error(
        "no CUDA driver: {}. Install NVIDIA's driver, or name its library in {LIBRARY_VARIABLE}",
        list(attempts)
    )]
    NotFound {
        /// What was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// A library was opened that is not a working driver, for instance the CUDA toolkit's link-time stub.
    #[error(
        "{} is not a usable CUDA driver: {reason}. Name the driver's library in {LIBRARY_VARIABLE}",
        path.display()
    )]
    Unusable {
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The crate knows the driver only on Linux, on x86-64 and aarch64.
    #[error(
        "CUDA is supported on Linux (x86-64, aarch64) only; this program was built for {} {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )]
    UnsupportedPlatform,
}

/// One library that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The library, as it was asked for.
    pub path: PathBuf,
    /// What the system's loader said.
    pub message: String,
}

fn list(attempts: &[Attempt]) -> String {
    let messages: Vec<&str> = attempts.iter().map(|attempt| attempt.message.as_str()).collect();
    messages.join("; ")
}

/// Loads the driver library, unless that has been tried before in this process.
///
/// Calling it is optional, because the first `cuInit` does the same. It does not initialise the driver.
///
/// # Errors
///
/// [`LoadError`], the same one at every call: a process tries once.
pub fn load() -> Result<&'static Driver, &'static LoadError> {
    platform::driver().as_ref()
}

/// Says which driver library this process uses or why it has none; loads it if nobody has yet.
///
/// That there is a driver does not mean that there is a device: ask the driver, after `cuInit`.
///
/// # Errors
///
/// [`LoadError`], with what the system's loader said and what to do.
pub fn status() -> Result<&'static Driver, &'static LoadError> {
    load()
}

/// The names of the driver functions this crate defines; empty on unsupported platforms.
pub fn functions() -> impl Iterator<Item = &'static str> {
    platform::functions()
}
