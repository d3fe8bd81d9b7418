//! Random small cases with odd sizes and locations that hit every branch of the border rules.

use deformable_aggregation::{AggregationShape, FeatureLayout, LevelShape, Result};
use ndarray::{Array2, Array3, Array5};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::data::Data;

/// A random case; the same for the same seed and number.
///
/// # Errors
///
/// None in practice: the sizes are drawn to be valid.
pub fn random(seed: u64, number: u64) -> Result<Data<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let groups = *pick(&mut rng, &[1, 2, 3, 4, 8]);
    let embed_dims = groups * *pick(&mut rng, &[1, 2, 3, 4, 5, 8, 16, 32]);
    let layout = layout(&mut rng)?;
    let shape = AggregationShape::new(
        layout,
        rng.random_range(1..=3),
        rng.random_range(1..=9),
        rng.random_range(1..=7),
        embed_dims,
        groups,
    )?;
    let feature_maps = Array3::from_shape_simple_fn(shape.feature_maps_dim(), || signed(&mut rng));
    let mut sampling_locations = Array5::zeros(shape.sampling_locations_dim());
    for ((_, _, _, camera, axis), value) in sampling_locations.indexed_iter_mut() {
        let level = rng.random_range(0..shape.layout().levels());
        let map = shape.layout().shape(camera, level);
        *value = location(&mut rng, if axis == 0 { map.width } else { map.height });
    }
    Ok(Data {
        feature_maps,
        sampling_locations,
        weights: ndarray::Array6::from_shape_simple_fn(shape.weights_dim(), || signed(&mut rng)),
        grad_output: Array3::from_shape_simple_fn(shape.output_dim(), || signed(&mut rng)),
        shape,
    })
}

/// A layout of up to four cameras and levels: sizes differ between cameras, maps may have gaps between them, lie in
/// any order or be shared.
fn layout(rng: &mut impl Rng) -> Result<FeatureLayout> {
    let (cameras, levels) = (rng.random_range(1..=4), rng.random_range(1..=4));
    let shapes: Vec<Vec<LevelShape>> = (0..cameras)
        .map(|_| {
            let side = |rng: &mut _| *pick(rng, &[1, 2, 3, 4, 5, 7, 8, 11, 16, 21]);
            (0..levels).map(|_| LevelShape { height: side(rng), width: side(rng) }).collect()
        })
        .collect();
    let packed = FeatureLayout::packed(&shapes)?;
    if rng.random() {
        return Ok(packed);
    }
    let mut starts: Array2<i64> = packed.scale_start_index();
    let gap = rng.random_range(0..5);
    starts.mapv_inplace(|start| start + gap);
    let mut spatial_shapes = packed.spatial_shapes();
    if cameras > 1 {
        // The last camera reads the maps of the first.
        for level in 0..levels {
            starts[[cameras - 1, level]] = starts[[0, level]];
            for axis in 0..2 {
                spatial_shapes[[cameras - 1, level, axis]] = spatial_shapes[[0, level, axis]];
            }
        }
    }
    let rows = packed.num_feat() + gap as usize + rng.random_range(0..5);
    FeatureLayout::new(spatial_shapes.view(), starts.view(), rows)
}

/// A location along an axis of that many pixels: mostly inside, sometimes at a place where a rule decides.
fn location(rng: &mut impl Rng, pixels: usize) -> f32 {
    let size = pixels as f32;
    match rng.random_range(0..20) {
        0 => 0.0,
        1 => 1.0,
        2 => *pick(rng, &[-0.0, f32::MIN_POSITIVE, 1.0_f32.next_down(), 1.0_f32.next_up()]),
        3 => *pick(rng, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN]),
        // The centre of a pixel.
        4 => (rng.random_range(0..pixels) as f32 + 0.5) / size,
        // In the rim that only grid sampling counts.
        5 => -0.4 / size * rng.random::<f32>(),
        6 => 1.0 + 0.4 / size * rng.random::<f32>(),
        // Within half a pixel of the edge.
        7 => 0.5 / size * rng.random::<f32>(),
        8 => 1.0 - 0.5 / size * rng.random::<f32>(),
        9 => rng.random_range(-3.0..4.0),
        _ => rng.random(),
    }
}

fn pick<'a, T>(rng: &mut impl Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}

fn signed(rng: &mut impl Rng) -> f32 {
    rng.random_range(-1.0..1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_depends_on_seed_and_number_alone() {
        let bits = |seed, number| {
            let case = random(seed, number).expect("valid sizes");
            case.feature_maps.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits(1, 2), bits(1, 2));
        assert_ne!(bits(1, 2), bits(1, 3));
        assert_ne!(bits(1, 2), bits(2, 2));
    }

    #[test]
    fn a_hundred_cases_hit_what_the_rules_decide_on() {
        let (mut nan, mut border, mut inside, mut shared) = (0, 0, 0, 0);
        for number in 0..100 {
            let case = random(0, number).expect("valid sizes");
            for &value in &case.sampling_locations {
                nan += usize::from(value.is_nan());
                border += usize::from(value == 0.0 || value == 1.0);
                inside += usize::from(value > 0.0 && value < 1.0);
            }
            let layout = case.shape.layout();
            let last = layout.cameras() - 1;
            shared += usize::from(last > 0 && layout.start(0, 0) == layout.start(last, 0));
        }
        assert!(nan > 20 && border > 200 && inside > 2_000 && shared > 10);
    }
}
