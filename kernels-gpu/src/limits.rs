//! The numbers kernels and host agree on: limits of a block and the layout of its shared memory.

/// Channels of a tile in one lane.
pub const CHANNELS_PER_LANE: u32 = 8;

/// Lanes of a warp.
pub const WARP_LANES: u32 = 32;

/// Channels of a tile whose samples a warp takes to the tensor cores.
pub const TENSOR_CHANNELS: u32 = CHANNELS_PER_LANE * WARP_LANES;

/// Most warps a block may have: the length of the list of what each warp has counted.
pub const MAX_WARPS: u32 = 16;

/// Points from which on an anchor has many: they meet in the same pixels.
pub const MANY_POINTS: u32 = 64;

/// (point, camera) pairs a block looks at before it works on the visible ones of them.
pub(crate) const PAIRS_AT_A_TIME: u32 = 512;

/// Words of a staged sample.
pub(crate) const SAMPLE_WORDS: u32 = 8;

/// Most distinct rows a block holds at a time.
pub(crate) const MAX_ROWS: u32 = 256;

/// Slots of the lookup of rows, a power of two, more than rows.
pub(crate) const LOOKUP_SLOTS: u32 = 512;

const _: () = assert!(LOOKUP_SLOTS.is_power_of_two() && LOOKUP_SLOTS > MAX_ROWS);

/// Most samples a block holds at a time.
pub(crate) const MAX_SAMPLES: u32 = 128;

/// Words that the table of rows by groups may take when there are many groups.
const TABLE_WORDS: u32 = 5632;

/// Words that the weights of samples may take when there are many groups.
const WEIGHT_WORDS: u32 = 2048;

/// Most groups a block can hold: a sample has four rows.
pub const MAX_GROUPS: u32 = TABLE_WORDS / 4 - 1;

/// Pixels along each side of a tile of the gather.
pub const TILE_SIDE: u32 = 2;

/// Threads of a block of the kernels that make lists.
pub const LIST_THREADS: u32 = 256;

/// Most words of the bitmap by which a warp sorts a list.
pub const MAX_BITMAP_WORDS: u32 = 1024;

/// Points up to which a list is one warp's work, or one block's where the warps of a block share it.
pub const LONG_LIST: u32 = 2048;

/// Fewest points of a piece of a longer list.
pub(crate) const PIECE_POINTS: u32 = 512;

/// Most pieces of all long lists together.
pub const MAX_PIECES: u32 = 256;

/// What a block of the backward kernels holds at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSizes {
    /// Distinct rows, at least four.
    pub rows: u32,
    /// Samples, at least one.
    pub samples: u32,
}

impl WindowSizes {
    /// As many as there is room for with so many groups, up to [`MAX_GROUPS`].
    pub const fn new(groups: u32) -> Self {
        let rows = TABLE_WORDS / window_words::stride(groups);
        let samples = WEIGHT_WORDS / if groups == 0 { 1 } else { groups };
        Self {
            rows: if rows < MAX_ROWS { rows } else { MAX_ROWS },
            samples: if samples == 0 {
                1
            } else if samples < MAX_SAMPLES {
                samples
            } else {
                MAX_SAMPLES
            },
        }
    }
}

/// Shared memory of a block that works on distinct rows, in 32-bit words, and where its parts begin.
pub(crate) mod window_words {
    use super::{
        CHANNELS_PER_LANE, LOOKUP_SLOTS, MAX_ROWS, MAX_SAMPLES, MAX_WARPS, PAIRS_AT_A_TIME,
        WARP_LANES, WindowSizes,
    };

    /// What each warp has counted.
    pub(crate) const COUNTS: u32 = 0;
    /// The visible pairs.
    pub(crate) const VISIBLE: u32 = COUNTS + MAX_WARPS;
    /// Lookup of rows.
    pub(crate) const KEYS: u32 = VISIBLE + PAIRS_AT_A_TIME;
    /// Lookup of rows.
    pub(crate) const VALUES: u32 = KEYS + LOOKUP_SLOTS;
    /// The rows by number.
    pub(crate) const ROWS: u32 = VALUES + LOOKUP_SLOTS;
    /// Places of the samples' corners in the table.
    pub(crate) const PLACES: u32 = ROWS + MAX_ROWS;
    /// Coefficients of the samples' corners.
    pub(crate) const COEFFICIENTS: u32 = PLACES + 4 * MAX_SAMPLES;
    /// Maps of the samples.
    pub(crate) const MAPS: u32 = COEFFICIENTS + 4 * MAX_SAMPLES;
    /// Derivatives by the locations of the samples.
    pub(crate) const SLOPES: u32 = MAPS + MAX_SAMPLES;
    /// Weights of the samples; behind them the table.
    pub(crate) const WEIGHTS: u32 = SLOPES + 2 * MAX_SAMPLES;

    /// The first word of the table.
    pub(crate) const fn table(sizes: WindowSizes, groups: u32) -> u32 {
        WEIGHTS + sizes.samples * groups
    }

    /// Words of a row of the table: odd, so that the rows of neighbouring lanes lie in different banks.
    pub(crate) const fn stride(groups: u32) -> u32 {
        groups | 1
    }

    /// The first word behind the table.
    pub(crate) const fn end(sizes: WindowSizes, groups: u32) -> u32 {
        table(sizes, groups) + sizes.rows * stride(groups)
    }

    /// Words of a warp's products, or of its sums.
    pub(crate) const PER_WARP: u32 = WARP_LANES * CHANNELS_PER_LANE;
}

/// Bytes of dynamic shared memory that a block of the backward kernels needs, which holds so much for `groups` groups.
/// `scratch_warps` warps have room for their products besides; the wide kernels need none.
pub const fn backward_shared_bytes(sizes: WindowSizes, groups: u32, scratch_warps: u32) -> u32 {
    4 * (window_words::end(sizes, groups) + scratch_warps * window_words::PER_WARP)
}

/// Shared memory of a block of the forward kernels, in 32-bit words, and where its parts begin. Counts and visible pairs
/// lie where they do in [`window_words`].
pub(crate) mod forward_words {
    use super::{CHANNELS_PER_LANE, PAIRS_AT_A_TIME, SAMPLE_WORDS, WARP_LANES, window_words};

    /// Scratch of the warps: staged samples, partial sums.
    pub(crate) const SCRATCH: u32 = window_words::VISIBLE + PAIRS_AT_A_TIME;
    /// Scratch of one warp.
    pub(crate) const SCRATCH_PER_WARP: u32 = WARP_LANES * SAMPLE_WORDS;

    // A warp's partial sums take the place of its staged samples.
    const _: () = assert!(SCRATCH_PER_WARP >= WARP_LANES * CHANNELS_PER_LANE);
}

/// Bytes of dynamic shared memory that a block of `warps` warps of the forward kernels needs.
pub const fn forward_shared_bytes(warps: u32) -> u32 {
    4 * (forward_words::SCRATCH + warps * forward_words::SCRATCH_PER_WARP)
}

/// Shared memory of a block that places lists, in 32-bit words, and where its parts begin. Counts lie where they do in
/// [`window_words`].
pub(crate) mod place_words {
    use super::window_words;

    /// Where the block's lists begin.
    pub(crate) const FIRST: u32 = window_words::VISIBLE;
}

/// Bytes of dynamic shared memory of a block that places lists.
pub const PLACE_SHARED_BYTES: u32 = 4 * (place_words::FIRST + 1);

/// Shared memory of a block that sorts lists, in 32-bit words, and where its parts begin. Counts lie where they do in
/// [`window_words`].
pub(crate) mod sort_words {
    use super::window_words;

    /// Where the pieces of a list begin.
    pub(crate) const FIRST_PIECE: u32 = window_words::VISIBLE;
    /// Long lists, four words each: one for each thread at most. Behind them the warps' bitmaps, one behind the other.
    pub(crate) const QUEUE: u32 = FIRST_PIECE + 4;

    /// The first word of the bitmaps of a block of so many threads.
    pub(crate) const fn bits(threads: u32) -> u32 {
        QUEUE + 4 * threads
    }
}

/// Bytes of dynamic shared memory of a block of `warps` warps that sorts lists, with a bitmap of so many words for each.
pub const fn sort_shared_bytes(warps: u32, bitmap_words: u32) -> u32 {
    4 * (sort_words::bits(warps * WARP_LANES) + warps * bitmap_words)
}

/// Most weights of samples that a warp of the gather holds at a time.
pub const GATHER_WEIGHTS: u32 = CHANNELS_PER_LANE * WARP_LANES;

/// Most tiles that a warp of the gather takes one after the other.
pub const MAX_TILES_AT_A_TIME: u32 = 8;

/// Most runs of samples that a worker of the gather has on their way at a time.
pub(crate) const RUNS_AT_A_TIME: u32 = 4;

/// Shared memory of a warp of the gather, in 32-bit words, and where its parts begin.
pub(crate) mod gather_words {
    use super::{GATHER_WEIGHTS, MAX_TILES_AT_A_TIME, WARP_LANES, window_words};

    /// Coefficients of the samples, four each.
    pub(crate) const COEFFICIENTS: u32 = 0;
    /// What was brought here of samples, and of those behind them: twice as much as is staged of some.
    pub(crate) const STAGED: u32 = COEFFICIENTS + 4 * WARP_LANES;
    /// Weights of the samples, among what is staged.
    pub(crate) const WEIGHTS: u32 = 0;
    /// Locations of the samples, among what is staged.
    pub(crate) const LOCATIONS: u32 = WEIGHTS + GATHER_WEIGHTS;
    /// Words of what is staged.
    pub(crate) const STAGED_WORDS: u32 = LOCATIONS + 2 * WARP_LANES;
    /// The warp's tiles.
    pub(crate) const TILES: u32 = STAGED + 2 * STAGED_WORDS;
    /// Words of a tile.
    pub(crate) const TILE_WORDS: u32 = 8;
    /// The next points of the lists of the warp's tiles.
    pub(crate) const POINTS: u32 = TILES + MAX_TILES_AT_A_TIME * TILE_WORDS;
    /// What runs count for.
    pub(crate) const COUNTS: u32 = POINTS + MAX_TILES_AT_A_TIME * WARP_LANES;

    // A warp's sums for one pixel take the place of its samples.
    const _: () = assert!(POINTS >= window_words::PER_WARP);
}

/// Words of shared memory of a warp of the gather, whose workers have so many lanes, and channels of so many groups.
pub const fn gather_warp_words(lanes: u32, groups: u32) -> u32 {
    // A lane has several runs on their way only where its channels are of fewer groups.
    let (all, most) = (RUNS_AT_A_TIME * groups, lanes * CHANNELS_PER_LANE);
    gather_words::COUNTS + 4 * WARP_LANES / lanes * if all < most { all } else { most }
}

/// Shared memory of a block that makes attention weights, in 32-bit words: a table, and what each warp has.
pub(crate) mod weights_words {
    use super::WARP_LANES;

    /// Pairs of an anchor that a warp looks at at a time: as many as a list has room for.
    pub(crate) const LIST: u32 = 4 * WARP_LANES;

    /// Where the words of the groups begin, behind the list, which has four words for each pair.
    pub(crate) const STATISTICS: u32 = 4 * LIST;

    /// The list, and two words for each group; both begin at multiples of four words.
    pub(crate) const fn of_warp(groups: u32) -> u32 {
        STATISTICS + (2 * groups).next_multiple_of(4)
    }

    /// A table of so many logits, two words for each; what follows it begins at a multiple of four words.
    pub(crate) const fn table(logits: u32) -> u32 {
        (2 * logits).next_multiple_of(4)
    }
}

/// Bytes of shared memory of a block that makes attention weights, with a table of so many logits.
pub const fn weights_bytes(warps: u32, groups: u32, logits: u32) -> u32 {
    4 * (warps * weights_words::of_warp(groups) + weights_words::table(logits))
}

/// (level, point)s that as many neighbouring logits `(L, P, G)` as there are `threads` belong to, at most.
pub(crate) const fn gradient_entries(threads: u32, groups: u32) -> u32 {
    (threads - 1) / if groups > 0 { groups } else { 1 } + 2
}

/// Bytes of shared memory of a block of the backward kernel of the softmax, for each anchor of its run.
pub const fn weights_gradient_bytes(threads: u32, groups: u32) -> u32 {
    4 * (4 * groups + gradient_entries(threads, groups))
}

/// Shared memory of a block of the camera encoder, in 32-bit words, and where its parts begin.
pub(crate) mod camera_words {
    use super::WARP_LANES;

    /// Two words for each warp there may be.
    pub(crate) const SUMS: u32 = 0;
    /// A word for each channel, and behind them as many again, or on the way back a word for each channel and share.
    pub(crate) const VALUES: u32 = 2 * WARP_LANES;
}

/// Bytes of shared memory of a block of the camera encoder of `warps` warps.
pub const fn camera_bytes(channels: u32, warps: u32) -> u32 {
    // One share of all channels, or several that together have no more channels than there are threads.
    let shares = if channels > warps * WARP_LANES { channels } else { warps * WARP_LANES };
    4 * (camera_words::VALUES + channels + shares)
}
