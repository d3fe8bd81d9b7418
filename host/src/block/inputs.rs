//! What a call of the block takes.

use ndarray::{ArrayView3, ArrayView4, ArrayView5};

use crate::element::Element;
use crate::layout::FeatureLayout;

/// The arrays that the block reads, of `T` what is activations and of `T::Location` what is geometry. Row-major arrays are used
/// where they lie; others are copied first.
#[derive(Clone, Copy, Debug)]
pub struct BlockInputs<'a, T: Element> {
    /// (batch, anchors, embed_dims)
    pub instance_feature: ArrayView3<'a, T>,
    /// (batch, anchors, 8 + v) for boxes: X, Y, Z in metres, logarithms of W, L, H, sine and cosine of the yaw, v ≥ 0 velocities; (batch,
    /// anchors, 2 · num_sample) for polylines: x₀, y₀, x₁, y₁ and so on.
    pub anchor: ArrayView3<'a, T::Location>,
    /// Added to the instance feature for the attention weights, (batch, anchors, embed_dims); `None` counts as zeros.
    pub anchor_embed: Option<ArrayView3<'a, T>>,
    /// The feature maps, in any of three forms.
    pub feature_maps: FeatureMaps<'a, T>,
    /// From homogeneous coordinates of the anchors' frame to (x · depth, y · depth, depth), (batch, cameras, 4, 4). The fourth row
    /// is not read.
    pub projection_mat: ArrayView4<'a, T::Location>,
    /// Width and height by which projected x and y are divided, (batch, cameras, 2); `None` where the matrices lead to image
    /// fractions already.
    pub image_wh: Option<ArrayView3<'a, T::Location>>,
}

/// Feature maps in one of three forms. All give the same results.
#[derive(Clone, Copy, Debug)]
pub enum FeatureMaps<'a, T: Element> {
    /// As [`feature_maps_format`](crate::feature_maps_format) packs them; read where they lie.
    Packed {
        /// (batch, num_feat, embed_dims)
        feature_maps: ArrayView3<'a, T>,
        /// Where each map lies.
        layout: &'a FeatureLayout,
    },
    /// One array for each level, (batch, cameras, embed_dims, height, width).
    Levels(&'a [ArrayView5<'a, T>]),
    /// For groups of cameras with resolutions of their own: `[group][level]`, each (batch, cameras of the group, embed_dims, height,
    /// width).
    Groups(&'a [Vec<ArrayView5<'a, T>>]),
}
