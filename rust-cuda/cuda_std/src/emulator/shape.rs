//! The shape of a launch.

use std::fmt;

use super::fault::Fault;

/// The most shared memory a block can have: that of compute capability 9.0, in bytes.
pub(super) const MAX_SHARED_BYTES: usize = 227 * 1024;
/// The most shared memory that a kernel can declare statically, in bytes.
pub(super) const MAX_STATIC_SHARED_BYTES: usize = 48 * 1024;
/// The number of threads in a warp.
pub(super) const WARP: u32 = 32;

/// Three numbers: the size of a grid or block, or a place in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Dim3 {
    /// The first dimension; neighbours along it are neighbours in a warp.
    pub x: u32,
    /// The second dimension.
    pub y: u32,
    /// The third dimension.
    pub z: u32,
}

impl Dim3 {
    /// The product of the three.
    pub(super) fn volume(self) -> u64 {
        // Checked before: at most 2^31 x 2^16 x 2^16.
        u64::from(self.x) * u64::from(self.y) * u64::from(self.z)
    }

    /// The place with the given number, in a box of this size.
    pub(super) fn place(self, number: u64) -> Self {
        let (x, y) = (u64::from(self.x), u64::from(self.y));
        Self { x: (number % x) as u32, y: (number / x % y) as u32, z: (number / x / y) as u32 }
    }
}

impl From<u32> for Dim3 {
    fn from(x: u32) -> Self {
        Self { x, y: 1, z: 1 }
    }
}

impl From<(u32, u32)> for Dim3 {
    fn from((x, y): (u32, u32)) -> Self {
        Self { x, y, z: 1 }
    }
}

impl From<(u32, u32, u32)> for Dim3 {
    fn from((x, y, z): (u32, u32, u32)) -> Self {
        Self { x, y, z }
    }
}

impl fmt::Display for Dim3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}, {})", self.x, self.y, self.z)
    }
}

/// How many blocks of how many threads run a kernel, and the shared memory each block gets on top
/// of what the kernel declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks in the grid.
    pub grid: Dim3,
    /// Threads in a block.
    pub block: Dim3,
    /// Bytes behind [`dynamic_shared_mem`](crate::shared::dynamic_shared_mem).
    pub dynamic_shared_bytes: u32,
}

impl LaunchConfig {
    /// A launch without dynamic shared memory.
    ///
    /// ```
    /// use cuda_std::emulator::LaunchConfig;
    /// let config = LaunchConfig::new((4, 2), 128);
    /// assert_eq!((config.grid.x, config.grid.y, config.grid.z), (4, 2, 1));
    /// ```
    pub fn new(grid: impl Into<Dim3>, block: impl Into<Dim3>) -> Self {
        Self { grid: grid.into(), block: block.into(), dynamic_shared_bytes: 0 }
    }

    /// The same launch with `bytes` of dynamic shared memory per block.
    #[must_use]
    pub fn with_dynamic_shared_bytes(self, bytes: u32) -> Self {
        Self { dynamic_shared_bytes: bytes, ..self }
    }

    /// Whether a GPU would accept the launch.
    pub(super) fn check(&self, kernel: &str) -> Result<(), Fault> {
        let bad = |reason: String| Err(Fault::BadLaunch { kernel: kernel.to_owned(), reason });
        let limits = [
            ("grid.x", self.grid.x, i32::MAX as u32),
            ("grid.y", self.grid.y, 65_535),
            ("grid.z", self.grid.z, 65_535),
            ("block.x", self.block.x, 1024),
            ("block.y", self.block.y, 1024),
            ("block.z", self.block.z, 64),
        ];
        for (name, size, limit) in limits {
            if !(1..=limit).contains(&size) {
                return bad(format!("{name} is {size}, expected 1 to {limit}"));
            }
        }
        let threads = self.block.volume();
        if threads > 1024 {
            return bad(format!("a block has {threads} threads, expected at most 1024"));
        }
        let shared = self.dynamic_shared_bytes;
        if shared as usize > MAX_SHARED_BYTES {
            return bad(format!(
                "dynamic_shared_bytes is {shared}, expected at most {MAX_SHARED_BYTES}"
            ));
        }
        Ok(())
    }
}
