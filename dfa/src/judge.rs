//! The fp64 reference on all cores, for sizes at which one core takes too long.

use deformable_aggregation::{BorderRule, Element, Gradients, Result, reference};
use ndarray::{Array, Axis, RemoveAxis, Slice, concatenate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::compare::relative_l2;
use crate::data::{Data, Results};

/// The output and the gradients of some data, summed in fp64, the anchors dealt out to `parts` cores.
///
/// Every part needs an fp64 feature gradient of its own.
///
/// # Errors
///
/// Those of [`reference::exact`].
pub fn exact<T: Element>(data: &Data<T>, rule: BorderRule, parts: usize) -> Result<Results<f64>> {
    let anchors = data.shape.anchors();
    let step = anchors.div_ceil(parts.max(1)).max(1);
    let parts = (0..anchors.div_ceil(step).max(1)).into_par_iter().map(|part| {
        let range = Slice::from(part * step..((part + 1) * step).min(anchors));
        let part = data.part(Slice::from(..), range)?;
        reference::exact(&part.shape, rule, part.inputs(), part.grad_output.view())
    });
    let parts: Vec<reference::Sums> = parts.collect::<Result<_>>()?;
    Ok(joined(parts))
}

/// Into how many parts anchors are usually dealt out: the threads there are, but not more than four, as each takes memory.
pub fn threads() -> usize {
    rayon::current_num_threads().min(4)
}

/// Puts the anchors of all parts together again and adds up their shares of the feature gradient.
fn joined(mut parts: Vec<reference::Sums>) -> Results<f64> {
    let outputs: Vec<_> = parts.iter().map(|part| part.output.view()).collect();
    let output = concatenate(Axis(1), &outputs).expect("parts differ in anchors only");
    let locations: Vec<_> =
        parts.iter().map(|part| part.gradients.sampling_locations.view()).collect();
    let sampling_locations =
        concatenate(Axis(1), &locations).expect("parts differ in anchors only");
    let weights: Vec<_> = parts.iter().map(|part| part.gradients.weights.view()).collect();
    let weights = concatenate(Axis(1), &weights).expect("parts differ in anchors only");
    let mut feature_maps = parts.swap_remove(0).gradients.feature_maps;
    for part in &parts {
        feature_maps += &part.gradients.feature_maps;
    }
    Results { output, gradients: Gradients { feature_maps, sampling_locations, weights } }
}

/// Relative L2 error of each quantity in one item of a batch, in the order of [`Quantity::ALL`](crate::data::Quantity::ALL); `exact` has that item
/// alone.
pub fn item_errors<T: Element>(
    results: &Results<T>,
    item: usize,
    exact: &Results<f64>,
) -> [f64; 4] {
    fn error<A: Copy, D: RemoveAxis>(
        results: &Array<A, D>,
        item: usize,
        exact: &Array<f64, D>,
        wide: impl Fn(A) -> f64,
    ) -> f64 {
        let results = results.index_axis(Axis(0), item);
        relative_l2(results.iter().map(|&value| wide(value)), exact.iter().copied())
    }
    let (gradients, exact_gradients) = (&results.gradients, &exact.gradients);
    [
        error(&results.output, item, &exact.output, T::to_f64),
        error(&gradients.feature_maps, item, &exact_gradients.feature_maps, T::to_f64),
        error(&gradients.sampling_locations, item, &exact_gradients.sampling_locations, Into::into),
        error(&gradients.weights, item, &exact_gradients.weights, T::to_f64),
    ]
}

/// Which items of a batch to check: the first, the last, where indices that overflow go wrong first, and one between them that
/// the seed draws.
pub fn sampled_items(batch: usize, seed: u64) -> Vec<usize> {
    match batch {
        0..=2 => (0..batch).collect(),
        _ => {
            let between = ChaCha8Rng::seed_from_u64(seed).random_range(1..batch - 1);
            vec![0, between, batch - 1]
        }
    }
}

/// The exact results of the sampled items of a batch, each alone, under the operator's border rule.
///
/// # Errors
///
/// Those of [`exact`].
pub fn sampled<T: Element>(data: &Data<T>, seed: u64) -> Result<Vec<(usize, Results<f64>)>> {
    let exact = |item: usize| {
        let alone = data.part(Slice::from(item..=item), Slice::from(..))?;
        Ok((item, exact(&alone, BorderRule::Operator, threads())?))
    };
    sampled_items(data.shape.batch(), seed).into_iter().map(exact).collect()
}

/// The largest error of each quantity in the judged items, in the order of [`Quantity::ALL`](crate::data::Quantity::ALL).
pub fn largest_errors<T: Element>(
    results: &Results<T>,
    judged: &[(usize, Results<f64>)],
) -> [f64; 4] {
    judged.iter().fold([0.0; 4], |largest, (item, exact)| {
        let errors = item_errors(results, *item, exact);
        std::array::from_fn(|index| largest[index].max(errors[index]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn parts_give_what_the_whole_gives() {
        for number in 0..5 {
            let data = cases::random(9, number).expect("valid sizes").converted::<f64>();
            let whole = exact(&data, BorderRule::Operator, 1).expect("computed");
            let parts = exact(&data, BorderRule::Operator, 4).expect("computed");
            for item in 0..data.shape.batch() {
                let alone = data.part(Slice::from(item..=item), Slice::from(..)).expect("valid");
                let alone = exact(&alone, BorderRule::Operator, 1).expect("computed");
                for (results, limit) in [(&parts, 1e-14), (&whole, 0.0)] {
                    for error in item_errors(results, item, &alone) {
                        assert!(error <= limit, "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_wrong_item_and_a_single_nan_are_errors() {
        let data = (0..).find_map(|number| {
            let data = cases::random(9, number).expect("valid sizes").converted::<f64>();
            (data.shape.batch() > 1 && data.shape.anchors() > 0).then_some(data)
        });
        let data = data.expect("some case has a batch");
        let mut whole = exact(&data, BorderRule::Operator, 1).expect("computed");
        let last = data.part(Slice::from(-1..), Slice::from(..)).expect("valid");
        let last = exact(&last, BorderRule::Operator, 1).expect("computed");
        assert!(item_errors(&whole, 0, &last)[0] > 1e-3);
        let item = data.shape.batch() - 1;
        *whole.gradients.weights.iter_mut().last().expect("some weights") = f64::NAN;
        assert_eq!(item_errors(&whole, item, &last)[..3], [0.0; 3]);
        assert!(item_errors(&whole, item, &last)[3].is_infinite());
    }

    #[test]
    fn items_are_sampled_over_the_whole_batch() {
        assert_eq!(sampled_items(1, 0), [0]);
        assert_eq!(sampled_items(2, 0), [0, 1]);
        let mut between: Vec<_> = (0..50).map(|seed| sampled_items(12, seed)[1]).collect();
        between.sort_unstable();
        between.dedup();
        assert!(between.len() > 5 && between[0] >= 1 && between[between.len() - 1] <= 10);
        assert_eq!(sampled_items(3, 7), [0, 1, 2]);
    }
}
