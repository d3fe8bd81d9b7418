//! Packing feature maps of all cameras and levels into one array, and back.

use std::ops::Range;

use ndarray::{Array3, Array5, ArrayView3, ArrayView5, Axis, s};

use crate::element::Element;
use crate::error::{Error, Result};
use crate::layout::{FeatureLayout, LevelShape};
use crate::memory::zero_array;

/// Packed feature maps and where each lies.
#[derive(Clone, Debug, PartialEq)]
pub struct FormattedFeatureMaps<T: Element> {
    /// (batch, num_feat, embed_dims): the pixels of all maps, channels last.
    pub feature_maps: Array3<T>,
    /// Where the maps lie on the second axis.
    pub layout: FeatureLayout,
}

/// Packs feature maps: camera after camera, in each level after level, in each pixel row after pixel row.
///
/// `groups[k][l]` is level `l` of camera group `k`, (batch, cameras of the group, channels, height, width). Cameras
/// of one group share their resolutions; with one resolution for all there is one group. Batch, channels
/// and the number of levels are common to all groups. Cameras are numbered through all groups, and so are the rows.
///
/// Packing only moves numbers, so the gradient of the maps is the [unpacked](feature_maps_unformat) gradient of the
/// packed array.
///
/// # Errors
///
/// [`Error::Empty`] without groups or levels, [`Error::Uneven`] if groups differ in the number of levels,
/// [`Error::Dimensions`] if maps differ in batch or channels, or the levels of a group in cameras,
/// [`Error::LevelSize`] for a map without pixels, [`Error::OutOfMemory`].
///
/// ```
/// use deformable_aggregation::{feature_maps_format, feature_maps_unformat};
/// use ndarray::Array5;
///
/// // Two wide cameras, one tall one; 16 channels, one level each.
/// let wide = Array5::<f32>::zeros((1, 2, 16, 4, 8));
/// let tall = Array5::<f32>::ones((1, 1, 16, 6, 3));
/// let packed = feature_maps_format(&[vec![wide.view()], vec![tall.view()]])?;
/// assert_eq!(packed.feature_maps.dim(), (1, 2 * 32 + 18, 16));
/// assert_eq!(packed.layout.start(2, 0), 64);
///
/// let groups = feature_maps_unformat(packed.feature_maps.view(), &packed.layout)?;
/// assert_eq!(groups, [vec![wide], vec![tall]]);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
pub fn feature_maps_format<T: Element>(
    groups: &[Vec<ArrayView5<'_, T>>],
) -> Result<FormattedFeatureMaps<T>> {
    let layout = layout_of(groups)?;
    let (batch, _, channels, _, _) = groups[0][0].dim();
    let mut feature_maps = zero_array("packed feature maps", (batch, layout.num_feat(), channels))?;
    let mut first_camera = 0;
    for maps in groups {
        for (level, maps) in maps.iter().enumerate() {
            for (camera, map) in maps.axis_iter(Axis(1)).enumerate() {
                let rows = rows(&layout, first_camera + camera, level);
                let LevelShape { height, width } = layout.shape(first_camera + camera, level);
                for (mut packed, map) in feature_maps.outer_iter_mut().zip(map.outer_iter()) {
                    packed
                        .slice_mut(s![rows.clone(), ..])
                        .into_shape_with_order((height, width, channels))
                        .expect("whole rows of a row-major array")
                        .assign(&map.permuted_axes([1, 2, 0]));
                }
            }
        }
        first_camera += cameras_of(maps);
    }
    Ok(FormattedFeatureMaps { feature_maps, layout })
}

/// Unpacks feature maps: the inverse of [`feature_maps_format`].
///
/// `feature_maps` is (batch, num_feat, channels). Neighbouring cameras whose maps have equal sizes at all levels form a group;
/// the result is `[group][level]` of (batch, cameras of the group, channels, height, width), also when there is
/// one group only. Two packed groups of equal sizes therefore come back as one.
///
/// The maps are read through the starts of the layout, so they need not be dense or in order.
///
/// # Errors
///
/// [`Error::Dimensions`] if the second axis is not as long as the layout says, [`Error::OutOfMemory`].
///
/// ```
/// use deformable_aggregation::ndarray::{array, s};
/// use deformable_aggregation::{FeatureLayout, LevelShape, feature_maps_unformat};
///
/// // One camera, one map of 2 × 2 pixels, two channels.
/// let layout = FeatureLayout::uniform(1, &[LevelShape { height: 2, width: 2 }])?;
/// let packed = array![[[1.0_f32, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]]];
/// let groups = feature_maps_unformat(packed.view(), &layout)?;
/// let channels = array![[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]];
/// assert_eq!(groups[0][0].dim(), (1, 1, 2, 2, 2));
/// assert_eq!(groups[0][0].slice(s![0, 0, .., .., ..]), channels);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
pub fn feature_maps_unformat<T: Element>(
    feature_maps: ArrayView3<'_, T>,
    layout: &FeatureLayout,
) -> Result<Vec<Vec<Array5<T>>>> {
    let (batch, num_feat, channels) = feature_maps.dim();
    if num_feat != layout.num_feat() {
        return Err(Error::Dimensions {
            argument: "feature_maps",
            axes: "(batch, num_feat, embed_dims)",
            expected: vec![batch, layout.num_feat(), channels],
            actual: feature_maps.shape().to_vec(),
        });
    }
    let mut groups = Vec::new();
    let mut first = 0;
    while first < layout.cameras() {
        let end = end_of_group(layout, first);
        let maps = (0..layout.levels()).map(|level| {
            let LevelShape { height, width } = layout.shape(first, level);
            let dimensions = (batch, end - first, channels, height, width);
            let mut maps = zero_array("unpacked feature maps", dimensions)?;
            for (camera, mut map) in (first..end).zip(maps.axis_iter_mut(Axis(1))) {
                let packed = feature_maps.slice(s![.., rows(layout, camera, level), ..]);
                for (pixel, values) in packed.axis_iter(Axis(1)).enumerate() {
                    map.slice_mut(s![.., .., pixel / width, pixel % width]).assign(&values);
                }
            }
            Ok(maps)
        });
        groups.push(maps.collect::<Result<_>>()?);
        first = end;
    }
    Ok(groups)
}

/// Rows of the feature axis that hold one map.
fn rows(layout: &FeatureLayout, camera: usize, level: usize) -> Range<usize> {
    let LevelShape { height, width } = layout.shape(camera, level);
    let start = layout.start(camera, level);
    start..start + height * width
}

/// One past the last of the cameras from `first` on whose maps all have the sizes of those of `first`.
fn end_of_group(layout: &FeatureLayout, first: usize) -> usize {
    let same = |camera: usize| {
        (0..layout.levels()).all(|level| layout.shape(camera, level) == layout.shape(first, level))
    };
    (first + 1..layout.cameras()).find(|&camera| !same(camera)).unwrap_or(layout.cameras())
}

fn cameras_of<T: Element>(maps: &[ArrayView5<'_, T>]) -> usize {
    maps.first().map_or(0, |map| map.dim().1)
}

/// The dense layout of checked groups.
fn layout_of<T: Element>(groups: &[Vec<ArrayView5<'_, T>>]) -> Result<FeatureLayout> {
    let first = groups
        .first()
        .ok_or(Error::Empty { argument: "groups", expected: "at least one group of cameras" })?;
    let first_map = first
        .first()
        .ok_or(Error::Empty { argument: "groups[0]", expected: "at least one level" })?;
    let (batch, _, channels, _, _) = first_map.dim();
    let mut layout = FeatureLayout::empty(first.len());
    for (index, maps) in groups.iter().enumerate() {
        if maps.len() != first.len() {
            return Err(Error::Uneven {
                argument: "groups",
                index,
                quantity: "levels",
                expected: first.len(),
                actual: maps.len(),
            });
        }
        let cameras = cameras_of(maps);
        let mut shapes = Vec::with_capacity(maps.len());
        for (level, map) in maps.iter().enumerate() {
            let (_, _, _, height, width) = map.dim();
            if map.shape()[..3] != [batch, cameras, channels] {
                return Err(Error::Dimensions {
                    argument: "groups",
                    axes: "(batch, cameras of the group, channels, height, width)",
                    expected: vec![batch, cameras, channels, height, width],
                    actual: map.shape().to_vec(),
                });
            }
            if height == 0 || width == 0 {
                let (height, width) = (height as i64, width as i64);
                return Err(Error::LevelSize {
                    argument: "groups",
                    camera: index,
                    level,
                    height,
                    width,
                });
            }
            shapes.push(LevelShape { height, width });
        }
        layout.push_cameras(cameras, &shapes)?;
    }
    Ok(layout)
}
