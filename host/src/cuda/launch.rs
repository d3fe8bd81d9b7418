//! Launches, which a GPU may start before the ones in front of them are through.
//!
//! Kernels of the level for compute capability 9.0 wait for the launches before them on the stream themselves, as the first
//! thing they do. So the driver may have them ready by then, and what lies between one launch and the next is shorter. Whoever
//! launches something else on the same stream, before or behind, sees no difference.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use cust::sys;

use crate::cuda::module::Kernel;
use crate::kernels::Launch;

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION` of the driver API.
const PROGRAMMATIC_STREAM_SERIALIZATION: c_uint = 6;

/// The driver's `CUlaunchAttribute`, with the one value that is used of its union of 64 bytes.
#[repr(C, align(8))]
struct Attribute {
    id: c_uint,
    padding: [u8; 4],
    allowed: c_int,
    rest: [u8; 60],
}

/// The driver's `CUlaunchConfig`.
#[repr(C)]
struct Config {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: sys::CUstream,
    attributes: *mut Attribute,
    attribute_count: c_uint,
}

const _: () = assert!(size_of::<Attribute>() == 72 && size_of::<Config>() == 56);

unsafe extern "C" {
    /// Not declared by `cust`; there since CUDA 11.8, and used from 12.3 on.
    fn cuLaunchKernelEx(
        config: *const Config,
        function: sys::CUfunction,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> sys::CUresult;
}

/// Puts a kernel on a stream.
///
/// # Safety
///
/// The kernel takes one parameter, of the type that `parameter` points to, which the driver copies before it returns; the
/// pointers in it are valid until the launch is through.
pub(super) unsafe fn launch(
    kernel: Kernel,
    shape: Launch,
    stream: sys::CUstream,
    parameter: *mut c_void,
) -> sys::CUresult {
    let mut parameters = [parameter];
    let grid = [shape.grid.0, shape.grid.1, 1];
    let block = [shape.threads, 1, 1];
    if kernel.starts_early {
        let mut attribute = Attribute {
            id: PROGRAMMATIC_STREAM_SERIALIZATION,
            padding: [0; 4],
            allowed: 1,
            rest: [0; 60],
        };
        let config = Config {
            grid,
            block,
            shared_bytes: shape.shared_bytes,
            stream,
            attributes: &raw mut attribute,
            attribute_count: 1,
        };
        // SAFETY: the caller's promise; the attribute outlives the call.
        return unsafe {
            cuLaunchKernelEx(
                &raw const config,
                kernel.function,
                parameters.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        sys::cuLaunchKernel(
            kernel.function,
            grid[0],
            grid[1],
            grid[2],
            block[0],
            block[1],
            block[2],
            shape.shared_bytes,
            stream,
            parameters.as_mut_ptr(),
            ptr::null_mut(),
        )
    }
}
