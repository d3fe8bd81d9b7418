//! The arrays of one call of the operator.

use deformable_aggregation::{AggregationShape, Element, Gradients, Inputs, Result, Scalar};
use ndarray::{Array, Array3, Array5, Array6, Axis, Dimension, Slice};
use rayon::prelude::*;

/// Sizes, inputs and the upstream gradient.
#[derive(Clone, Debug)]
pub struct Data<T: Element> {
    /// The sizes.
    pub shape: AggregationShape,
    /// (batch, num_feat, embed_dims)
    pub feature_maps: Array3<T>,
    /// (batch, anchors, points, cameras, 2)
    pub sampling_locations: Array5<T::Location>,
    /// (batch, anchors, points, cameras, levels, groups)
    pub weights: Array6<T>,
    /// Gradient of the output, (batch, anchors, embed_dims).
    pub grad_output: Array3<T>,
}

impl<T: Element> Data<T> {
    /// The three inputs as the operator takes them.
    pub fn inputs(&self) -> Inputs<'_, T> {
        Inputs {
            feature_maps: self.feature_maps.view(),
            sampling_locations: self.sampling_locations.view(),
            weights: self.weights.view(),
        }
    }

    /// The same numbers in another element type, rounded to nearest.
    pub fn converted<U: Element>(&self) -> Data<U> {
        Data {
            shape: self.shape.clone(),
            feature_maps: convert(&self.feature_maps),
            sampling_locations: self
                .sampling_locations
                .mapv(|fraction| U::Location::from_f64(fraction.into())),
            weights: convert(&self.weights),
            grad_output: convert(&self.grad_output),
        }
    }

    /// Some anchors of some batch items; all features of those items.
    ///
    /// # Errors
    ///
    /// Those of [`AggregationShape::new`], which a part of a valid shape does not meet.
    pub fn part(&self, items: Slice, anchors: Slice) -> Result<Self> {
        fn cut<A: Clone, D: Dimension>(
            array: &Array<A, D>,
            items: Slice,
            anchors: Slice,
        ) -> Array<A, D> {
            array
                .slice_axis(Axis(0), items)
                .slice_axis(Axis(1), anchors)
                .as_standard_layout()
                .into_owned()
        }
        let feature_maps =
            self.feature_maps.slice_axis(Axis(0), items).as_standard_layout().into_owned();
        let weights = cut(&self.weights, items, anchors);
        let shape = AggregationShape::new(
            self.shape.layout().clone(),
            weights.shape()[0],
            weights.shape()[1],
            self.shape.points(),
            self.shape.embed_dims(),
            self.shape.groups(),
        )?;
        Ok(Self {
            shape,
            feature_maps,
            sampling_locations: cut(&self.sampling_locations, items, anchors),
            weights,
            grad_output: cut(&self.grad_output, items, anchors),
        })
    }
}

fn convert<T: Element, U: Element, D: Dimension>(array: &Array<T, D>) -> Array<U, D> {
    let values: Vec<T> = array.iter().copied().collect();
    let values: Vec<U> = values.par_iter().map(|value| U::from_f64(value.to_f64())).collect();
    Array::from_shape_vec(array.raw_dim(), values).expect("as many values as before")
}

/// What a backend computed: the output and the three gradients.
#[derive(Clone, Debug)]
pub struct Results<T: Element> {
    /// (batch, anchors, embed_dims)
    pub output: Array3<T>,
    /// Each of the dimensions of its input.
    pub gradients: Gradients<T>,
}

/// The four arrays that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Quantity {
    /// The output.
    #[serde(rename = "out")]
    Output,
    /// Gradient of the feature maps.
    #[serde(rename = "grad_feat")]
    FeatureMaps,
    /// Gradient of the sampling locations.
    #[serde(rename = "grad_loc")]
    SamplingLocations,
    /// Gradient of the weights.
    #[serde(rename = "grad_weights")]
    Weights,
}

impl Quantity {
    /// All four, in the order of the tables.
    pub const ALL: [Self; 4] =
        [Self::Output, Self::FeatureMaps, Self::SamplingLocations, Self::Weights];

    /// The name, as in files of vectors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "out",
            Self::FeatureMaps => "grad_feat",
            Self::SamplingLocations => "grad_loc",
            Self::Weights => "grad_weights",
        }
    }
}

impl<T: Element> Results<T> {
    /// One of the arrays, flat and in `f64`.
    pub fn values(&self, quantity: Quantity) -> Vec<f64> {
        match quantity {
            Quantity::Output => self.output.iter().map(|value| value.to_f64()).collect(),
            Quantity::FeatureMaps => {
                self.gradients.feature_maps.iter().map(|value| value.to_f64()).collect()
            }
            Quantity::SamplingLocations => {
                self.gradients.sampling_locations.iter().map(|&value| value.into()).collect()
            }
            Quantity::Weights => {
                self.gradients.weights.iter().map(|value| value.to_f64()).collect()
            }
        }
    }
}
