//! What the trampolines reach while there is no driver.
//!
//! A stub may be called in place of any driver function: on the supported targets the caller removes the
//! arguments, so a function without parameters can stand in for one with eleven.

use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

use crate::platform::functions::slot;

const CUDA_SUCCESS: u32 = 0;
const CUDA_ERROR_NOT_INITIALIZED: u32 = 3;
const CUDA_ERROR_NO_DEVICE: u32 = 100;
const CUDA_ERROR_NOT_SUPPORTED: u32 = 801;
const CUDA_ERROR_INVALID_VALUE: u32 = 1;

/// The driver is not loaded, or there is none.
pub(crate) extern "C" fn no_device() -> u32 {
    CUDA_ERROR_NO_DEVICE
}

/// The driver is loaded but too old to have this function.
pub(crate) extern "C" fn not_supported() -> u32 {
    CUDA_ERROR_NOT_SUPPORTED
}

/// The first `cuInit` of the process loads the driver.
pub(crate) extern "C" fn init(flags: u32) -> u32 {
    match crate::load() {
        Ok(_) => {
            // SAFETY: loading succeeded, so the slot holds the driver's cuInit, and this is its signature.
            let init: extern "C" fn(u32) -> u32 =
                unsafe { std::mem::transmute(slot::cuInit.get()) };
            init(flags)
        }
        Err(_) => CUDA_ERROR_NO_DEVICE,
    }
}

/// `cuDriverGetVersion` is allowed before `cuInit`, so it too loads the driver.
pub(crate) unsafe extern "C" fn driver_get_version(version: *mut i32) -> u32 {
    match crate::load() {
        Ok(_) => {
            // SAFETY: loading succeeded, so the slot holds the driver's cuDriverGetVersion, and this is
            // its signature.
            let get_version: unsafe extern "C" fn(*mut i32) -> u32 =
                unsafe { std::mem::transmute(slot::cuDriverGetVersion.get()) };
            // SAFETY: the caller keeps the driver's rules for `version`.
            unsafe { get_version(version) }
        }
        Err(_) => CUDA_ERROR_NO_DEVICE,
    }
}

/// `cuGetErrorName` without a driver.
pub(crate) unsafe extern "C" fn get_error_name(code: u32, name: *mut *const c_char) -> u32 {
    let text = match code {
        CUDA_SUCCESS => c"CUDA_SUCCESS",
        CUDA_ERROR_INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        CUDA_ERROR_NOT_INITIALIZED => c"CUDA_ERROR_NOT_INITIALIZED",
        CUDA_ERROR_NO_DEVICE => c"CUDA_ERROR_NO_DEVICE",
        CUDA_ERROR_NOT_SUPPORTED => c"CUDA_ERROR_NOT_SUPPORTED",
        _ => c"unknown error",
    };
    // SAFETY: the caller keeps the driver's rules for `name`.
    unsafe { give(text, name) }
}

/// `cuGetErrorString` without a driver. For "no device" the text is the reason why loading failed.
pub(crate) unsafe extern "C" fn get_error_string(code: u32, text: *mut *const c_char) -> u32 {
    static REASON: OnceLock<CString> = OnceLock::new();
    let found = match code {
        CUDA_SUCCESS => c"no error",
        CUDA_ERROR_INVALID_VALUE => c"invalid argument",
        CUDA_ERROR_NOT_INITIALIZED => c"initialization error: call cuInit first",
        CUDA_ERROR_NO_DEVICE => REASON.get_or_init(|| {
            let reason = match crate::load() {
                Ok(_) => "no CUDA-capable device is detected".to_owned(),
                Err(error) => error.to_string(),
            };
            CString::new(reason).unwrap_or_else(|_| c"no CUDA driver".to_owned())
        }),
        CUDA_ERROR_NOT_SUPPORTED => c"the CUDA driver does not have this function",
        _ => c"unknown error (there is no CUDA driver to ask)",
    };
    // SAFETY: the caller keeps the driver's rules for `text`.
    unsafe { give(found, text) }
}

/// Stores a text that lives as long as the process where the caller wants it.
///
/// # Safety
///
/// `destination` is null or valid for writing one pointer.
unsafe fn give(text: &'static CStr, destination: *mut *const c_char) -> u32 {
    if destination.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { destination.write(text.as_ptr()) };
    CUDA_SUCCESS
}
