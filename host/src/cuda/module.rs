//! The kernels of one architecture level, loaded one by one as they are called for.
//!
//! The driver compiles PTX when it loads a module. Loading only the kernel that is about to run keeps the first
//! call short: the others are never compiled.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cust::sys;
use cust::sys::cudaError_enum as Status;
use kernels_gpu::ptx::{self, Ptx};

use crate::cuda::driver::{error, unavailable};
use crate::error::Result;

/// The kernels loaded so far.
pub(super) struct Modules {
    state: Mutex<State>,
    /// Whether the driver knows launches that start early, also in graphs.
    starts_early: bool,
}

struct State {
    level: &'static Ptx,
    /// Levels to fall back to when the driver does not know the PTX version, highest last.
    lower: Vec<&'static Ptx>,
    loaded: HashMap<&'static str, Kernel>,
}

/// Architecture level from which on kernels wait themselves for the launches before them.
const WAITS_FROM: u32 = 90;

/// CUDA version from which on launches that start early can be recorded in graphs.
const STARTS_EARLY_FROM: (i32, i32) = (12, 3);

/// A kernel's handle. Its module stays loaded as long as the program runs, like the device.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    pub(super) function: sys::CUfunction,
    /// Whether it may be started before the launches in front of it are through: it waits for them itself.
    pub(super) starts_early: bool,
}

// SAFETY: handles of the driver, which any thread may use.
unsafe impl Send for Kernel {}

impl Modules {
    /// The kernels for a device of this compute capability, 90 for 9.0 say, and a driver of this CUDA version.
    pub(super) fn new(capability: u32, driver: (i32, i32)) -> Result<Self> {
        let mut lower: Vec<_> =
            ptx::LEVELS.iter().filter(|level| level.architecture <= capability).collect();
        lower.sort_by_key(|level| level.architecture);
        let Some(level) = lower.pop() else {
            let lowest = ptx::LEVELS.iter().map(|level| level.architecture).min().unwrap_or(0);
            return Err(unavailable(
                format!(
                    "the device has compute capability {capability} and the kernels need {lowest}"
                ),
                "use a newer GPU, or Backend::Cpu",
            ));
        };
        let state = State { level, lower, loaded: HashMap::new() };
        Ok(Self { state: Mutex::new(state), starts_early: driver >= STARTS_EARLY_FROM })
    }

    pub(super) fn level(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        format!("sm_{}", state.level.architecture)
    }

    /// The kernel of this name, loaded now unless it was before. The device's context is current.
    pub(super) fn kernel(&self, name: &'static str) -> Result<Kernel> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&kernel) = state.loaded.get(name) {
            return Ok(kernel);
        }
        loop {
            match load(state.level, name) {
                Ok(function) => {
                    let starts_early = self.starts_early && state.level.architecture >= WAITS_FROM;
                    let kernel = Kernel { function, starts_early };
                    state.loaded.insert(name, kernel);
                    return Ok(kernel);
                }
                Err((Status::CUDA_ERROR_UNSUPPORTED_PTX_VERSION, _)) if !state.lower.is_empty() => {
                    // An older driver: an older level's PTX may still be one it knows.
                    state.level = state.lower.pop().expect("not empty");
                }
                Err((status, log)) => {
                    return Err(error(&format!("loading kernel {name}{log}"), status));
                }
            }
        }
    }
}

/// Compiles and loads one kernel; the driver's status and its log when it does not.
fn load(level: &Ptx, name: &'static str) -> std::result::Result<sys::CUfunction, (Status, String)> {
    let text = CString::new(level.kernel(name)).expect("PTX has no NUL");
    let mut log = vec![0_u8; 4096];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    ];
    let mut values: [*mut c_void; 2] =
        [log.as_mut_ptr().cast(), ptr::without_provenance_mut(log.len())];
    let mut module = ptr::null_mut();
    // SAFETY: the image is a NUL-terminated text, and each option has its value: a buffer and its length.
    let status = unsafe {
        sys::cuModuleLoadDataEx(
            &raw mut module,
            text.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if status != Status::CUDA_SUCCESS {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
        let log = String::from_utf8_lossy(&log[..end]);
        let log = if log.is_empty() { String::new() } else { format!(" ({})", log.trim()) };
        return Err((status, log));
    }
    let mut function = ptr::null_mut();
    let name = CString::new(name).expect("kernel names have no NUL");
    // SAFETY: the module is loaded, the name NUL-terminated.
    let status = unsafe { sys::cuModuleGetFunction(&raw mut function, module, name.as_ptr()) };
    match status {
        Status::CUDA_SUCCESS => Ok(function),
        status => Err((status, String::new())),
    }
}
