//! What a generic test runs on.

use std::fmt;

use deformable_aggregation::{AggregationShape, Algorithm, Backend, DeformableAggregation};

/// A backend and, for those that run GPU kernels, which ones.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What computes.
    pub backend: Backend,
    /// Which GPU kernels run.
    pub algorithm: Algorithm,
}

impl Subject {
    /// The subject of this name, or `None` with a line on standard output that says why the test is skipped.
    ///
    /// # Panics
    ///
    /// If nothing has this name: a misspelt test must not pass.
    #[must_use]
    pub fn open(name: &str) -> Option<Self> {
        let (name, algorithm) = match name.split_once('_') {
            Some((name, algorithm)) => {
                (name, algorithm.parse().unwrap_or_else(|error| panic!("{error}")))
            }
            None => (name, Algorithm::Fast),
        };
        let backend = match name {
            "reference" => Backend::Reference,
            "cpu" => Backend::Cpu,
            "emulator" => Backend::Emulator,
            "cuda" => match Backend::cuda(0) {
                Ok(backend) => backend,
                Err(error) => {
                    println!("skipped because {error}");
                    return None;
                }
            },
            _ => panic!("no backend is called {name}"),
        };
        Some(Self { backend, algorithm })
    }

    /// The operator of this shape on this subject.
    #[must_use]
    pub fn operator(&self, shape: &AggregationShape) -> DeformableAggregation {
        DeformableAggregation::new(shape.clone())
            .with_backend(self.backend.clone())
            .with_algorithm(self.algorithm)
    }
}

impl From<Backend> for Subject {
    fn from(backend: Backend) -> Self {
        Self { backend, algorithm: Algorithm::Fast }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.algorithm {
            Algorithm::Fast => self.backend.fmt(f),
            algorithm => write!(f, "{} ({algorithm} kernels)", self.backend),
        }
    }
}

/// Instantiates tests that are generic over the element type: `on_every_backend!(check, ...)` makes, for every function
/// `fn check<T: Element>(subject: &Subject)`, the tests `check::<backend>::<dtype>`. `on_every_backend!(block: check, ...)` leaves out the
/// backends that do not compute the attention block.
#[macro_export]
macro_rules! on_every_backend {
    ($($check:ident),+ $(,)?) => {
        $(mod $check {
            $crate::on_every_backend!(@block $check);
            $crate::on_every_backend!(@subject $check emulator_repeatable
                fp32 f32, fp16 half::f16, bf16 half::bf16);
            $crate::on_every_backend!(@subject $check emulator_naive
                fp32 f32, fp16 half::f16, bf16 half::bf16);
            $crate::on_every_backend!(@subject $check cuda_repeatable
                fp32 f32, fp16 half::f16, bf16 half::bf16);
            $crate::on_every_backend!(@subject $check cuda_naive
                fp32 f32, fp16 half::f16, bf16 half::bf16);
        })+
    };
    (block: $($check:ident),+ $(,)?) => {
        $(mod $check {
            $crate::on_every_backend!(@block $check);
        })+
    };
    // Where the whole attention block runs, and everything else.
    (@block $check:ident) => {
        $crate::on_every_backend!(@subject $check reference
            fp64 f64, fp32 f32, fp16 half::f16, bf16 half::bf16);
        $crate::on_every_backend!(@subject $check cpu
            fp64 f64, fp32 f32, fp16 half::f16, bf16 half::bf16);
        $crate::on_every_backend!(@subject $check emulator
            fp32 f32, fp16 half::f16, bf16 half::bf16);
        $crate::on_every_backend!(@subject $check cuda
            fp32 f32, fp16 half::f16, bf16 half::bf16);
    };
    (@subject $check:ident $subject:ident $($dtype:ident $type:ty),+) => {
        mod $subject {
            $(#[test]
            fn $dtype() {
                if let Some(subject) = $crate::Subject::open(stringify!($subject)) {
                    super::super::$check::<$type>(&subject);
                }
            })+
        }
    };
}
