//! What a lane reads of a panel in shared memory.

use crate::dense::operand::{Left, Operand, Right, Side};
use crate::memory::SharedWords;

/// An operand in a panel.
#[derive(Clone, Copy)]
pub(crate) struct Staged {
    /// Where the lane begins to read, as the arithmetic says.
    words: SharedWords,
    /// Words between neighbours in depth, where lines are neighbours in memory.
    pitch: u32,
}

impl Staged {
    #[inline(always)]
    pub(crate) fn new(words: SharedWords, pitch: u32) -> Self {
        Self { words, pitch }
    }

    /// The same so many words further on.
    #[inline(always)]
    pub(crate) fn from(self, words: u32) -> Self {
        Self { words: self.words.from(words), ..self }
    }

    /// Where a lane that takes four lines of the left operand begins to read.
    #[inline(always)]
    pub(crate) fn left_start<L: Operand>(lane: u32) -> u32 {
        let line = Left::of_lane(L::ALONG_DEPTH, lane, 0);
        if L::ALONG_DEPTH { Left::line(line) } else { line }
    }

    /// Four words of words `4 * half` to `4 * half + 3` of the lane's four lines of the left operand: piece by piece as they lie in
    /// memory, each a line or a word.
    ///
    /// # Safety
    ///
    /// The operand is complete, and nobody writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn left_piece<L: Operand>(&self, half: u32, piece: usize) -> [u32; 4] {
        let piece = piece as u32;
        // SAFETY: the caller's promise.
        unsafe {
            if L::ALONG_DEPTH {
                return self.words.get4(Left::line(8) * piece + 4 * half);
            }
            let at = (4 * half + piece) * self.pitch;
            let [[a, b], [c, d]] = [self.words.get2(at), self.words.get2(at + 16)];
            [a, b, c, d]
        }
    }

    /// Which of the lane's lines of the left operand a word of a piece belongs to, and which word of it that is.
    #[inline(always)]
    pub(crate) fn of_left<L: Operand>(piece: usize, index: usize) -> [usize; 2] {
        if L::ALONG_DEPTH { [piece, index] } else { [index, piece] }
    }

    /// Where a lane that takes eight neighbouring lines of the right operand begins to read.
    #[inline(always)]
    pub(crate) fn right_start<R: Operand>(lane: u32) -> u32 {
        let line = lane % 4 * 8;
        if R::ALONG_DEPTH { Right::line(line) } else { line }
    }

    /// As [`left_piece`](Self::left_piece), of the lane's eight lines of the right operand: a line, or half of a word.
    ///
    /// # Safety
    ///
    /// As for [`left_piece`](Self::left_piece).
    #[inline(always)]
    pub(crate) unsafe fn right_piece<R: Operand>(&self, half: u32, piece: usize) -> [u32; 4] {
        let piece = piece as u32;
        let at = if R::ALONG_DEPTH {
            Right::line(piece) + 4 * half
        } else {
            (4 * half + piece / 2) * self.pitch + piece % 2 * 4
        };
        // SAFETY: the caller's promise.
        unsafe { self.words.get4(at) }
    }

    /// As [`of_left`](Self::of_left), for the right operand.
    #[inline(always)]
    pub(crate) fn of_right<R: Operand>(piece: usize, index: usize) -> [usize; 2] {
        if R::ALONG_DEPTH { [piece, index] } else { [piece % 2 * 4 + index, piece / 2] }
    }
}

/// What tensor cores take.
#[cfg(any(not(target_arch = "nvptx64"), cuda_arch_ge_80))]
mod factors {
    use super::Staged;
    use crate::dense::operand::{Left, Operand, Right, Side};
    use crate::unroll::array4;

    impl Staged {
        /// Where a lane of a product on tensor cores begins to read the left operand, of which neighbours in depth lie `pitch` apart
        /// where lines are neighbours.
        #[inline(always)]
        pub(crate) fn left_factors_start<L: Operand>(lane: u32, pitch: u32) -> u32 {
            if L::ALONG_DEPTH {
                Left::line(lane % 16) + lane / 16 * 4
            } else {
                lane % 4 * pitch + lane / 4 * 2
            }
        }

        /// The factors of one of two products of 16 lines of the left operand.
        ///
        /// # Safety
        ///
        /// The whole warp makes the call; the operand is complete, and nobody writes it meanwhile.
        #[inline(always)]
        pub(crate) unsafe fn left_factors<L: Operand>(&self, number: u32) -> [u32; 4] {
            // SAFETY: the caller's promise.
            unsafe {
                if L::ALONG_DEPTH {
                    return self.words.get_matrices(Left::line(16) * number);
                }
                let at = 16 * number;
                let [[a, b], [c, d]] =
                    [self.words.get2(at), self.words.get2(4 * self.pitch + at)];
                [a, b, c, d]
            }
        }

        /// Where a lane of a product on tensor cores begins to read the right operand.
        #[inline(always)]
        pub(crate) fn right_factors_start<R: Operand>(lane: u32, pitch: u32) -> u32 {
            if R::ALONG_DEPTH {
                Right::line(lane % 8 + lane / 16 * 8) + lane / 8 % 2 * 4
            } else {
                lane % 4 * pitch + lane / 4
            }
        }

        /// The factors of four products of eight neighbouring lines of the right operand.
        ///
        /// # Safety
        ///
        /// As for [`left_factors`](Self::left_factors).
        #[inline(always)]
        pub(crate) unsafe fn right_factors<R: Operand>(&self) -> [[u32; 2]; 4] {
            // SAFETY: the caller's promise.
            unsafe {
                if R::ALONG_DEPTH {
                    let [a, b, c, d] = self.words.get_matrices(0);
                    let [e, f, g, h] = self.words.get_matrices(Right::line(16));
                    return [[a, b], [c, d], [e, f], [g, h]];
                }
                // One by one: tensor cores take the two factors of a product from neighbouring registers.
                array4(|product| {
                    let line = 8 * product as u32;
                    [self.words.get(line), self.words.get(4 * self.pitch + line)]
                })
            }
        }
    }
}
