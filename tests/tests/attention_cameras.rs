//! The kernels of the camera encoder alone, against the layers in fp64 and their differences.

use deformable_aggregation::DType;
use deformable_aggregation_tests::{Array, Bench, Bound, Lab};
use kernels_gpu::block_args::{CameraArgs, CameraGradientArgs, Encoder};
use kernels_gpu::{CAMERA, CAMERA_GRADIENT, CAMERA_PARAMETERS, camera_bytes};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Clone, Copy, Debug)]
struct Setting {
    /// Cameras of all batch items.
    rows: usize,
    channels: usize,
    /// Warps of a block; parts of the matrices' gradient that come from elsewhere.
    warps: u32,
    parts: usize,
}

fn settings() -> [Setting; 5] {
    [
        Setting { rows: 6, channels: 32, warps: 4, parts: 3 },
        Setting { rows: 1, channels: 5, warps: 1, parts: 1 },
        Setting { rows: 9, channels: 37, warps: 2, parts: 40 },
        Setting { rows: 3, channels: 40, warps: 7, parts: 2 },
        Setting { rows: 2, channels: 70, warps: 1, parts: 5 },
    ]
}

/// The parameters' tensors: weights, biases, scales and shifts of both layers, in the order of [`Encoder`].
const TENSORS: usize = 8;

struct Case {
    setting: Setting,
    parameters: [Vec<f32>; TENSORS],
    projections: Vec<f32>,
    grad_output: Vec<f32>,
    projection_parts: Vec<f32>,
}

impl Case {
    fn random(setting: Setting, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let Setting { rows, channels, parts, .. } = setting;
        let mut numbers = |count: usize, size: f32| -> Vec<f32> {
            (0..count).map(|_| rng.random_range(-size..size)).collect()
        };
        let weight = 1.0 / (channels as f32).sqrt();
        Self {
            setting,
            parameters: [
                numbers(12 * channels, 0.5),
                numbers(channels * channels, 2.0 * weight),
                numbers(channels, 0.5),
                numbers(channels, 0.5),
                numbers(channels, 1.5),
                numbers(channels, 1.5),
                numbers(channels, 0.5),
                numbers(channels, 0.5),
            ],
            projections: numbers(16 * rows, 1.5),
            grad_output: numbers(rows * channels, 1.0),
            projection_parts: numbers(12 * rows * parts, 1.0),
        }
    }

    fn fp64(&self) -> [Vec<f64>; TENSORS] {
        self.parameters.each_ref().map(|tensor| tensor.iter().copied().map(f64::from).collect())
    }

    fn matrix(&self, row: usize) -> Vec<f64> {
        self.projections[16 * row..][..16].iter().copied().map(f64::from).collect()
    }

    /// Puts the parameters on a bench.
    fn parameters(&self, bench: &mut Bench<'_>) -> [Array<f32>; TENSORS] {
        self.parameters.each_ref().map(|tensor| bench.input(tensor))
    }
}

/// What the encoder makes of a matrix.
fn encode(parameters: &[Vec<f64>; TENSORS], matrix: &[f64]) -> Vec<f64> {
    let first = layer(parameters, 0, &matrix[..12]);
    layer(parameters, 1, &first)
}

/// Linear, ReLU, LayerNorm.
fn layer(parameters: &[Vec<f64>; TENSORS], number: usize, input: &[f64]) -> Vec<f64> {
    let [weights, biases, scales, shifts] = [0, 2, 4, 6].map(|tensor| &parameters[tensor + number]);
    let rectified: Vec<f64> = weights
        .chunks(input.len())
        .zip(biases)
        .map(|(row, bias)| (row.iter().zip(input).map(|(a, b)| a * b).sum::<f64>() + bias).max(0.0))
        .collect();
    let count = rectified.len() as f64;
    let mean = rectified.iter().sum::<f64>() / count;
    let variance = rectified.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let normalised = rectified.iter().map(|value| (value - mean) / (variance + 1e-5).sqrt());
    normalised.zip(scales.iter().zip(shifts)).map(|(value, (a, b))| value * a + b).collect()
}

/// What the forward kernel leaves.
struct Stages {
    rectified: Vec<f32>,
    middle: Vec<f32>,
    moments: Vec<f32>,
    output: Vec<f32>,
}

fn run(lab: &Lab, case: &Case) -> Stages {
    let Setting { rows, channels, warps, .. } = case.setting;
    let mut bench = lab.bench();
    let parameters = case.parameters(&mut bench);
    let projections = bench.input(&case.projections);
    let rectified = bench.output::<f32>(2 * rows * channels);
    let middle = bench.output::<f32>(rows * channels);
    let moments = bench.output::<f32>(4 * rows);
    let output = bench.output::<f32>(rows * channels);
    let shared_bytes = camera_bytes(channels as u32, warps);
    // SAFETY: the arrays have the sizes that the arguments say.
    unsafe {
        bench.launch(CAMERA, (rows as u32, 1), 32 * warps, shared_bytes, |at| CameraArgs {
            encoder: encoder(parameters.map(|array| at.of(array))),
            projections: at.of(projections),
            channels: channels as u32,
            rectified: at.of_mut(rectified),
            middle: at.of_mut(middle),
            moments: at.of_mut(moments),
            output: at.of_mut(output),
        });
    }
    Stages {
        rectified: bench.read(rectified),
        middle: bench.read(middle),
        moments: bench.read(moments),
        output: bench.read(output),
    }
}

fn encoder([a, b, c, d, e, f, g, h]: [*const f32; TENSORS]) -> Encoder {
    Encoder { weights: [a, b], biases: [c, d], scales: [e, f], shifts: [g, h] }
}

/// Two layers of sums over the channels, each normalised: differences of like numbers are divided by how far they are apart.
fn bound(setting: Setting) -> Bound {
    let bound = Bound::new(DType::F32, DType::F32, setting.channels);
    Bound { summed: 8.0 * bound.summed, ..bound }
}

fn embeddings(lab: &Lab) {
    for (seed, setting) in settings().into_iter().enumerate() {
        let case = Case::random(setting, seed as u64);
        let output = run(lab, &case).output;
        for row in 0..setting.rows {
            for (channel, expected) in
                encode(&case.fp64(), &case.matrix(row)).into_iter().enumerate()
            {
                let what = format!("{setting:?}, row {row}, channel {channel}");
                let actual = output[row * setting.channels + channel].into();
                bound(setting).assert_near(&what, actual, expected, 2.0 + expected.abs());
            }
        }
    }
}

/// Runs the backward kernels: the gradients of the parameters, and of the matrices.
fn run_gradient(lab: &Lab, case: &Case) -> ([Vec<f32>; TENSORS], Vec<f32>) {
    let Setting { rows, channels, warps, parts } = case.setting;
    let stages = run(lab, case);
    let mut bench = lab.bench();
    let parameters = case.parameters(&mut bench);
    let [projections, grad_output, projection_parts, rectified, middle, moments] = [
        &case.projections,
        &case.grad_output,
        &case.projection_parts,
        &stages.rectified,
        &stages.middle,
        &stages.moments,
    ]
    .map(|array| bench.input(array));
    let grad_linear = bench.output::<f32>(2 * rows * channels);
    let grad_middle = bench.output::<f32>(rows * channels);
    let grad_projections = bench.output::<f32>(16 * rows);
    let gradients = case.parameters.each_ref().map(|tensor| bench.output::<f32>(tensor.len()));
    for (entry, blocks, shared_bytes) in [
        (CAMERA_GRADIENT, rows, camera_bytes(channels as u32, warps)),
        (CAMERA_PARAMETERS, channels, 0),
    ] {
        // SAFETY: the arrays have the sizes that the arguments say.
        unsafe {
            bench.launch(entry, (blocks as u32, 1), 32 * warps, shared_bytes, |at| {
                let [a, b, c, d, e, f, g, h] = gradients.map(|array| at.of_mut(array));
                CameraGradientArgs {
                    encoder: encoder(parameters.map(|array| at.of(array))),
                    projections: at.of(projections),
                    channels: channels as u32,
                    rows: rows as u32,
                    rectified: at.of(rectified),
                    middle: at.of(middle),
                    moments: at.of(moments),
                    grad_output: at.of(grad_output),
                    grad_linear: at.of_mut(grad_linear),
                    grad_middle: at.of_mut(grad_middle),
                    projection_parts: at.of(projection_parts),
                    parts: parts as u32,
                    grad_projections: at.of_mut(grad_projections),
                    grad_weights: [a, b],
                    grad_biases: [c, d],
                    grad_scales: [e, f],
                    grad_shifts: [g, h],
                }
            });
        }
    }
    (gradients.map(|array| bench.read(array)), bench.read(grad_projections))
}

/// The gradient by a number of which the embedding of a row is a function of the change, and the sum of its terms' sizes.
fn difference(case: &Case, row: usize, embedding: impl Fn(f64) -> Vec<f64>) -> [f64; 2] {
    const STEP: f64 = 1e-6;
    let (before, after) = (embedding(-STEP), embedding(STEP));
    let upstream = &case.grad_output[row * case.setting.channels..];
    before.iter().zip(&after).zip(upstream).fold(
        [0.0; 2],
        |[sum, size], ((before, after), &upstream)| {
            let term = f64::from(upstream) * (after - before) / (2.0 * STEP);
            [sum + term, size + term.abs()]
        },
    )
}

fn gradients(lab: &Lab) {
    for (seed, setting) in settings().into_iter().enumerate() {
        let case = Case::random(setting, 100 + seed as u64);
        let (gradients, grad_projections) = run_gradient(lab, &case);
        let parameters = case.fp64();
        // Differences of fp64 numbers over steps of 10⁻⁶ are off by so much themselves.
        let bound = Bound { smallest: 1e-7, ..bound(setting) };
        for (tensor, gradient) in gradients.iter().enumerate() {
            for (index, &actual) in gradient.iter().enumerate() {
                let mut expected = [0.0; 2];
                for row in 0..setting.rows {
                    let part = difference(&case, row, |change| {
                        let mut parameters = parameters.clone();
                        parameters[tensor][index] += change;
                        encode(&parameters, &case.matrix(row))
                    });
                    expected = [expected[0] + part[0], expected[1] + part[1]];
                }
                let what = format!("{setting:?}, tensor {tensor}, number {index}");
                bound.assert_near(&what, actual.into(), expected[0], 1.0 + expected[1]);
            }
        }
        for row in 0..setting.rows {
            for index in 0..16 {
                let mut expected = [0.0; 2];
                if index < 12 {
                    expected = difference(&case, row, |change| {
                        let mut matrix = case.matrix(row);
                        matrix[index] += change;
                        encode(&parameters, &matrix)
                    });
                    for part in 0..setting.parts {
                        let at = 12 * (row * setting.parts + part) + index;
                        let term = f64::from(case.projection_parts[at]);
                        expected = [expected[0] + term, expected[1] + term.abs()];
                    }
                }
                let what = format!("{setting:?}, matrix {row}, number {index}");
                let actual = grad_projections[16 * row + index].into();
                bound.assert_near(&what, actual, expected[0], 1.0 + expected[1]);
            }
        }
    }
}

deformable_aggregation_tests::in_every_lab!(fp32: embeddings, gradients);
