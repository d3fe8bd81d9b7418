//! What a call of the block takes, checked and made row-major.

use std::borrow::Cow;

use ndarray::{ArrayView3, ArrayView4, ArrayView5, CowArray, Ix3, Ix4};

use super::config::BlockConfig;
use super::key_points::check_anchor;
use crate::element::Element;
use crate::error::Result;
use crate::format::feature_maps_format;
use crate::layout::FeatureLayout;
use crate::operator::{contiguous, slice};
use crate::shape::{AggregationShape, check_dim};

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
    /// As [`feature_maps_format`] packs them; read where they lie.
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

/// The inputs in row-major order, borrowed if they lay so, with all sizes checked against the configuration and each other.
#[derive(Clone, Debug)]
pub(crate) struct CheckedInputs<'a, T: Element> {
    /// Sizes of the aggregation.
    pub(crate) shape: AggregationShape,
    /// Numbers in an anchor.
    pub(crate) anchor_dims: usize,
    instance_feature: CowArray<'a, T, Ix3>,
    anchor: CowArray<'a, T::Location, Ix3>,
    anchor_embed: Option<CowArray<'a, T, Ix3>>,
    feature_maps: CowArray<'a, T, Ix3>,
    projection_mat: CowArray<'a, T::Location, Ix4>,
    image_wh: Option<CowArray<'a, T::Location, Ix3>>,
}

impl<'a, T: Element> CheckedInputs<'a, T> {
    pub(crate) fn new(config: &BlockConfig, inputs: BlockInputs<'a, T>) -> Result<Self> {
        let (feature_maps, layout) = packed(inputs.feature_maps)?;
        let (batch, anchors, _) = inputs.instance_feature.dim();
        let (channels, cameras) = (config.embed_dims, config.num_cams);
        let check_features = |argument, array: &[usize]| {
            let expected = [batch, anchors, channels];
            check_dim(argument, "(batch, anchors, embed_dims)", &expected, array)
        };
        check_features("instance_feature", inputs.instance_feature.shape())?;
        if let Some(anchor_embed) = &inputs.anchor_embed {
            check_features("anchor_embed", anchor_embed.shape())?;
        }
        let anchor_dims =
            check_anchor("anchor", &config.kps_generator, inputs.anchor.shape(), batch, anchors)?;
        let axes = "(batch, num_cams, 4, 4)";
        let expected = [batch, cameras, 4, 4];
        check_dim("projection_mat", axes, &expected, inputs.projection_mat.shape())?;
        if let Some(image_wh) = &inputs.image_wh {
            let expected = [batch, cameras, 2];
            check_dim("image_wh", "(batch, num_cams, 2)", &expected, image_wh.shape())?;
        }
        let maps = [layout.cameras(), layout.levels()];
        check_dim("feature_maps", "(num_cams, num_levels)", &[cameras, config.num_levels], &maps)?;
        let expected = [batch, layout.num_feat(), channels];
        let axes = "(batch, num_feat, embed_dims)";
        check_dim("feature_maps", axes, &expected, feature_maps.shape())?;
        let points = config.num_pts();
        let layout = layout.into_owned();
        let shape =
            AggregationShape::new(layout, batch, anchors, points, channels, config.num_groups)?;
        Ok(Self {
            shape,
            anchor_dims,
            instance_feature: contiguous(inputs.instance_feature)?,
            anchor: contiguous(inputs.anchor)?,
            anchor_embed: inputs.anchor_embed.map(contiguous).transpose()?,
            feature_maps,
            projection_mat: contiguous(inputs.projection_mat)?,
            image_wh: inputs.image_wh.map(contiguous).transpose()?,
        })
    }

    /// (batch, anchors, embed_dims), row-major.
    pub(crate) fn instance_feature(&self) -> &[T] {
        slice(&self.instance_feature)
    }

    /// (batch, anchors, anchor_dims), row-major.
    pub(crate) fn anchor(&self) -> &[T::Location] {
        slice(&self.anchor)
    }

    /// (batch, anchors, embed_dims), row-major.
    pub(crate) fn anchor_embed(&self) -> Option<&[T]> {
        self.anchor_embed.as_ref().map(slice)
    }

    /// (batch, num_feat, embed_dims), row-major.
    pub(crate) fn feature_maps(&self) -> ArrayView3<'_, T> {
        self.feature_maps.view()
    }

    /// (batch, cameras, 4, 4), row-major.
    pub(crate) fn projection_mat(&self) -> &[T::Location] {
        slice(&self.projection_mat)
    }

    /// (batch, cameras, 2), row-major.
    pub(crate) fn image_wh(&self) -> Option<&[T::Location]> {
        self.image_wh.as_ref().map(slice)
    }
}

/// The maps in packed form, and their layout.
fn packed<'a, T: Element>(
    maps: FeatureMaps<'a, T>,
) -> Result<(CowArray<'a, T, Ix3>, Cow<'a, FeatureLayout>)> {
    let packed = match maps {
        FeatureMaps::Packed { feature_maps, layout } => {
            return Ok((contiguous(feature_maps)?, Cow::Borrowed(layout)));
        }
        FeatureMaps::Levels(levels) => feature_maps_format(&[levels.to_vec()])?,
        FeatureMaps::Groups(groups) => feature_maps_format(groups)?,
    };
    Ok((CowArray::from(packed.feature_maps), Cow::Owned(packed.layout)))
}
