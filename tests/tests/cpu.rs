//! What only the CPU backend promises: results that do not depend on the number of threads.

use deformable_aggregation::{Backend, BorderRule, Element};
use deformable_aggregation_tests::{Case, Sizes};
use half::{bf16, f16};

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

fn repeats<T: Element>() {
    let case = crowded().cast::<T>();
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| case.run(&Backend::Cpu, BorderRule::Operator))
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
    repeats::<f64>();
    repeats::<f32>();
    repeats::<f16>();
    repeats::<bf16>();
}
