//! Inputs of one aggregation.

use deformable_aggregation::{
    AggregationShape, Algorithm, Backend, BorderRule, Element, Error, FeatureLayout, Gradients,
    Inputs, LevelShape, Scalar as _, reference,
};
use ndarray::{Array, Array3, Array5, Array6, Dimension};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::backends::Subject;
use crate::compare::{Mismatch, check};

/// All arrays of one aggregation, with the gradient of its output.
#[derive(Clone, Debug)]
pub struct Case<T: Element> {
    /// Sizes.
    pub shape: AggregationShape,
    /// (batch, num_feat, embed_dims)
    pub feature_maps: Array3<T>,
    /// (batch, anchors, points, cameras, 2)
    pub sampling_locations: Array5<T::Location>,
    /// (batch, anchors, points, cameras, levels, groups)
    pub weights: Array6<T>,
    /// (batch, anchors, embed_dims)
    pub grad_output: Array3<T>,
}

/// Sizes of a random case; every camera has all the levels.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Batch items.
    pub batch: usize,
    /// Anchors of each.
    pub anchors: usize,
    /// Points of each anchor.
    pub points: usize,
    /// Cameras.
    pub cameras: usize,
    /// (height, width) of each level.
    pub levels: Vec<(usize, usize)>,
    /// Weight groups.
    pub groups: usize,
    /// Channels of each group.
    pub channels_per_group: usize,
}

impl Sizes {
    /// The usual channels and groups, and little of everything else.
    #[must_use]
    pub fn usual() -> Self {
        Self {
            batch: 2,
            anchors: 40,
            points: 5,
            cameras: 2,
            levels: vec![(12, 20), (6, 10)],
            groups: 8,
            channels_per_group: 32,
        }
    }

    /// The checked shape, with dense maps.
    #[must_use]
    pub fn shape(&self) -> AggregationShape {
        let levels: Vec<_> =
            self.levels.iter().map(|&(height, width)| LevelShape { height, width }).collect();
        let layout = FeatureLayout::uniform(self.cameras, &levels).expect("levels have pixels");
        let embed_dims = self.groups * self.channels_per_group;
        AggregationShape::new(
            layout,
            self.batch,
            self.anchors,
            self.points,
            embed_dims,
            self.groups,
        )
        .expect("sizes of a test are small and at least 1")
    }
}

impl Case<f64> {
    /// Random numbers: values uniform in −1 to 1, locations uniform in −0.2 to 1.2, rounded to fp32 so that a cast to any
    /// element type leaves them as they are.
    #[must_use]
    pub fn random(shape: AggregationShape, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut value = || rng.random_range(-1.0..1.0);
        let feature_maps = Array::from_shape_simple_fn(shape.feature_maps_dim(), &mut value);
        let weights = Array::from_shape_simple_fn(shape.weights_dim(), &mut value);
        let grad_output = Array::from_shape_simple_fn(shape.output_dim(), &mut value);
        let sampling_locations =
            Array::from_shape_simple_fn(shape.sampling_locations_dim(), || {
                f64::from(rng.random_range(-0.2_f32..1.2))
            });
        Self { shape, feature_maps, sampling_locations, weights, grad_output }
    }

    /// The same numbers, rounded to `T`.
    #[must_use]
    pub fn cast<T: Element>(&self) -> Case<T> {
        Case {
            shape: self.shape.clone(),
            feature_maps: self.feature_maps.mapv(T::from_f64),
            sampling_locations: self.sampling_locations.mapv(T::Location::from_f64),
            weights: self.weights.mapv(T::from_f64),
            grad_output: self.grad_output.mapv(T::from_f64),
        }
    }
}

impl<T: Element> Case<T> {
    /// The operator's inputs.
    #[must_use]
    pub fn inputs(&self) -> Inputs<'_, T> {
        Inputs {
            feature_maps: self.feature_maps.view(),
            sampling_locations: self.sampling_locations.view(),
            weights: self.weights.view(),
        }
    }

    /// Compares output and gradients with the exact ones.
    ///
    /// # Errors
    ///
    /// The first [`Mismatch`].
    ///
    /// # Panics
    ///
    /// If the arrays of the case do not fit its shape.
    pub fn check(
        &self,
        rule: BorderRule,
        output: &Array3<T>,
        gradients: &Gradients<T>,
    ) -> Result<(), Mismatch> {
        let (inputs, upstream) = (self.inputs(), self.grad_output.view());
        let exact = reference::exact(&self.shape, rule, inputs, upstream).expect("arrays fit");
        let scale = reference::magnitudes(&self.shape, rule, inputs, upstream).expect("arrays fit");
        check(&self.shape, output, gradients, &exact, &scale)
    }

    /// Output and gradients as a subject computes them. Where it cannot compute gradients in a fixed order, and says
    /// so, in any order.
    ///
    /// # Panics
    ///
    /// If the subject reports an error.
    #[must_use]
    pub fn run(&self, subject: &Subject, rule: BorderRule) -> (Array3<T>, Gradients<T>) {
        let mut operator = subject.operator(&self.shape).with_border_rule(rule);
        let on_gpu = !matches!(subject.backend, Backend::Reference | Backend::Cpu);
        if on_gpu
            && subject.algorithm == Algorithm::Repeatable
            && self.shape.layout().has_shared_rows()
        {
            let refused = operator.backward(self.inputs(), self.grad_output.view());
            assert_eq!(refused.err(), Some(Error::NotRepeatable));
            operator = operator.with_algorithm(Algorithm::Fast);
        }
        let (output, context) =
            operator.forward_with_context(self.inputs()).unwrap_or_else(|error| panic!("{error}"));
        let gradients =
            context.backward(self.grad_output.view()).unwrap_or_else(|error| panic!("{error}"));
        (output, gradients)
    }
}

/// All entries as `f64`.
pub(crate) fn to_f64<T: Element, D: Dimension>(array: &Array<T, D>) -> Array<f64, D> {
    array.mapv(Element::to_f64)
}
