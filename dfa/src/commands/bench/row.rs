//! What one measurement gives, and the report of all.

use deformable_aggregation::Algorithm;
use serde::{Serialize, Serializer};

use crate::data::Quantity;
use crate::scenario::Touched;
use crate::system::Origin;
use crate::timing::{Cost, Direction};
use crate::workloads::Workload;

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) workload: &'static str,
    pub(super) model: &'static str,
    pub(super) source: &'static str,
    pub(super) sizes: Sizes,
    pub(super) scenario: String,
    pub(super) dtype: String,
    pub(super) backend: &'static str,
    #[serde(serialize_with = "by_name")]
    pub(super) algorithm: Algorithm,
    pub(super) direction: Direction,
    pub(super) runs: usize,
    pub(super) median_us: f64,
    pub(super) min_us: f64,
    pub(super) max_us: f64,
    /// The median of one run of several in a row as a CUDA graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replay_us: Option<f64>,
    pub(super) touched: Touched,
    #[serde(flatten)]
    pub(super) floors: Floors,
    /// Time of the published algorithm over the time of this row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) naive_over_this: Option<f64>,
    /// Time of this row over that of the fast kernels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over_fast: Option<f64>,
    /// Time of this row over that of the same in fp32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over_fp32: Option<f64>,
    #[serde(flatten)]
    pub(super) cost: Option<Cost>,
    /// Whether the backend has several algorithms.
    #[serde(skip)]
    pub(super) has_algorithms: bool,
    /// The items of the batch that were checked.
    pub(super) checked_items: Vec<usize>,
    pub(super) errors: Vec<QuantityError>,
    pub(super) error_bound: f64,
    pub(super) passed: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) cameras: usize,
    pub(super) levels: &'static [(usize, usize)],
    pub(super) anchors: usize,
    pub(super) points: usize,
    pub(super) embed_dims: usize,
    pub(super) groups: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct QuantityError {
    pub(super) quantity: Quantity,
    /// The largest of the items checked.
    pub(super) relative_l2: f64,
}

/// Bandwidths of a backend's memory, in bytes per second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Bandwidths {
    /// Of a large copy, read and written.
    #[serde(rename = "copy_bytes_per_second")]
    pub(super) copy: f64,
    /// Of reading the second-level cache; GPUs only.
    #[serde(rename = "l2_bytes_per_second", skip_serializing_if = "Option::is_none")]
    pub(super) l2: Option<f64>,
}

/// What bandwidths allow at best.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Floors {
    #[serde(flatten)]
    pub(super) bandwidths: Bandwidths,
    /// What has to move: see [`Touched::forward_bytes`] and [`Touched::backward_bytes`].
    pub(super) dram_bytes: usize,
    pub(super) dram_floor_us: f64,
    pub(super) over_dram_floor: f64,
    /// Every tap once.
    pub(super) tap_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) l2_floor_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over_l2_floor: Option<f64>,
}

impl Floors {
    /// Floors for these bytes, and how far above them the time is.
    pub(super) fn new(
        bandwidths: Bandwidths,
        dram_bytes: usize,
        tap_bytes: usize,
        time_us: f64,
    ) -> Self {
        let dram_floor_us = dram_bytes as f64 / bandwidths.copy * 1e6;
        let l2_floor_us = bandwidths.l2.map(|bandwidth| tap_bytes as f64 / bandwidth * 1e6);
        Self {
            bandwidths,
            dram_bytes,
            dram_floor_us,
            over_dram_floor: time_us / dram_floor_us,
            tap_bytes,
            l2_floor_us,
            // With no tap there is no floor to compare with.
            over_l2_floor: l2_floor_us.filter(|&floor| floor > 0.0).map(|floor| time_us / floor),
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) origin: Origin,
    pub(super) seed: u64,
    pub(super) devices: Vec<String>,
    pub(super) skipped: Vec<String>,
    pub(super) passed: bool,
    pub(super) results: Vec<Row>,
}

impl Sizes {
    pub(super) fn new(workload: &Workload) -> Self {
        Self {
            batch: workload.batch,
            cameras: workload.cameras,
            levels: workload.levels,
            anchors: workload.anchors,
            points: workload.points,
            embed_dims: workload.embed_dims,
            groups: workload.groups,
        }
    }
}

impl Row {
    /// The largest error.
    pub(super) fn error(&self) -> f64 {
        self.errors.iter().map(|error| error.relative_l2).fold(0.0, f64::max)
    }

    /// Backend and, where there is a choice, algorithm.
    pub(super) fn engine(&self) -> String {
        if self.has_algorithms {
            format!("{} {}", self.backend, self.algorithm)
        } else {
            self.backend.to_owned()
        }
    }

    /// Whether both are about the same call.
    fn is_beside(&self, other: &Self) -> bool {
        let same = |row: &Self| {
            (row.workload, row.backend, row.direction, row.sizes.batch, row.scenario.clone())
        };
        same(self) == same(other)
    }
}

/// The algorithm as on the command line.
fn by_name<S: Serializer>(algorithm: &Algorithm, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(algorithm)
}

/// Writes into every row how its time compares with those of its fellows.
pub(super) fn set_ratios(rows: &mut [Row]) {
    let others = rows.to_vec();
    for row in rows {
        let time = |algorithm: Algorithm, dtype: &str| {
            let found = others.iter().find(|other| {
                other.is_beside(row) && other.algorithm == algorithm && other.dtype == dtype
            });
            found.map(|other| other.median_us)
        };
        let naive = time(Algorithm::Naive, &row.dtype);
        let fast = time(Algorithm::Fast, &row.dtype);
        let wide = time(row.algorithm, "fp32");
        let over = |other: Option<f64>| other.map(|other| row.median_us / other);
        let is_naive = row.algorithm == Algorithm::Naive;
        let is_repeatable = row.algorithm == Algorithm::Repeatable;
        let (over_fast, over_fp32) = (over(fast), over(wide));
        row.naive_over_this = naive.filter(|_| !is_naive).map(|naive| naive / row.median_us);
        row.over_fast = over_fast.filter(|_| is_repeatable);
        row.over_fp32 = over_fp32.filter(|_| row.dtype != "fp32");
    }
}
