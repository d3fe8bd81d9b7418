//! Results of the driver's functions as this crate's errors.

use cust::error::CudaError;
use cust::sys;
use cust::sys::cudaError_enum as Status;

use crate::error::{Error, Result};

const BACKEND: &str = "cuda";

/// An error unless the driver call succeeded, with the operation it was part of.
pub(super) fn check(operation: &str, status: Status) -> Result<()> {
    match status {
        Status::CUDA_SUCCESS => Ok(()),
        status => Err(error(operation, status)),
    }
}

/// The error of a driver call that did not succeed.
pub(super) fn error(operation: &str, status: Status) -> Error {
    let advice = match status {
        Status::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            ": the driver is older than the kernels; update the NVIDIA driver"
        }
        Status::CUDA_ERROR_ILLEGAL_ADDRESS => {
            ": a kernel left its arrays, probably because a raw device pointer was wrong; \
             the process's CUDA context cannot be used any more"
        }
        _ => "",
    };
    failed(operation, &format!("{status:?}{advice}"))
}

/// As [`check`], where the call asked for memory.
pub(super) fn check_allocation(purpose: &'static str, bytes: usize, status: Status) -> Result<()> {
    match status {
        Status::CUDA_ERROR_OUT_OF_MEMORY => {
            Err(Error::OutOfMemory { purpose, place: "device", bytes })
        }
        status => check("allocating device memory", status),
    }
}

/// A failure that `cust` reports.
pub(super) fn from_cust(operation: &'static str) -> impl Fn(CudaError) -> Error {
    move |error| failed(operation, &format!("{error:?}: {error}"))
}

fn failed(operation: &str, message: &str) -> Error {
    Error::BackendFailed {
        backend: BACKEND,
        operation: operation.to_owned(),
        message: message.to_owned(),
    }
}

/// An error that says the backend cannot be used here.
pub(super) fn unavailable(reason: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::BackendUnavailable { backend: BACKEND, reason: reason.into(), remedy: remedy.into() }
}

/// The CUDA version of the driver, (major, minor).
pub(super) fn version() -> (i32, i32) {
    let mut version = 0;
    // SAFETY: the function writes one integer.
    let status = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    debug_assert_eq!(status, Status::CUDA_SUCCESS);
    (version / 1000, version % 1000 / 10)
}
