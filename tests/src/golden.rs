//! Golden vectors; `golden/README.md` describes the files.

use std::fs::File;
use std::path::PathBuf;

use deformable_aggregation::reference::Sums;
use deformable_aggregation::{AggregationShape, BorderRule, FeatureLayout, Gradients, Inputs};
use ndarray::{Array, Array2, Array3, Array5, Array6, Dimension};
use ndarray_npy::{NpzReader, ReadableElement};

use crate::cases::Case;

/// Path of a golden file.
#[must_use]
pub fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.npz"))
}

/// Opens a golden file.
///
/// # Panics
///
/// If it cannot be read.
#[must_use]
pub fn open_golden(name: &str) -> NpzReader<File> {
    let path = golden_path(name);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    NpzReader::new(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads an array of a golden file.
///
/// # Panics
///
/// If the file has no such array, or of another type or rank.
pub fn array<A: ReadableElement, D: Dimension>(
    file: &mut NpzReader<File>,
    name: &str,
) -> Array<A, D> {
    file.by_name(&format!("{name}.npy")).unwrap_or_else(|error| panic!("array {name}: {error}"))
}

/// A case of kind `op`: inputs, and what the operator makes of them.
pub struct GoldenOperator {
    /// The inputs; `f64`, but exactly representable in `f32`.
    pub case: Case<f64>,
    /// Results under [`BorderRule::Operator`].
    pub operator: Sums,
    /// Results under [`BorderRule::GridSample`].
    pub grid_sample: Sums,
    /// Sums of absolute values under [`BorderRule::Operator`], rounded to `f32`.
    pub magnitudes: Sums,
    /// Whether a location is so near to a pixel centre that its gradient may be that of the other side, in the
    /// dimensions of the locations.
    pub kink: Array5<bool>,
}

impl GoldenOperator {
    /// Names of all files of this kind.
    pub const NAMES: [&str; 10] = [
        "op_tiny",
        "op_random",
        "op_odd",
        "op_single_pixel",
        "op_border",
        "op_nonfinite",
        "op_exact",
        "op_offsets",
        "op_mixed_cams",
        "op_wide",
    ];

    /// Reads a file.
    ///
    /// # Panics
    ///
    /// If it is not a file of this kind.
    #[must_use]
    pub fn load(name: &str) -> Self {
        let mut file = open_golden(name);
        let wide = |value: f32| f64::from(value);
        let feature_maps: Array3<f64> = array(&mut file, "feat").mapv(wide);
        let spatial_shapes: Array3<i64> = array(&mut file, "spatial_shape");
        let starts: Array2<i64> = array(&mut file, "scale_start_index");
        let sampling_locations: Array5<f64> = array(&mut file, "loc").mapv(wide);
        let weights: Array6<f64> = array(&mut file, "weights").mapv(wide);
        let grad_output: Array3<f64> = array(&mut file, "grad_out").mapv(wide);
        let layout = FeatureLayout::new(spatial_shapes.view(), starts.view(), feature_maps.dim().1)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let inputs = Inputs {
            feature_maps: feature_maps.view(),
            sampling_locations: sampling_locations.view(),
            weights: weights.view(),
        };
        let shape = AggregationShape::infer(layout, &inputs)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        Self {
            case: Case { shape, feature_maps, sampling_locations, weights, grad_output },
            operator: sums(&mut file, "op", |value: f64| value),
            grid_sample: sums(&mut file, "grid", |value: f64| value),
            magnitudes: sums(&mut file, "mag", wide),
            kink: array::<u8, _>(&mut file, "kink").mapv(|flag| flag != 0),
        }
    }

    /// The results under a rule.
    #[must_use]
    pub fn results(&self, rule: BorderRule) -> &Sums {
        match rule {
            BorderRule::Operator => &self.operator,
            BorderRule::GridSample => &self.grid_sample,
        }
    }
}

fn sums<A: ReadableElement + Copy>(
    file: &mut NpzReader<File>,
    kind: &str,
    wide: impl Fn(A) -> f64 + Copy,
) -> Sums {
    Sums {
        output: array::<A, _>(file, &format!("{kind}.out")).mapv(wide),
        gradients: Gradients {
            feature_maps: array::<A, _>(file, &format!("{kind}.grad_feat")).mapv(wide),
            sampling_locations: array::<A, _>(file, &format!("{kind}.grad_loc")).mapv(wide),
            weights: array::<A, _>(file, &format!("{kind}.grad_weights")).mapv(wide),
        },
    }
}
