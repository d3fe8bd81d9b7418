//! How many launches a call takes, found out without a device.

use std::cell::Cell;
use std::ptr;

use kernels_gpu::{Entry, Kernels};

use crate::algorithm::Algorithm;
use crate::error::Result;
use crate::kernels::backward::{BackwardArrays, backward};
use crate::kernels::executor::Executor;
use crate::kernels::forward::{ForwardArrays, forward};
use crate::kernels::plan::{Launch, Plan};

/// Launches and clearings of a forward call on aligned arrays.
pub(crate) fn forward_launches<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> Result<usize> {
    let counter = Counter::default();
    let arrays = ForwardArrays::<K> {
        table: ptr::null(),
        features: ptr::null(),
        locations: ptr::null(),
        weights: ptr::null(),
        output: ptr::null_mut(),
        scratch: ptr::null_mut(),
    };
    // SAFETY: the counter follows no pointer.
    unsafe { forward(&counter, plan, algorithm, arrays)? };
    Ok(counter.launches.get())
}

/// Launches and clearings of a backward call on aligned arrays.
pub(crate) fn backward_launches<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> Result<usize> {
    let counter = Counter::default();
    let arrays = BackwardArrays::<K> {
        table: ptr::null(),
        features: ptr::null(),
        locations: ptr::null(),
        weights: ptr::null(),
        grad_output: ptr::null(),
        grad_features: ptr::null_mut(),
        grad_locations: ptr::null_mut(),
        grad_weights: ptr::null_mut(),
        leaves_unseen: false,
        scratch: ptr::null_mut(),
    };
    // SAFETY: as above.
    unsafe { backward(&counter, plan, algorithm, arrays)? };
    Ok(counter.launches.get())
}

/// Launches nothing.
#[derive(Default)]
struct Counter {
    launches: Cell<usize>,
}

impl Executor for Counter {
    unsafe fn launch<A: Copy + Send + Sync>(&self, _: Entry<A>, _: Launch, _: A) -> Result<()> {
        self.launches.set(self.launches.get() + 1);
        Ok(())
    }

    unsafe fn zero(&self, _: &'static str, _: *mut u8, bytes: usize) -> Result<()> {
        self.launches.set(self.launches.get() + usize::from(bytes > 0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kernels_gpu::args::F16;

    use super::*;
    use crate::layout::{FeatureLayout, LevelShape};
    use crate::rule::BorderRule;
    use crate::shape::AggregationShape;

    fn plan(anchors: usize) -> Plan {
        let levels = [(5, 4), (3, 2)].map(|(height, width)| LevelShape { height, width });
        let layout = FeatureLayout::uniform(2, &levels).unwrap();
        let shape = AggregationShape::new(layout, 1, anchors, 3, 32, 4).unwrap();
        Plan::new(&shape, BorderRule::Operator).unwrap()
    }

    #[test]
    fn calls_issue_few_launches() {
        let plan = plan(7);
        for algorithm in [Algorithm::Fast, Algorithm::Repeatable] {
            let forward = [
                forward_launches::<f32>(&plan, algorithm).unwrap(),
                forward_launches::<F16>(&plan, algorithm).unwrap(),
            ];
            let backward = [
                backward_launches::<f32>(&plan, algorithm).unwrap(),
                backward_launches::<F16>(&plan, algorithm).unwrap(),
            ];
            assert!(forward.iter().all(|launches| (1..=3).contains(launches)), "{forward:?}");
            assert!(backward.iter().all(|launches| (1..=8).contains(launches)), "{backward:?}");
        }
    }

    #[test]
    fn clearing_counts_and_nothing_to_do_does_not() {
        // Two clearings of sums, one of the location gradient, the kernel, two roundings.
        assert_eq!(backward_launches::<F16>(&plan(7), Algorithm::Naive).unwrap(), 6);
        assert_eq!(backward_launches::<f32>(&plan(7), Algorithm::Naive).unwrap(), 4);
        assert_eq!(forward_launches::<f32>(&plan(0), Algorithm::Fast).unwrap(), 0);
    }
}
