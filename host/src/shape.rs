//! All sizes of one aggregation, checked against each other once.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::layout::FeatureLayout;
use crate::operator::Inputs;

/// The sizes of one aggregation.
///
/// A value of this type is right by construction: the groups divide the channels, and every array it describes
/// fits the address space. Batch, anchors, points, cameras and levels may be zero (the output is then
/// zero, or empty).
///
/// ```
/// use deformable_aggregation::{AggregationShape, FeatureLayout, LevelShape};
///
/// let layout = FeatureLayout::uniform(6, &[LevelShape { height: 64, width: 176 }])?;
/// let shape = AggregationShape::new(layout, 1, 900, 13, 256, 8)?;
/// assert_eq!(shape.channels_per_group(), 32);
/// assert_eq!(shape.feature_maps_dim(), [1, 6 * 64 * 176, 256]);
/// assert_eq!(shape.sampling_locations_dim(), [1, 900, 13, 6, 2]);
/// assert_eq!(shape.weights_dim(), [1, 900, 13, 6, 1, 8]);
/// assert_eq!(shape.output_dim(), [1, 900, 256]);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregationShape {
    layout: FeatureLayout,
    batch: usize,
    anchors: usize,
    points: usize,
    embed_dims: usize,
    groups: usize,
}

impl AggregationShape {
    /// Checks the sizes against each other.
    ///
    /// # Errors
    ///
    /// [`Error::Zero`] if `embed_dims` or `groups` is 0, [`Error::Groups`] if `groups` does not divide `embed_dims`,
    /// [`Error::TooLarge`] if an array would not fit the address space.
    pub fn new(
        layout: FeatureLayout,
        batch: usize,
        anchors: usize,
        points: usize,
        embed_dims: usize,
        groups: usize,
    ) -> Result<Self> {
        for (argument, size) in [("embed_dims", embed_dims), ("groups", groups)] {
            if size == 0 {
                return Err(Error::Zero { argument });
            }
        }
        if !embed_dims.is_multiple_of(groups) {
            return Err(Error::Groups { embed_dims, groups });
        }
        let shape = Self { layout, batch, anchors, points, embed_dims, groups };
        check_size("feature_maps", &shape.feature_maps_dim())?;
        check_size("sampling_locations", &shape.sampling_locations_dim())?;
        check_size("weights", &shape.weights_dim())?;
        check_size("output", &shape.output_dim())?;
        Ok(shape)
    }

    /// Reads the sizes off the arrays: batch, anchors, points and groups from `weights`, `embed_dims` from `feature_maps`.
    /// The arrays are then checked against them.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and [`Error::Dimensions`] if the arrays disagree with each other or the layout.
    ///
    /// ```
    /// use deformable_aggregation::{AggregationShape, FeatureLayout, Inputs, LevelShape};
    /// use ndarray::{Array3, Array5, Array6};
    ///
    /// let layout = FeatureLayout::uniform(2, &[LevelShape { height: 4, width: 4 }])?;
    /// let feature_maps = Array3::<f32>::zeros((1, 32, 16));
    /// let sampling_locations = Array5::zeros((1, 5, 3, 2, 2));
    /// let weights = Array6::zeros((1, 5, 3, 2, 1, 4));
    /// let inputs = Inputs {
    ///     feature_maps: feature_maps.view(),
    ///     sampling_locations: sampling_locations.view(),
    ///     weights: weights.view(),
    /// };
    /// let shape = AggregationShape::infer(layout, &inputs)?;
    /// assert_eq!((shape.anchors(), shape.points(), shape.groups()), (5, 3, 4));
    /// # Ok::<(), deformable_aggregation::Error>(())
    /// ```
    pub fn infer<T: Element>(layout: FeatureLayout, inputs: &Inputs<'_, T>) -> Result<Self> {
        let &[batch, anchors, points, _, _, groups] = fixed(inputs.weights.shape());
        let embed_dims = inputs.feature_maps.shape()[2];
        let shape = Self::new(layout, batch, anchors, points, embed_dims, groups)?;
        shape.check_inputs(inputs)?;
        Ok(shape)
    }

    /// Whether all input arrays have the dimensions of this shape.
    pub(crate) fn check_inputs<T: Element>(&self, inputs: &Inputs<'_, T>) -> Result<()> {
        check_dim(
            "feature_maps",
            "(batch, num_feat, embed_dims)",
            &self.feature_maps_dim(),
            inputs.feature_maps.shape(),
        )?;
        check_dim(
            "sampling_locations",
            "(batch, anchors, points, cameras, 2)",
            &self.sampling_locations_dim(),
            inputs.sampling_locations.shape(),
        )?;
        check_dim(
            "weights",
            "(batch, anchors, points, cameras, levels, groups)",
            &self.weights_dim(),
            inputs.weights.shape(),
        )
    }

    /// Whether the gradient of the output has the dimensions of the output.
    pub(crate) fn check_grad_output(&self, actual: &[usize]) -> Result<()> {
        check_dim("grad_output", "(batch, anchors, embed_dims)", &self.output_dim(), actual)
    }

    /// Where the feature maps lie.
    #[must_use]
    pub fn layout(&self) -> &FeatureLayout {
        &self.layout
    }

    /// Samples in the batch.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Anchors (instances) of one batch item.
    #[must_use]
    pub fn anchors(&self) -> usize {
        self.anchors
    }

    /// Key points of one anchor.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points
    }

    /// Channels of a feature map.
    #[must_use]
    pub fn embed_dims(&self) -> usize {
        self.embed_dims
    }

    /// Weight groups; each has the weights of [`channels_per_group`](Self::channels_per_group) channels.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Channels that share a weight.
    #[must_use]
    pub fn channels_per_group(&self) -> usize {
        self.embed_dims / self.groups
    }

    /// Dimensions of the feature maps: (batch, rows of the feature axis, channels).
    #[must_use]
    pub fn feature_maps_dim(&self) -> [usize; 3] {
        [self.batch, self.layout.num_feat(), self.embed_dims]
    }

    /// Dimensions of the sampling locations: (batch, anchors, points, cameras, 2), x before y.
    #[must_use]
    pub fn sampling_locations_dim(&self) -> [usize; 5] {
        [self.batch, self.anchors, self.points, self.layout.cameras(), 2]
    }

    /// Dimensions of the weights: (batch, anchors, points, cameras, levels, groups).
    #[must_use]
    pub fn weights_dim(&self) -> [usize; 6] {
        let layout = &self.layout;
        [self.batch, self.anchors, self.points, layout.cameras(), layout.levels(), self.groups]
    }

    /// Dimensions of the output: (batch, anchors, channels).
    #[must_use]
    pub fn output_dim(&self) -> [usize; 3] {
        [self.batch, self.anchors, self.embed_dims]
    }
}

fn fixed<const N: usize>(shape: &[usize]) -> &[usize; N] {
    shape.try_into().expect("the rank of the array is part of its type")
}

pub(crate) fn check_dim(
    argument: &'static str,
    axes: &'static str,
    expected: &[usize],
    actual: &[usize],
) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::Dimensions { argument, axes, expected: expected.to_vec(), actual: actual.to_vec() })
}

/// An array must fit `isize::MAX` bytes in the widest element type, so that a shape serves every type. Axes of length zero
/// do not excuse the others: the products of any of the axes are used as strides.
fn check_size(argument: &'static str, dimensions: &[usize]) -> Result<()> {
    const WIDEST: usize = size_of::<f64>();
    let bytes = dimensions.iter().try_fold(WIDEST, |bytes, &size| bytes.checked_mul(size.max(1)));
    if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Error::TooLarge {
            argument,
            dimensions: dimensions.to_vec(),
            element_bytes: WIDEST,
        });
    }
    Ok(())
}
