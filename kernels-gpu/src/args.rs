//! What a launch hands to a kernel: plain structures, the same bytes on both sides.
//!
//! Every kernel takes one of these by value. Pointers are device addresses on the GPU and ordinary
//! addresses in the emulator. All arrays are row-major with the layouts the structures state.

use crate::limits::WindowSizes;

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

/// How the tiles of one map are numbered for the gather: a row of a table beside that of the [`Level`]s.
///
/// A *tile* is 2 by 2 pixels, the work of a warp or of a block. Its number is that of its [`TileOfWarp`], the first one
/// where the warps of a block share it.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapGrid {
    /// Number of the map's first tile.
    pub first_tile: u32,
    /// Tiles in a row.
    pub tiles_across: u32,
    /// How far apart the numbers of neighbouring tiles are.
    pub step: u32,
    /// Fills the structure to the 16 bytes of one load.
    pub reserved: u32,
}

/// The tile of a warp of the gather: a row of a table of blocks of work, each of which has one for each of its warps.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileOfWarp {
    /// The map, `camera * L + level`; [`NONE`](Self::NONE) for a warp that has no tile.
    pub map: u32,
    /// Line of its upper pixels.
    pub top: u32,
    /// Column of its left pixels.
    pub left: u32,
    /// Fills the structure to the 16 bytes of one load.
    pub reserved: u32,
}

impl TileOfWarp {
    /// See [`map`](Self::map).
    pub const NONE: u32 = u32::MAX;
}

/// For each tile of pixels, the points that have a sample which touches it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Lists {
    /// `(B, tiles, 2)`: where the list of each tile begins among those of its batch item, and where it ends. All zeros before
    /// points are counted.
    pub ranges: *mut u32,
    /// `(B)`: how many points the lists of each batch item have. All zeros before they are placed.
    pub totals: *mut u32,
    /// `(B, capacity)`: the lists. Points are counted over the batch item.
    pub points: *mut u32,
    /// Most points that the lists of a batch item can have: each sample of each point touches so many tiles at most.
    pub capacity: u32,
    /// Numbers of tiles of a batch item: as many as blocks of work have warps.
    pub tiles: u32,
}

/// The pieces that long lists are cut into.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    /// How long all long lists are, how many, and how many pieces there are; and a word to fill up. All zeros before lists are
    /// placed.
    pub header: *mut u32,
    /// `(most, 4)`: batch item and tile of each piece, the list's first piece and how many it has.
    pub entries: *mut u32,
    /// `(channel tiles, most)`: for the first piece of each list, how many of its pieces are added up. All zeros before the
    /// gather.
    pub done: *mut u32,
    /// `(most, 4, channel tiles, channels of a tile)`: what the samples of each piece add up to, for the four pixels of the tile.
    pub sums: *mut f32,
    /// Room for pieces: [`MAX_PIECES`](crate::MAX_PIECES), or 0 where no list can be long.
    pub most: u32,
}

/// Arguments of the kernels that make lists.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ListArgs {
    /// The sizes.
    pub sizes: Sizes,
    /// `(N, L)` maps.
    pub maps: *const Level,
    /// `(N, L)` numberings.
    pub grids: *const MapGrid,
    /// Sampling locations `(B, A, P, N, 2)`, x before y, fractions of the image.
    pub locations: *const f32,
    /// The lists.
    pub lists: Lists,
    /// What long ones are cut into.
    pub pieces: Pieces,
    /// Words of the bitmap of each warp that sorts.
    pub bitmap_words: u32,
}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl Send for ListArgs {}
// SAFETY: as above.
unsafe impl Sync for ListArgs {}

/// Arguments of the kernels that gather the gradient of the features.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GatherArgs<T> {
    /// The sizes.
    pub sizes: Sizes,
    /// `(N, L)` maps.
    pub maps: *const Level,
    /// `(blocks, warps)` tiles.
    pub tiles: *const TileOfWarp,
    /// The first blocks of work of a batch item, whose warps share a tile. Numbers of blocks of work over the batch go through the
    /// items in turn.
    pub shared_blocks: u32,
    /// How many of the other blocks of work a block takes, at most [`MAX_TILES_AT_A_TIME`](crate::MAX_TILES_AT_A_TIME).
    pub blocks_at_a_time: u32,
    /// How far apart the blocks of work are that a block takes.
    pub step: u32,
    /// The batch, to divide by.
    pub by_batch: Divisor,
    /// What touches each tile.
    pub lists: Lists,
    /// What long lists are cut into.
    pub pieces: Pieces,
    /// Samples that a warp takes at a time, at most as many as it has lanes; their weights for `by_staged.value` groups are
    /// [`GATHER_WEIGHTS`](crate::GATHER_WEIGHTS) at most.
    pub samples: u32,
    /// Groups that the channels of a tile belong to, at most, to divide by.
    pub by_staged: Divisor,
    /// 16-byte vectors that the weights of a sample are, all of which a tile of channels needs; 0 where they have to be read one
    /// by one.
    pub vectors: u32,
    /// `vectors`, to divide by.
    pub by_vectors: Divisor,
    /// Words of shared memory of each warp: [`gather_warp_words`](crate::gather_warp_words).
    pub words_per_warp: u32,
    /// Sampling locations `(B, A, P, N, 2)`, x before y, fractions of the image.
    pub locations: *const f32,
    /// Weights `(B, A, P, N, L, G)`.
    pub weights: *const T,
    /// Gradient of the output, `(B, A, C)`.
    pub grad_output: *const T,
    /// Gradient of the feature maps, `(B, F, C)`. Every row of a map is written.
    pub grad_features: *mut T,
}

/// A number to divide by, with what replaces the division by a multiplication.
///
/// From "Division by Invariant Integers using Multiplication" (Granlund and Montgomery, 1994), figure 4.1, for
/// dividends below 2³¹: their sum with the product's upper half then fits 32 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divisor {
    /// The number, at least 1.
    pub value: u32,
    /// The lower 32 bits of the multiplier.
    pub magic: u32,
    /// How far to shift.
    pub shift: u32,
}

impl Divisor {
    /// For dividing by `value`, or by 1 if that is 0: there is nothing to divide then.
    pub const fn new(value: u32) -> Self {
        let value = if value == 0 { 1 } else { value };
        let shift = 32 - (value - 1).leading_zeros();
        let magic = ((1u64 << 32) * ((1u64 << shift) - value as u64) / value as u64 + 1) as u32;
        Self { value, magic, shift }
    }

    /// The quotient of a number below 2³¹.
    #[inline(always)]
    pub const fn quotient(&self, number: u32) -> u32 {
        let upper = ((self.magic as u64 * number as u64) >> 32) as u32;
        upper.wrapping_add(number) >> self.shift
    }

    /// Quotient and remainder of a number below 2³¹.
    #[inline(always)]
    pub const fn divide(&self, number: u32) -> (u32, u32) {
        let quotient = self.quotient(number);
        (quotient, number.wrapping_sub(quotient.wrapping_mul(self.value)))
    }
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
    /// 1 when feature rows may belong to several maps, else 0.
    pub shared_rows: u32,
    /// `anchors`, to divide by.
    pub by_anchors: Divisor,
    /// `points`, to divide by.
    pub by_points: Divisor,
    /// Parts into which the points of an anchor are cut, to divide by. Each is a block's; the naive kernels do not look at
    /// it.
    pub by_parts: Divisor,
    /// Points of a part but the last, which may have fewer, to divide by.
    pub by_part: Divisor,
    /// `cameras`, to divide by.
    pub by_cameras: Divisor,
    /// `levels`, to divide by.
    pub by_levels: Divisor,
    /// `groups`, to divide by.
    pub by_groups: Divisor,
    /// Channels of a group, to divide by.
    pub by_group: Divisor,
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
        self.by_group.value
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
    /// Output `(B, A, C)`. The naive kernels add to it, in fp32; the others write every element, unless there are several
    /// parts.
    pub output: *mut O,
    /// Where there are several, what each part adds to the output, `(B, A, parts, C)`. The naive kernels do not look at it.
    pub partials: *mut f32,
}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl<T, O> Send for ForwardArgs<T, O> {}
// SAFETY: as above.
unsafe impl<T, O> Sync for ForwardArgs<T, O> {}

/// Arguments of the kernels that add up the parts of the output.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AddPartsArgs<T> {
    /// What each part adds to the output, `(B, A, parts, C)`.
    pub partials: *const f32,
    /// Output `(B, A, C)`; every element is written.
    pub output: *mut T,
    /// Parts of an anchor.
    pub parts: u32,
    /// Channels, `C`.
    pub channels: u32,
}

// SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
unsafe impl<T> Send for AddPartsArgs<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for AddPartsArgs<T> {}

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
    /// What a block holds at a time. The naive kernels do not look at it.
    pub window: WindowSizes,
    /// 1 to leave the gradients of (point, camera) pairs that count on no level as they are, 0 to write zeros there. The naive kernels
    /// do not look at it.
    pub leaves_unseen: u32,
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
