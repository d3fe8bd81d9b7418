//! An attention block learns to give what another one gives:
//! `cargo run --release --example train_block -p deformable-aggregation`.
//!
//! The teacher has random parameters. The student starts from the usual initial values and sees only the teacher's output, for boxes
//! around a vehicle with a ring of six cameras.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use camera_rig::{Anchor, ring};
use clap::Parser;
use deformable_aggregation::block::{
    BlockConfig, BlockInputs, BlockParameters, BoxKeyPoints, DeformableFeatureAggregation,
    FeatureMaps, KeyPointsConfig, Mode,
};
use deformable_aggregation::ndarray::{Array3, Array4, Array5, Zip};
use deformable_aggregation::{Backend, FormattedFeatureMaps, feature_maps_format};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Channels; the teacher's and the student's.
const EMBED_DIMS: usize = 32;

/// (height, width) of the levels.
const LEVELS: [(usize, usize); 2] = [(16, 44), (8, 22)];

/// Boxes in the scene.
const ANCHORS: usize = 100;

/// The picture in pixels.
const PICTURE: (u32, u32) = (900, 500);

/// A block learns to reproduce the output of another one; draws its loss.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  train_block
  train_block --backend reference --steps 50 --picture loss.png

The backends `cuda` and `emulator` need the features of these names.")]
struct Arguments {
    /// What computes: cpu, reference, cuda or emulator
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    backend: String,
    /// Optimisation steps
    #[arg(long, value_name = "N", default_value_t = 400)]
    steps: usize,
    /// Seed of the scene, the teacher and the student
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Where the loss curve goes
    #[arg(long, value_name = "FILE.png", default_value = "train_block.png")]
    picture: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.steps > 0, "--steps: expected at least 1, got 0");
    let backend = backend(&arguments.backend)?;
    let scene = Scene::random(arguments.seed)?;
    let config = config();
    let teacher = teacher(&config, arguments.seed)?.with_backend(backend.clone());
    let target = teacher.forward(scene.inputs(), Mode::Evaluation)?;
    let mut student =
        DeformableFeatureAggregation::new(config, arguments.seed + 1)?.with_backend(backend);
    let mut optimiser = Adam::new(student.parameters());

    let bar = progress(arguments.steps);
    let started = Instant::now();
    let mut losses = Vec::with_capacity(arguments.steps);
    for step in 0..arguments.steps {
        let (output, context) = student.forward_with_context(scene.inputs(), Mode::Evaluation)?;
        let difference = output - &target;
        let loss = difference.iter().map(|d| f64::from(d * d)).sum::<f64>() / target.len() as f64;
        let grad_output = difference.mapv(|d| 2.0 * d / target.len() as f32);
        let gradients = context.backward(grad_output.view())?.parameters;
        // From full speed to none along half a cosine.
        let progress = step as f32 / arguments.steps as f32;
        let rate = 0.01 * (1.0 + (std::f32::consts::PI * progress).cos()) / 2.0;
        optimiser.step(student.parameters_mut(), &gradients, rate);
        losses.push(loss);
        bar.set_message(format!("loss {loss:.2e}"));
        bar.inc(1);
    }
    bar.finish_and_clear();

    let (first, last) = (losses[0], losses[losses.len() - 1]);
    println!(
        "{} steps on {} in {:.1} s",
        losses.len(),
        student.backend(),
        started.elapsed().as_secs_f64()
    );
    println!("loss {first:.3e} to {last:.3e}: {:.0} times lower", first / last);
    draw(&arguments.picture, &losses)?;
    println!("loss curve: {}", arguments.picture.display());
    Ok(())
}

fn config() -> BlockConfig {
    BlockConfig {
        embed_dims: EMBED_DIMS,
        num_groups: 4,
        num_levels: LEVELS.len(),
        num_cams: 6,
        kps_generator: KeyPointsConfig::Box(BoxKeyPoints {
            num_learnable_pts: 2,
            fix_scale: BoxKeyPoints::CENTRE_AND_SIDES.to_vec(),
        }),
        use_deformable_func: true,
        use_camera_embed: true,
        ..BlockConfig::default()
    }
}

/// A block that pays attention to some places more than to others.
fn teacher(config: &BlockConfig, seed: u64) -> Result<DeformableFeatureAggregation<f32>> {
    let mut teacher = DeformableFeatureAggregation::new(config.clone(), seed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let weights = &mut teacher.parameters_mut().weights_fc.weight;
    weights.mapv_inplace(|_| rng.random_range(-0.1..0.1));
    Ok(teacher)
}

/// What both blocks see.
struct Scene {
    instance_feature: Array3<f32>,
    anchor: Array3<f32>,
    anchor_embed: Array3<f32>,
    feature_maps: FormattedFeatureMaps<f32>,
    projection_mat: Array4<f32>,
}

impl Scene {
    fn random(seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let cameras = ring(6);
        let boxes: Vec<_> = (0..ANCHORS).map(|_| Anchor::random(&mut rng).numbers()).collect();
        let matrices: Vec<_> = cameras.iter().map(camera_rig::Camera::matrix).collect();
        let mut features = || {
            Array3::from_shape_simple_fn((1, ANCHORS, EMBED_DIMS), || rng.random_range(-1.0..1.0))
        };
        let (instance_feature, anchor_embed) = (features(), features());
        // Waves of any direction and length, another one for each camera and channel.
        let waves = Array3::from_shape_simple_fn((cameras.len(), EMBED_DIMS, 3), || {
            rng.random_range(-6.0_f32..6.0)
        });
        let map = |(height, width): (usize, usize)| {
            let size = (1, cameras.len(), EMBED_DIMS, height, width);
            Array5::from_shape_fn(size, |(_, camera, channel, row, column)| {
                let wave = |number| waves[[camera, channel, number]];
                let y = (row as f32 + 0.5) / height as f32;
                let x = (column as f32 + 0.5) / width as f32;
                (wave(0) * x + wave(1) * y + wave(2)).sin()
            })
        };
        let maps = LEVELS.map(map);
        Ok(Self {
            instance_feature,
            anchor: Array3::from_shape_fn((1, ANCHORS, 11), |(_, anchor, number)| {
                boxes[anchor][number] as f32
            }),
            anchor_embed,
            feature_maps: feature_maps_format(&[maps.iter().map(|maps| maps.view()).collect()])?,
            projection_mat: Array4::from_shape_fn((1, 6, 4, 4), |(_, camera, row, column)| {
                matrices[camera][row][column] as f32
            }),
        })
    }

    fn inputs(&self) -> BlockInputs<'_, f32> {
        let FormattedFeatureMaps { feature_maps, layout } = &self.feature_maps;
        BlockInputs {
            instance_feature: self.instance_feature.view(),
            anchor: self.anchor.view(),
            anchor_embed: Some(self.anchor_embed.view()),
            feature_maps: FeatureMaps::Packed { feature_maps: feature_maps.view(), layout },
            projection_mat: self.projection_mat.view(),
            // The matrices lead to fractions of the image.
            image_wh: None,
        }
    }
}

/// The optimiser of Kingma and Ba, "Adam: a method for stochastic optimization" (2014).
struct Adam {
    /// Running means of the gradients and of their squares.
    means: [BlockParameters<f32>; 2],
    steps: i32,
}

impl Adam {
    const DECAY: [f32; 2] = [0.9, 0.99];

    fn new(parameters: &BlockParameters<f32>) -> Self {
        Self { means: [parameters.zeros_like(), parameters.zeros_like()], steps: 0 }
    }

    fn step(
        &mut self,
        parameters: &mut BlockParameters<f32>,
        gradients: &BlockParameters<f32>,
        rate: f32,
    ) {
        self.steps += 1;
        // The means start at 0, and would be too small for a while.
        let correction = Self::DECAY.map(|decay| 1.0 - decay.powi(self.steps));
        let [first, second] = &mut self.means;
        let tensors = parameters.named_mut().into_iter().zip(gradients.named());
        let means = first.named_mut().into_iter().zip(second.named_mut());
        for (((_, parameter), (_, gradient)), ((_, first), (_, second))) in tensors.zip(means) {
            Zip::from(parameter).and(gradient).and(first).and(second).for_each(
                |parameter, &gradient, first, second| {
                    *first += (1.0 - Self::DECAY[0]) * (gradient - *first);
                    *second += (1.0 - Self::DECAY[1]) * (gradient * gradient - *second);
                    let scale = (*second / correction[1]).sqrt() + 1e-8;
                    *parameter -= rate * *first / correction[0] / scale;
                },
            );
        }
    }
}

/// The backend of that name.
fn backend(name: &str) -> Result<Backend> {
    match name {
        "cpu" => Ok(Backend::Cpu),
        "reference" => Ok(Backend::Reference),
        "cuda" => Ok(Backend::cuda(0)?),
        #[cfg(feature = "emulator")]
        "emulator" => Ok(Backend::Emulator),
        _ => {
            let known = Backend::available().into_iter().find(|status| status.name == name);
            let reason = known.map_or_else(
                || "expected cpu, reference, cuda or emulator".to_owned(),
                |status| status.usable.err().unwrap_or_default(),
            );
            Err(anyhow!("--backend {name}: {reason}"))
        }
    }
}

/// A progress bar on stderr; hidden when that is not a terminal.
fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}")
        .expect("a valid template");
    ProgressBar::new(steps as u64).with_style(style)
}

/// Draws the loss of every step on a logarithmic axis.
fn draw(path: &Path, losses: &[f64]) -> Result<()> {
    let normal = FontStyle::Normal;
    plotters::style::register_font("sans-serif", normal, dejavu::sans::regular())
        .map_err(|_| anyhow!("the font cannot be read"))?;
    let mut pixels = vec![0; PICTURE.0 as usize * PICTURE.1 as usize * 3];
    draw_chart(&mut pixels, losses)?;
    image::save_buffer(path, &pixels, PICTURE.0, PICTURE.1, image::ExtendedColorType::Rgb8)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn draw_chart(pixels: &mut [u8], losses: &[f64]) -> Result<()> {
    let lowest = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = losses.iter().copied().fold(0.0, f64::max);
    let area = BitMapBackend::with_buffer(pixels, PICTURE).into_drawing_area();
    area.fill(&WHITE).map_err(drawing)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Loss of the student", ("sans-serif", 22))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0..losses.len(), (lowest / 2.0..highest * 2.0).log_scale())
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("mean squared error")
        .y_label_formatter(&|loss| format!("{loss:.0e}"))
        .draw()
        .map_err(drawing)?;
    let line = LineSeries::new(losses.iter().copied().enumerate(), &BLUE);
    chart.draw_series(line).map_err(drawing)?;
    area.present().map_err(drawing)
}

/// The drawing library's errors borrow its canvas.
fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing the loss curve: {error}")
}
