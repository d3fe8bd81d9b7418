//! The kernels of the attention weights alone, against the softmax and its gradient in fp64.

use deformable_aggregation::GpuElement;
use deformable_aggregation_tests::{Addresses, Bench, Bound, Lab};
use kernels_gpu::args::{Divisor, rule};
use kernels_gpu::block_args::{BlockSizes, Dropout, Logits, WeightsArgs, WeightsGradientArgs};
use kernels_gpu::{BlockKernels, weights_bytes, weights_gradient_bytes};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Sizes, and what there is besides the logits.
#[derive(Clone, Copy, Debug)]
struct Setting {
    batch: usize,
    anchors: usize,
    points: usize,
    cameras: usize,
    levels: usize,
    groups: usize,
    /// Channels of a group.
    size: usize,
    /// Whether anchor and camera have logits that are added, or each anchor has some for each camera.
    embeds: bool,
    hides: bool,
    drops: bool,
    /// Whether blocks have a table where they may.
    tables: bool,
    rule: u32,
    /// Threads of a block, and anchors of a run.
    threads: u32,
    run: usize,
}

const SMALL: Setting = Setting {
    batch: 2,
    anchors: 5,
    points: 7,
    cameras: 6,
    levels: 3,
    groups: 8,
    size: 4,
    embeds: true,
    hides: false,
    drops: false,
    tables: true,
    rule: rule::OPERATOR,
    threads: 64,
    run: 2,
};

/// Odd sizes of everything; groups that do not fit a warp, more groups than threads, cameras for several rounds, points
/// for several lists.
fn settings() -> Vec<Setting> {
    vec![
        SMALL,
        Setting {
            hides: true,
            drops: true,
            rule: rule::GRID_SAMPLE,
            threads: 224,
            run: 3,
            ..SMALL
        },
        Setting { groups: 1, cameras: 1, levels: 1, points: 1, threads: 32, run: 5, ..SMALL },
        Setting { groups: 3, cameras: 9, size: 35, drops: true, threads: 96, run: 4, ..SMALL },
        Setting { groups: 40, cameras: 13, levels: 2, size: 1, hides: true, threads: 32, ..SMALL },
        Setting { groups: 65, levels: 1, points: 3, embeds: false, threads: 64, ..SMALL },
        Setting { embeds: false, cameras: 7, hides: true, drops: true, threads: 256, ..SMALL },
        Setting { batch: 1, anchors: 2, points: 67, cameras: 9, levels: 1, threads: 512, ..SMALL },
        Setting { tables: false, points: 9, ..SMALL },
        Setting { anchors: 3, points: 5, levels: 5, groups: 16, threads: 160, run: 1, ..SMALL },
        // Groups that lanes have eight channels of: as many lanes as a warp has, some, and one.
        Setting { groups: 2, size: 256, run: 3, ..SMALL },
        Setting { groups: 3, size: 32, threads: 96, run: 5, ..SMALL },
        Setting { groups: 5, size: 8, threads: 96, run: 4, ..SMALL },
        // And groups that are no power of two of them.
        Setting { groups: 2, size: 24, ..SMALL },
    ]
}

/// Arrays of random numbers, in the layouts of the kernels' arguments.
struct Case {
    setting: Setting,
    anchor: Vec<f32>,
    camera: Vec<f32>,
    hidden: Vec<u32>,
    locations: Vec<f32>,
    /// Numbers of the dropout, some of them the threshold itself.
    numbers: Vec<f32>,
    grad_weights: Vec<f64>,
    features: Vec<f64>,
    grad_features: Vec<f64>,
}

/// What dropout compares its numbers with, and what it multiplies with.
const THRESHOLD: f32 = 0.25;
const SCALE: f32 = 1.375;

impl Case {
    fn random(setting: Setting, seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let Setting { batch, anchors, points, cameras, .. } = setting;
        let (rows, logits) = (batch * anchors, setting.logits());
        let pairs = rows * points * cameras;
        let numbers = |count: usize, low: f32, high: f32, rng: &mut ChaCha8Rng| -> Vec<f32> {
            (0..count).map(|_| rng.random_range(low..high)).collect()
        };
        // Exact in every element type.
        let eighths = |count: usize, rng: &mut ChaCha8Rng| -> Vec<f64> {
            (0..count).map(|_| f64::from(rng.random_range(-16..=16)) / 8.0).collect()
        };
        let own = if setting.embeds { 1 } else { cameras };
        let mut case = Self {
            setting,
            anchor: numbers(rows * own * logits, -6.0, 6.0, rng),
            camera: numbers(batch * cameras * logits, -6.0, 6.0, rng),
            hidden: (0..pairs).map(|_| u32::from(rng.random_bool(0.4))).collect(),
            locations: numbers(2 * pairs, -0.75, 1.75, rng),
            numbers: numbers(pairs, 0.0, 1.0, rng),
            grad_weights: eighths(pairs * setting.levels * setting.groups, rng),
            features: eighths(rows * setting.groups * setting.size, rng),
            grad_features: eighths(rows * setting.groups * setting.size, rng),
        };
        for number in &mut case.numbers {
            if rng.next_u32().is_multiple_of(8) {
                *number = THRESHOLD;
            }
        }
        for location in &mut case.locations {
            if rng.next_u32().is_multiple_of(16) {
                *location = [0.0, 1.0, f32::NAN, f32::INFINITY][rng.random_range(0..4)];
            }
        }
        // An anchor of whose logits some are far from the others, and a camera that outdoes all.
        let start = (rows - 1) * own * logits;
        case.anchor[start..].iter_mut().step_by(5).for_each(|logit| *logit *= 30.0);
        case.camera[..logits].iter_mut().for_each(|logit| *logit += 40.0);
        case
    }

    fn sizes(&self) -> BlockSizes {
        let Setting { batch, anchors, points, cameras, levels, groups, size, rule, .. } =
            self.setting;
        let of_pair = levels * groups;
        BlockSizes {
            batch: batch as u32,
            anchors: anchors as u32,
            points: points as u32,
            cameras: cameras as u32,
            levels: levels as u32,
            groups: groups as u32,
            channels: (groups * size) as u32,
            rule,
            by_points: Divisor::new(points as u32),
            by_cameras: Divisor::new(cameras as u32),
            by_groups: Divisor::new(groups as u32),
            weight_lanes: of_pair.next_power_of_two().min(32) as u32,
        }
    }

    /// What makes an argument of the logits, their arrays on the bench.
    fn place_logits(&self, bench: &mut Bench<'_>) -> impl Fn(&Addresses) -> Logits + use<> {
        let Setting { embeds, hides, drops, .. } = self.setting;
        let anchor = bench.input(&self.anchor);
        let camera = embeds.then(|| bench.input(&self.camera));
        let hidden = hides.then(|| bench.input(&self.hidden));
        let numbers = drops.then(|| bench.input(&self.numbers));
        move |at| Logits {
            anchor: at.of(anchor),
            camera: at.of_some(camera),
            hidden: at.of_some(hidden),
            dropout: numbers.map_or(Dropout::NONE, |numbers| Dropout {
                numbers: at.of(numbers),
                threshold: THRESHOLD,
                zero_equal: 1,
                scale: SCALE,
                ..Dropout::NONE
            }),
        }
    }

    /// Everything of an anchor that the softmax runs over, as (camera, index of `(L, P, G)`).
    fn entries(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Setting { cameras, .. } = self.setting;
        let logits = self.setting.logits();
        (0..cameras).flat_map(move |camera| (0..logits).map(move |index| (camera, index)))
    }

    fn logit(&self, row: usize, camera: usize, index: usize) -> f64 {
        let Setting { anchors, cameras, points, groups, .. } = self.setting;
        let logits = self.setting.logits();
        let pair = (row * points + index / groups % points) * cameras + camera;
        if self.setting.hides && self.hidden[pair] != 0 {
            return f64::NEG_INFINITY;
        }
        if !self.setting.embeds {
            return self.anchor[(row * cameras + camera) * logits + index].into();
        }
        // Kernels add in fp32, and the exponential makes much of the rounding.
        let of_camera = self.camera[(row / anchors * cameras + camera) * logits + index];
        f64::from(self.anchor[row * logits + index] + of_camera)
    }

    /// The weights of an anchor before dropout, by camera and index.
    fn softmax(&self, row: usize) -> Vec<f64> {
        let Setting { groups, .. } = self.setting;
        let logits: Vec<f64> =
            self.entries().map(|(camera, index)| self.logit(row, camera, index)).collect();
        let groups_of = |number: usize| number % self.setting.logits() % groups;
        let mut largest = vec![f64::NEG_INFINITY; groups];
        let mut sums = vec![0.0; groups];
        for (number, &logit) in logits.iter().enumerate() {
            let largest = &mut largest[groups_of(number)];
            *largest = largest.max(logit);
        }
        for (number, &logit) in logits.iter().enumerate() {
            sums[groups_of(number)] += (logit - largest[groups_of(number)]).exp();
        }
        let weight = |(number, &logit): (usize, &f64)| {
            (logit - largest[groups_of(number)]).exp() / sums[groups_of(number)]
        };
        logits.iter().enumerate().map(weight).collect()
    }

    fn factor(&self, row: usize, camera: usize, index: usize) -> f64 {
        let Setting { cameras, points, groups, drops, .. } = self.setting;
        let number = self.numbers[(row * cameras + camera) * points + index / groups % points];
        match drops {
            false => 1.0,
            true if number > THRESHOLD => SCALE.into(),
            true => 0.0,
        }
    }

    fn counts(&self, row: usize, camera: usize, index: usize) -> bool {
        let Setting { cameras, points, groups, .. } = self.setting;
        let pair = (row * points + index / groups % points) * cameras + camera;
        let rim = if self.setting.rule == rule::OPERATOR { 0.0 } else { 0.5 };
        let inside = |location: f32| location > -rim && location < 1.0 + rim;
        self.locations[2 * pair..][..2].iter().all(|&location| inside(location))
    }

    /// Where the weight lies in `(R, P, N, L, G)`.
    fn place(&self, row: usize, camera: usize, index: usize) -> usize {
        let Setting { cameras, points, levels, groups, .. } = self.setting;
        let (level, point) = (index / groups / points, index / groups % points);
        (((row * points + point) * cameras + camera) * levels + level) * groups + index % groups
    }
}

impl Setting {
    fn logits(&self) -> usize {
        self.levels * self.points * self.groups
    }

    fn rows(&self) -> usize {
        self.batch * self.anchors
    }

    /// How far off a product with a weight may be, relative to it: a logit is rounded once before the difference, which
    /// makes an error of the power as large as that of the logits, here up to 230.
    fn relative(&self, storage: deformable_aggregation::DType) -> Bound {
        let sums = deformable_aggregation::DType::F32;
        let bound = Bound::new(sums, storage, self.cameras * self.logits() / self.groups);
        Bound {
            summed: bound.summed + 2.0 * 230.0 * sums.epsilon() / 2.0,
            // Powers that would be subnormal are 0, and each of the factors that they go with is below 8.
            smallest: bound.smallest + 8.0 * f64::from(f32::MIN_POSITIVE),
            ..bound
        }
    }
}

/// Runs the forward kernel: statistics and weights.
fn run_weights<T: GpuElement>(lab: &Lab, case: &Case) -> (Vec<f32>, Vec<T>) {
    let (setting, sizes) = (case.setting, case.sizes());
    let mut bench = lab.bench();
    let logits = case.place_logits(&mut bench);
    let locations = bench.input(&case.locations);
    let statistics = bench.output::<f32>(2 * setting.rows() * setting.groups);
    let weights = bench.output::<T>(case.grad_weights.len());
    let run = setting.run as u32;
    let grid = (sizes.anchors.div_ceil(run), sizes.batch);
    let has_table = setting.embeds && !setting.hides && setting.tables;
    let logits_of_table = if has_table { setting.logits() as u32 } else { 0 };
    let shared_bytes = weights_bytes(setting.threads / 32, sizes.groups, logits_of_table);
    // SAFETY: the arrays have the sizes that the arguments say.
    unsafe {
        bench.launch(T::Kernel::WEIGHTS, grid, setting.threads, shared_bytes, |at| WeightsArgs {
            sizes,
            logits: logits(at),
            locations: at.of(locations),
            statistics: at.of_mut(statistics),
            weights: at.of_mut(weights).cast(),
            run,
            has_table: has_table.into(),
        });
    }
    (bench.read(statistics), bench.read(weights))
}

fn weights<T: GpuElement>(lab: &Lab) {
    for (seed, setting) in settings().into_iter().enumerate() {
        let case = Case::random(setting, seed as u64);
        let (_, weights) = run_weights::<T>(lab, &case);
        let mut written = 0;
        for row in 0..setting.rows() {
            let softmax = case.softmax(row);
            for ((camera, index), softmax) in case.entries().zip(softmax) {
                if !case.counts(row, camera, index) {
                    continue;
                }
                written += 1;
                let expected = softmax * case.factor(row, camera, index);
                let actual = weights[case.place(row, camera, index)].to_f64();
                let what = format!("{setting:?}, row {row}, camera {camera}, index {index}");
                setting.relative(T::DTYPE).assert_near(&what, actual, expected, expected);
            }
        }
        let untouched = weights.iter().filter(|weight| weight.to_f64().is_nan()).count();
        assert_eq!(written + untouched, weights.len(), "{setting:?}: others are left alone");
    }
}

/// Runs the backward kernel on the statistics of the forward one: the gradients of the anchors' and the cameras' logits.
fn run_gradient<T: GpuElement>(lab: &Lab, case: &Case) -> (Vec<f32>, Vec<f32>) {
    let (statistics, _) = run_weights::<T>(lab, case);
    let (setting, sizes) = (case.setting, case.sizes());
    let runs = setting.anchors.div_ceil(setting.run);
    let elements =
        |values: &[f64]| values.iter().map(|&value| T::from_f64(value)).collect::<Vec<_>>();
    // Where a location does not count nothing is read.
    let mut grad_weights = elements(&case.grad_weights);
    for row in 0..setting.rows() {
        for (camera, index) in case.entries().filter(|&(n, i)| !case.counts(row, n, i)) {
            grad_weights[case.place(row, camera, index)] = T::from_f64(f64::NAN);
        }
    }
    let mut bench = lab.bench();
    let logits = case.place_logits(&mut bench);
    let locations = bench.input(&case.locations);
    let statistics = bench.input(&statistics);
    let grad_weights = bench.input(&grad_weights);
    let [features, grad_features] =
        [&case.features, &case.grad_features].map(|array| bench.input(&elements(array)));
    let grad_anchor = bench.output::<f32>(case.anchor.len());
    let parts = if setting.embeds { case.camera.len() * runs } else { 0 };
    let parts = bench.output::<f32>(parts);
    let stretches = sizes.logits().div_ceil(setting.threads);
    let grid = (runs as u32 * stretches, sizes.batch);
    let shared_bytes = setting.run as u32 * weights_gradient_bytes(setting.threads, sizes.groups);
    // SAFETY: the arrays have the sizes that the arguments say.
    unsafe {
        let entry = T::Kernel::WEIGHTS_GRADIENT;
        bench.launch(entry, grid, setting.threads, shared_bytes, |at| WeightsGradientArgs {
            sizes,
            logits: logits(at),
            statistics: at.of(statistics),
            locations: at.of(locations),
            grad_weights: at.of(grad_weights).cast(),
            features: at.of(features).cast(),
            grad_features: at.of(grad_features).cast(),
            grad_anchor: at.of_mut(grad_anchor),
            camera_parts: at.of_mut(parts),
            run: setting.run as u32,
            runs: Divisor::new(runs as u32),
        });
    }
    (bench.read(grad_anchor), bench.read(parts))
}

fn weights_gradient<T: GpuElement>(lab: &Lab) {
    for (seed, setting) in settings().into_iter().enumerate() {
        let case = Case::random(setting, 100 + seed as u64);
        let (grad_anchor, parts) = run_gradient::<T>(lab, &case);
        let (logits, cameras) = (setting.logits(), setting.cameras);
        // Value and magnitude of each gradient.
        let mut anchors = vec![[0.0; 2]; case.anchor.len()];
        let mut of_cameras = vec![[0.0; 2]; case.camera.len()];
        for row in 0..setting.rows() {
            let inner: Vec<[f64; 2]> = (0..setting.groups)
                .map(|group| {
                    let first = (row * setting.groups + group) * setting.size;
                    let terms = first..first + setting.size;
                    let terms = terms.map(|at| case.features[at] * case.grad_features[at]);
                    terms.fold([0.0; 2], |[sum, size], term| [sum + term, size + term.abs()])
                })
                .collect();
            for ((camera, index), softmax) in case.entries().zip(case.softmax(row)) {
                let mut upstream = 0.0;
                if case.counts(row, camera, index) {
                    upstream = case.grad_weights[case.place(row, camera, index)]
                        * case.factor(row, camera, index);
                }
                let [inner, magnitude] = inner[index % setting.groups];
                let term = [softmax * (upstream - inner), softmax * (upstream.abs() + magnitude)];
                let own =
                    if setting.embeds { row * logits } else { (row * cameras + camera) * logits };
                let of_camera = (row / setting.anchors * cameras + camera) * logits;
                for part in 0..2 {
                    anchors[own + index][part] += term[part];
                    of_cameras[of_camera + index][part] += term[part];
                }
            }
        }
        let bound = setting.relative(deformable_aggregation::DType::F32);
        for (at, &[expected, magnitude]) in anchors.iter().enumerate() {
            let what = format!("{setting:?}, gradient {at} of the anchors");
            bound.assert_near(&what, grad_anchor[at].into(), expected, magnitude);
        }
        if setting.embeds {
            let (of_item, runs) = (cameras * logits, setting.anchors.div_ceil(setting.run));
            for (at, &[expected, magnitude]) in of_cameras.iter().enumerate() {
                let (item, number) = (at / of_item, at % of_item);
                let part = |run| f64::from(parts[(item * runs + run) * of_item + number]);
                let what = format!("{setting:?}, gradient {at} of the cameras");
                bound.assert_near(&what, (0..runs).map(part).sum(), expected, magnitude);
            }
        }
    }
}

/// Every sum has a fixed order: a second run gives the same bits.
fn the_same_bits_again<T: GpuElement>(lab: &Lab) {
    let case = Case::random(Setting { drops: true, ..SMALL }, 7);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let [first, second] = [(); 2].map(|()| run_gradient::<T>(lab, &case));
    assert_eq!(bits(&first.0), bits(&second.0));
    assert_eq!(bits(&first.1), bits(&second.1));
}

deformable_aggregation_tests::in_every_lab!(weights, weights_gradient, the_same_bits_again);
