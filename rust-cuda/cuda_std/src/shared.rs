//! Shared memory: the memory that the threads of one block have in common.
//!
//! It starts out without any value: write before you read, and put a
//! [`sync_threads`](crate::thread::sync_threads) between one thread's write and another's read.

use crate::platform;

/// The dynamic shared memory of the block, as large as the launch asked for, aligned to 16 bytes.
///
/// Every call gives the same pointer.
///
/// # Panics
///
/// On the host, panics when called outside a launch of the emulator.
#[inline(always)]
#[must_use]
pub fn dynamic_shared_mem<T>() -> *mut T {
    platform::dynamic_shared_mem().cast()
}

/// Declares an array in shared memory and gives a `*mut T` to its first element.
///
/// `shared_array![f32; 256]` is one array per place in the source: executing it again gives the
/// same array, writing it twice gives two. All instances of a generic function share the array
/// written in it. Arrays are aligned to 16 bytes or more.
///
/// On the GPU, type and length have to be visible from the enclosing module: names declared inside
/// the function, and generic parameters, are not.
///
/// # Panics
///
/// On the host, panics when executed outside a launch of the emulator.
///
/// # Examples
///
/// ```
/// use cuda_std::prelude::*;
///
/// /// Reverses the block's 64 numbers.
/// ///
/// /// # Safety
/// /// `data` points to 64 numbers; the launch is one block of 64 threads.
/// #[kernel]
/// pub unsafe fn reverse(data: *mut f32) {
///     let scratch = shared_array![f32; 64];
///     let i = thread::thread_idx_x() as usize;
///     // SAFETY: `i` is below 64, and the barrier parts the writes from the reads.
///     unsafe {
///         *scratch.add(i) = *data.add(i);
///         thread::sync_threads();
///         *data.add(i) = *scratch.add(63 - i);
///     }
/// }
/// ```
#[cfg(target_arch = "nvptx64")]
#[macro_export]
macro_rules! shared_array {
    ($array_type:ty; $len:expr) => {
        $crate::__shared_array!($array_type; $len)
    };
}

/// Declares an array in shared memory and gives a `*mut T` to its first element.
///
/// `shared_array![f32; 256]` is one array per place in the source: executing it again gives the
/// same array, writing it twice gives two. All instances of a generic function share the array
/// written in it. Arrays are aligned to 16 bytes or more.
///
/// On the GPU, type and length have to be visible from the enclosing module: names declared inside
/// the function, and generic parameters, are not.
///
/// # Panics
///
/// On the host, panics when executed outside a launch of the emulator.
///
/// # Examples
///
/// ```
/// use cuda_std::prelude::*;
///
/// /// Reverses the block's 64 numbers.
/// ///
/// /// # Safety
/// /// `data` points to 64 numbers; the launch is one block of 64 threads.
/// #[kernel]
/// pub unsafe fn reverse(data: *mut f32) {
///     let scratch = shared_array![f32; 64];
///     let i = thread::thread_idx_x() as usize;
///     // SAFETY: `i` is below 64, and the barrier parts the writes from the reads.
///     unsafe {
///         *scratch.add(i) = *data.add(i);
///         thread::sync_threads();
///         *data.add(i) = *scratch.add(63 - i);
///     }
/// }
/// ```
#[cfg(not(target_arch = "nvptx64"))]
#[macro_export]
macro_rules! shared_array {
    ($array_type:ty; $len:expr) => {{
        static SITE: $crate::shared::Site = $crate::shared::Site::new();
        const LEN: usize = $len;
        $crate::shared::array_at::<$array_type>(&SITE, LEN)
    }};
}

/// One use of [`shared_array!`] in the source; its address tells it from all others.
#[cfg(not(target_arch = "nvptx64"))]
#[doc(hidden)]
#[derive(Debug)]
pub struct Site {
    /// Only there to have an address of its own.
    _place: u8,
}

#[cfg(not(target_arch = "nvptx64"))]
impl Site {
    /// A site of its own.
    #[doc(hidden)]
    #[must_use]
    pub const fn new() -> Self {
        Self { _place: 0 }
    }
}

/// What [`shared_array!`] expands to on the host.
#[cfg(not(target_arch = "nvptx64"))]
#[doc(hidden)]
#[must_use]
pub fn array_at<T>(site: &'static Site, len: usize) -> *mut T {
    let site = std::ptr::from_ref(site) as usize;
    platform::shared_array(site, size_of::<T>().saturating_mul(len), align_of::<T>()).cast()
}
