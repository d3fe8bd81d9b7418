//! What only the CPU backend promises, results that do not depend on the number of threads, and what only it can do in a
//! test's time: a full-size problem.

use deformable_aggregation::{Backend, BorderRule, Element};
use deformable_aggregation_tests::{Case, Sizes};
use half::{bf16, f16};
use ndarray::{Array, Dimension};

/// Many samples on few rows, so that tasks would meet if they shared any.
fn crowded() -> Case<f64> {
    let sizes = Sizes {
        batch: 2,
        anchors: 150,
        points: 6,
        cameras: 2,
        levels: vec![(12, 9), (2, 3)],
        groups: 4,
        channels_per_group: 8,
    };
    Case::random(sizes.shape(), 42)
}

/// So many points on an anchor, and samples on a block of rows, that both are cut into runs.
fn one_anchor() -> Case<f64> {
    let sizes = Sizes {
        batch: 2,
        anchors: 1,
        points: 5_000,
        cameras: 2,
        levels: vec![(2, 3), (1, 2)],
        groups: 2,
        channels_per_group: 3,
    };
    Case::random(sizes.shape(), 43)
}

fn repeats<T: Element>(case: &Case<f64>) {
    let case = case.cast::<T>();
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| case.run(&Backend::Cpu.into(), BorderRule::Operator))
    };
    let (output, gradients) = with_threads(1);
    for threads in [1, 2, 3, 8] {
        let (again, gradients_again) = with_threads(threads);
        // No zero changes its sign, as every entry starts from +0: equality is equality of bits.
        assert_eq!(output, again, "{threads} threads");
        assert_eq!(gradients, gradients_again, "{threads} threads");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for case in [crowded(), one_anchor()] {
        repeats::<f64>(&case);
        repeats::<f32>(&case);
        repeats::<f16>(&case);
        repeats::<bf16>(&case);
    }
}

fn matches<T: Element>(case: &Case<f64>) {
    let case = case.cast::<T>();
    let (output, gradients) = case.run(&Backend::Cpu.into(), BorderRule::Operator);
    if let Err(mismatch) = case.check(BorderRule::Operator, &output, &gradients) {
        panic!("{}: {mismatch}", T::DTYPE);
    }
}

#[test]
fn sums_in_runs_match_the_exact_sums() {
    let case = one_anchor();
    matches::<f64>(&case);
    matches::<f32>(&case);
    matches::<f16>(&case);
    matches::<bf16>(&case);
}

/// Sparse4D v3 at inference: the adjoint identity, at full size.
#[test]
fn full_size_backward_is_the_adjoint_of_forward() {
    let sizes = Sizes {
        batch: 1,
        anchors: 900,
        points: 13,
        cameras: 6,
        levels: vec![(64, 176), (32, 88), (16, 44), (8, 22)],
        groups: 8,
        channels_per_group: 32,
    };
    let mut case = Case::random(sizes.shape(), 1).cast::<f32>();
    // Every point is seen by one camera.
    for ((_, _, point, camera, _), location) in case.sampling_locations.indexed_iter_mut() {
        if point % 6 != camera {
            *location = -1.0;
        }
    }
    // Without signs nothing cancels, so the sums are as large as their terms and the bound is tight.
    for array in [&mut case.feature_maps, &mut case.grad_output] {
        array.mapv_inplace(f32::abs);
    }
    case.weights.mapv_inplace(f32::abs);
    let (output, gradients) = case.run(&Backend::Cpu.into(), BorderRule::Operator);
    let left = dot(&output, &case.grad_output);
    let features = dot(&case.feature_maps, &gradients.feature_maps);
    let weights = dot(&case.weights, &gradients.weights);
    let bound = f64::from(f32::EPSILON) * left;
    assert!((left - features).abs() < bound, "{left} {features} {bound}");
    assert!((left - weights).abs() < bound, "{left} {weights} {bound}");
}

fn dot<D: Dimension>(a: &Array<f32, D>, b: &Array<f32, D>) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
