//! What a launch hands to a kernel: plain structures, the same bytes on both sides.
//!
//! Every kernel takes one of these by value. Pointers are device addresses on the GPU and ordinary
//! addresses in the emulator. All arrays are row-major with the layouts the structures state.

/// IEEE half precision as it lies in memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F16(pub u16);

/// The upper half of an fp32 number as it lies in memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bf16(pub u16);

/// One feature map of one camera: where its pixels begin in a batch item, and its size in pixels.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// First pixel row of the map, counted along the `F` axis of the feature maps.
    pub start: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Fills the structure to the 16 bytes of one load.
    pub reserved: u32,
}

/// How the pixels and the samples of one map are numbered for the gather: a row of a table beside that of
/// the [`Level`]s.
///
/// A *tile* is 2 by 2 pixels, the work of one worker; a *cell* is the square between four pixel centres (those
/// of the rim lack some), the place of a sample. A map of `h` by `w` pixels has `h + 1` rows of `w + 1` cells.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapGrid {
    /// Number of the map's first tile, counted over the maps of a batch item.
    pub first_tile: u32,
    /// Tiles in a row.
    pub tiles_across: u32,
    /// Index of the map's first cell among the offsets of a batch item. Each map has one offset more than cells.
    pub first_cell: u32,
    /// Fills the structure to the 16 bytes of one load.
    pub reserved: u32,
}

/// Neighbouring cells of one map that one block sorts samples into.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// The map, `camera * L + level`.
    pub map: u32,
    /// Its first cell, counted within the map.
    pub first_cell: u32,
    /// Its cells, at most [`MAX_BAND_CELLS`](crate::MAX_BAND_CELLS).
    pub cells: u32,
    /// 1 for the last band of its map, else 0.
    pub last: u32,
}

/// The visible samples of a batch, sorted by where they lie: what the sorting kernel writes and the gather reads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bins {
    /// `(N, L)` maps.
    pub maps: *const Level,
    /// `(N, L)` numberings.
    pub grids: *const MapGrid,
    /// The bands of all maps.
    pub bands: *const Band,
    /// `(B, cells)`: where the samples of each cell begin among the samples of the batch item.
    pub offsets: *mut u32,
    /// `(B, N * L * A * P)` samples of four words: anchor, (point, camera) pair, and the position in pixels, u and v.
    pub samples: *mut u32,
    /// Tiles with many samples: their count, then their numbers over the batch, in any order.
    pub crowded: *mut u32,
    /// Offsets of a batch item.
    pub cells: u32,
    /// Tiles of a batch item.
    pub tiles: u32,
}

/// Arguments of the kernel that sorts samples.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SortArgs {
    /// The sizes.
    pub sizes: Sizes,
    /// What to fill.
    pub bins: Bins,
    /// Sampling locations `(B, A, P, N, 2)`, x before y, fractions of the image.
    pub locations: *const f32,
}

/// Arguments of the kernels that gather the gradient of the features.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GatherArgs<T> {
    /// The sizes.
    pub sizes: Sizes,
    /// The sorted samples.
    pub bins: Bins,
    /// Weights `(B, A, P, N, L, G)`.
    pub weights: *const T,
    /// Gradient of the output, `(B, A, C)`.
    pub grad_output: *const T,
    /// Gradient of the feature maps, `(B, F, C)`. Every row of a map is written.
    pub grad_features: *mut T,
}

/// Which locations count: the value of [`Sizes::rule`].
pub mod rule {
    /// Strictly inside the image, `0 < x < 1` and `0 < y < 1`: the rule of the fused operator.
    pub const OPERATOR: u32 = 0;
    /// Within half a pixel of the map, level by level: the rule of `grid_sample`.
    pub const GRID_SAMPLE: u32 = 1;
}

/// The sizes of a problem, and how a launch spreads it over threads.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pixel rows of a batch item, `F`.
    pub rows: u64,
    /// Batch items, `B`.
    pub batch: u32,
    /// Anchors of a batch item, `A`.
    pub anchors: u32,
    /// Key points of an anchor, `P`.
    pub points: u32,
    /// Cameras, `N`.
    pub cameras: u32,
    /// Levels, `L`.
    pub levels: u32,
    /// Weight groups, `G`; divides `channels`.
    pub groups: u32,
    /// Channels, `C`.
    pub channels: u32,
    /// [`rule::OPERATOR`] or [`rule::GRID_SAMPLE`].
    pub rule: u32,
    /// Lanes of a warp that share one sample, a power of two up to 32; each holds
    /// [`CHANNELS_PER_LANE`](crate::CHANNELS_PER_LANE) channels of a tile. The naive kernels do not
    /// look at it.
    pub lanes: u32,
}

impl Sizes {
    /// (point, camera) pairs of an anchor.
    #[inline(always)]
    pub const fn pairs(&self) -> u32 {
        self.points * self.cameras
    }

    /// Channels of one group.
    #[inline(always)]
    pub const fn channels_per_group(&self) -> u32 {
        // A group count of zero cannot pass the validation of the host; the maximum only tells
        // the compiler so, which keeps the division's panic out of the kernel.
        self.channels / if self.groups == 0 { 1 } else { self.groups }
    }
}

/// Arguments of the forward kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ForwardArgs<T, O = T> {
    /// The sizes.
    pub sizes: Sizes,
    /// `(N, L)` maps.
    pub maps: *const Level,
    /// Feature maps `(B, F, C)`.
    pub features: *const T,
    /// Sampling locations `(B, A, P, N, 2)`, x before y, fractions of the image.
    pub locations: *const f32,
    /// Weights `(B, A, P, N, L, G)`.
    pub weights: *const T,
    /// Output `(B, A, C)`. The naive kernels add to it, in fp32; the others write every element.
    pub output: *mut O,
}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl<T, O> Send for ForwardArgs<T, O> {}
// SAFETY: as above.
unsafe impl<T, O> Sync for ForwardArgs<T, O> {}

/// Arguments of the backward kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BackwardArgs<T, W = T> {
    /// The sizes.
    pub sizes: Sizes,
    /// `(N, L)` maps.
    pub maps: *const Level,
    /// Feature maps `(B, F, C)`.
    pub features: *const T,
    /// Sampling locations `(B, A, P, N, 2)`, x before y, fractions of the image.
    pub locations: *const f32,
    /// Weights `(B, A, P, N, L, G)`.
    pub weights: *const T,
    /// Gradient of the output, `(B, A, C)`.
    pub grad_output: *const T,
    /// Gradient of the feature maps, `(B, F, C)`, in fp32 whatever `T` is: the kernels that touch it add to it, so
    /// it must hold zeros before.
    pub grad_features: *mut f32,
    /// Gradient of the sampling locations, `(B, A, P, N, 2)`. The naive kernels add to it; the
    /// others write every element.
    pub grad_locations: *mut f32,
    /// Gradient of the weights, `(B, A, P, N, L, G)`. The naive kernels add to it, in fp32; the
    /// others write every element.
    pub grad_weights: *mut W,
}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl<T, W> Send for BackwardArgs<T, W> {}
// SAFETY: as above.
unsafe impl<T, W> Sync for BackwardArgs<T, W> {}

/// Arguments of the kernels that round an fp32 array to 16-bit floats.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RoundArgs<T> {
    /// Elements of both arrays.
    pub length: u64,
    /// The fp32 array.
    pub source: *const f32,
    /// The rounded array.
    pub target: *mut T,
}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl<T> Send for RoundArgs<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for RoundArgs<T> {}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl Send for SortArgs {}
// SAFETY: as above.
unsafe impl Sync for SortArgs {}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl<T> Send for GatherArgs<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for GatherArgs<T> {}

/// Arguments of the kernel that reads an array over and over.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReadArgs {
    /// 16-byte vectors of the array, at least as many as there are threads.
    pub vectors: u32,
    /// How often every thread reads four vectors.
    pub steps: u32,
    /// The array, aligned to 16 bytes.
    pub source: *const u32,
    /// For each thread the sum of the words it read, wrapped around.
    pub sums: *mut u32,
}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl Send for ReadArgs {}
// SAFETY: as above.
unsafe impl Sync for ReadArgs {}
