//! The block's configuration and parameters: defaults, initial values, checkpoints, and the errors of each.

use deformable_aggregation::Error;
use deformable_aggregation::block::{
    BlockConfig, BlockParameters, BoxKeyPoints, DropoutMasks, KeyPointsConfig, PolylineKeyPoints,
    ResidualMode, expected_tensors,
};
use half::{bf16, f16};
use ndarray::{Array1, Array2};
use safetensors::tensor::{Dtype, TensorView, serialize};

fn boxes(num_learnable_pts: usize) -> KeyPointsConfig {
    KeyPointsConfig::Box(BoxKeyPoints {
        num_learnable_pts,
        fix_scale: vec![[0.0; 3], [0.45, 0.0, 0.0]],
    })
}

fn polylines(num_learnable_pts: usize) -> KeyPointsConfig {
    KeyPointsConfig::Polyline(PolylineKeyPoints {
        num_sample: 3,
        num_learnable_pts,
        fix_height: vec![0.0, 0.5],
        ground_height: -1.5,
    })
}

/// With every tensor that a block can have.
fn config() -> BlockConfig {
    BlockConfig {
        embed_dims: 8,
        num_groups: 2,
        num_levels: 3,
        num_cams: 2,
        kps_generator: boxes(2),
        use_camera_embed: true,
        ..BlockConfig::default()
    }
}

#[test]
fn defaults_are_the_published_ones() {
    let config = BlockConfig::default();
    let sizes = (config.embed_dims, config.num_groups, config.num_levels, config.num_cams);
    assert_eq!(sizes, (256, 8, 4, 6));
    assert_eq!((config.proj_drop, config.attn_drop), (0.0, 0.0));
    let flags = (config.use_deformable_func, config.use_camera_embed, config.filter_outlier);
    assert_eq!(flags, (false, false, false));
    assert_eq!(config.residual_mode, ResidualMode::Add);
    assert_eq!(
        config.kps_generator,
        KeyPointsConfig::Box(BoxKeyPoints { num_learnable_pts: 0, fix_scale: vec![[0.0; 3]] })
    );
    assert_eq!(
        PolylineKeyPoints::default(),
        PolylineKeyPoints {
            num_sample: 20,
            num_learnable_pts: 0,
            fix_height: vec![0.0],
            ground_height: 0.0
        }
    );
}

#[test]
fn tensors_have_the_sizes_of_the_configuration() {
    let sizes = |config: &BlockConfig| {
        let tensors = expected_tensors(config);
        move |wanted: &str| {
            tensors.iter().find(|(name, _)| *name == wanted).map(|(_, size)| size.clone())
        }
    };
    let boxed = sizes(&config());
    assert_eq!(boxed("kps_generator.fix_scale"), Some(vec![2, 3]));
    assert_eq!(boxed("kps_generator.learnable_fc.weight"), Some(vec![6, 8]));
    assert_eq!(boxed("camera_encoder.0.weight"), Some(vec![8, 12]));
    assert_eq!(boxed("camera_encoder.5.bias"), Some(vec![8]));
    // 3 levels · 4 points · 2 groups, for every camera by itself.
    assert_eq!(boxed("weights_fc.weight"), Some(vec![24, 8]));
    let plain = BlockConfig { use_camera_embed: false, kps_generator: polylines(2), ..config() };
    let lines = sizes(&plain);
    assert_eq!(lines("kps_generator.fix_scale"), None);
    assert_eq!(lines("camera_encoder.0.weight"), None);
    // 3 vertices · 2 heights · 2 points, of 2 numbers.
    assert_eq!(lines("kps_generator.learnable_fc.bias"), Some(vec![24]));
    assert_eq!(lines("weights_fc.bias"), Some(vec![2 * 3 * 12 * 2]));
    let fixed = sizes(&BlockConfig { kps_generator: polylines(0), ..plain });
    assert_eq!(fixed("kps_generator.learnable_fc.bias"), None);
    assert_eq!(fixed("weights_fc.bias"), Some(vec![2 * 3 * 6 * 2]));
}

#[test]
fn settings_that_do_not_fit() {
    let wrong = |change: fn(&mut BlockConfig)| {
        let mut config = config();
        change(&mut config);
        let error = config.check().expect_err("a bad setting");
        assert_eq!(BlockParameters::<f32>::init(&config, 0).err(), Some(error.clone()));
        error
    };
    assert_eq!(wrong(|c| c.embed_dims = 0), Error::Zero { argument: "embed_dims" });
    assert_eq!(wrong(|c| c.num_groups = 0), Error::Zero { argument: "num_groups" });
    assert_eq!(wrong(|c| c.num_levels = 0), Error::Zero { argument: "num_levels" });
    assert_eq!(wrong(|c| c.num_cams = 0), Error::Zero { argument: "num_cams" });
    assert_eq!(wrong(|c| c.num_groups = 3), Error::Groups { embed_dims: 8, groups: 3 });
    let probability = |argument, actual: &str| Error::OutOfRange {
        argument,
        expected: "a probability p with 0 <= p < 1",
        actual: actual.to_owned(),
    };
    assert_eq!(wrong(|c| c.proj_drop = 1.0), probability("proj_drop", "1"));
    assert_eq!(wrong(|c| c.attn_drop = -0.25), probability("attn_drop", "-0.25"));
    assert_eq!(wrong(|c| c.attn_drop = f64::NAN), probability("attn_drop", "NaN"));
    let boxed = |points, learnable| {
        KeyPointsConfig::Box(BoxKeyPoints { num_learnable_pts: learnable, fix_scale: points })
    };
    let check = |kps_generator| {
        BlockConfig { kps_generator, ..config() }.check().expect_err("a bad generator")
    };
    assert!(matches!(
        check(boxed(vec![], 0)),
        Error::Empty { argument: "kps_generator.fix_scale", .. }
    ));
    assert!(matches!(
        check(boxed(vec![[0.0, f64::INFINITY, 0.0]], 1)),
        Error::OutOfRange { argument: "kps_generator.fix_scale", .. }
    ));
    let line = |num_sample, fix_height, ground_height| {
        KeyPointsConfig::Polyline(PolylineKeyPoints {
            num_sample,
            num_learnable_pts: 1,
            fix_height,
            ground_height,
        })
    };
    assert_eq!(
        check(line(0, vec![0.0], 0.0)),
        Error::Zero { argument: "kps_generator.num_sample" }
    );
    assert!(matches!(
        check(line(2, vec![], 0.0)),
        Error::Empty { argument: "kps_generator.fix_height", .. }
    ));
    assert!(matches!(
        check(line(2, vec![f64::NAN], 0.0)),
        Error::OutOfRange { argument: "kps_generator.fix_height", .. }
    ));
    assert!(matches!(
        check(line(2, vec![0.0], f64::NEG_INFINITY)),
        Error::OutOfRange { argument: "kps_generator.ground_height", .. }
    ));
    assert!(matches!(
        check(line(usize::MAX, vec![0.0], 0.0)),
        Error::TooLarge { argument: "kps_generator.learnable_fc.weight", .. }
    ));
    assert!(matches!(
        wrong(|c| c.num_levels = usize::MAX / 2),
        Error::TooLarge { argument: "weights_fc.weight", .. }
    ));
    assert_eq!(
        "none".parse::<ResidualMode>(),
        Err(Error::UnknownName {
            argument: "residual_mode",
            expected: "add, cat",
            actual: "none".to_owned()
        })
    );
}

#[test]
fn initial_values_follow_the_rules() {
    let config = BlockConfig { embed_dims: 64, ..config() };
    let parameters = BlockParameters::<f64>::init(&config, 5).expect("valid settings");
    let xavier = |inputs: f64, outputs: f64| (6.0 / (inputs + outputs)).sqrt();
    for (name, tensor) in parameters.named() {
        let largest = tensor.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        let limit = match name {
            "kps_generator.fix_scale" => {
                assert_eq!(tensor[[1, 0]], 0.45);
                continue;
            }
            "camera_encoder.2.weight" | "camera_encoder.5.weight" => {
                assert!(tensor.iter().all(|&value| value == 1.0), "{name}");
                continue;
            }
            "kps_generator.learnable_fc.weight" => xavier(64.0, 6.0),
            "output_proj.weight" | "camera_encoder.3.weight" => xavier(64.0, 64.0),
            "camera_encoder.0.weight" => xavier(12.0, 64.0),
            "camera_encoder.0.bias" => 1.0 / 12.0_f64.sqrt(),
            "camera_encoder.3.bias" => 1.0 / 64.0_f64.sqrt(),
            _ => 0.0,
        };
        assert!(largest <= limit, "{name}: {largest} of {limit}");
        assert!(largest >= 0.9 * limit, "{name}: {largest} of {limit}");
        let mean = tensor.sum() / tensor.len() as f64;
        assert!(mean.abs() <= 4.0 * limit / (3.0 * tensor.len() as f64).sqrt(), "{name}: {mean}");
    }
    let again = BlockParameters::<f64>::init(&config, 5).expect("valid settings");
    assert_eq!(parameters, again);
    let other = BlockParameters::<f64>::init(&config, 6).expect("valid settings");
    assert_ne!(parameters.output_proj.weight, other.output_proj.weight);
    let encoder = parameters.camera_encoder.as_ref().expect("configured");
    assert_ne!(parameters.output_proj.weight, encoder.linear_3.weight, "every tensor has its own");
}

#[test]
fn zeros_have_the_same_sizes() {
    let parameters = BlockParameters::<f32>::init(&config(), 5).expect("valid settings");
    let zeros = parameters.zeros_like();
    zeros.check(&config()).expect("the same sizes");
    assert!(zeros.named().iter().all(|(_, tensor)| tensor.iter().all(|&value| value == 0.0)));
}

#[test]
fn checkpoints_come_back_equal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for kps_generator in [boxes(2), boxes(0), polylines(2), polylines(0)] {
        for use_camera_embed in [false, true] {
            let config =
                BlockConfig { use_camera_embed, kps_generator: kps_generator.clone(), ..config() };
            let parameters = BlockParameters::<f32>::init(&config, 9).expect("valid settings");
            for prefix in ["", "head.layers.2", "head.layers.2."] {
                let path = folder.path().join("block.safetensors");
                parameters.save(&path, prefix).expect("written");
                let loaded = BlockParameters::load(&config, &path, prefix).expect("complete");
                assert_eq!(parameters, loaded);
            }
            let double = BlockParameters::<f64>::init(&config, 9).expect("valid settings");
            let bytes = double.to_safetensors("").expect("written");
            let loaded = BlockParameters::from_safetensors(&config, &bytes, "").expect("complete");
            assert_eq!(double, loaded);
        }
    }
}

#[test]
fn tensors_stored_column_by_column_are_saved_row_by_row() {
    let mut parameters = BlockParameters::<f32>::init(&config(), 9).expect("valid settings");
    let mut columns = Array2::zeros(ndarray::ShapeBuilder::f((8, 8)));
    columns.assign(&parameters.output_proj.weight);
    parameters.output_proj.weight = columns;
    let bytes = parameters.to_safetensors("").expect("written");
    let loaded = BlockParameters::from_safetensors(&config(), &bytes, "").expect("complete");
    assert_eq!(parameters, loaded);
}

/// A file of these tensors, in fp32.
fn file(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, size, _), bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, size.clone(), bytes).expect("sizes match"))
    });
    serialize(views, None).expect("a small file")
}

/// The tensors of a block under `prefix`.
fn tensors(config: &BlockConfig, prefix: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    BlockParameters::<f32>::init(config, 3)
        .expect("valid settings")
        .named()
        .into_iter()
        .map(|(name, tensor)| {
            let values = tensor.iter().copied().collect();
            (format!("{prefix}{name}"), tensor.shape().to_vec(), values)
        })
        .collect()
}

fn load(bytes: &[u8], prefix: &str) -> Result<BlockParameters<f32>, Error> {
    BlockParameters::from_safetensors(&config(), bytes, prefix)
}

#[test]
fn a_block_is_picked_out_of_a_model() {
    let mut model = tensors(&config(), "head.layers.2.");
    model.extend(tensors(&BlockConfig { num_levels: 1, ..config() }, "head.layers.20."));
    model.push(("backbone.weight".to_owned(), vec![1], vec![1.0]));
    let model = file(&model);
    let expected = BlockParameters::<f32>::init(&config(), 3).expect("valid settings");
    assert_eq!(load(&model, "head.layers.2"), Ok(expected));
    match load(&model, "") {
        Err(Error::MissingTensors { names }) => assert!(names.contains(&"weights_fc.bias".into())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_named() {
    let complete = tensors(&config(), "a.");
    let without = |gone: &[&str]| -> Vec<_> {
        complete.iter().filter(|(name, ..)| !gone.contains(&name.as_str())).cloned().collect()
    };
    let error = load(&file(&without(&["a.weights_fc.bias", "a.camera_encoder.3.weight"])), "a");
    assert_eq!(
        error,
        Err(Error::MissingTensors {
            names: vec!["a.camera_encoder.3.weight".into(), "a.weights_fc.bias".into()]
        })
    );
    let message = error.expect_err("incomplete").to_string();
    assert!(message.contains("a.camera_encoder.3.weight, a.weights_fc.bias"), "{message}");

    let mut more = complete.clone();
    more.push(("a.anchor_embed_proj.bias".to_owned(), vec![2], vec![0.0; 2]));
    assert_eq!(
        load(&file(&more), "a"),
        Err(Error::UnexpectedTensors { names: vec!["a.anchor_embed_proj.bias".into()] })
    );

    let mut other = without(&["a.weights_fc.bias"]);
    other.push(("a.weights_fc.bias".to_owned(), vec![25], vec![0.0; 25]));
    assert_eq!(
        load(&file(&other), "a"),
        Err(Error::TensorDimensions {
            name: "a.weights_fc.bias".into(),
            expected: vec![24],
            actual: vec![25]
        })
    );
}

#[test]
fn fixed_points_come_from_the_checkpoint_or_the_configuration() {
    let mut stored = tensors(&config(), "");
    let places = stored.iter_mut().find(|(name, ..)| name == "kps_generator.fix_scale");
    places.expect("there").2[4] = 0.125;
    let loaded = load(&file(&stored), "").expect("complete");
    assert_eq!(loaded.fix_scale.expect("a box")[[1, 1]], 0.125);
    stored.retain(|(name, ..)| name != "kps_generator.fix_scale");
    let loaded = load(&file(&stored), "").expect("complete");
    assert_eq!(loaded.fix_scale, Some(ndarray::array![[0.0, 0.0, 0.0], [0.45, 0.0, 0.0]]));
}

#[test]
fn checkpoints_of_other_types_are_converted_or_refused_by_name() {
    let config = BlockConfig { embed_dims: 2, num_groups: 1, ..BlockConfig::default() };
    let tensors = expected_tensors(&config);
    let numbers = |index: usize| index as f32 / 4.0 - 3.0;
    let write = |dtype: Dtype, encode: fn(f32) -> Vec<u8>| -> Vec<u8> {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, size)| {
                (0..size.iter().product()).flat_map(|index| encode(numbers(index))).collect()
            })
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, size), bytes)| {
            (name, TensorView::new(dtype, size.clone(), bytes).expect("sizes match"))
        });
        serialize(views, None).expect("a small file")
    };
    let files = [
        write(Dtype::F64, |x| f64::from(x).to_le_bytes().to_vec()),
        write(Dtype::F32, |x| x.to_le_bytes().to_vec()),
        write(Dtype::F16, |x| f16::from_f32(x).to_le_bytes().to_vec()),
        write(Dtype::BF16, |x| bf16::from_f32(x).to_le_bytes().to_vec()),
    ];
    for bytes in files {
        let loaded =
            BlockParameters::<f32>::from_safetensors(&config, &bytes, "").expect("complete");
        for (name, tensor) in loaded.named() {
            for (index, &value) in tensor.iter().enumerate() {
                assert_eq!(bf16::from_f32(value), bf16::from_f32(numbers(index)), "{name}");
            }
        }
    }
    let integers = write(Dtype::I32, |x| (x as i32).to_le_bytes().to_vec());
    assert_eq!(
        BlockParameters::<f32>::from_safetensors(&config, &integers, ""),
        Err(Error::TensorType { name: "kps_generator.fix_scale".into(), actual: "I32".into() })
    );
}

#[test]
fn files_that_are_no_checkpoints() {
    assert!(matches!(load(b"not a checkpoint", ""), Err(Error::Checkpoint { .. })));
    let missing = BlockParameters::<f32>::load(&config(), "/nowhere/block.safetensors", "");
    match missing {
        Err(Error::Checkpoint { operation, .. }) => {
            assert_eq!(operation, "read /nowhere/block.safetensors");
        }
        other => panic!("{other:?}"),
    }
    let parameters = BlockParameters::<f32>::init(&config(), 3).expect("valid settings");
    match parameters.save("/nowhere/block.safetensors", "") {
        Err(Error::Checkpoint { operation, .. }) => {
            assert_eq!(operation, "write /nowhere/block.safetensors");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn parameters_that_were_changed_are_checked() {
    let mut parameters = BlockParameters::<f32>::init(&config(), 3).expect("valid settings");
    parameters.output_proj.bias = Array1::zeros(9);
    assert_eq!(
        parameters.check(&config()),
        Err(Error::TensorDimensions {
            name: "output_proj.bias".into(),
            expected: vec![8],
            actual: vec![9]
        })
    );
    let plain = BlockConfig { use_camera_embed: false, num_levels: 6, ..config() };
    assert!(matches!(parameters.check(&plain), Err(Error::UnexpectedTensors { .. })));
}

#[test]
fn masks_keep_the_share_that_the_probability_says() {
    let config = BlockConfig { attn_drop: 0.25, proj_drop: 0.5, ..config() };
    let masks = DropoutMasks::draw(&config, 3, 200, 11).expect("valid settings");
    assert_eq!(masks.attention.dim(), (3, 200, 2, 4));
    assert_eq!(masks.projection.dim(), (3, 200, 8));
    let share =
        |mask: &[bool]| mask.iter().filter(|&&kept| kept).count() as f64 / mask.len() as f64;
    let attention = share(masks.attention.as_slice().expect("row-major"));
    let projection = share(masks.projection.as_slice().expect("row-major"));
    // Six standard deviations of 4,800 draws.
    assert!((attention - 0.75).abs() < 0.038, "{attention}");
    assert!((projection - 0.5).abs() < 0.044, "{projection}");
    let other = DropoutMasks::draw(&config, 3, 200, 12).expect("valid settings");
    assert_ne!(masks.attention, other.attention);
    assert_ne!(masks.projection, other.projection);
}
