//! The driver on Linux, x86-64 and aarch64.

mod functions;
mod load;
mod stubs;
mod trampoline;

pub(crate) use libloading::Library;
pub(crate) use load::driver;

/// The names of the driver functions.
pub(crate) fn functions() -> impl Iterator<Item = &'static str> {
    functions::FUNCTIONS.iter().map(|function| function.name.to_str().unwrap_or_default())
}
