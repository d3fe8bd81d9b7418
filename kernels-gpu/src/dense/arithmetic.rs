//! How a tile's operands are multiplied.

use crate::dense::mma;
use crate::limits::{PRODUCT_DEPTH, PRODUCT_PITCH, WARP_LANES};
use crate::memory::SharedWords;
use crate::unroll::{array4, array8, each4, each8, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;

/// A thread's sums of a tile.
pub(crate) type Sums = [f32; 32];

/// A way to multiply.
pub(crate) trait Arithmetic {
    /// A factor as it lies in shared memory.
    fn word(value: f32) -> u32;

    /// Adds the products of what is in shared memory to the thread's sums.
    ///
    /// # Safety
    ///
    /// The whole block makes the call; both operands are complete and nobody writes them meanwhile.
    unsafe fn multiply(left: SharedWords, right: SharedWords, thread: u32, sums: &mut Sums);

    /// Row and column in the tile of a thread's sum of this number.
    fn place(thread: u32, index: usize) -> [u32; 2];
}

/// fp32, rounded once for each product and sum: `fma`.
pub(crate) struct Exact;

impl Arithmetic for Exact {
    #[inline(always)]
    fn word(value: f32) -> u32 {
        value.to_bits()
    }

    #[inline(always)]
    unsafe fn multiply(left: SharedWords, right: SharedWords, thread: u32, sums: &mut Sums) {
        let (row, column) = (thread / 16 * 8, thread % 16 * 4);
        for depth in 0..PRODUCT_DEPTH {
            let at = depth * PRODUCT_PITCH;
            // SAFETY: the caller's promise.
            let (upper, lower, across) = unsafe {
                (left.get4(at + row), left.get4(at + row + 4), right.get4(at + column))
            };
            let down = array8(|index| if index < 4 { upper[index] } else { lower[index - 4] });
            let (down, across) = (down.map(f32::from_bits), across.map(f32::from_bits));
            each8(|i| {
                each4(|j| sums[4 * i + j] = down[i].mul_add(across[j], sums[4 * i + j]));
            });
        }
    }

    #[inline(always)]
    fn place(thread: u32, index: usize) -> [u32; 2] {
        [thread / 16 * 8 + index as u32 / 4, thread % 16 * 4 + index as u32 % 4]
    }
}

/// Tensor cores with factors of 10 bits behind the point and the exponents of fp32; the sums are fp32.
#[cfg(any(not(target_arch = "nvptx64"), cuda_arch_ge_80))]
pub(crate) struct Tensor;

/// The tensor cores of this architecture do not have the type.
#[cfg(all(target_arch = "nvptx64", not(cuda_arch_ge_80)))]
pub(crate) type Tensor = Exact;

#[cfg(any(not(target_arch = "nvptx64"), cuda_arch_ge_80))]
impl Arithmetic for Tensor {
    #[inline(always)]
    fn word(value: f32) -> u32 {
        mma::tf32(value)
    }

    #[inline(always)]
    unsafe fn multiply(left: SharedWords, right: SharedWords, thread: u32, sums: &mut Sums) {
        // A warp has 32 by 32 sums: two times four products of 16 by 8.
        let lane = thread % WARP_LANES;
        let (group, within) = (lane / 4, lane % 4);
        let [row, column] = quarter(thread);
        for step in 0..PRODUCT_DEPTH / 8 {
            let at = (step * 8 + within) * PRODUCT_PITCH + group;
            let below = 4 * PRODUCT_PITCH;
            let mut lefts = [[0; 4]; 2];
            upto8(2, |i| {
                let at = at + row + 16 * i as u32;
                // SAFETY: the caller's promise.
                lefts[i] = unsafe {
                    [left.get(at), left.get(at + 8), left.get(at + below), left.get(at + below + 8)]
                };
            });
            let rights = array4(|j| {
                let at = at + column + 8 * j as u32;
                // SAFETY: the caller's promise.
                unsafe { [right.get(at), right.get(at + below)] }
            });
            upto8(2, |i| {
                each4(|j| {
                    let first = 16 * i + 4 * j;
                    let before = array4(|index| sums[first + index]);
                    // SAFETY: the whole warp is here.
                    let after = unsafe { mma::tf32_16x8x8(lefts[i], rights[j], before) };
                    each4(|index| sums[first + index] = after[index]);
                });
            });
        }
    }

    #[inline(always)]
    fn place(thread: u32, index: usize) -> [u32; 2] {
        let lane = thread % WARP_LANES;
        let index = index as u32;
        let [row, column] = quarter(thread);
        [
            row + index / 16 * 16 + index / 2 % 2 * 8 + lane / 4,
            column + index / 4 % 4 * 8 + lane % 4 * 2 + index % 2,
        ]
    }
}

/// First row and column of the quarter of the tile that a thread's warp has.
#[cfg(any(not(target_arch = "nvptx64"), cuda_arch_ge_80))]
#[inline(always)]
fn quarter(thread: u32) -> [u32; 2] {
    let warp = thread / WARP_LANES;
    [warp % 2 * 32, warp / 2 * 32]
}
