//! Calls of the attention block: random ones, and those of golden files.

use deformable_aggregation::block::{
    BlockConfig, BlockGradients, BlockInputs, BlockParameters, BoxKeyPoints,
    DeformableFeatureAggregation, DropoutMasks, FeatureMaps, KeyPointsConfig, Mode,
    PolylineKeyPoints, ResidualMode,
};
use deformable_aggregation::{Element, Scalar as _, feature_maps_format};
use ndarray::{
    Array1, Array2, Array3, Array4, Array5, Array6, ArrayD, ArrayView5, Ix1, Ix3, Ix6, s,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::backends::Subject;
use crate::cases::to_f64;
use crate::golden::{array, open_golden};

/// All arrays of one call, with the gradient of its output.
#[derive(Clone, Debug)]
pub struct BlockCase<T: Element> {
    /// The block's settings.
    pub config: BlockConfig,
    /// Its parameters.
    pub parameters: BlockParameters<T::Location>,
    /// (batch, anchors, embed_dims)
    pub instance_feature: Array3<T>,
    /// (batch, anchors, numbers of an anchor)
    pub anchor: Array3<T::Location>,
    /// (batch, anchors, embed_dims)
    pub anchor_embed: Option<Array3<T>>,
    /// `[group][level]`, (batch, cameras of the group, embed_dims, height, width)
    pub feature_maps: Vec<Vec<Array5<T>>>,
    /// (batch, cameras, 4, 4)
    pub projection_mat: Array4<T::Location>,
    /// (batch, cameras, 2)
    pub image_wh: Option<Array3<T::Location>>,
    /// What dropout keeps; `None` for evaluation mode.
    pub masks: Option<DropoutMasks>,
    /// (batch, anchors, output_dims)
    pub grad_output: Array3<T>,
}

/// In which form a case hands over its feature maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapsForm {
    /// Packed by the caller.
    Packed,
    /// A list of levels; for cases of one camera group.
    Levels,
    /// Levels for each group.
    Groups,
}

/// Output and gradients by the names that golden files have for them.
pub type NamedResults = Vec<(String, ArrayD<f64>)>;

impl BlockCase<f64> {
    /// Random numbers: two cameras that look at boxes or polylines in front of them, some of them past the image. `levels` are
    /// (height, width). Parameters are those of the initialisation, but none is 0.
    ///
    /// # Panics
    ///
    /// If the configuration is not valid.
    #[must_use]
    pub fn random(
        config: &BlockConfig,
        batch: usize,
        anchors: usize,
        levels: &[(usize, usize)],
        seed: u64,
    ) -> Self {
        assert_eq!(levels.len(), config.num_levels, "levels of the maps");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut parameters = BlockParameters::init(config, seed).expect("a valid configuration");
        for (name, mut tensor) in parameters.named_mut() {
            if name != "kps_generator.fix_scale" {
                tensor.mapv_inplace(|value| value + rng.random_range(-0.3..0.3));
            }
        }
        let channels = config.embed_dims;
        let mut values = |size: [usize; 3]| {
            Array3::from_shape_simple_fn(size, || f64::from(rng.random_range(-1.0_f32..1.0)))
        };
        let instance_feature = values([batch, anchors, channels]);
        let anchor_embed = Some(values([batch, anchors, channels]));
        let grad_output = values([batch, anchors, config.output_dims()]);
        let maps: Vec<_> = levels
            .iter()
            .map(|&(height, width)| {
                values([batch * config.num_cams, channels, height * width])
                    .into_shape_with_order((batch, config.num_cams, channels, height, width))
                    .expect("as many numbers")
            })
            .collect();
        let anchor = random_anchors(&config.kps_generator, batch, anchors, &mut rng);
        let (projection_mat, image_wh) = cameras(batch, config.num_cams);
        Self {
            config: config.clone(),
            parameters,
            instance_feature,
            anchor,
            anchor_embed,
            feature_maps: vec![maps],
            projection_mat,
            image_wh: Some(image_wh),
            masks: None,
            grad_output,
        }
    }

    /// The same numbers, rounded to `T`.
    ///
    /// # Panics
    ///
    /// If the configuration is not valid.
    #[must_use]
    pub fn cast<T: Element>(&self) -> BlockCase<T> {
        let location = T::Location::from_f64;
        let mut parameters = BlockParameters::init(&self.config, 0).expect("a valid configuration");
        for ((_, mut to), (_, from)) in
            parameters.named_mut().into_iter().zip(self.parameters.named())
        {
            to.assign(&from.mapv(location));
        }
        let maps = |levels: &Vec<Array5<f64>>| {
            levels.iter().map(|maps| maps.mapv(T::from_f64)).collect::<Vec<_>>()
        };
        BlockCase {
            config: self.config.clone(),
            parameters,
            instance_feature: self.instance_feature.mapv(T::from_f64),
            anchor: self.anchor.mapv(location),
            anchor_embed: self.anchor_embed.as_ref().map(|embed| embed.mapv(T::from_f64)),
            feature_maps: self.feature_maps.iter().map(maps).collect(),
            projection_mat: self.projection_mat.mapv(location),
            image_wh: self.image_wh.as_ref().map(|sizes| sizes.mapv(location)),
            masks: self.masks.clone(),
            grad_output: self.grad_output.mapv(T::from_f64),
        }
    }

    /// Distance in pixels of the nearest sample to a line where the result is not smooth: through pixel centres, or the border of the
    /// image.
    ///
    /// # Panics
    ///
    /// If the configuration is not valid.
    #[must_use]
    pub fn distance_to_lines(&self) -> f64 {
        let block = self.block(&Subject::from(deformable_aggregation::Backend::Reference));
        let points = block
            .key_points_generator()
            .key_points(self.anchor.view(), self.instance_feature.view())
            .expect("arrays fit");
        let mut nearest = f64::INFINITY;
        let (batch, anchors, count, _) = points.dim();
        for (b, a, p) in ndarray::indices((batch, anchors, count)) {
            for camera in 0..self.config.num_cams {
                let matrix = self.projection_mat.slice(s![b, camera, ..3, ..]);
                let point = [0, 1, 2].map(|axis| points[[b, a, p, axis]]);
                let [x, y, z] = [0, 1, 2].map(|row| {
                    (0..3).map(|axis| matrix[[row, axis]] * point[axis]).sum::<f64>()
                        + matrix[[row, 3]]
                });
                for maps in self.maps_of(camera) {
                    for (axis, value) in [(1, x), (0, y)] {
                        let side = maps.shape()[3 + axis] as f64;
                        let size = self
                            .image_wh
                            .as_ref()
                            .map_or(1.0, |sizes| sizes[[b, camera, 1 - axis]]);
                        let position = value / z.max(1e-5) / size * side - 0.5;
                        if position > -1.5 && position < side + 0.5 {
                            let border = (position + 0.5).abs().min((position - side + 0.5).abs());
                            nearest = nearest.min(border).min((position - position.round()).abs());
                        }
                    }
                }
            }
        }
        nearest
    }

    /// The levels of a camera's group.
    fn maps_of(&self, camera: usize) -> &[Array5<f64>] {
        let mut first = 0;
        for levels in &self.feature_maps {
            first += levels[0].dim().1;
            if camera < first {
                return levels;
            }
        }
        panic!("there is no camera {camera}");
    }
}

impl<T: Element> BlockCase<T> {
    /// The same numbers in fp64; exact.
    ///
    /// # Panics
    ///
    /// If the configuration is not valid.
    #[must_use]
    pub fn widened(&self) -> BlockCase<f64> {
        let mut parameters = BlockParameters::init(&self.config, 0).expect("a valid configuration");
        for ((_, mut to), (_, from)) in
            parameters.named_mut().into_iter().zip(self.parameters.named())
        {
            to.assign(&from.mapv(Into::into));
        }
        let maps = |levels: &Vec<Array5<T>>| levels.iter().map(to_f64).collect::<Vec<_>>();
        BlockCase {
            config: self.config.clone(),
            parameters,
            instance_feature: to_f64(&self.instance_feature),
            anchor: self.anchor.mapv(Into::into),
            anchor_embed: self.anchor_embed.as_ref().map(to_f64),
            feature_maps: self.feature_maps.iter().map(maps).collect(),
            projection_mat: self.projection_mat.mapv(Into::into),
            image_wh: self.image_wh.as_ref().map(|sizes| sizes.mapv(Into::into)),
            masks: self.masks.clone(),
            grad_output: to_f64(&self.grad_output),
        }
    }

    /// The block on a subject.
    ///
    /// # Panics
    ///
    /// If the parameters do not fit the configuration.
    #[must_use]
    pub fn block(&self, subject: &Subject) -> DeformableFeatureAggregation<T::Location> {
        DeformableFeatureAggregation::with_parameters(self.config.clone(), self.parameters.clone())
            .expect("parameters of the configuration")
            .with_backend(subject.backend.clone())
            .with_algorithm(subject.algorithm)
    }

    /// The mode of the call.
    #[must_use]
    pub fn mode(&self) -> Mode<'_> {
        self.masks.as_ref().map_or(Mode::Evaluation, Mode::Masks)
    }

    /// Hands the inputs to `call`, the feature maps in that form.
    pub fn with_inputs<R>(&self, form: MapsForm, call: impl FnOnce(BlockInputs<'_, T>) -> R) -> R {
        let views: Vec<Vec<ArrayView5<'_, T>>> = self
            .feature_maps
            .iter()
            .map(|levels| levels.iter().map(|maps| maps.view()).collect())
            .collect();
        let packed = feature_maps_format(&views).expect("maps of one batch");
        let feature_maps = match form {
            MapsForm::Packed => FeatureMaps::Packed {
                feature_maps: packed.feature_maps.view(),
                layout: &packed.layout,
            },
            MapsForm::Levels => FeatureMaps::Levels(&views[0]),
            MapsForm::Groups => FeatureMaps::Groups(&views),
        };
        call(BlockInputs {
            instance_feature: self.instance_feature.view(),
            anchor: self.anchor.view(),
            anchor_embed: self.anchor_embed.as_ref().map(|array| array.view()),
            feature_maps,
            projection_mat: self.projection_mat.view(),
            image_wh: self.image_wh.as_ref().map(|array| array.view()),
        })
    }

    /// Output and gradients as a subject computes them.
    ///
    /// # Panics
    ///
    /// If the subject reports an error.
    #[must_use]
    pub fn run(&self, subject: &Subject, form: MapsForm) -> (Array3<T>, BlockGradients<T>) {
        let block = self.block(subject);
        self.with_inputs(form, |inputs| {
            let (output, context) = block
                .forward_with_context(inputs, self.mode())
                .unwrap_or_else(|error| panic!("{error}"));
            let gradients =
                context.backward(self.grad_output.view()).unwrap_or_else(|error| panic!("{error}"));
            (output, gradients)
        })
    }

    /// `sum(output * grad_output)`, as a subject computes it.
    ///
    /// # Panics
    ///
    /// If the subject reports an error.
    #[must_use]
    pub fn scalar(&self, subject: &Subject) -> f64 {
        let block = self.block(subject);
        let output = self
            .with_inputs(MapsForm::Groups, |inputs| block.forward(inputs, self.mode()))
            .unwrap_or_else(|error| panic!("{error}"));
        output.iter().zip(&self.grad_output).map(|(a, b)| a.to_f64() * b.to_f64()).sum()
    }
}

/// Output and gradients under the names of golden files.
///
/// # Panics
///
/// If the feature gradient cannot be unpacked.
#[must_use]
pub fn named<T: Element>(output: &Array3<T>, gradients: &BlockGradients<T>) -> NamedResults {
    let locations = |array: ArrayD<T::Location>| array.mapv(Into::into);
    let mut results = vec![
        ("output".to_owned(), to_f64(output).into_dyn()),
        ("grad.instance_feature".to_owned(), to_f64(&gradients.instance_feature).into_dyn()),
        ("grad.anchor".to_owned(), locations(gradients.anchor.clone().into_dyn())),
        ("grad.projection_mat".to_owned(), locations(gradients.projection_mat.clone().into_dyn())),
    ];
    if let Some(embed) = &gradients.anchor_embed {
        results.push(("grad.anchor_embed".to_owned(), to_f64(embed).into_dyn()));
    }
    let maps = gradients.feature_maps_by_level().expect("packed by its layout");
    for (group, levels) in maps.iter().enumerate() {
        for (level, maps) in levels.iter().enumerate() {
            results.push((format!("grad.fm.{group}.{level}"), to_f64(maps).into_dyn()));
        }
    }
    for (name, tensor) in gradients.parameters.named() {
        results.push((format!("grad.param.{name}"), locations(tensor.to_owned())));
    }
    results
}

fn random_anchors(
    config: &KeyPointsConfig,
    batch: usize,
    anchors: usize,
    rng: &mut ChaCha8Rng,
) -> Array3<f64> {
    let mut number = |low: f32, high: f32| f64::from(rng.random_range(low..high));
    match config {
        KeyPointsConfig::Box(_) => {
            let mut boxes = Array3::zeros((batch, anchors, 11));
            for mut anchor in boxes.rows_mut() {
                let yaw = number(-3.0, 3.0);
                let values = [
                    number(-4.0, 4.0),
                    number(-2.5, 2.5),
                    number(4.0, 9.0),
                    number(0.0, 1.0),
                    number(-0.5, 0.5),
                    number(-0.5, 0.5),
                    f64::from(yaw.sin() as f32),
                    f64::from(yaw.cos() as f32),
                    number(-1.0, 1.0),
                    number(-1.0, 1.0),
                    number(-1.0, 1.0),
                ];
                anchor.assign(&Array1::from_iter(values));
            }
            boxes
        }
        KeyPointsConfig::Polyline(line) => {
            Array3::from_shape_simple_fn((batch, anchors, 2 * line.num_sample), || {
                number(-4.0, 4.0)
            })
        }
    }
}

/// Cameras that look along z, each from somewhere else and with a twist, onto images of 64 × 48.
fn cameras(batch: usize, count: usize) -> (Array4<f64>, Array3<f64>) {
    let (width, height) = (64.0, 48.0);
    let matrices = Array4::from_shape_fn((batch, count, 4, 4), |(b, camera, row, column)| {
        let offset = camera as f64 - (count as f64 - 1.0) / 2.0 + 0.125 * b as f64;
        let value = match (row, column) {
            (0, 0) => 0.6 * width,
            (1, 1) => 0.7 * height,
            (0, 2) => 0.5 * width,
            (1, 2) => 0.5 * height,
            (0, 3) => 0.6 * width * offset,
            (2, 3) => 5.5 + 0.25 * offset,
            (0, 1) | (1, 0) => 1.5 * offset,
            (2, 0) => 0.125 * offset,
            (2, 1) => 0.0625,
            (2, 2) | (3, 3) => 1.0,
            _ => 0.0,
        };
        f64::from(value as f32)
    });
    let sizes = Array3::from_shape_fn(
        (batch, count, 2),
        |(_, _, axis)| {
            if axis == 0 { width } else { height }
        },
    );
    (matrices, sizes)
}

/// A golden file of kind `block`.
pub struct GoldenBlock {
    /// The call; `f64`, but exactly representable in `f32`.
    pub case: BlockCase<f64>,
    /// Results under the rules `op` and `grid`.
    pub results: [NamedResults; 2],
}

impl GoldenBlock {
    /// Names of all files of this kind.
    pub const NAMES: [&str; 6] = [
        "block_box_cat",
        "block_box_plain",
        "block_polyline_train",
        "block_mixed_cams",
        "block_filter_outlier",
        "block_zero_anchor",
    ];

    /// Reads a file.
    ///
    /// # Panics
    ///
    /// If it is not a file of this kind.
    #[must_use]
    pub fn load(name: &str) -> Self {
        let mut file = open_golden(name);
        let names = file.names().unwrap_or_else(|error| panic!("{name}: {error}"));
        let has = |wanted: &str| names.iter().any(|name| name.trim_end_matches(".npy") == wanted);
        let wide = |value: f32| f64::from(value);
        let instance_feature: Array3<f64> = array(&mut file, "instance_feature").mapv(wide);
        let anchor: Array3<f64> = array(&mut file, "anchor").mapv(wide);
        let mut feature_maps = Vec::new();
        while has(&format!("fm.{}.0", feature_maps.len())) {
            let group = feature_maps.len();
            let mut levels: Vec<Array5<f64>> = Vec::new();
            while has(&format!("fm.{group}.{}", levels.len())) {
                levels.push(array(&mut file, &format!("fm.{group}.{}", levels.len())).mapv(wide));
            }
            feature_maps.push(levels);
        }
        // (batch, anchors, cameras, levels, points, groups)
        let attention: Array6<f64> = array(&mut file, "attention");
        let grad_output: Array3<f64> = array(&mut file, "grad_out").mapv(wide);
        let embed_dims = instance_feature.dim().2;
        let fc = "param.kps_generator.learnable_fc.bias";
        let offsets = if has(fc) { array::<f32, Ix1>(&mut file, fc).len() } else { 0 };
        let kps_generator = if has("fix_scale") {
            let places: Array2<f64> = array(&mut file, "fix_scale").mapv(wide);
            let fix_scale =
                places.rows().into_iter().map(|place| [place[0], place[1], place[2]]).collect();
            KeyPointsConfig::Box(BoxKeyPoints { num_learnable_pts: offsets / 3, fix_scale })
        } else {
            let fix_height: Array1<f64> = array(&mut file, "fix_height").mapv(wide);
            let num_sample = anchor.dim().2 / 2;
            KeyPointsConfig::Polyline(PolylineKeyPoints {
                num_sample,
                num_learnable_pts: offsets / 2 / num_sample / fix_height.len(),
                fix_height: fix_height.to_vec(),
                // What the arrays do not say, the list of cases does.
                ground_height: if name == "block_polyline_train" { -0.25 } else { 0.0 },
            })
        };
        let trained = has("attn_rand");
        let config = BlockConfig {
            embed_dims,
            num_groups: attention.dim().5,
            num_levels: attention.dim().3,
            num_cams: attention.dim().2,
            proj_drop: if trained { 0.1 } else { 0.0 },
            attn_drop: if trained { 0.15 } else { 0.0 },
            kps_generator,
            use_deformable_func: true,
            use_camera_embed: has("param.camera_encoder.0.weight"),
            residual_mode: if grad_output.dim().2 == embed_dims {
                ResidualMode::Add
            } else {
                ResidualMode::Cat
            },
            filter_outlier: name == "block_filter_outlier",
        };
        let masks = trained.then(|| DropoutMasks {
            attention: array::<f32, Ix6>(&mut file, "attn_rand")
                .mapv(|number| number > 0.15)
                .slice_move(s![.., .., .., 0, .., 0]),
            projection: array::<f32, Ix3>(&mut file, "proj_keep").mapv(|kept| kept != 0.0),
        });
        let mut parameters = BlockParameters::init(&config, 0).expect("a valid configuration");
        for (name, mut tensor) in parameters.named_mut() {
            if name != "kps_generator.fix_scale" {
                let stored: ArrayD<f32> = array(&mut file, &format!("param.{name}"));
                tensor.assign(&stored.mapv(wide));
            }
        }
        let projection_mat = array(&mut file, "projection_mat").mapv(wide);
        let image_wh = has("image_wh").then(|| array(&mut file, "image_wh").mapv(wide));
        let anchor_embed = Some(array(&mut file, "anchor_embed").mapv(wide));
        let results = ["op", "grid"].map(|rule| {
            let prefix = format!("{rule}.");
            let of_rule = |name: &String| {
                name.starts_with(&prefix) && !name.starts_with(&format!("{rule}.features"))
            };
            names
                .iter()
                .filter(|name| of_rule(name))
                .map(|name| {
                    let name = name.trim_end_matches(".npy");
                    (name[prefix.len()..].to_owned(), array(&mut file, name))
                })
                .collect()
        });
        let case = BlockCase {
            config,
            parameters,
            instance_feature,
            anchor,
            anchor_embed,
            feature_maps,
            projection_mat,
            image_wh,
            masks,
            grad_output,
        };
        Self { case, results }
    }
}
