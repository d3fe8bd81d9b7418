//! The fp64 reference on all cores, for sizes at which one core takes too long.

use deformable_aggregation::{BorderRule, Element, Gradients, Result, reference};
use ndarray::{Axis, Slice, concatenate};
use rayon::prelude::*;

use crate::data::{Data, Quantity, Results};

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

/// Relative L2 error of each quantity, in the order of [`Quantity::ALL`].
pub fn errors<T: Element>(results: &Results<T>, exact: &Results<f64>) -> [f64; 4] {
    Quantity::ALL.map(|quantity| {
        crate::compare::relative_l2(&results.values(quantity), &exact.values(quantity))
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
            for error in errors(&parts, &whole) {
                assert!(error < 1e-14, "{error}");
            }
        }
    }
}
