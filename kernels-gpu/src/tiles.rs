//! How the warps of a block share a product of matrices, which host and kernels agree on.
//!
//! A warp computes tiles of 32 rows by 32 columns. Where there are few tiles a block has one, and its eight warps share the depth:
//! so a small product has eight warps a tile that load long stretches of its lines at the same time. Where there are many, a
//! block has up to eight, two down and four across, and what it moves through shared memory serves several of them.

use crate::limits::WARP_LANES;

/// The tiles of a block, as powers of two.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// The exponent of the tiles one below the other.
    down: u32,
    /// The exponent of the tiles side by side.
    across: u32,
}

impl Tiles {
    /// Rows of a tile, and columns.
    pub(crate) const SIDE: u32 = 32;

    /// Threads of a block.
    pub const THREADS: u32 = 256;

    /// Warps of a block.
    const WARPS: u32 = Self::THREADS / WARP_LANES;

    /// Words of depth of a panel: what a warp multiplies at a time.
    pub(crate) const DEPTH: u32 = 8;

    /// Words of a line of an operand in a panel, with their share of the gaps.
    const LINE: u32 = Self::DEPTH + 2;

    /// Words from a row of a warp's sums to the next. The gap sees to it that neighbouring rows lie in different banks.
    pub(crate) const SUMS_ROW: u32 = Self::SIDE + 4;

    /// Words of a warp's sums.
    pub(crate) const SUMS: u32 = Self::SIDE * Self::SUMS_ROW;

    /// The ways there are, from one tile to as many as warps.
    pub const ALL: [Self; 4] = [Self::of(0, 0), Self::of(1, 0), Self::of(1, 1), Self::of(1, 2)];

    const fn of(down: u32, across: u32) -> Self {
        Self { down, across }
    }

    /// Rows of the block's tiles.
    #[inline(always)]
    pub const fn rows(self) -> u32 {
        Self::SIDE << self.down
    }

    /// Columns of the block's tiles.
    #[inline(always)]
    pub const fn columns(self) -> u32 {
        Self::SIDE << self.across
    }

    /// How many blocks have so many columns.
    #[inline(always)]
    pub(crate) const fn blocks_across(self, columns: u32) -> u32 {
        // Not a division, which the compiler would guard.
        let exponent = Self::SIDE.trailing_zeros() + self.across;
        (columns >> exponent) + (columns & (self.columns() - 1) != 0) as u32
    }

    /// Rows of the blocks that have `rows` rows: those, rounded up.
    #[inline(always)]
    pub(crate) const fn rows_of_blocks(self, rows: u64) -> u64 {
        let last = self.rows() as u64 - 1;
        (rows + last) & !last
    }

    /// The exponent of the tiles side by side.
    #[inline(always)]
    pub(crate) const fn across(self) -> u32 {
        self.across
    }

    /// The exponent of all tiles.
    #[inline(always)]
    pub(crate) const fn exponent(self) -> u32 {
        self.down + self.across
    }

    /// Warps that share the depth of a tile.
    #[inline(always)]
    pub(crate) const fn parts(self) -> u32 {
        Self::WARPS >> self.exponent()
    }

    /// Panels of each part of the depth that a block moves through shared memory at a time.
    #[inline(always)]
    pub(crate) const fn panels_of_part(self) -> u32 {
        if self.parts() < 4 { 2 } else { 1 }
    }

    /// All of them: a power of two.
    #[inline(always)]
    pub(crate) const fn panels(self) -> u32 {
        self.parts() * self.panels_of_part()
    }

    /// First word of the right operand in a panel, behind the left one.
    #[inline(always)]
    pub(crate) const fn right(self) -> u32 {
        Self::LINE * self.rows()
    }

    /// Words of a panel. The gap behind it sees to it that neighbouring depths of a line, which neighbouring threads write,
    /// lie in different banks.
    #[inline(always)]
    pub(crate) const fn panel_words(self) -> u32 {
        let words = Self::LINE * (self.rows() + self.columns());
        let bank = if self.panels() < 4 { 16 } else { 8 };
        words + (bank + 32 - words % 32) % 32
    }

    /// Words of the panels that a block moves at a time. There are two of them in shared memory: one is filled while the other is
    /// multiplied.
    #[inline(always)]
    pub(crate) const fn step_words(self) -> u32 {
        self.panels() * self.panel_words()
    }

    /// Bytes of shared memory of a block: the panels, and after them the sums of all warps.
    pub const fn shared_bytes(self) -> u32 {
        let (panels, sums) = (2 * self.step_words(), Self::WARPS * Self::SUMS);
        4 * if panels > sums { panels } else { sums }
    }
}
