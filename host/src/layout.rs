//! Where the feature maps of all cameras and levels lie in the packed feature axis.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3};

use crate::error::{Error, Result};
use crate::memory::reserve;

/// Size of one feature map in pixels.
///
/// ```
/// use deformable_aggregation::LevelShape;
///
/// let level = LevelShape { height: 64, width: 176 };
/// assert_eq!(level.pixels(), Some(11_264));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LevelShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl LevelShape {
    /// Height times width, or `None` if that does not fit a `usize`.
    #[must_use]
    pub const fn pixels(self) -> Option<usize> {
        self.height.checked_mul(self.width)
    }
}

/// The sizes and starts of the feature maps of `cameras` × `levels` in a feature axis of `num_feat` rows.
///
/// A value of this type is right by construction: every map has at least one pixel and lies inside the axis.
/// Maps need not be sorted, dense or disjoint; where two share rows, their gradients add.
///
/// ```
/// use deformable_aggregation::{FeatureLayout, LevelShape};
///
/// let levels = [LevelShape { height: 64, width: 176 }, LevelShape { height: 32, width: 88 }];
/// let layout = FeatureLayout::uniform(6, &levels)?;
/// assert_eq!((layout.cameras(), layout.levels()), (6, 2));
/// assert_eq!(layout.num_feat(), 6 * (64 * 176 + 32 * 88));
/// assert_eq!(layout.start(1, 0), 64 * 176 + 32 * 88);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureLayout {
    cameras: usize,
    levels: usize,
    num_feat: usize,
    /// Camera-major: the map of camera `n` and level `l` is number `n * levels + l`.
    shapes: Vec<LevelShape>,
    starts: Vec<usize>,
}

impl FeatureLayout {
    /// From the two integer tensors that the PyTorch projects use.
    ///
    /// - `spatial_shapes`: (cameras, levels, 2), each (height, width).
    /// - `scale_start_index`: (cameras, levels), the first row of each map.
    /// - `num_feat`: length of the feature axis.
    ///
    /// # Errors
    ///
    /// [`Error::Dimensions`] if the tensors disagree in cameras or levels, [`Error::LevelSize`] for a height or width
    /// below 1, [`Error::Start`] for a map that is not inside the axis, [`Error::TooLarge`] if a size
    /// does not fit, [`Error::OutOfMemory`].
    ///
    /// ```
    /// use deformable_aggregation::FeatureLayout;
    /// use ndarray::array;
    ///
    /// // Two cameras share one map of 2 × 3 pixels that starts at row 4.
    /// let layout =
    ///     FeatureLayout::new(array![[[2, 3]], [[2, 3]]].view(), array![[4], [4]].view(), 10)?;
    /// assert_eq!(layout.start(1, 0), 4);
    /// # Ok::<(), deformable_aggregation::Error>(())
    /// ```
    pub fn new(
        spatial_shapes: ArrayView3<'_, i64>,
        scale_start_index: ArrayView2<'_, i64>,
        num_feat: usize,
    ) -> Result<Self> {
        let (cameras, levels, two) = spatial_shapes.dim();
        if two != 2 {
            return Err(Error::Dimensions {
                argument: "spatial_shapes",
                axes: "(cameras, levels, 2)",
                expected: vec![cameras, levels, 2],
                actual: spatial_shapes.shape().to_vec(),
            });
        }
        if scale_start_index.dim() != (cameras, levels) {
            return Err(Error::Dimensions {
                argument: "scale_start_index",
                axes: "(cameras, levels)",
                expected: vec![cameras, levels],
                actual: scale_start_index.shape().to_vec(),
            });
        }
        check_axis(num_feat)?;
        let (mut shapes, mut starts) = (Vec::new(), Vec::new());
        reserve("map sizes", &mut shapes, scale_start_index.len())?;
        reserve("map starts", &mut starts, scale_start_index.len())?;
        for ((camera, level), &start) in scale_start_index.indexed_iter() {
            let size = (spatial_shapes[[camera, level, 0]], spatial_shapes[[camera, level, 1]]);
            let shape = level_shape("spatial_shapes", camera, level, size)?;
            let pixels = pixels("spatial_shapes", shape)?;
            let inside = usize::try_from(start)
                .ok()
                .filter(|&start| start.checked_add(pixels).is_some_and(|end| end <= num_feat));
            let Some(first) = inside else {
                return Err(Error::Start { camera, level, start, pixels, num_feat });
            };
            shapes.push(shape);
            starts.push(first);
        }
        Ok(Self { cameras, levels, num_feat, shapes, starts })
    }

    /// Dense: camera after camera, level after level, without gaps.
    ///
    /// # Errors
    ///
    /// [`Error::Uneven`] if the cameras differ in the number of levels, [`Error::LevelSize`] for an empty map,
    /// [`Error::TooLarge`] if the axis does not fit the address space, [`Error::OutOfMemory`].
    ///
    /// ```
    /// use deformable_aggregation::{FeatureLayout, LevelShape};
    ///
    /// let wide = vec![LevelShape { height: 4, width: 8 }];
    /// let tall = vec![LevelShape { height: 6, width: 3 }];
    /// let layout = FeatureLayout::packed(&[wide, tall])?;
    /// assert_eq!((layout.start(1, 0), layout.num_feat()), (32, 50));
    /// # Ok::<(), deformable_aggregation::Error>(())
    /// ```
    pub fn packed(shapes_per_camera: &[Vec<LevelShape>]) -> Result<Self> {
        let levels = shapes_per_camera.first().map_or(0, Vec::len);
        let mut layout = Self::empty(levels);
        for (index, shapes) in shapes_per_camera.iter().enumerate() {
            if shapes.len() != levels {
                return Err(Error::Uneven {
                    argument: "shapes_per_camera",
                    index,
                    quantity: "levels",
                    expected: levels,
                    actual: shapes.len(),
                });
            }
            layout.push_cameras(1, shapes)?;
        }
        Ok(layout)
    }

    /// Dense, with the same levels for every camera. The type has an example.
    ///
    /// # Errors
    ///
    /// [`Error::LevelSize`] for an empty map, [`Error::TooLarge`] if the axis does not fit the address space,
    /// [`Error::OutOfMemory`].
    pub fn uniform(cameras: usize, levels: &[LevelShape]) -> Result<Self> {
        let mut layout = Self::empty(levels.len());
        layout.push_cameras(cameras, levels)?;
        Ok(layout)
    }

    /// No camera yet.
    pub(crate) fn empty(levels: usize) -> Self {
        Self { cameras: 0, levels, num_feat: 0, shapes: Vec::new(), starts: Vec::new() }
    }

    /// Appends `count` cameras with the same maps, one for each level of the layout, without gaps.
    pub(crate) fn push_cameras(&mut self, count: usize, maps: &[LevelShape]) -> Result<()> {
        debug_assert_eq!(maps.len(), self.levels);
        let additional = count.saturating_mul(maps.len());
        reserve("map sizes", &mut self.shapes, additional)?;
        reserve("map starts", &mut self.starts, additional)?;
        if !maps.is_empty() {
            for camera in self.cameras..self.cameras + count {
                self.push_camera(camera, maps)?;
            }
        }
        self.cameras += count;
        Ok(())
    }

    fn push_camera(&mut self, camera: usize, maps: &[LevelShape]) -> Result<()> {
        for (level, &LevelShape { height, width }) in maps.iter().enumerate() {
            let size = (saturating_i64(height), saturating_i64(width));
            let shape = level_shape("levels", camera, level, size)?;
            let end = self.num_feat.checked_add(pixels("levels", shape)?);
            let end = end.ok_or_else(|| Error::TooLarge {
                argument: "feature axis",
                dimensions: vec![self.num_feat, height, width],
                element_bytes: 1,
            })?;
            check_axis(end)?;
            self.shapes.push(shape);
            self.starts.push(self.num_feat);
            self.num_feat = end;
        }
        Ok(())
    }

    /// Number of cameras.
    #[must_use]
    pub fn cameras(&self) -> usize {
        self.cameras
    }

    /// Number of levels of each camera.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Length of the feature axis, in rows of `embed_dims` elements.
    #[must_use]
    pub fn num_feat(&self) -> usize {
        self.num_feat
    }

    /// Size of a map.
    ///
    /// # Panics
    ///
    /// If `camera` or `level` is out of range.
    #[must_use]
    pub fn shape(&self, camera: usize, level: usize) -> LevelShape {
        self.shapes[self.map_index(camera, level)]
    }

    /// First row of a map in the feature axis.
    ///
    /// # Panics
    ///
    /// If `camera` or `level` is out of range.
    #[must_use]
    pub fn start(&self, camera: usize, level: usize) -> usize {
        self.starts[self.map_index(camera, level)]
    }

    fn map_index(&self, camera: usize, level: usize) -> usize {
        assert!(
            camera < self.cameras && level < self.levels,
            "map ({camera}, {level}) of a layout of {} cameras and {} levels",
            self.cameras,
            self.levels
        );
        camera * self.levels + level
    }

    /// The sizes as a tensor (cameras, levels, 2) of (height, width).
    ///
    /// ```
    /// use deformable_aggregation::{FeatureLayout, LevelShape};
    /// use ndarray::array;
    ///
    /// let layout = FeatureLayout::uniform(2, &[LevelShape { height: 4, width: 8 }])?;
    /// assert_eq!(layout.spatial_shapes(), array![[[4, 8]], [[4, 8]]]);
    /// assert_eq!(layout.scale_start_index(), array![[0], [32]]);
    /// # Ok::<(), deformable_aggregation::Error>(())
    /// ```
    #[must_use]
    pub fn spatial_shapes(&self) -> Array3<i64> {
        Array3::from_shape_fn((self.cameras, self.levels, 2), |(camera, level, axis)| {
            let LevelShape { height, width } = self.shape(camera, level);
            saturating_i64(if axis == 0 { height } else { width })
        })
    }

    /// The starts as a tensor (cameras, levels).
    #[must_use]
    pub fn scale_start_index(&self) -> Array2<i64> {
        Array2::from_shape_fn((self.cameras, self.levels), |(camera, level)| {
            saturating_i64(self.start(camera, level))
        })
    }

    /// Whether a row of the feature axis belongs to more than one map. Gradients then add up over the maps, and the GPU
    /// has no repeatable order for that.
    ///
    /// ```
    /// use deformable_aggregation::FeatureLayout;
    /// use ndarray::array;
    ///
    /// // Both cameras read the same 4 × 8 pixels.
    /// let shapes = array![[[4, 8]], [[4, 8]]];
    /// let layout = FeatureLayout::new(shapes.view(), array![[0], [0]].view(), 32)?;
    /// assert!(layout.has_shared_rows());
    /// # Ok::<(), deformable_aggregation::Error>(())
    /// ```
    #[must_use]
    pub fn has_shared_rows(&self) -> bool {
        let extents = self.sorted_extents();
        extents.windows(2).any(|pair| pair[0].1 > pair[1].0)
    }

    /// First row and end of every map, in ascending order.
    pub(crate) fn sorted_extents(&self) -> Vec<(usize, usize)> {
        let maps =
            (0..self.cameras).flat_map(|camera| (0..self.levels).map(move |level| (camera, level)));
        let mut extents: Vec<_> = maps
            .map(|(camera, level)| {
                let (start, size) = (self.start(camera, level), self.shape(camera, level));
                (start, start + size.height * size.width)
            })
            .collect();
        extents.sort_unstable();
        extents
    }
}

fn saturating_i64(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn level_shape(
    argument: &'static str,
    camera: usize,
    level: usize,
    (height, width): (i64, i64),
) -> Result<LevelShape> {
    match (usize::try_from(height), usize::try_from(width)) {
        (Ok(h), Ok(w)) if h >= 1 && w >= 1 => Ok(LevelShape { height: h, width: w }),
        _ => Err(Error::LevelSize { argument, camera, level, height, width }),
    }
}

fn pixels(argument: &'static str, shape: LevelShape) -> Result<usize> {
    shape.pixels().ok_or_else(|| Error::TooLarge {
        argument,
        dimensions: vec![shape.height, shape.width],
        element_bytes: 1,
    })
}

/// The axis has to be addressable: that also keeps every start and size in the range of `i64`.
fn check_axis(num_feat: usize) -> Result<()> {
    if isize::try_from(num_feat).is_err() {
        return Err(Error::TooLarge {
            argument: "feature axis",
            dimensions: vec![num_feat],
            element_bytes: 1,
        });
    }
    Ok(())
}
