//! The kernels of key points and projection alone, against the formulas in fp64 and their differences.

use deformable_aggregation::DType;
use deformable_aggregation_tests::{Addresses, Bench, Bound, Lab};
use kernels_gpu::args::{Divisor, rule};
use kernels_gpu::block_args::{
    BlockSizes, Generator, Geometry, PointsArgs, PointsGradientArgs, generator,
};
use kernels_gpu::{POINTS, POINTS_GRADIENT, PROJECTION_GRADIENT};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The smallest depth that coordinates are divided by.
const NEAREST: f64 = 1e-5;

const GROUND: f32 = -0.75;

#[derive(Clone, Copy, Debug)]
struct Setting {
    batch: usize,
    anchors: usize,
    cameras: usize,
    kind: u32,
    fixed: usize,
    learned: usize,
    vertices: usize,
    /// Whether matrices map to pixels.
    pixels: bool,
    threads: u32,
}

const BOX: Setting = Setting {
    batch: 2,
    anchors: 5,
    cameras: 6,
    kind: generator::BOX,
    fixed: 3,
    learned: 2,
    vertices: 0,
    pixels: true,
    threads: 128,
};

fn settings() -> Vec<Setting> {
    vec![
        BOX,
        Setting { cameras: 1, learned: 0, pixels: false, threads: 32, ..BOX },
        Setting { cameras: 9, fixed: 0, learned: 37, threads: 64, ..BOX },
        Setting { kind: generator::POLYLINE, learned: 3, vertices: 4, ..BOX },
        Setting {
            kind: generator::POLYLINE,
            learned: 1,
            fixed: 1,
            vertices: 35,
            pixels: false,
            ..BOX
        },
    ]
}

/// A number, and the sum of the absolute values of the terms that make it up.
type Sum = [f64; 2];

fn sum(terms: impl IntoIterator<Item = f64>) -> Sum {
    terms.into_iter().fold([0.0; 2], |[sum, size], term| [sum + term, size + term.abs()])
}

struct Case {
    setting: Setting,
    anchors: Vec<f32>,
    offsets: Vec<f32>,
    table: Vec<f32>,
    projections: Vec<f32>,
    image_wh: Vec<f32>,
    grad_locations: Vec<f32>,
}

impl Setting {
    fn rows(&self) -> usize {
        self.batch * self.anchors
    }

    fn points(&self) -> usize {
        if self.kind == generator::BOX {
            self.fixed + self.learned
        } else {
            self.vertices * self.fixed * self.learned
        }
    }

    /// Numbers of an anchor, and of its offsets.
    fn lengths(&self) -> (usize, usize) {
        if self.kind == generator::BOX {
            (11, 3 * self.learned)
        } else {
            (2 * self.vertices, 2 * self.points())
        }
    }
}

impl Case {
    fn random(setting: Setting, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers = |count: usize, low: f32, high: f32| -> Vec<f32> {
            (0..count).map(|_| rng.random_range(low..high)).collect()
        };
        let (of_anchor, offsets) = setting.lengths();
        let (cameras, rows) = (setting.batch * setting.cameras, setting.rows());
        let pairs = rows * setting.points() * setting.cameras;
        let mut projections = numbers(16 * cameras, -1.0, 1.0);
        for (number, matrix) in projections.chunks_mut(16).enumerate() {
            // Most cameras stand before all points, every fourth behind them.
            matrix[11] = if number % 4 == 3 { -12.0 } else { 9.0 };
        }
        Self {
            setting,
            anchors: numbers(rows * of_anchor, -1.5, 1.5),
            offsets: numbers(rows * offsets, -2.0, 2.0),
            table: numbers(3 * setting.fixed, -0.5, 0.5),
            projections,
            image_wh: numbers(2 * cameras, 0.25, 2.0),
            grad_locations: numbers(2 * pairs, -1.0, 1.0),
        }
    }

    fn sizes(&self) -> BlockSizes {
        let Setting { batch, anchors, cameras, .. } = self.setting;
        let points = self.setting.points() as u32;
        BlockSizes {
            batch: batch as u32,
            anchors: anchors as u32,
            points,
            cameras: cameras as u32,
            levels: 1,
            groups: 1,
            channels: 1,
            rule: rule::OPERATOR,
            by_points: Divisor::new(points),
            by_cameras: Divisor::new(cameras as u32),
            by_groups: Divisor::new(1),
            weight_lanes: 1,
        }
    }

    /// The numbers of an anchor and of its offsets, in fp64.
    fn anchor(&self, row: usize) -> (Vec<f64>, Vec<f64>) {
        let (of_anchor, offsets) = self.setting.lengths();
        let part = |array: &[f32], length: usize| {
            array[row * length..][..length].iter().copied().map(f64::from).collect()
        };
        (part(&self.anchors, of_anchor), part(&self.offsets, offsets))
    }

    fn matrix(&self, camera: usize) -> Vec<f64> {
        self.projections[16 * camera..][..16].iter().copied().map(f64::from).collect()
    }

    /// A key point; the sizes of its terms besides.
    fn key_point(&self, anchor: &[f64], offsets: &[f64], point: usize) -> [Sum; 3] {
        let Setting { fixed, learned, kind, .. } = self.setting;
        let table = |index: usize| f64::from(self.table[index]);
        if kind == generator::POLYLINE {
            let (vertex, height) = (point / (fixed * learned), point / learned % fixed);
            let moved = |axis: usize| sum([anchor[2 * vertex + axis], offsets[2 * point + axis]]);
            return [moved(0), moved(1), sum([f64::from(GROUND), table(height)])];
        }
        let [x, y, z] = [0, 1, 2].map(|axis| {
            let offset = if point < fixed {
                table(3 * point + axis)
            } else {
                1.0 / (1.0 + (-offsets[3 * (point - fixed) + axis]).exp()) - 0.5
            };
            offset * anchor[3 + axis].exp()
        });
        let (sine, cosine) = (anchor[6], anchor[7]);
        [
            sum([anchor[0], cosine * x, -sine * y]),
            sum([anchor[1], sine * x, cosine * y]),
            sum([anchor[2], z]),
        ]
    }

    /// The place of a point in the image of a camera, its depth, and how far off the place may be in units of a rounding.
    fn place(&self, camera: usize, matrix: &[f64], point: [Sum; 3]) -> ([Sum; 2], f64) {
        let row = |row: usize| {
            let terms = (0..4)
                .map(|axis| matrix[4 * row + axis] * if axis < 3 { point[axis][0] } else { 1.0 });
            let sizes = (0..4).map(|axis| {
                matrix[4 * row + axis].abs() * if axis < 3 { point[axis][1] } else { 1.0 }
            });
            [terms.sum::<f64>(), sizes.sum()]
        };
        let [depth, depth_size] = row(2);
        let clamped = depth.max(NEAREST);
        let relative = if depth > NEAREST { depth_size / depth } else { 1.0 };
        let place = [0, 1].map(|axis| {
            let [value, size] = row(axis);
            let scale = clamped
                * if self.setting.pixels { self.image_wh[2 * camera + axis].into() } else { 1.0 };
            [value / scale, (size + value.abs() * relative) / scale]
        });
        (place, depth)
    }

    fn pair(&self, row: usize, point: usize, camera: usize) -> usize {
        (row * self.setting.points() + point) * self.setting.cameras + camera
    }

    /// Every (row, point, camera, camera over the batch).
    fn pairs(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> + use<> {
        let Setting { anchors, cameras, .. } = self.setting;
        let (rows, points) = (self.setting.rows(), self.setting.points());
        (0..rows).flat_map(move |row| {
            (0..points).flat_map(move |point| {
                (0..cameras)
                    .map(move |camera| (row, point, camera, row / anchors * cameras + camera))
            })
        })
    }

    /// What makes an argument of the geometry, its arrays on the bench.
    fn place_geometry(&self, bench: &mut Bench<'_>) -> impl Fn(&Addresses) -> Geometry + use<> {
        let (setting, sizes) = (self.setting, self.sizes());
        let [anchors, offsets, table, projections] =
            [&self.anchors, &self.offsets, &self.table, &self.projections]
                .map(|array| bench.input(array));
        let image_wh = setting.pixels.then(|| bench.input(&self.image_wh));
        move |at| Geometry {
            sizes,
            generator: Generator {
                table: at.of(table),
                kind: setting.kind,
                fixed: setting.fixed as u32,
                learned: setting.learned as u32,
                vertices: setting.vertices as u32,
                anchor_dims: setting.lengths().0 as u32,
                ground: GROUND,
            },
            anchors: at.of(anchors),
            offsets: at.of(offsets),
            projections: at.of(projections),
            image_wh: at.of_some(image_wh),
        }
    }

    /// Runs the forward kernel: key points, places, what is hidden.
    fn run(&self, lab: &Lab) -> (Vec<f32>, Vec<f32>, Vec<u32>) {
        let (setting, sizes) = (self.setting, self.sizes());
        let points = setting.rows() * setting.points();
        let mut bench = lab.bench();
        let geometry = self.place_geometry(&mut bench);
        let key_points = bench.output::<f32>(3 * points);
        let locations = bench.output::<f32>(2 * points * setting.cameras);
        let hidden = bench.output::<u32>(points * setting.cameras);
        let grid = ((sizes.anchors * sizes.points).div_ceil(setting.threads), sizes.batch);
        // SAFETY: the arrays have the sizes that the arguments say.
        unsafe {
            bench.launch(POINTS, grid, setting.threads, 0, |at| PointsArgs {
                geometry: geometry(at),
                key_points: at.of_mut(key_points),
                locations: at.of_mut(locations),
                hidden: at.of_mut(hidden),
            });
        }
        (bench.read(key_points), bench.read(locations), bench.read(hidden))
    }
}

/// For sums of a few products: the kernels' divisions and exponentials are off by up to two units each.
fn bound() -> Bound {
    Bound::new(DType::F32, DType::F32, 64)
}

fn key_points(lab: &Lab) {
    for (seed, setting) in settings().into_iter().enumerate() {
        let case = Case::random(setting, seed as u64);
        let (key_points, locations, hidden) = case.run(lab);
        let mut seen = vec![0; setting.rows() * setting.points()];
        let mut sees = vec![None; hidden.len()];
        for (row, point, camera, of_batch) in case.pairs() {
            let (anchor, offsets) = case.anchor(row);
            let expected = case.key_point(&anchor, &offsets, point);
            let number = row * setting.points() + point;
            let what = format!("{setting:?}, row {row}, point {point}, camera {camera}");
            for axis in 0..3 {
                let [value, size] = expected[axis];
                bound().assert_near(&what, key_points[3 * number + axis].into(), value, size);
            }
            let (place, depth) = case.place(of_batch, &case.matrix(of_batch), expected);
            let pair = case.pair(row, point, camera);
            for axis in 0..2 {
                let [value, size] = place[axis];
                bound().assert_near(&what, locations[2 * pair + axis].into(), value, size);
            }
            // Where fp32 may decide either way the test does not.
            let place = place.map(|[value, _]| value);
            let limit = if setting.pixels { 1.0 } else { f64::INFINITY };
            let clear = depth.abs() > 1e-3
                && place.iter().all(|value| value.abs() > 1e-4 && (value - 1.0).abs() > 1e-4);
            let inside = depth > NEAREST && place.iter().all(|&value| value > 0.0 && value < limit);
            sees[pair] = clear.then_some(inside);
            seen[number] += usize::from(inside);
        }
        for (row, point, camera, _) in case.pairs() {
            let pair = case.pair(row, point, camera);
            let number = row * setting.points() + point;
            let of_point = &sees[number * setting.cameras..][..setting.cameras];
            if of_point.iter().all(Option::is_some) {
                let expected = u32::from(sees[pair] == Some(false) && seen[number] > 0);
                assert_eq!(hidden[pair], expected, "{setting:?}, pair {pair}");
            }
        }
    }
}

/// The derivative of a place by one of the numbers it depends on, where `place` is called with a change of that.
fn slope(place: impl Fn(f64) -> [Sum; 2]) -> [f64; 2] {
    const STEP: f64 = 1e-4;
    let [before, after] = [-STEP, STEP].map(place);
    [0, 1].map(|axis| (after[axis][0] - before[axis][0]) / (2.0 * STEP))
}

fn gradients(lab: &Lab) {
    let mut counted = 0;
    for (seed, setting) in settings().into_iter().enumerate() {
        let mut case = Case::random(setting, 100 + seed as u64);
        let (key_points, locations, _) = case.run(lab);
        // Behind a camera a step moves the place by a hundred thousand times as much.
        for (row, point, camera, of_batch) in case.pairs() {
            let (anchor, offsets) = case.anchor(row);
            let key_point = case.key_point(&anchor, &offsets, point);
            if case.place(of_batch, &case.matrix(of_batch), key_point).1 < NEAREST {
                let pair = case.pair(row, point, camera);
                case.grad_locations[2 * pair..][..2]
                    .iter_mut()
                    .for_each(|gradient| *gradient *= 1e-6);
            }
        }
        // The others' gradients are not read.
        let counts: Vec<bool> =
            locations.chunks(2).map(|at| at.iter().all(|&v| 0.0 < v && v < 1.0)).collect();
        for (pair, _) in counts.iter().enumerate().filter(|(_, counts)| !**counts) {
            case.grad_locations[2 * pair..][..2].fill(f32::NAN);
        }
        counted += counts.iter().filter(|&&counts| counts).count();
        let case = case;
        let (of_anchor, offsets) = setting.lengths();
        let cameras = setting.batch * setting.cameras;
        let parts = 3;
        let mut bench = lab.bench();
        let geometry = case.place_geometry(&mut bench);
        let [key_points, locations, grad_locations] =
            [&key_points, &locations, &case.grad_locations].map(|array| bench.input(array));
        let grad_anchors = bench.output::<f32>(case.anchors.len());
        let grad_offsets = bench.output::<f32>(case.offsets.len());
        let projection_parts = bench.output::<f32>(cameras * parts * 12);
        let warps = setting.threads / 32;
        for (entry, grid, shared_bytes) in [
            (POINTS_GRADIENT, ((setting.rows() as u32).div_ceil(warps), 1), 0),
            (PROJECTION_GRADIENT, (parts as u32, cameras as u32), 48 * warps),
        ] {
            // SAFETY: the arrays have the sizes that the arguments say.
            unsafe {
                bench.launch(entry, grid, setting.threads, shared_bytes, |at| PointsGradientArgs {
                    geometry: geometry(at),
                    key_points: at.of(key_points),
                    locations: at.of(locations),
                    grad_locations: at.of(grad_locations),
                    grad_anchors: at.of_mut(grad_anchors),
                    grad_offsets: at.of_mut(grad_offsets),
                    projection_parts: at.of_mut(projection_parts),
                });
            }
        }
        let mut expected_anchors = vec![[0.0; 2]; case.anchors.len()];
        let mut expected_offsets = vec![[0.0; 2]; case.offsets.len()];
        let mut expected_matrices = vec![[0.0; 2]; 12 * cameras];
        for (row, point, camera, of_batch) in case.pairs() {
            let pair = case.pair(row, point, camera);
            if !counts[pair] {
                continue;
            }
            let upstream = &case.grad_locations[2 * pair..][..2];
            let add = |target: &mut Sum, slope: [f64; 2]| {
                for axis in 0..2 {
                    let term = f64::from(upstream[axis]) * slope[axis];
                    *target = [target[0] + term, target[1] + term.abs()];
                }
            };
            let (anchor, of_row) = case.anchor(row);
            let matrix = case.matrix(of_batch);
            for index in 0..of_anchor {
                add(
                    &mut expected_anchors[row * of_anchor + index],
                    slope(|change| {
                        let mut anchor = anchor.clone();
                        anchor[index] += change;
                        case.place(of_batch, &matrix, case.key_point(&anchor, &of_row, point)).0
                    }),
                );
            }
            for index in 0..offsets {
                add(
                    &mut expected_offsets[row * offsets + index],
                    slope(|change| {
                        let mut of_row = of_row.clone();
                        of_row[index] += change;
                        case.place(of_batch, &matrix, case.key_point(&anchor, &of_row, point)).0
                    }),
                );
            }
            let key_point = case.key_point(&anchor, &of_row, point);
            for index in 0..12 {
                add(
                    &mut expected_matrices[12 * of_batch + index],
                    slope(|change| {
                        let mut matrix = matrix.clone();
                        matrix[index] += change;
                        case.place(of_batch, &matrix, key_point).0
                    }),
                );
            }
        }
        // Terms may cancel within, the depth against the others; and differences of fp64 numbers are off by so much themselves.
        let bound = Bound { summed: 16.0 * bound().summed, smallest: 1e-9, ..bound() };
        let check = |what: &str, actual: &[f32], expected: &[Sum]| {
            for (index, (&actual, &[value, size])) in actual.iter().zip(expected).enumerate() {
                bound.assert_near(
                    &format!("{setting:?}, {what} {index}"),
                    actual.into(),
                    value,
                    size,
                );
            }
        };
        check("anchor", &bench.read(grad_anchors), &expected_anchors);
        check("offset", &bench.read(grad_offsets), &expected_offsets);
        let parts_of = bench.read(projection_parts);
        let summed: Vec<f32> = (0..12 * cameras)
            .map(|index| {
                (0..parts).map(|part| parts_of[(index / 12 * parts + part) * 12 + index % 12]).sum()
            })
            .collect();
        check("matrix", &summed, &expected_matrices);
    }
    assert!(counted > 200, "places that count: {counted}");
}

deformable_aggregation_tests::in_every_lab!(fp32: key_points, gradients);
