//! Inputs of a workload: where the key points land, and random numbers for the rest.
//!
//! The same workload, scenario and seed give the same numbers on every machine and for every number of threads.

use camera_rig::Scene;
use clap::ValueEnum;
use deformable_aggregation::{AggregationShape, Element, FeatureLayout, Result, Scalar};
use ndarray::{Array, Array5, Axis, Dimension, ShapeBuilder};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use crate::data::Data;
use crate::workloads::Workload;

/// How sampling locations are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Key points of 3D boxes seen by a camera ring: about one camera of six sees a point.
    Rig,
    /// Every point inside every image.
    Dense,
}

impl Scenario {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rig => "rig",
            Self::Dense => "dense",
        }
    }
}

/// Where key points land.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Landing {
    /// As in [`Scenario::Rig`].
    Rig,
    /// This share of the (point, camera) pairs uniformly inside the image, the others outside.
    Share(f64),
}

impl From<Scenario> for Landing {
    fn from(scenario: Scenario) -> Self {
        match scenario {
            Scenario::Rig => Self::Rig,
            Scenario::Dense => Self::Share(1.0),
        }
    }
}

/// What the random numbers of one generator are for; each purpose has its own streams.
#[derive(Clone, Copy)]
enum Purpose {
    Locations,
    Features,
    Weights,
    GradOutput,
}

/// The generator of one part of the data.
fn generator(seed: u64, purpose: Purpose, part: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((purpose as u64) << 48) | part as u64);
    rng
}

/// The scene of one batch item in the `rig` scenario.
pub fn scene(workload: &Workload, seed: u64, item: usize) -> Scene {
    let mut rng = generator(seed, Purpose::Locations, item);
    Scene::random(workload.cameras, workload.anchors, workload.points, &mut rng)
}

/// The sizes of a workload as the library's type.
///
/// # Errors
///
/// Those of [`FeatureLayout::uniform`] and [`AggregationShape::new`]; none for a workload of the list.
pub fn shape(workload: &Workload) -> Result<AggregationShape> {
    AggregationShape::new(
        FeatureLayout::uniform(workload.cameras, &workload.level_shapes())?,
        workload.batch,
        workload.anchors,
        workload.points,
        workload.embed_dims,
        workload.groups,
    )
}

/// All inputs of a workload.
///
/// Features and output gradients are uniform in ±1; weights are positive and sum up to about one over the points,
/// cameras and levels of an anchor, as a softmax leaves them.
///
/// # Errors
///
/// Those of [`shape`].
pub fn generate<T: Element>(
    workload: &Workload,
    landing: impl Into<Landing>,
    seed: u64,
) -> Result<Data<T>> {
    let shape = shape(workload)?;
    let share = 2.0 / (workload.points * workload.cameras * workload.levels.len()) as f64;
    let uniform = |value: f64| 2.0 * value - 1.0;
    Ok(Data {
        feature_maps: filled(shape.feature_maps_dim(), seed, Purpose::Features, uniform),
        sampling_locations: locations::<T>(workload, landing.into(), seed, &shape),
        weights: filled(shape.weights_dim(), seed, Purpose::Weights, |value| share * value),
        grad_output: filled(shape.output_dim(), seed, Purpose::GradOutput, uniform),
        shape,
    })
}

fn locations<T: Element>(
    workload: &Workload,
    landing: Landing,
    seed: u64,
    shape: &AggregationShape,
) -> Array5<T::Location> {
    let mut locations = Array5::zeros(shape.sampling_locations_dim());
    let parts: Vec<_> = locations.outer_iter_mut().enumerate().collect();
    parts.into_par_iter().for_each(|(item, mut part)| match landing {
        Landing::Rig => {
            let scene = scene(workload, seed, item);
            for (points, mut part) in scene.key_points.iter().zip(part.outer_iter_mut()) {
                for (&point, mut part) in points.iter().zip(part.outer_iter_mut()) {
                    for (camera, mut part) in scene.cameras.iter().zip(part.outer_iter_mut()) {
                        let projection = camera.project(point);
                        part[0] = location::<T>(projection.x);
                        part[1] = location::<T>(projection.y);
                    }
                }
            }
        }
        Landing::Share(share) => {
            let mut rng = generator(seed, Purpose::Locations, item);
            part.mapv_inplace(|_| location::<T>(rng.random::<f32>().into()));
            if share < 1.0 {
                // One coordinate beyond the image puts the pair out of it.
                for mut pair in part.lanes_mut(Axis(3)) {
                    if unit(&mut rng) >= share {
                        pair[0] = location::<T>(2.0);
                    }
                }
            }
        }
    });
    locations
}

/// A location as every element type has it: a number that `f32` holds.
fn location<T: Element>(fraction: f64) -> T::Location {
    T::Location::from_f64(f64::from(fraction as f32))
}

/// An array of random numbers, drawn in parallel.
fn filled<T: Element, D: Dimension>(
    dimensions: impl ShapeBuilder<Dim = D>,
    seed: u64,
    purpose: Purpose,
    value: impl Fn(f64) -> f64 + Sync,
) -> Array<T, D> {
    const PART: usize = 1 << 16;
    let dimensions = dimensions.into_shape_with_order();
    let mut values = vec![T::default(); dimensions.size()];
    values.par_chunks_mut(PART).enumerate().for_each(|(part, values)| {
        let mut rng = generator(seed, purpose, part);
        for element in values {
            *element = T::from_f64(value(unit(&mut rng)));
        }
    });
    Array::from_shape_vec(dimensions, values).expect("as many values as the shape has entries")
}

/// Uniform in 0 to 1, with the resolution of an `f32`.
fn unit(rng: &mut impl Rng) -> f64 {
    rng.random::<f32>().into()
}

/// What a call of the operator has to touch, counted on its real inputs (operator border rule).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Touched {
    /// (point, camera) pairs inside their image.
    pub visible: usize,
    /// (point, camera, level) samples that count.
    pub samples: usize,
    /// Corners of the samples that lie on their map: feature rows read, counted every time.
    pub taps: usize,
    /// Distinct feature rows that the samples read.
    pub rows: usize,
}

impl Touched {
    /// Counts over the whole batch.
    pub fn count<T: Element>(data: &Data<T>) -> Self {
        let layout = data.shape.layout();
        let items: Vec<_> = data.sampling_locations.outer_iter().collect();
        items
            .into_par_iter()
            .map(|item| {
                let (mut visible, mut taps) = (0, 0);
                let mut rows = vec![false; layout.num_feat()];
                for anchor in item.outer_iter() {
                    for point in anchor.outer_iter() {
                        for (camera, location) in point.outer_iter().enumerate() {
                            let (x, y): (f64, f64) = (location[0].into(), location[1].into());
                            if x > 0.0 && x < 1.0 && y > 0.0 && y < 1.0 {
                                visible += 1;
                                taps += mark_rows(layout, camera, (x, y), &mut rows);
                            }
                        }
                    }
                }
                let rows = rows.into_iter().filter(|touched| *touched).count();
                Self { visible, samples: visible * layout.levels(), taps, rows }
            })
            .reduce(Self::default, |a, b| Self {
                visible: a.visible + b.visible,
                samples: a.samples + b.samples,
                taps: a.taps + b.taps,
                rows: a.rows + b.rows,
            })
    }

    /// Bytes that a forward pass moves at least: every touched feature row, all locations, the weights of the visible
    /// samples and the output, each once.
    pub fn forward_bytes(&self, shape: &AggregationShape, element_bytes: usize) -> usize {
        let locations: usize = shape.sampling_locations_dim().iter().product();
        let output: usize = shape.output_dim().iter().product();
        let weights = self.samples * shape.groups();
        (self.rows * shape.embed_dims() + weights + output) * element_bytes
            + locations * location_bytes(element_bytes)
    }

    /// Bytes of all taps, each counted once: what a pass reads of the feature maps if no row is kept from one tap to the next.
    pub fn tap_bytes(&self, shape: &AggregationShape, element_bytes: usize) -> usize {
        self.taps * shape.embed_dims() * element_bytes
    }

    /// Bytes that a backward pass moves at least: what forward reads, with the output gradient in place of the output, and
    /// every entry of the three gradients once.
    pub fn backward_bytes(&self, shape: &AggregationShape, element_bytes: usize) -> usize {
        let locations: usize = shape.sampling_locations_dim().iter().product();
        let features: usize = shape.feature_maps_dim().iter().product();
        let weights: usize = shape.weights_dim().iter().product();
        self.forward_bytes(shape, element_bytes)
            + (features + weights) * element_bytes
            + locations * location_bytes(element_bytes)
    }
}

/// Locations have at least 32 bits.
fn location_bytes(element_bytes: usize) -> usize {
    element_bytes.max(4)
}

/// Marks the rows of the corners of one location in all levels, and returns how many corners there are.
fn mark_rows(
    layout: &FeatureLayout,
    camera: usize,
    (x, y): (f64, f64),
    rows: &mut [bool],
) -> usize {
    let mut taps = 0;
    for level in 0..layout.levels() {
        let map = layout.shape(camera, level);
        let start = layout.start(camera, level);
        let left = (x * map.width as f64 - 0.5).floor() as isize;
        let top = (y * map.height as f64 - 0.5).floor() as isize;
        for (row, column) in [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)] {
            let inside = (0..map.height as isize).contains(&row)
                && (0..map.width as isize).contains(&column);
            if inside {
                rows[start + row as usize * map.width + column as usize] = true;
                taps += 1;
            }
        }
    }
    taps
}

/// The arrays of a workload without their contents, for sizes.
pub struct Footprint {
    /// Bytes of the inputs and the output gradient.
    pub inputs: u64,
    /// Bytes of the output and the three gradients.
    pub results: u64,
    /// Bytes of the `f64` feature gradient of one batch item.
    pub judge: u64,
}

impl Footprint {
    /// The footprint of a workload in an element type.
    pub fn new(workload: &Workload, element_bytes: usize) -> Self {
        let features = (workload.batch * workload.rows() * workload.embed_dims) as u64;
        let weights = (workload.locations() * workload.levels.len() * workload.groups) as u64;
        let output = (workload.batch * workload.anchors * workload.embed_dims) as u64;
        let locations = 2 * (workload.locations() * location_bytes(element_bytes)) as u64;
        let arrays = (features + weights + output) * element_bytes as u64 + locations;
        Self { inputs: arrays, results: arrays, judge: features / workload.batch as u64 * 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of a workload with fewer channels: locations do not depend on them.
    fn touched(id: &str, scenario: Scenario) -> Touched {
        let listed = Workload::by_id(id).expect("listed");
        let narrow = Workload { embed_dims: 1, groups: 1, ..*listed };
        Touched::count(&generate::<f32>(&narrow, scenario, 1).expect("valid sizes"))
    }

    fn assert_close(actual: usize, expected: usize, percent: f64, what: &str) {
        let off = 100.0 * (actual as f64 / expected as f64 - 1.0).abs();
        assert!(off <= percent, "{what}: {actual}, expected {expected} within {percent} %");
    }

    #[test]
    fn the_rig_touches_as_many_samples_and_rows_as_counted_elsewhere() {
        for (id, samples, rows) in
            [("W1", 56_640, 20_204), ("W2", 460_040, 136_804), ("W6", 1_173_652, 137_025)]
        {
            let touched = touched(id, Scenario::Rig);
            assert_close(touched.samples, samples, 4.0, id);
            assert_close(touched.rows, rows, 4.0, id);
        }
    }

    #[test]
    fn dense_locations_are_all_inside() {
        let touched = touched("W1", Scenario::Dense);
        assert_close(touched.samples, 280_800, 0.01, "samples");
        assert_close(touched.rows, 88_677, 1.0, "rows");
        // All four corners, but for the rim.
        assert!(touched.taps < 4 * touched.samples);
        assert_close(touched.taps, 4 * touched.samples, 4.0, "taps");
    }

    #[test]
    fn a_share_of_the_points_is_seen() {
        let narrow = Workload { embed_dims: 1, groups: 1, ..*Workload::by_id("W1").unwrap() };
        let visible = |share| {
            let data = generate::<f32>(&narrow, Landing::Share(share), 1).expect("valid sizes");
            Touched::count(&data).visible
        };
        let all = visible(1.0);
        assert_close(visible(0.25), all / 4, 2.0, "a quarter");
        assert_eq!(visible(0.0), 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers_in_every_type() {
        let small = Workload { anchors: 3, levels: &[(2, 3)], ..*Workload::by_id("W1").unwrap() };
        let single = generate::<f32>(&small, Scenario::Rig, 5).expect("valid sizes");
        let double = generate::<f64>(&small, Scenario::Rig, 5).expect("valid sizes");
        assert_eq!(single.sampling_locations, double.sampling_locations.mapv(|x| x as f32));
        assert_eq!(single.weights, double.weights.mapv(|x| x as f32));
        let other = generate::<f32>(&small, Scenario::Rig, 6).expect("valid sizes");
        assert_ne!(single.feature_maps, other.feature_maps);
    }

    #[test]
    fn bytes_of_the_smallest_case_are_those_counted_by_hand() {
        // One pixel, one channel, one visible point: row, location (2), weight, output.
        let layout = FeatureLayout::uniform(
            1,
            &[deformable_aggregation::LevelShape { height: 1, width: 1 }],
        )
        .expect("valid");
        let shape = AggregationShape::new(layout, 1, 1, 1, 1, 1).expect("valid");
        let touched = Touched { visible: 1, samples: 1, taps: 1, rows: 1 };
        assert_eq!(touched.forward_bytes(&shape, 4), 4 * 5);
        assert_eq!(touched.backward_bytes(&shape, 4), 4 * 9);
        assert_eq!(touched.forward_bytes(&shape, 2), 2 * 3 + 8);
        assert_eq!(touched.tap_bytes(&shape, 2), 2);
    }
}
