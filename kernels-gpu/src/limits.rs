//! The numbers kernels and host agree on: limits of a block and the layout of its shared memory.

/// Channels of a tile in one lane.
pub const CHANNELS_PER_LANE: u32 = 8;

/// Lanes of a warp.
pub const WARP_LANES: u32 = 32;

/// (point, camera) pairs a block looks at before it works on the visible ones of them.
pub(crate) const PAIRS_AT_A_TIME: u32 = 1024;

/// Words of a staged sample.
pub(crate) const SAMPLE_WORDS: u32 = 8;

/// Most warps a block may have: a warp's lanes hold one number of each.
pub const MAX_WARPS: u32 = 16;

/// Pixels along each side of a tile of the gather.
pub const TILE_SIDE: u32 = 2;

/// Most cells of a [`Band`](crate::args::Band): their counters fit the shared memory every GPU has.
pub const MAX_BAND_CELLS: u32 = 8192;

/// More samples than this make a tile crowded: it is left to a whole block.
pub const CROWDED: u32 = 64;

/// Shared memory of a block of the sorting kernel, in 32-bit words.
pub(crate) mod sort_words {
    use super::{MAX_BAND_CELLS, PAIRS_AT_A_TIME, shared_words};

    /// For each point of the list, which lies where that of pairs does elsewhere: its cell, then its place.
    pub(crate) const PLACES: u32 = shared_words::SCRATCH;
    /// A counter per cell.
    pub(crate) const CELLS: u32 = PLACES + PAIRS_AT_A_TIME;
    /// Samples of the map in earlier bands.
    pub(crate) const EARLIER: u32 = CELLS + MAX_BAND_CELLS;

    /// Bytes for a block of any size.
    pub(crate) const BYTES: u32 = (EARLIER + 1) * 4;
}

/// Shared memory of a block of the gather for crowded tiles: each lane's sums for the pixels of a tile.
pub(crate) const fn gather_bytes(warps: u32) -> u32 {
    warps * WARP_LANES * CHANNELS_PER_LANE * TILE_SIDE * TILE_SIDE * 4
}

/// Shared memory of a block of the forward and backward kernels, in 32-bit words, and where its parts
/// begin.
pub(crate) mod shared_words {
    use super::{CHANNELS_PER_LANE, MAX_WARPS, PAIRS_AT_A_TIME, SAMPLE_WORDS, WARP_LANES};

    /// Visible pairs found by each warp in one step.
    pub(crate) const COUNTS: u32 = 0;
    /// The visible pairs.
    pub(crate) const VISIBLE: u32 = COUNTS + MAX_WARPS;
    /// Scratch of the warps: staged samples, partial sums, products of a tile.
    pub(crate) const SCRATCH: u32 = VISIBLE + PAIRS_AT_A_TIME;
    /// Scratch of one warp.
    pub(crate) const SCRATCH_PER_WARP: u32 = WARP_LANES * SAMPLE_WORDS;

    // A warp's partial sums take the place of its staged samples.
    const _: () = assert!(SCRATCH_PER_WARP >= WARP_LANES * CHANNELS_PER_LANE);

    /// Bytes for a block of `warps` warps.
    pub(crate) const fn bytes(warps: u32) -> u32 {
        (SCRATCH + warps * SCRATCH_PER_WARP) * 4
    }
}

/// Rows and columns of the tile of a product that a block computes.
pub const PRODUCT_TILE: u32 = 64;

/// Threads of a block that computes a tile of a product.
pub const PRODUCT_THREADS: u32 = 128;

/// Steps of depth that pass through shared memory together.
pub const PRODUCT_DEPTH: u32 = 16;

/// Words between neighbours in depth: chosen so that the lanes of a warp, four depths by eight lines, read from all banks.
pub(crate) const PRODUCT_PITCH: u32 = PRODUCT_TILE + 8;

/// Bytes of shared memory for a product: two operands, two buffers.
pub const PRODUCT_BYTES: u32 = 2 * 2 * PRODUCT_DEPTH * PRODUCT_PITCH * 4;

/// Bytes of shared memory of a block that makes weights: a word for each thread it may have, and two for each group.
pub const fn weights_bytes(groups: u32) -> u32 {
    (32 * WARP_LANES + 2 * groups) * 4
}

/// Bytes of shared memory of a block of the camera encoder: a word for each warp, and two for each channel.
pub const fn camera_bytes(channels: u32) -> u32 {
    (WARP_LANES + 2 * channels) * 4
}
