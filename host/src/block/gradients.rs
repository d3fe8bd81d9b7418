//! What the backward pass returns.

use ndarray::{Array3, Array4, Array5};

use super::parameters::BlockParameters;
use crate::element::Element;
use crate::error::Result;
use crate::format::feature_maps_unformat;
use crate::layout::FeatureLayout;

/// The gradients of a scalar with respect to all inputs and parameters of a block, each of the dimensions of what it is the gradient
/// of.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockGradients<T: Element> {
    /// (batch, anchors, embed_dims)
    pub instance_feature: Array3<T>,
    /// (batch, anchors, numbers of an anchor)
    pub anchor: Array3<T::Location>,
    /// (batch, anchors, embed_dims); `None` if the call had no anchor embedding.
    pub anchor_embed: Option<Array3<T>>,
    /// In packed form, (batch, num_feat, embed_dims). [`feature_maps_by_level`](Self::feature_maps_by_level) unpacks it.
    pub feature_maps: Array3<T>,
    /// Where the maps lie in `feature_maps`.
    pub layout: FeatureLayout,
    /// (batch, cameras, 4, 4); zero in the fourth row.
    pub projection_mat: Array4<T::Location>,
    /// Those of `fix_scale`, which is not trained, are 0.
    pub parameters: BlockParameters<T::Location>,
}

impl<T: Element> BlockGradients<T> {
    /// The gradient of the feature maps as `[group][level]` of (batch, cameras of the group, embed_dims, height, width), with
    /// neighbouring cameras of equal resolutions in a group: see [`feature_maps_unformat`].
    ///
    /// # Errors
    ///
    /// Those of [`feature_maps_unformat`].
    pub fn feature_maps_by_level(&self) -> Result<Vec<Vec<Array5<T>>>> {
        feature_maps_unformat(self.feature_maps.view(), &self.layout)
    }
}
