//! Cases of files of vectors that are about the attention block and its key points.

use anyhow::{Context, Result};
use deformable_aggregation::block::{
    BlockConfig, BlockParameters, BoxKeyPoints, DropoutMasks, KeyPointsConfig, PolylineKeyPoints,
    ResidualMode,
};
use deformable_aggregation::{BorderRule, feature_maps_format};
use ndarray::{Array1, Array2, Array3, Array4, Array5, Array6, ArrayD, s};

use super::{BlockData, NamedArrays};
use crate::vectors::{Vectors, nested};

/// What the arrays of a case do not say.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Settings {
    attn_drop: f64,
    proj_drop: f64,
    ground_height: f64,
    filter_outlier: bool,
}

impl Settings {
    /// What is known of the golden case of that name.
    fn of(case: &str) -> Self {
        let plain =
            Self { attn_drop: 0.0, proj_drop: 0.0, ground_height: 0.0, filter_outlier: false };
        match case {
            "block_polyline_train" => {
                Self { attn_drop: 0.15, proj_drop: 0.1, ground_height: -0.25, ..plain }
            }
            "block_filter_outlier" => Self { filter_outlier: true, ..plain },
            _ => plain,
        }
    }
}

/// A block case of a file.
pub struct BlockCase {
    /// Name of the file.
    pub name: String,
    /// The call, in the type it was computed from.
    pub data: BlockData<f64>,
    /// The key points, (batch, anchors, points, 3).
    pub key_points: Vec<f64>,
    /// Output and gradients to be met, by rule.
    pub goldens: Vec<(BorderRule, NamedArrays)>,
}

impl BlockCase {
    /// Reads the arrays of a block case.
    ///
    /// # Errors
    ///
    /// If an array is missing or does not fit the others.
    pub fn read(vectors: &mut Vectors) -> Result<Self> {
        let name = vectors.name.clone();
        let settings = Settings::of(&name);
        let maps = nested(vectors, "fm")?;
        let views: Vec<Vec<_>> =
            maps.iter().map(|levels| levels.iter().map(|maps| maps.view()).collect()).collect();
        let packed = feature_maps_format(&views).with_context(|| name.clone())?;
        let instance_feature: Array3<f64> = vectors.floats("instance_feature")?;
        let anchor: Array3<f64> = vectors.floats("anchor")?;
        let grad_output: Array3<f64> = vectors.floats("grad_out")?;
        // (batch, anchors, cameras, levels, points, groups)
        let attention: Array6<f64> = vectors.floats("attention")?;
        let (embed_dims, numbers) = (instance_feature.dim().2, anchor.dim().2);
        let residual_mode =
            if grad_output.dim().2 == embed_dims { ResidualMode::Add } else { ResidualMode::Cat };
        let config = BlockConfig {
            embed_dims,
            num_groups: attention.dim().5,
            num_levels: attention.dim().3,
            num_cams: attention.dim().2,
            proj_drop: settings.proj_drop,
            attn_drop: settings.attn_drop,
            kps_generator: generator(vectors, "kps_generator", numbers, settings.ground_height)?,
            use_deformable_func: true,
            use_camera_embed: vectors.has("param.camera_encoder.0.weight"),
            residual_mode,
            filter_outlier: settings.filter_outlier,
        };
        let mut parameters = BlockParameters::init(&config, 0).with_context(|| name.clone())?;
        for (parameter, tensor) in parameters.named_mut() {
            // The generator's settings have the places of fixed points already.
            if parameter != "kps_generator.fix_scale" {
                assign(vectors, &format!("param.{parameter}"), tensor)?;
            }
        }
        let masks = if vectors.has("attn_rand") {
            let numbers: Array6<f64> = vectors.floats("attn_rand")?;
            let kept: Array3<f64> = vectors.floats("proj_keep")?;
            // The file has the probability in fp32.
            let attn_drop = f64::from(config.attn_drop as f32);
            let attention = numbers.mapv(|number| number > attn_drop);
            Some(DropoutMasks {
                attention: attention.slice_move(s![.., .., .., 0, .., 0]),
                projection: kept.mapv(|kept| kept != 0.0),
            })
        } else {
            None
        };
        let data = BlockData {
            config,
            parameters,
            instance_feature,
            anchor,
            anchor_embed: optional(vectors, "anchor_embed")?,
            feature_maps: packed.feature_maps,
            layout: packed.layout,
            projection_mat: vectors.floats("projection_mat")?,
            image_wh: optional(vectors, "image_wh")?,
            masks,
            grad_output,
        };
        let key_points: Array4<f64> = vectors.floats("key_points")?;
        let mut goldens = Vec::new();
        for rule in [BorderRule::Operator, BorderRule::GridSample] {
            if vectors.has(&format!("{rule}.output")) {
                goldens.push((rule, results(vectors, rule)?));
            }
        }
        Ok(Self { name, data, key_points: key_points.into_iter().collect(), goldens })
    }
}

/// The output and all gradients under a rule.
fn results(vectors: &mut Vectors, rule: BorderRule) -> Result<NamedArrays> {
    let prefix = format!("{rule}.");
    let names: Vec<String> = vectors
        .names()
        .iter()
        .filter_map(|name| name.strip_prefix(&prefix))
        .filter(|name| *name == "output" || name.starts_with("grad."))
        .map(str::to_owned)
        .collect();
    let mut arrays = Vec::new();
    for name in names {
        let values: ArrayD<f64> = vectors.floats(&format!("{prefix}{name}"))?;
        arrays.push((name, values.into_iter().collect()));
    }
    Ok(arrays)
}

/// The settings of a generator whose layer is `param.<module>.learnable_fc`, for anchors of that many numbers.
fn generator(
    vectors: &mut Vectors,
    module: &str,
    numbers: usize,
    ground_height: f64,
) -> Result<KeyPointsConfig> {
    let bias = format!("param.{module}.learnable_fc.bias");
    let offsets = if vectors.has(&bias) { vectors.floats::<ndarray::Ix1>(&bias)?.len() } else { 0 };
    let lines = module == "polyline" || !vectors.has("fix_scale");
    if lines {
        let fix_height: Array1<f64> = vectors.floats("fix_height")?;
        let num_sample = numbers / 2;
        let per_point = 2 * num_sample * fix_height.len();
        return Ok(KeyPointsConfig::Polyline(PolylineKeyPoints {
            num_sample,
            num_learnable_pts: offsets.checked_div(per_point).unwrap_or(0),
            fix_height: fix_height.to_vec(),
            ground_height,
        }));
    }
    let places: Array2<f64> = vectors.floats("fix_scale")?;
    let fix_scale = places.rows().into_iter().map(|row| [row[0], row[1], row[2]]).collect();
    Ok(KeyPointsConfig::Box(BoxKeyPoints { num_learnable_pts: offsets / 3, fix_scale }))
}

fn optional<D: ndarray::Dimension>(
    vectors: &mut Vectors,
    name: &str,
) -> Result<Option<ndarray::Array<f64, D>>> {
    if vectors.has(name) { vectors.floats(name).map(Some) } else { Ok(None) }
}

fn assign(
    vectors: &mut Vectors,
    name: &str,
    mut tensor: ndarray::ArrayViewMutD<'_, f64>,
) -> Result<()> {
    let values: ArrayD<f64> = vectors.floats(name)?;
    anyhow::ensure!(
        values.shape() == tensor.shape(),
        "{}: the array {name} is {:?}, not {:?}",
        vectors.name,
        values.shape(),
        tensor.shape()
    );
    tensor.assign(&values);
    Ok(())
}

/// One generator of a file of key points.
pub struct GeneratorCase {
    /// `box` or `polyline`, with which the names of its arrays begin.
    pub kind: &'static str,
    /// Its settings and its layer, in a block of their own.
    pub config: BlockConfig,
    /// The parameters of that block.
    pub parameters: BlockParameters<f64>,
    /// (batch, anchors, numbers of an anchor)
    pub anchor: Array3<f64>,
    /// Upstream gradient of the key points, (batch, anchors, points, 3).
    pub grad_key_points: Array4<f64>,
    /// That of the moved key points, (frames, batch, anchors, points, 3).
    pub grad_moved: Array5<f64>,
    /// That of the projected anchors, (frames, batch, anchors, numbers).
    pub grad_projected: Array4<f64>,
}

/// A case of key points of a file.
pub struct KeyPointCase {
    /// Name of the file.
    pub name: String,
    /// The generators.
    pub generators: [GeneratorCase; 2],
    /// (batch, anchors, embed_dims), common to both.
    pub instance_feature: Array3<f64>,
    /// From the current frame to others, (frames, batch, 4, 4).
    pub transforms: Array4<f64>,
    /// Time of the current frame in seconds, (batch).
    pub time_now: Array1<f64>,
    /// Times of the others, (frames, batch).
    pub time_other: Array2<f64>,
    /// Results to be met, by name.
    pub expected: NamedArrays,
}

impl KeyPointCase {
    /// Reads the arrays of a case of key points.
    ///
    /// # Errors
    ///
    /// If an array is missing or does not fit the others.
    pub fn read(vectors: &mut Vectors) -> Result<Self> {
        let instance_feature: Array3<f64> = vectors.floats("instance_feature")?;
        let embed_dims = instance_feature.dim().2;
        let generators = [
            generator_case(vectors, "box", "anchor", embed_dims)?,
            generator_case(vectors, "polyline", "polyline_anchor", embed_dims)?,
        ];
        let results = |name: &String| {
            let upstream = ["grad.box.", "grad.polyline."];
            let of_generator = name.starts_with("box.") || name.starts_with("polyline.");
            let gradient = name.starts_with("grad.");
            of_generator || gradient && upstream.iter().all(|prefix| !name.starts_with(prefix))
        };
        let names: Vec<String> =
            vectors.names().iter().filter(|name| results(name)).cloned().collect();
        let mut expected = Vec::new();
        for name in names {
            let values: ArrayD<f64> = vectors.floats(&name)?;
            expected.push((name, values.into_iter().collect()));
        }
        Ok(Self {
            name: vectors.name.clone(),
            generators,
            instance_feature,
            transforms: vectors.floats("T")?,
            time_now: vectors.floats("time_now")?,
            time_other: vectors.floats("time_other")?,
            expected,
        })
    }
}

fn generator_case(
    vectors: &mut Vectors,
    kind: &'static str,
    anchor: &str,
    embed_dims: usize,
) -> Result<GeneratorCase> {
    let anchor: Array3<f64> = vectors.floats(anchor)?;
    let kps_generator = generator(vectors, kind, anchor.dim().2, 0.0)?;
    let config = BlockConfig { embed_dims, num_groups: 1, kps_generator, ..BlockConfig::default() };
    let mut parameters = BlockParameters::init(&config, 0)?;
    for (parameter, tensor) in parameters.named_mut() {
        if let Some(part) = parameter.strip_prefix("kps_generator.learnable_fc.") {
            assign(vectors, &format!("param.{kind}.learnable_fc.{part}"), tensor)?;
        }
    }
    Ok(GeneratorCase {
        kind,
        config,
        parameters,
        anchor,
        grad_key_points: vectors.floats(&format!("grad.{kind}.key_points"))?,
        grad_moved: vectors.floats(&format!("grad.{kind}.key_points_moved"))?,
        grad_projected: vectors.floats(&format!("grad.{kind}.anchor_projected"))?,
    })
}
