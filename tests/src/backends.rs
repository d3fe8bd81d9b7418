//! The backends that a generic test runs on.

use deformable_aggregation::Backend;

/// The backend of this name, or `None` with a line on standard output that says why the test is skipped.
///
/// # Panics
///
/// If no backend has this name: a misspelt test must not pass.
#[must_use]
pub fn open(name: &str) -> Option<Backend> {
    match name {
        "reference" => Some(Backend::Reference),
        "cpu" => Some(Backend::Cpu),
        _ => panic!("no backend is called {name}"),
    }
}

/// Instantiates tests that are generic over the element type: `on_every_backend!(check, ...)` makes, for every function
/// `fn check<T: Element>(backend: &Backend)`, the tests `check::<backend>::<dtype>`.
#[macro_export]
macro_rules! on_every_backend {
    ($($check:ident),+ $(,)?) => {
        $(mod $check {
            $crate::on_every_backend!(@backend $check reference
                fp64 f64, fp32 f32, fp16 half::f16, bf16 half::bf16);
            $crate::on_every_backend!(@backend $check cpu
                fp64 f64, fp32 f32, fp16 half::f16, bf16 half::bf16);
        })+
    };
    (@backend $check:ident $backend:ident $($dtype:ident $type:ty),+) => {
        mod $backend {
            $(#[test]
            fn $dtype() {
                if let Some(backend) = $crate::open(stringify!($backend)) {
                    super::super::$check::<$type>(&backend);
                }
            })+
        }
    };
}
