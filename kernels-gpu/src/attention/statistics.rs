//! What a softmax needs to know of many logits: the largest, and the sum of exponentials.

use crate::memory;
use crate::unroll::{array4, each4};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;

/// The largest of some logits times log₂ e, and the sum of `exp(logit - largest)` over them.
#[derive(Clone, Copy)]
pub(crate) struct Statistics {
    pub(crate) largest: f32,
    pub(crate) sum: f32,
}

impl Statistics {
    /// Those of no logits. Finite, so that the difference to a logit of minus infinity is a number.
    pub(crate) const NONE: Self = Self { largest: f32::MIN, sum: 0.0 };

    /// The sum that goes with another largest logit.
    #[inline(always)]
    fn sum_for(self, largest: f32) -> f32 {
        self.sum * memory::exp2(self.largest - largest)
    }

    /// Those of the logits of both.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        let largest = self.largest.max(other.largest);
        Self { largest, sum: self.sum_for(largest) + other.sum_for(largest) }
    }

    /// Those of the logits of all five.
    #[inline(always)]
    pub(crate) fn and_four(self, others: [Self; 4]) -> Self {
        let mut largest = self.largest;
        each4(|index| largest = largest.max(others[index].largest));
        let sums = array4(|index| others[index].sum_for(largest));
        let mut sum = self.sum_for(largest);
        each4(|index| sum += sums[index]);
        Self { largest, sum }
    }
}
