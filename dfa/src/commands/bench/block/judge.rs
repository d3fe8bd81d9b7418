//! Some anchors of the block again in fp64, and how far a result is from them.

use anyhow::Result;
use deformable_aggregation::block::BlockGradients;
use deformable_aggregation::{Backend, Element};
use ndarray::{Array3, Axis, s};

use crate::block::BlockData;
use crate::compare::relative_l2;
use crate::engines::Engine;

/// Anchors of each sampled batch item that are computed again in fp64.
const SAMPLED: usize = 24;

/// Some anchors of a batch item, computed in fp64.
pub(super) struct Judged {
    item: usize,
    output: Array3<f64>,
    gradients: BlockGradients<f64>,
}

/// The first anchors of the first and the last batch item by the CPU in fp64. What an anchor gets does not depend on the others.
pub(super) fn judge<T: Element>(data: &BlockData<T>) -> Result<Vec<Judged>> {
    let batch = data.instance_feature.dim().0;
    let mut items = vec![0, batch - 1];
    items.dedup();
    items
        .into_iter()
        .map(|item| {
            let part = part_of(data, item).converted::<f64>()?;
            let cpu = Engine {
                name: crate::engines::BackendName::Cpu,
                backend: Backend::Cpu,
                algorithm: deformable_aggregation::Algorithm::Fast,
            };
            let block = part.block(&cpu)?;
            let (output, context) = block.forward_with_context(part.inputs(), part.mode())?;
            let gradients = context.backward(part.grad_output.view())?;
            Ok(Judged { item, output, gradients })
        })
        .collect()
}

/// The first anchors of one batch item.
fn part_of<T: Element>(data: &BlockData<T>, item: usize) -> BlockData<T> {
    let anchors = SAMPLED.min(data.instance_feature.dim().1);
    let of_item = |array: &Array3<T>| array.slice(s![item..=item, ..anchors, ..]).to_owned();
    let items = Axis(0);
    let range = (item..=item).into();
    BlockData {
        config: data.config.clone(),
        parameters: data.parameters.clone(),
        instance_feature: of_item(&data.instance_feature),
        anchor: data.anchor.slice(s![item..=item, ..anchors, ..]).to_owned(),
        anchor_embed: data.anchor_embed.as_ref().map(of_item),
        feature_maps: data.feature_maps.slice_axis(items, range).to_owned(),
        layout: data.layout.clone(),
        projection_mat: data.projection_mat.slice_axis(items, range).to_owned(),
        image_wh: data.image_wh.as_ref().map(|sizes| sizes.slice_axis(items, range).to_owned()),
        masks: None,
        grad_output: of_item(&data.grad_output),
    }
}

/// The relative L2 errors of the anchors for each quantity that they have for themselves, as one number.
///
/// That is the largest where layers are exact in fp32. Where they round to fewer bits it is the median: the rounding moves key
/// points a little, and one that it moves over a line between pixel centres has another derivative.
pub(super) fn errors<T: Element>(
    judged: &[Judged],
    output: &Array3<T>,
    gradients: &BlockGradients<T>,
    of_anchors: fn(Vec<f64>) -> f64,
) -> Vec<(&'static str, f64)> {
    let wide = |array: &Array3<T>| array.mapv(T::to_f64);
    let exact_of = |get: fn(&Judged) -> Option<&Array3<f64>>| {
        judged.iter().map(move |judged| (judged.item, get(judged)))
    };
    let anchor = gradients.anchor.mapv(Into::into);
    let embedding = gradients.anchor_embed.as_ref().map(wide);
    [
        ("output", Some(wide(output)), exact_of(|judged| Some(&judged.output))),
        (
            "instance feature gradient",
            Some(wide(&gradients.instance_feature)),
            exact_of(|judged| Some(&judged.gradients.instance_feature)),
        ),
        ("anchor gradient", Some(anchor), exact_of(|judged| Some(&judged.gradients.anchor))),
        (
            "anchor embedding gradient",
            embedding,
            exact_of(|judged| judged.gradients.anchor_embed.as_ref()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, actual, exact)| {
        let actual = actual?;
        let errors =
            exact.filter_map(|(item, exact)| Some((item, exact?))).flat_map(|(item, exact)| {
                let of_item = actual.index_axis(Axis(0), item);
                let exact = exact.index_axis(Axis(0), 0);
                let rows = exact.rows().into_iter().zip(of_item.rows());
                rows.map(|(exact, actual)| {
                    relative_l2(actual.iter().copied(), exact.iter().copied())
                })
                .collect::<Vec<_>>()
            });
        Some((name, of_anchors(errors.collect())))
    })
    .collect()
}

/// The largest number; NaN if one is, and zero of none.
pub(super) fn largest(numbers: Vec<f64>) -> f64 {
    numbers.into_iter().fold(0.0, |largest, number| {
        if number.is_nan() || number > largest { number } else { largest }
    })
}

/// The number in the middle, NaN counted as the largest; zero of none.
pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_is_no_number_is_not_passed_over() {
        assert!(largest(vec![1.0, f64::NAN, 2.0]).is_nan());
        assert_eq!(largest(vec![1.0, 3.0, 2.0]), 3.0);
        assert!(median(vec![f64::NAN, 1.0, f64::NAN]).is_nan());
        assert_eq!(median(vec![f64::NAN, 1.0, 2.0]), 2.0);
        assert_eq!((largest(vec![]), median(vec![])), (0.0, 0.0));
    }
}
