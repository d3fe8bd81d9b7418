//! The matrices of a product as its lines, which are rows or columns of the product, by depth; and where lines lie in shared
//! memory.

use crate::dense::arithmetic::Arithmetic;
use crate::dense::rows::Matrix;
use crate::memory;
use crate::tiles::Tiles;
use crate::unroll::array4;

/// A matrix as a product reads it.
pub(crate) trait Operand: Copy {
    /// The matrix.
    type Matrix: Matrix;

    /// Whether neighbours in memory are neighbours in depth, or else neighbouring lines.
    const ALONG_DEPTH: bool;

    /// The matrix.
    fn matrix(&self) -> &Self::Matrix;

    /// The words of a step of depth that two runs make, or one where a word has one depth.
    fn words<M: Arithmetic>(&self, runs: [RunOf<Self>; 2]) -> [u32; 4];
}

/// Four neighbours of an operand.
pub(crate) type RunOf<O> = <<O as Operand>::Matrix as Matrix>::Run;

/// A matrix whose rows are the lines of a product.
#[derive(Clone, Copy)]
pub(crate) struct ByRow<X>(pub(crate) X);

impl<X: Matrix> Operand for ByRow<X> {
    type Matrix = X;

    const ALONG_DEPTH: bool = true;

    #[inline(always)]
    fn matrix(&self) -> &X {
        &self.0
    }

    #[inline(always)]
    fn words<M: Arithmetic>(&self, [near, far]: [X::Run; 2]) -> [u32; 4] {
        if let (Some([a, b]), Some([c, d])) = (self.0.pairs::<M>(near), self.0.pairs::<M>(far)) {
            return [a, b, c, d];
        }
        let near = self.0.values(near);
        if M::DEPTHS == 1 {
            return array4(|index| M::word(near[index], 0.0));
        }
        let far = self.0.values(far);
        let pair = |of: [f32; 4], first: usize| M::word(of[first], of[first + 1]);
        [pair(near, 0), pair(near, 2), pair(far, 0), pair(far, 2)]
    }
}

/// A matrix whose columns are the lines of a product.
#[derive(Clone, Copy)]
pub(crate) struct ByColumn<X>(pub(crate) X);

impl<X: Matrix> Operand for ByColumn<X> {
    type Matrix = X;

    const ALONG_DEPTH: bool = false;

    #[inline(always)]
    fn matrix(&self) -> &X {
        &self.0
    }

    #[inline(always)]
    fn words<M: Arithmetic>(&self, [near, far]: [X::Run; 2]) -> [u32; 4] {
        if let (Some(near), Some(far)) = (self.0.pairs::<M>(near), self.0.pairs::<M>(far)) {
            return array4(|index| {
                let (near, far) = (near[index / 2], far[index / 2]);
                if index % 2 == 0 {
                    memory::low_halves(near, far)
                } else {
                    memory::high_halves(near, far)
                }
            });
        }
        let near = self.0.values(near);
        if M::DEPTHS == 1 {
            return array4(|index| M::word(near[index], 0.0));
        }
        let far = self.0.values(far);
        array4(|index| M::word(near[index], far[index]))
    }
}

/// Which operand of a product.
pub(crate) trait Side {
    /// Lines of a block.
    fn lines(tiles: Tiles) -> u32;

    /// First word of the operand in a panel.
    fn start(tiles: Tiles) -> u32;

    /// Where the words of a line begin, where depths are neighbours in memory. The gaps see to it that what the lanes of a warp
    /// read together lies in different banks.
    #[inline(always)]
    fn line(line: u32) -> u32 {
        Tiles::DEPTH * line + line / 4 * 4
    }

    /// Words between neighbours in depth, where lines are neighbours in memory; the gap is for the same end.
    #[inline(always)]
    fn pitch(tiles: Tiles) -> u32 {
        Self::lines(tiles) + 8
    }
}

/// The left operand, whose lines are rows of the product.
pub(crate) struct Left;

impl Side for Left {
    #[inline(always)]
    fn lines(tiles: Tiles) -> u32 {
        tiles.rows()
    }

    #[inline(always)]
    fn start(_: Tiles) -> u32 {
        0
    }

}

impl Left {
    /// The line of a tile that a lane has as its line `index` in the product.
    #[inline(always)]
    pub(crate) fn of_lane(along_depth: bool, lane: u32, index: u32) -> u32 {
        // Lines that are neighbours in memory are read two at a time.
        if along_depth { lane / 4 + 8 * index } else { index / 2 * 16 + lane / 4 * 2 + index % 2 }
    }
}

/// The right operand, whose lines are columns of the product.
pub(crate) struct Right;

impl Side for Right {
    #[inline(always)]
    fn lines(tiles: Tiles) -> u32 {
        tiles.columns()
    }

    #[inline(always)]
    fn start(tiles: Tiles) -> u32 {
        tiles.right()
    }
}
