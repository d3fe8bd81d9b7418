//! The attention block: against golden vectors, central differences and itself.

use deformable_aggregation::block::{
    BlockConfig, BlockInputs, BoxKeyPoints, DeformableFeatureAggregation, DropoutMasks,
    FeatureMaps, KeyPointsConfig, LinearPrecision, Mode, PolylineKeyPoints, ResidualMode,
};
use deformable_aggregation::{
    Algorithm, Backend, BorderRule, DType, Element, Error, FeatureLayout,
};
use deformable_aggregation_tests::{
    BlockCase, GoldenBlock, MapsForm, NamedResults, Subject, named, on_every_backend,
};
use ndarray::{Array1, Array2, Array3, Array4, Array5, ArrayD, Axis, Dimension as _, s};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

fn boxes(num_learnable_pts: usize) -> KeyPointsConfig {
    KeyPointsConfig::Box(BoxKeyPoints {
        num_learnable_pts,
        fix_scale: vec![[0.0, 0.0, 0.0], [0.45, -0.25, 0.125]],
    })
}

fn polylines(num_learnable_pts: usize) -> KeyPointsConfig {
    KeyPointsConfig::Polyline(PolylineKeyPoints {
        num_sample: 2,
        num_learnable_pts,
        fix_height: vec![0.5, -0.5],
        ground_height: -0.25,
    })
}

fn config() -> BlockConfig {
    BlockConfig {
        embed_dims: 8,
        num_groups: 2,
        num_levels: 2,
        num_cams: 2,
        kps_generator: boxes(1),
        use_deformable_func: true,
        use_camera_embed: true,
        ..BlockConfig::default()
    }
}

const LEVELS: [(usize, usize); 2] = [(5, 7), (3, 4)];

fn case(config: &BlockConfig, seed: u64) -> BlockCase<f64> {
    BlockCase::random(config, 2, 3, &LEVELS, seed)
}

/// Settings that between them have every generator, path, residual and encoding, and each with each other one.
fn settings() -> Vec<BlockConfig> {
    let mut all = Vec::new();
    for kps_generator in [boxes(2), boxes(0), polylines(2), polylines(0)] {
        for (use_deformable_func, use_camera_embed, residual_mode) in [
            (true, true, ResidualMode::Cat),
            (true, false, ResidualMode::Add),
            (false, true, ResidualMode::Add),
            (false, false, ResidualMode::Cat),
        ] {
            all.push(BlockConfig {
                kps_generator: kps_generator.clone(),
                use_deformable_func,
                use_camera_embed,
                residual_mode,
                ..config()
            });
        }
    }
    all.push(BlockConfig { filter_outlier: true, ..config() });
    all.push(BlockConfig { attn_drop: 0.25, proj_drop: 0.125, ..config() });
    all.push(BlockConfig {
        attn_drop: 0.25,
        proj_drop: 0.125,
        use_camera_embed: false,
        ..config()
    });
    all
}

fn largest(array: &ArrayD<f64>) -> f64 {
    array.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

/// Every array within `bound` of its largest entry.
fn assert_near(place: &str, actual: &NamedResults, expected: &NamedResults, bound: f64) {
    for (name, expected) in expected {
        let (_, actual) = actual
            .iter()
            .find(|(other, _)| other == name)
            .unwrap_or_else(|| panic!("{place}: there is no {name}"));
        assert_eq!(actual.shape(), expected.shape(), "{place} {name}");
        // What cancels to nothing, as gradients before a normalisation may, has the error of its terms.
        let scale = largest(expected).max(1e-3);
        for ((index, actual), expected) in actual.indexed_iter().zip(expected) {
            let error = (actual - expected).abs();
            assert!(
                error <= bound * scale,
                "{place} {name}{:?}: got {actual:e}, expected {expected:e} of {scale:e}",
                index.slice()
            );
        }
    }
}

fn golden_files<T: Element>(subject: &Subject) {
    // Inputs of 16 bits would be others than the files'.
    let bound = match T::DTYPE {
        DType::F64 => 1e-11,
        DType::F32 => 3e-5,
        DType::F16 | DType::Bf16 => return,
    };
    for name in GoldenBlock::NAMES {
        let golden = GoldenBlock::load(name);
        let mut case = golden.case.cast::<T>();
        for (use_deformable_func, results) in [true, false].into_iter().zip(&golden.results) {
            case.config.use_deformable_func = use_deformable_func;
            let (output, gradients) = case.run(subject, MapsForm::Groups);
            let place = format!("{name} with {} on {subject}", case.config.border_rule());
            assert!(results.len() >= 10, "{place}: {} arrays", results.len());
            assert_near(&place, &named(&output, &gradients), results, bound);
        }
    }
}

/// A case of these settings all of whose samples keep away from lines where nothing has a derivative.
fn smooth_case(config: &BlockConfig, masks_seed: u64) -> BlockCase<f64> {
    let mut case = (0..10_000)
        .map(|seed| case(config, seed))
        .find(|case| case.distance_to_lines() > 1e-3)
        .expect("some seed gives such a case");
    if config.attn_drop > 0.0 || config.proj_drop > 0.0 {
        let masks = DropoutMasks::draw(config, 2, 3, masks_seed).expect("valid settings");
        assert!(masks.attention.iter().any(|kept| !kept));
        assert!(masks.projection.iter().any(|kept| !kept));
        case.masks = Some(masks);
    }
    case
}

/// Adds to entry `index`, counted through, of the array of that name.
fn add(case: &mut BlockCase<f64>, name: &str, index: usize, delta: f64) {
    let add = |values: Option<&mut [f64]>| {
        values.expect("row-major")[index] += delta;
    };
    if let Some(parameter) = name.strip_prefix("param.") {
        let mut tensors = case.parameters.named_mut();
        let found = tensors.iter_mut().find(|(other, _)| *other == parameter);
        let (_, tensor) = found.unwrap_or_else(|| panic!("there is no parameter {parameter}"));
        add(tensor.as_slice_mut());
    } else if let Some(level) = name.strip_prefix("fm.0.") {
        let level: usize = level.parse().expect("a level");
        add(case.feature_maps[0][level].as_slice_mut());
    } else {
        match name {
            "instance_feature" => add(case.instance_feature.as_slice_mut()),
            "anchor" => add(case.anchor.as_slice_mut()),
            "anchor_embed" => {
                add(case.anchor_embed.as_mut().expect("part of the case").as_slice_mut());
            }
            "projection_mat" => add(case.projection_mat.as_slice_mut()),
            _ => panic!("no input is called {name}"),
        }
    }
}

/// Every gradient against differences of the output, in fp64.
fn gradients_are_differences(subject: &Subject) {
    const STEP: f64 = 1e-6;
    const ENTRIES: usize = 12;
    for (number, config) in settings().iter().enumerate() {
        let mut case = smooth_case(config, 3);
        let (output, gradients) = case.run(subject, MapsForm::Groups);
        let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
        for (name, gradient) in named(&output, &gradients) {
            let Some(name) = name.strip_prefix("grad.") else { continue };
            if name == "param.kps_generator.fix_scale" {
                assert_eq!(largest(&gradient), 0.0, "it is not trained");
                continue;
            }
            let scale = largest(&gradient);
            assert!(scale > 1e-4, "settings {number}: the gradient of {name} is {scale:e}");
            for _ in 0..ENTRIES {
                let index = rng.random_range(0..gradient.len());
                let mut there = |delta| {
                    add(&mut case, name, index, delta);
                    let value = case.scalar(subject);
                    add(&mut case, name, index, -delta);
                    value
                };
                let difference = (there(STEP) - there(-STEP)) / (2.0 * STEP);
                let gradient = gradient.iter().nth(index).expect("an entry");
                assert!(
                    (difference - gradient).abs() <= 1e-7 * scale + 1e-8,
                    "settings {number}, {name} {index}: {difference:e}, not {gradient:e} of {scale:e}"
                );
            }
        }
    }
}

#[test]
fn gradients_are_differences_on_the_reference() {
    gradients_are_differences(&Subject::from(Backend::Reference));
}

#[test]
fn gradients_are_differences_on_the_cpu() {
    gradients_are_differences(&Subject::from(Backend::Cpu));
}

/// Rounding in the type of the activations and of the sums, not more, separates a backend from fp64 on the same inputs.
fn near_fp64<T: Element>(subject: &Subject) {
    let bound = match T::DTYPE {
        DType::F64 => 1e-12,
        DType::F32 => 2e-5,
        DType::F16 => 1e-2,
        DType::Bf16 => 8e-2,
    };
    let reference = Subject::from(Backend::Reference);
    for (number, config) in settings().iter().enumerate() {
        let case = smooth_case(config, 3).cast::<T>();
        let exact = case.widened();
        let (output, gradients) = case.run(subject, MapsForm::Groups);
        let actual = named(&output, &gradients);
        let (output, gradients) = exact.run(&reference, MapsForm::Groups);
        let place = format!("settings {number} on {subject}");
        assert_near(&place, &actual, &named(&output, &gradients), bound);
    }
}

/// The subject with kernels that add up in a fixed order.
fn repeatable(subject: &Subject) -> Subject {
    Subject { algorithm: Algorithm::Repeatable, ..subject.clone() }
}

/// Sizes beyond what one block of a kernel takes at once: rows, channels and logits of several tiles of a product, rows in several
/// parts, more cameras and groups than a thread or warp holds, and numbers that nothing divides.
fn many_of_everything<T: Element>(subject: &Subject) {
    let bound = match T::DTYPE {
        DType::F64 => 1e-12,
        DType::F32 => 5e-5,
        DType::F16 => 1e-2,
        DType::Bf16 => 8e-2,
    };
    let large = BlockConfig { num_cams: 3, residual_mode: ResidualMode::Cat, ..config() };
    let settings = [
        (BlockConfig { embed_dims: 96, num_groups: 3, num_cams: 11, ..large.clone() }, 2, 70),
        (
            BlockConfig {
                embed_dims: 72,
                num_groups: 36,
                kps_generator: polylines(2),
                ..large.clone()
            },
            1,
            33,
        ),
        (BlockConfig { embed_dims: 35, num_groups: 5, use_camera_embed: false, ..large }, 1, 150),
    ];
    for (number, (config, batch, anchors)) in settings.iter().enumerate() {
        let case = BlockCase::random(config, *batch, *anchors, &LEVELS, 11).cast::<T>();
        let exact = case.widened();
        let (output, gradients) = case.run(subject, MapsForm::Groups);
        let actual = named(&output, &gradients);
        let (output, gradients) = exact.run(&Subject::from(Backend::Reference), MapsForm::Groups);
        let place = format!("settings {number} on {subject}");
        assert_near(&place, &actual, &named(&output, &gradients), bound);
    }
}

/// The three forms of the feature maps give the same results, bit for bit.
fn forms_agree<T: Element>(subject: &Subject) {
    let subject = &repeatable(subject);
    for config in [config(), BlockConfig { use_deformable_func: false, ..config() }] {
        let case = case(&config, 5).cast::<T>();
        let (output, gradients) = case.run(subject, MapsForm::Packed);
        for form in [MapsForm::Levels, MapsForm::Groups] {
            let other = case.run(subject, form);
            assert!(other.0 == output && other.1 == gradients, "{form:?} on {subject}");
        }
    }
}

/// A nested list of groups gives what the same maps give packed, and one of a single camera each what a list does.
fn groups_of_cameras_agree<T: Element>(subject: &Subject) {
    let subject = &repeatable(subject);
    let case = case(&config(), 6).cast::<T>();
    let (output, gradients) = case.run(subject, MapsForm::Levels);
    let mut split = case.clone();
    let camera = |camera: usize| {
        let of_camera =
            |maps: &Array5<T>| maps.slice(s![.., camera..=camera, .., .., ..]).to_owned();
        case.feature_maps[0].iter().map(of_camera).collect::<Vec<_>>()
    };
    split.feature_maps = vec![camera(0), camera(1)];
    let (other, other_gradients) = split.run(subject, MapsForm::Groups);
    assert_eq!(output, other);
    assert_eq!(gradients, other_gradients);
}

fn dropout_depends_on_the_seed_alone<T: Element>(subject: &Subject) {
    let subject = &repeatable(subject);
    let config = BlockConfig { attn_drop: 0.25, proj_drop: 0.25, ..config() };
    let case = case(&config, 7).cast::<T>();
    let block = case.block(subject);
    let run = |mode: Mode<'_>| {
        case.with_inputs(MapsForm::Levels, |inputs| {
            let (output, context) = block.forward_with_context(inputs, mode).expect("arrays fit");
            (output, context.backward(case.grad_output.view()).expect("arrays fit"))
        })
    };
    let first = run(Mode::Training { seed: 1 });
    assert!(first == run(Mode::Training { seed: 1 }), "{subject}");
    assert!(first.0 != run(Mode::Training { seed: 2 }).0, "{subject}");
    assert!(first.0 != run(Mode::Evaluation).0, "{subject}");
    let masks = DropoutMasks::draw(&config, 2, 3, 1).expect("valid settings");
    assert!(first == run(Mode::Masks(&masks)), "{subject}");
    // Without probabilities there is nothing to drop.
    let mut still = case.clone();
    (still.config.attn_drop, still.config.proj_drop) = (0.0, 0.0);
    let block = still.block(subject);
    let run = |mode: Mode<'_>| {
        still.with_inputs(MapsForm::Levels, |inputs| block.forward(inputs, mode).expect("fits"))
    };
    assert_eq!(run(Mode::Training { seed: 1 }), run(Mode::Evaluation));
}

/// On average, dropout changes nothing: what is kept grows by what is dropped.
#[test]
fn dropout_keeps_the_mean() {
    let config = BlockConfig { attn_drop: 0.25, proj_drop: 0.125, ..config() };
    let case = case(&config, 8);
    let block = case.block(&Subject::from(Backend::Cpu));
    let run = |mode: Mode<'_>| {
        case.with_inputs(MapsForm::Levels, |inputs| block.forward(inputs, mode).expect("fits"))
    };
    let (mut sum, rounds) = (Array3::<f64>::zeros(case.grad_output.raw_dim()), 2_000);
    for seed in 0..rounds {
        sum += &run(Mode::Training { seed });
    }
    let (mean, expected) = (sum / rounds as f64, run(Mode::Evaluation));
    let error = (&mean - &expected).iter().fold(0.0_f64, |error, value| error.max(value.abs()));
    let scale = expected.iter().fold(0.0_f64, |scale, value| scale.max(value.abs()));
    assert!(error < 0.05 * scale, "{error} of {scale}");
}

/// What the attention adds up to does not depend on how many points, cameras or levels there are.
fn constant_maps_pass_through<T: Element>(subject: &Subject) {
    let config = BlockConfig { use_deformable_func: true, ..config() };
    let mut case = case(&config, 9);
    // All points in the middle of the images, all weights equal, maps of ones, output as it is.
    case.anchor.fill(0.0);
    case.anchor.slice_mut(s![.., .., 2]).fill(10.0);
    case.anchor.slice_mut(s![.., .., 3..6]).fill(-20.0);
    case.projection_mat.fill(0.0);
    for axis in 0..3 {
        case.projection_mat.slice_mut(s![.., .., axis, axis]).fill(1.0);
    }
    for axis in 0..2 {
        case.projection_mat.slice_mut(s![.., .., axis, 2]).fill(0.4375);
    }
    case.image_wh = None;
    for maps in &mut case.feature_maps[0] {
        maps.fill(1.0);
    }
    case.parameters = case.parameters.zeros_like();
    case.parameters.output_proj.weight = Array2::eye(8);
    case.instance_feature.fill(0.25);
    let case = case.cast::<T>();
    let (output, _) = case.run(subject, MapsForm::Levels);
    for value in &output {
        assert!((value.to_f64() - 1.25).abs() < 0.02, "{value} on {subject}");
    }
}

fn empty_calls_give_empty_results<T: Element>(subject: &Subject) {
    for (batch, anchors) in [(0, 3), (2, 0)] {
        let case = BlockCase::random(&config(), batch, anchors, &LEVELS, 1).cast::<T>();
        let (output, gradients) = case.run(subject, MapsForm::Levels);
        assert_eq!(output.dim(), (batch, anchors, 8));
        assert_eq!(gradients.anchor.dim(), (batch, anchors, 11));
        assert_eq!(gradients.projection_mat.dim(), (batch, 2, 4, 4));
        let zero = |tensor: ArrayD<T::Location>| tensor.iter().all(|&value| value.into() == 0.0);
        for (name, tensor) in gradients.parameters.named() {
            assert!(zero(tensor.to_owned()), "{name}");
        }
    }
}

/// A point that is not a number is seen by no camera, and nothing else changes.
fn nan_anchors_are_not_seen<T: Element>(subject: &Subject) {
    let case = case(&BlockConfig { use_camera_embed: false, ..config() }, 10).cast::<T>();
    let (output, _) = case.run(subject, MapsForm::Levels);
    let mut broken = case.clone();
    broken.anchor[[0, 1, 0]] = num_traits::Float::nan();
    let (other, gradients) = broken.run(subject, MapsForm::Levels);
    for ((index, value), other) in output.indexed_iter().zip(&other) {
        if (index.0, index.1) != (0, 1) {
            assert_eq!(value, other, "{index:?} on {subject}");
        }
    }
    let fine = |value: &T| value.to_f64().is_finite();
    assert!(other.iter().all(fine), "{subject}");
    assert!(gradients.instance_feature.iter().all(fine), "{subject}");
    assert!(gradients.feature_maps.iter().all(fine), "{subject}");
    assert!(gradients.projection_mat.iter().all(|&value| value.into().is_finite()), "{subject}");
}

/// Behind a camera, where the depth is clamped, a point may still land in the image; its depth has no influence then.
fn a_clamped_depth_has_no_gradient<T: Element>(subject: &Subject) {
    let config = BlockConfig { use_camera_embed: false, ..config() };
    let mut case = case(&config, 16);
    case.image_wh = None;
    case.projection_mat.fill(0.0);
    case.projection_mat.slice_mut(s![.., .., 0, 3]).fill(0.375e-5);
    case.projection_mat.slice_mut(s![.., .., 1, 3]).fill(0.625e-5);
    case.projection_mat.slice_mut(s![.., .., 2, 2]).fill(-1.0);
    let (_, gradients) = case.cast::<T>().run(subject, MapsForm::Levels);
    let size = |row: usize| {
        let row = gradients.projection_mat.slice(s![.., .., row, ..]);
        row.iter().fold(0.0_f64, |size, &value| size + value.into().abs())
    };
    assert!(size(0) > 1.0 && size(1) > 1.0, "the points are seen: {} {}", size(0), size(1));
    assert_eq!((size(2), size(3)), (0.0, 0.0), "{subject}");
    assert!(gradients.anchor.iter().all(|&value| value.into() == 0.0), "{subject}");
}

/// A missing embedding counts as zeros.
fn no_embedding_is_zeros<T: Element>(subject: &Subject) {
    let mut case = case(&config(), 11).cast::<T>();
    case.anchor_embed = Some(Array3::zeros(case.instance_feature.raw_dim()));
    let (output, gradients) = case.run(subject, MapsForm::Levels);
    case.anchor_embed = None;
    let (other, other_gradients) = case.run(subject, MapsForm::Levels);
    assert_eq!(output, other);
    assert_eq!(gradients.parameters, other_gradients.parameters);
    assert_eq!(other_gradients.anchor_embed, None);
}

on_every_backend!(
    block: many_of_everything,
    golden_files,
    near_fp64,
    forms_agree,
    groups_of_cameras_agree,
    dropout_depends_on_the_seed_alone,
    constant_maps_pass_through,
    empty_calls_give_empty_results,
    nan_anchors_are_not_seen,
    a_clamped_depth_has_no_gradient,
    no_embedding_is_zeros,
    rounded_factors_are_a_choice_of_fp32_on_gpus,
);

/// `LinearPrecision::Tf32` changes last digits of fp32 calls of the GPU kernels, and nothing else.
fn rounded_factors_are_a_choice_of_fp32_on_gpus<T: Element>(subject: &Subject) {
    let case = smooth_case(&config(), 3).cast::<T>();
    let subject = repeatable(subject);
    let run = |precision| {
        let block = case.block(&subject).with_linear_precision(precision);
        assert_eq!(block.linear_precision(), precision);
        case.with_inputs(MapsForm::Levels, |inputs| {
            let (output, context) =
                block.forward_with_context(inputs, case.mode()).expect("the case fits");
            let gradients = context.backward(case.grad_output.view()).expect("the case fits");
            named(&output, &gradients)
        })
    };
    let (full, rounded) = (run(LinearPrecision::Full), run(LinearPrecision::Tf32));
    match (subject.backend.name(), T::DTYPE) {
        // Before sm_80 a GPU rounds nothing.
        ("cuda", DType::F32) => assert_near("rounded", &rounded, &full, 1e-2),
        ("emulator", DType::F32) => {
            assert_near("rounded", &rounded, &full, 1e-2);
            assert!(rounded != full, "nothing was rounded");
        }
        _ => assert!(rounded == full, "{subject}"),
    }
}

/// Results of the CPU do not depend on the number of threads.
#[test]
fn threads_do_not_matter() {
    let case = BlockCase::random(&config(), 2, 70, &LEVELS, 12).cast::<f32>();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| case.run(&Subject::from(Backend::Cpu), MapsForm::Levels))
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(one == run(threads), "{threads} threads");
    }
}

/// However many anchors there are, what they have in common gets the gradients of all.
#[test]
fn gradients_of_anchors_add_up() {
    let case = BlockCase::random(&config(), 2, 70, &LEVELS, 17);
    let subject = Subject::from(Backend::Cpu);
    let (output, gradients) = case.run(&subject, MapsForm::Levels);
    let common = |name: &str| {
        ["grad.projection_mat", "grad.fm.", "grad.param."].iter().any(|part| name.starts_with(part))
    };
    let mut whole = named(&output, &gradients);
    whole.retain(|(name, _)| common(name));
    let mut sums: NamedResults =
        whole.iter().map(|(name, array)| (name.clone(), ArrayD::zeros(array.raw_dim()))).collect();
    for first in (0..70).step_by(5) {
        let some = |array: &Array3<f64>| array.slice(s![.., first..first + 5, ..]).to_owned();
        let mut part = case.clone();
        part.instance_feature = some(&case.instance_feature);
        part.anchor = some(&case.anchor);
        part.anchor_embed = case.anchor_embed.as_ref().map(some);
        part.grad_output = some(&case.grad_output);
        let (output, gradients) = part.run(&subject, MapsForm::Levels);
        let mut part = named(&output, &gradients);
        part.retain(|(name, _)| common(name));
        for ((_, sum), (_, array)) in sums.iter_mut().zip(part) {
            *sum += &array;
        }
    }
    assert_near("70 anchors", &whole, &sums, 1e-11);
}

/// The rule is the one that the configuration names.
#[test]
fn the_path_is_a_setting() {
    let rule = |use_deformable_func| {
        BlockConfig { use_deformable_func, ..BlockConfig::default() }.border_rule()
    };
    assert_eq!((rule(true), rule(false)), (BorderRule::Operator, BorderRule::GridSample));
}

fn refused(change: impl FnOnce(&mut BlockCase<f32>)) -> Error {
    let mut case = case(&config(), 1).cast::<f32>();
    change(&mut case);
    let block = case.block(&Subject::from(Backend::Cpu));
    case.with_inputs(MapsForm::Levels, |inputs| {
        block.forward(inputs, case.mode()).expect_err("a bad call")
    })
}

fn dimensions(argument: &'static str, axes: &'static str, sizes: [&[usize]; 2]) -> Error {
    Error::Dimensions { argument, axes, expected: sizes[0].to_vec(), actual: sizes[1].to_vec() }
}

#[test]
fn arrays_that_do_not_fit_are_named() {
    let features = "(batch, anchors, embed_dims)";
    assert_eq!(
        refused(|case| case.instance_feature = Array3::zeros((2, 3, 7))),
        dimensions("instance_feature", features, [&[2, 3, 8], &[2, 3, 7]])
    );
    assert_eq!(
        refused(|case| case.anchor_embed = Some(Array3::zeros((2, 4, 8)))),
        dimensions("anchor_embed", features, [&[2, 3, 8], &[2, 4, 8]])
    );
    assert_eq!(
        refused(|case| case.anchor = Array3::zeros((2, 3, 7))),
        dimensions("anchor", "(batch, anchors, 8 or more)", [&[2, 3, 8], &[2, 3, 7]])
    );
    assert_eq!(
        refused(|case| case.projection_mat = Array4::zeros((2, 3, 4, 4))),
        dimensions("projection_mat", "(batch, num_cams, 4, 4)", [&[2, 2, 4, 4], &[2, 3, 4, 4]])
    );
    assert_eq!(
        refused(|case| case.image_wh = Some(Array3::zeros((1, 2, 2)))),
        dimensions("image_wh", "(batch, num_cams, 2)", [&[2, 2, 2], &[1, 2, 2]])
    );
    assert_eq!(
        refused(|case| {
            let _ = case.feature_maps[0].pop();
        }),
        dimensions("feature_maps", "(num_cams, num_levels)", [&[2, 2], &[2, 1]])
    );
    assert_eq!(
        refused(|case| {
            for maps in &mut case.feature_maps[0] {
                let (_, _, _, height, width) = maps.dim();
                *maps = Array5::zeros((2, 2, 9, height, width));
            }
        }),
        dimensions("feature_maps", "(batch, num_feat, embed_dims)", [&[2, 94, 8], &[2, 94, 9]])
    );
    let masks = |anchors, cameras, channels| DropoutMasks {
        attention: Array4::from_elem((2, anchors, cameras, 3), true),
        projection: Array3::from_elem((2, 3, channels), true),
    };
    assert_eq!(
        refused(|case| case.masks = Some(masks(3, 3, 8))),
        dimensions(
            "masks.attention",
            "(batch, anchors, cameras, points)",
            [&[2, 3, 2, 3], &[2, 3, 3, 3]]
        )
    );
    assert_eq!(
        refused(|case| case.masks = Some(masks(3, 2, 9))),
        dimensions("masks.projection", features, [&[2, 3, 8], &[2, 3, 9]])
    );
}

#[test]
fn polylines_have_two_numbers_for_each_vertex() {
    let config = BlockConfig { kps_generator: polylines(1), ..config() };
    let mut case = case(&config, 1);
    case.anchor = Array3::zeros((2, 3, 5));
    let block = case.block(&Subject::from(Backend::Cpu));
    let error =
        case.with_inputs(MapsForm::Levels, |inputs| block.forward(inputs, Mode::Evaluation).err());
    let axes = "(batch, anchors, 2 * num_sample)";
    assert_eq!(error, Some(dimensions("anchor", axes, [&[2, 3, 4], &[2, 3, 5]])));
}

#[test]
fn output_gradients_and_changed_parameters_are_checked() {
    let case = case(&config(), 1);
    let mut block = case.block(&Subject::from(Backend::Cpu));
    case.with_inputs(MapsForm::Levels, |inputs| {
        let (_, context) =
            block.forward_with_context(inputs, Mode::Evaluation).expect("arrays fit");
        assert_eq!(
            context.backward(Array3::zeros((2, 3, 16)).view()).err(),
            Some(dimensions(
                "grad_output",
                "(batch, anchors, output_dims)",
                [&[2, 3, 8], &[2, 3, 16]]
            ))
        );
    });
    block.parameters_mut().weights_fc.bias = Array1::zeros(3);
    let error =
        case.with_inputs(MapsForm::Levels, |inputs| block.forward(inputs, Mode::Evaluation).err());
    assert_eq!(
        error,
        Some(Error::TensorDimensions {
            name: "weights_fc.bias".into(),
            expected: vec![12],
            actual: vec![3]
        })
    );
    let parameters = block.parameters().clone();
    assert!(DeformableFeatureAggregation::with_parameters(config(), parameters).is_err());
}

/// Arrays that do not lie row by row, parameters included, give what their copies give.
#[test]
fn any_memory_order_will_do() {
    let case = case(&BlockConfig { residual_mode: ResidualMode::Cat, ..config() }, 13);
    let subject = Subject::from(Backend::Cpu);
    let (output, gradients) = case.run(&subject, MapsForm::Packed);
    let mut columns = case.clone();
    let transposed =
        |array: &Array2<f64>| array.t().as_standard_layout().into_owned().reversed_axes();
    columns.parameters.weights_fc.weight = transposed(&case.parameters.weights_fc.weight);
    columns.parameters.output_proj.weight = transposed(&case.parameters.output_proj.weight);
    let turned = |array: &Array3<f64>| {
        let mut turned = array.view().permuted_axes([2, 0, 1]).as_standard_layout().into_owned();
        turned = turned.permuted_axes([1, 2, 0]);
        assert!(!turned.is_standard_layout());
        turned
    };
    columns.instance_feature = turned(&case.instance_feature);
    columns.anchor = turned(&case.anchor);
    columns.grad_output = turned(&case.grad_output);
    let (other, other_gradients) = columns.run(&subject, MapsForm::Packed);
    let near = |a: &NamedResults, b: &NamedResults| assert_near("columns", a, b, 1e-13);
    near(&named(&other, &other_gradients), &named(&output, &gradients));
}

/// Without velocities, or with more of them, a box is the same box.
#[test]
fn numbers_after_the_yaw_do_not_matter() {
    let case = case(&config(), 14);
    let subject = Subject::from(Backend::Cpu);
    let (output, gradients) = case.run(&subject, MapsForm::Levels);
    assert!(gradients.anchor.slice(s![.., .., 8..]).iter().all(|&value| value == 0.0));
    let mut short = case.clone();
    short.anchor = case.anchor.slice(s![.., .., ..8]).to_owned();
    let (other, other_gradients) = short.run(&subject, MapsForm::Levels);
    assert_eq!(output, other);
    assert_eq!(gradients.anchor.slice(s![.., .., ..8]), other_gradients.anchor);
}

/// A layout whose maps are shared between cameras.
#[test]
fn cameras_may_share_maps() {
    let mut case = case(&config(), 15);
    for maps in &mut case.feature_maps[0] {
        let first = maps.index_axis(Axis(1), 0).to_owned();
        maps.index_axis_mut(Axis(1), 1).assign(&first);
    }
    let block = case.block(&Subject::from(Backend::Cpu));
    let expected =
        case.with_inputs(MapsForm::Packed, |inputs| block.forward(inputs, Mode::Evaluation));
    let shared = case.with_inputs(MapsForm::Packed, |inputs| {
        let FeatureMaps::Packed { feature_maps, layout } = inputs.feature_maps else {
            panic!("asked for packed maps");
        };
        let rows = layout.num_feat() / 2;
        let starts = layout.scale_start_index().mapv(|start| start % rows as i64);
        let layout = FeatureLayout::new(layout.spatial_shapes().view(), starts.view(), rows)
            .expect("the maps of the first camera");
        let feature_maps = feature_maps.slice(s![.., ..rows, ..]);
        let feature_maps = FeatureMaps::Packed { feature_maps, layout: &layout };
        block.forward(BlockInputs { feature_maps, ..inputs }, Mode::Evaluation)
    });
    assert_eq!(expected, shared);
}

/// Settings and sizes of any small kind.
fn any_case() -> impl Strategy<Value = BlockCase<f64>> {
    let generator = prop_oneof![(0..3_usize).prop_map(boxes), (0..3_usize).prop_map(polylines),];
    let levels = prop::collection::vec((1..6_usize, 1..6_usize), 1..4);
    let sizes = (1..4_usize, 1..5_usize, 1..4_usize, 0..3_usize, 1..20_usize);
    let flags = prop::array::uniform4(any::<bool>());
    (generator, levels, sizes, flags, any::<u64>()).prop_map(
        |(kps_generator, levels, sizes, flags, seed)| {
            let (num_groups, channels, num_cams, batch, anchors) = sizes;
            let config = BlockConfig {
                embed_dims: num_groups * channels,
                num_groups,
                num_levels: levels.len(),
                num_cams,
                proj_drop: 0.0,
                attn_drop: 0.0,
                kps_generator,
                use_deformable_func: flags[0],
                use_camera_embed: flags[1],
                residual_mode: if flags[2] { ResidualMode::Add } else { ResidualMode::Cat },
                filter_outlier: flags[3],
            };
            BlockCase::random(&config, batch, anchors, &levels, seed)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the sizes: the forms of the maps agree, reference and CPU agree, and results have their dimensions.
    #[test]
    fn any_sizes_will_do(case in any_case()) {
        let cpu = Subject::from(Backend::Cpu);
        let packed = case.run(&cpu, MapsForm::Packed);
        for form in [MapsForm::Levels, MapsForm::Groups] {
            prop_assert!(packed == case.run(&cpu, form), "{form:?}");
        }
        let (output, gradients) = packed;
        let (batch, anchors, _) = case.instance_feature.dim();
        prop_assert_eq!(output.dim(), (batch, anchors, case.config.output_dims()));
        prop_assert_eq!(gradients.anchor.dim(), case.anchor.dim());
        prop_assert!(gradients.parameters.check(&case.config).is_ok());
        let (other, other_gradients) = case.run(&Subject::from(Backend::Reference), MapsForm::Packed);
        let (actual, expected) = (named(&output, &gradients), named(&other, &other_gradients));
        assert_near("the CPU", &actual, &expected, 1e-10);
    }
}
