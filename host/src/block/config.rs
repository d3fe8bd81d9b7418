//! What the block's constructor takes.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::rule::BorderRule;

/// The settings of an attention block: the counterpart of the constructor of `DeformableFeatureAggregation`.
///
/// The defaults are those of the PyTorch projects. What Sparse4D v3 sets is
///
/// ```
/// use deformable_aggregation::block::{
///     BlockConfig, BoxKeyPoints, KeyPointsConfig, ResidualMode,
/// };
///
/// let config = BlockConfig {
///     attn_drop: 0.15,
///     kps_generator: KeyPointsConfig::Box(BoxKeyPoints {
///         num_learnable_pts: 6,
///         fix_scale: BoxKeyPoints::CENTRE_AND_SIDES.to_vec(),
///     }),
///     use_deformable_func: true,
///     use_camera_embed: true,
///     residual_mode: ResidualMode::Cat,
///     ..BlockConfig::default()
/// };
/// config.check()?;
/// assert_eq!((config.num_pts(), config.output_dims()), (13, 512));
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BlockConfig {
    /// Channels of features, instances and embeddings; a multiple of `num_groups`. Default 256.
    pub embed_dims: usize,
    /// Groups of channels with attention weights of their own. Default 8.
    pub num_groups: usize,
    /// Levels of the feature maps. Default 4.
    pub num_levels: usize,
    /// Cameras. Default 6.
    pub num_cams: usize,
    /// Probability with which, in training, an entry of the projected output is dropped. At least 0, below 1; default 0.
    pub proj_drop: f64,
    /// Probability with which, in training, a (camera, key point) pair of an anchor is dropped, at all levels and in all groups.
    /// At least 0, below 1; default 0.
    pub attn_drop: f64,
    /// Where the key points of an anchor lie. Default: the centre of a box.
    pub kps_generator: KeyPointsConfig,
    /// Which border rule the features are sampled by: `true` for [`BorderRule::Operator`], that of the fused operator,
    /// `false` for [`BorderRule::GridSample`], that of the published fallback. Default `false`, as published; trained models
    /// usually have `true`. Both run on every backend.
    pub use_deformable_func: bool,
    /// Whether the attention weights depend on the camera through an encoding of its projection matrix. Default `false`.
    pub use_camera_embed: bool,
    /// How the instance feature enters the output. Default [`ResidualMode::Add`].
    pub residual_mode: ResidualMode,
    /// Whether cameras that do not see a key point get no attention for it, as long as another one sees it. Default `false`.
    pub filter_outlier: bool,
}

impl Default for BlockConfig {
    fn default() -> Self {
        Self {
            embed_dims: 256,
            num_groups: 8,
            num_levels: 4,
            num_cams: 6,
            proj_drop: 0.0,
            attn_drop: 0.0,
            kps_generator: KeyPointsConfig::default(),
            use_deformable_func: false,
            use_camera_embed: false,
            residual_mode: ResidualMode::default(),
            filter_outlier: false,
        }
    }
}

/// Which key points an anchor has: the counterpart of `kps_generator=dict(type=…)`.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyPointsConfig {
    /// Points in a 3D box, `SparseBox3DKeyPointsGenerator`.
    Box(BoxKeyPoints),
    /// Points along a polyline on the ground, `SparsePoint3DKeyPointsGenerator`.
    Polyline(PolylineKeyPoints),
}

impl Default for KeyPointsConfig {
    fn default() -> Self {
        Self::Box(BoxKeyPoints::default())
    }
}

/// Key points of a box anchor (X, Y, Z, log W, log L, log H, sin yaw, cos yaw, velocity …): first fixed ones, then learned ones.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxKeyPoints {
    /// Points whose places are predicted from the instance feature, inside the box. Default 0.
    pub num_learnable_pts: usize,
    /// Places of the fixed points in fractions of the box's sides (W, L, H). Default: the centre. A checkpoint that has
    /// places of its own overrides them.
    pub fix_scale: Vec<[f64; 3]>,
}

impl BoxKeyPoints {
    /// The fixed points of Sparse4D v3 and its relatives, for `fix_scale`: the centre, and near the middle of each side.
    pub const CENTRE_AND_SIDES: [[f64; 3]; 7] = [
        [0.0, 0.0, 0.0],
        [0.45, 0.0, 0.0],
        [-0.45, 0.0, 0.0],
        [0.0, 0.45, 0.0],
        [0.0, -0.45, 0.0],
        [0.0, 0.0, 0.45],
        [0.0, 0.0, -0.45],
    ];
}

impl Default for BoxKeyPoints {
    fn default() -> Self {
        Self { num_learnable_pts: 0, fix_scale: vec![[0.0; 3]] }
    }
}

/// Key points of a polyline anchor (x₀, y₀, x₁, y₁, …): every vertex at every height, `num_learnable_pts` times with a learned
/// offset each.
#[derive(Clone, Debug, PartialEq)]
pub struct PolylineKeyPoints {
    /// Vertices of the polyline. Default 20.
    pub num_sample: usize,
    /// Points with a predicted offset at each vertex and height; 0 means one point without an offset. Default 0.
    pub num_learnable_pts: usize,
    /// Heights of the points above the ground in metres. Default: 0.
    pub fix_height: Vec<f64>,
    /// Height of the ground in metres. Default 0.
    pub ground_height: f64,
}

impl Default for PolylineKeyPoints {
    fn default() -> Self {
        Self { num_sample: 20, num_learnable_pts: 0, fix_height: vec![0.0], ground_height: 0.0 }
    }
}

/// How the instance feature enters the output.
///
/// ```
/// use deformable_aggregation::block::ResidualMode;
///
/// assert_eq!("cat".parse::<ResidualMode>()?, ResidualMode::Cat);
/// assert_eq!(ResidualMode::default().to_string(), "add");
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResidualMode {
    /// It is added; the output has `embed_dims` channels.
    #[default]
    Add,
    /// It comes after the result; the output has twice `embed_dims` channels.
    Cat,
}

impl fmt::Display for ResidualMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Add => "add",
            Self::Cat => "cat",
        })
    }
}

impl FromStr for ResidualMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "add" => Ok(Self::Add),
            "cat" => Ok(Self::Cat),
            _ => Err(Error::UnknownName {
                argument: "residual_mode",
                expected: "add, cat",
                actual: text.to_owned(),
            }),
        }
    }
}

impl KeyPointsConfig {
    /// Key points of one anchor. Saturates at the address space.
    #[must_use]
    pub fn num_pts(&self) -> usize {
        match self {
            Self::Box(points) => points.fix_scale.len().saturating_add(points.num_learnable_pts),
            Self::Polyline(points) => points
                .num_sample
                .saturating_mul(points.fix_height.len())
                .saturating_mul(points.num_learnable_pts.max(1)),
        }
    }

    /// Outputs of the linear layer that predicts learned points; 0 if there is no such layer.
    pub(crate) fn offsets(&self) -> usize {
        match self {
            Self::Box(points) => points.num_learnable_pts.saturating_mul(3),
            Self::Polyline(points) if points.num_learnable_pts > 0 => {
                self.num_pts().saturating_mul(2)
            }
            Self::Polyline(_) => 0,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Box(points) => {
                if self.num_pts() == 0 {
                    return Err(Error::Empty {
                        argument: "kps_generator.fix_scale",
                        expected: "a fixed point where num_learnable_pts is 0",
                    });
                }
                points
                    .fix_scale
                    .iter()
                    .flatten()
                    .try_for_each(|&value| finite("kps_generator.fix_scale", value))
            }
            Self::Polyline(points) => {
                at_least_one("kps_generator.num_sample", points.num_sample)?;
                if points.fix_height.is_empty() {
                    return Err(Error::Empty {
                        argument: "kps_generator.fix_height",
                        expected: "at least one height",
                    });
                }
                finite("kps_generator.ground_height", points.ground_height)?;
                points
                    .fix_height
                    .iter()
                    .try_for_each(|&value| finite("kps_generator.fix_height", value))
            }
        }
    }
}

impl BlockConfig {
    /// Whether the settings fit each other.
    ///
    /// # Errors
    ///
    /// [`Error::Zero`] for a size of 0, [`Error::Groups`] if `num_groups` does not divide `embed_dims`, [`Error::OutOfRange`] for a
    /// probability outside 0 ≤ p < 1 or a place or height that is not finite, [`Error::Empty`] if there are no key points,
    /// [`Error::TooLarge`] if a parameter would not fit the address space.
    ///
    /// ```
    /// use deformable_aggregation::Error;
    /// use deformable_aggregation::block::BlockConfig;
    ///
    /// let config = BlockConfig { num_groups: 7, ..BlockConfig::default() };
    /// assert_eq!(config.check(), Err(Error::Groups { embed_dims: 256, groups: 7 }));
    /// ```
    pub fn check(&self) -> Result<()> {
        at_least_one("embed_dims", self.embed_dims)?;
        at_least_one("num_groups", self.num_groups)?;
        at_least_one("num_levels", self.num_levels)?;
        at_least_one("num_cams", self.num_cams)?;
        if !self.embed_dims.is_multiple_of(self.num_groups) {
            return Err(Error::Groups { embed_dims: self.embed_dims, groups: self.num_groups });
        }
        probability("proj_drop", self.proj_drop)?;
        probability("attn_drop", self.attn_drop)?;
        self.kps_generator.check()?;
        let widest = [
            ("output_proj.weight", [self.embed_dims, self.embed_dims]),
            ("kps_generator.learnable_fc.weight", [self.kps_generator.offsets(), self.embed_dims]),
            ("weights_fc.weight", [self.logits_per_anchor(), self.embed_dims]),
        ];
        for (argument, dimensions) in widest {
            let bytes = dimensions.iter().try_fold(size_of::<f64>(), |a, &b| a.checked_mul(b));
            if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
                return Err(Error::TooLarge {
                    argument,
                    dimensions: dimensions.to_vec(),
                    element_bytes: size_of::<f64>(),
                });
            }
        }
        Ok(())
    }

    /// Key points of one anchor.
    #[must_use]
    pub fn num_pts(&self) -> usize {
        self.kps_generator.num_pts()
    }

    /// Channels of the output: `embed_dims`, or twice that with [`ResidualMode::Cat`].
    #[must_use]
    pub fn output_dims(&self) -> usize {
        match self.residual_mode {
            ResidualMode::Add => self.embed_dims,
            ResidualMode::Cat => self.embed_dims.saturating_mul(2),
        }
    }

    /// Which samples count.
    #[must_use]
    pub fn border_rule(&self) -> BorderRule {
        if self.use_deformable_func { BorderRule::Operator } else { BorderRule::GridSample }
    }

    /// Outputs of `weights_fc` that belong to one camera: levels × points × groups.
    pub(crate) fn logits_per_camera(&self) -> usize {
        self.num_levels.saturating_mul(self.num_pts()).saturating_mul(self.num_groups)
    }

    /// Outputs of `weights_fc`, which with a camera embedding runs for every camera.
    pub(crate) fn weights_outputs(&self) -> usize {
        if self.use_camera_embed { self.logits_per_camera() } else { self.logits_per_anchor() }
    }

    /// Attention weights of an anchor: cameras × levels × points × groups.
    pub(crate) fn logits_per_anchor(&self) -> usize {
        self.num_cams.saturating_mul(self.logits_per_camera())
    }
}

fn at_least_one(argument: &'static str, size: usize) -> Result<()> {
    if size == 0 { Err(Error::Zero { argument }) } else { Ok(()) }
}

fn probability(argument: &'static str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::OutOfRange {
        argument,
        expected: "a probability p with 0 <= p < 1",
        actual: value.to_string(),
    })
}

fn finite(argument: &'static str, value: f64) -> Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Error::OutOfRange { argument, expected: "finite numbers", actual: value.to_string() })
}
