//! The sizes at which people run deformable aggregation, read from the public configuration files of the models named.

use deformable_aggregation::LevelShape;
use serde::Serialize;

/// The sizes of one call of the operator in one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Short name: `W1`, `W2`, …
    pub id: &'static str,
    /// The model and where the sizes were read.
    pub model: &'static str,
    /// Repository whose configuration has these sizes.
    pub source: &'static str,
    /// Samples per batch.
    pub batch: usize,
    /// Cameras.
    pub cameras: usize,
    /// Height and width of every level, finest first.
    pub levels: &'static [(usize, usize)],
    /// Anchors (queries) per sample.
    pub anchors: usize,
    /// Key points per anchor.
    pub points: usize,
    /// Channels.
    pub embed_dims: usize,
    /// Weight groups.
    pub groups: usize,
}

const R50_256X704: &[(usize, usize)] = &[(64, 176), (32, 88), (16, 44), (8, 22)];
const R101_640X1600: &[(usize, usize)] = &[(80, 200), (40, 100), (20, 50), (10, 25)];
const R101_512X1408: &[(usize, usize)] = &[(128, 352), (64, 176), (32, 88), (16, 44)];
const WIDE_256X512: &[(usize, usize)] = &[(64, 128), (32, 64), (16, 32), (8, 16)];
const SQUARE_512: &[(usize, usize)] = &[(64, 64), (32, 32), (16, 16), (8, 8)];
const GAUSSIAN_864X1600: &[(usize, usize)] = &[(108, 200), (54, 100), (27, 50), (14, 25)];

/// Sparse4D v3 on six cameras, one sample: what the other rows differ from.
const BASE: Workload = Workload {
    id: "W1",
    model: "Sparse4D v3 R50 256x704, inference",
    source: "HorizonRobotics/Sparse4D",
    batch: 1,
    cameras: 6,
    levels: R50_256X704,
    anchors: 900,
    points: 13,
    embed_dims: 256,
    groups: 8,
};

/// Every workload, in the order of its number.
pub const WORKLOADS: &[Workload] = &[
    BASE,
    Workload {
        id: "W2",
        model: "Sparse4D v3 R50, training with denoising anchors",
        batch: 6,
        anchors: 1_220,
        ..BASE
    },
    Workload {
        id: "W4",
        model: "Sparse4D v1 R101 640x1600",
        source: "linxuewu/Sparse4D",
        levels: R101_640X1600,
        ..BASE
    },
    Workload { id: "W5", model: "Sparse4D R101 512x1408", batch: 3, levels: R101_512X1408, ..BASE },
    Workload {
        id: "W6",
        model: "SparseDrive map head",
        source: "swc-17/SparseDrive",
        batch: 8,
        anchors: 100,
        points: 300,
        ..BASE
    },
    Workload {
        id: "W8",
        model: "SparseDriveV2, layer 0",
        source: "swc-17/SparseDriveV2",
        batch: 16,
        cameras: 3,
        levels: WIDE_256X512,
        anchors: 1_024,
        points: 500,
        ..BASE
    },
    Workload {
        id: "W10",
        model: "BIP3D 512x512",
        source: "HorizonRobotics/BIP3D",
        cameras: 18,
        levels: SQUARE_512,
        points: 16,
        ..BASE
    },
    Workload {
        id: "W12",
        model: "TAO Sparse4D warehouse 512x1408",
        source: "NVIDIA/tao_pytorch_backend",
        batch: 4,
        cameras: 12,
        levels: R101_512X1408,
        ..BASE
    },
    Workload {
        id: "W13",
        model: "TAO, training with denoising anchors",
        source: "NVIDIA/tao_pytorch_backend",
        batch: 4,
        cameras: 12,
        levels: R101_512X1408,
        anchors: 2_180,
        ..BASE
    },
    Workload {
        id: "W14",
        model: "TAO upper bound",
        source: "NVIDIA/tao_pytorch_backend",
        batch: 8,
        cameras: 20,
        levels: R101_512X1408,
        ..BASE
    },
    Workload {
        id: "W15",
        model: "GaussianFormer 864x1600",
        source: "huang-yh/GaussianFormer",
        levels: GAUSSIAN_864X1600,
        anchors: 144_000,
        points: 9,
        embed_dims: 128,
        groups: 4,
        ..BASE
    },
];

impl Workload {
    /// The workload of that id, upper or lower case.
    pub fn by_id(id: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.id.eq_ignore_ascii_case(id))
    }

    /// The levels as the library's type.
    pub fn level_shapes(&self) -> Vec<LevelShape> {
        self.levels.iter().map(|&(height, width)| LevelShape { height, width }).collect()
    }

    /// Feature rows of one sample: pixels of all cameras and levels.
    pub fn rows(&self) -> usize {
        self.cameras * self.levels.iter().map(|(height, width)| height * width).sum::<usize>()
    }

    /// (anchor, point, camera) triples of the whole batch.
    pub fn locations(&self) -> usize {
        self.batch * self.anchors * self.points * self.cameras
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_per_camera_are_those_of_the_models() {
        let expected = [
            ("W1", 14_960),
            ("W4", 21_250),
            ("W5", 59_840),
            ("W8", 10_880),
            ("W10", 5_440),
            ("W15", 28_700),
        ];
        for (id, pixels) in expected {
            let workload = Workload::by_id(id).expect("listed");
            assert_eq!(workload.rows() / workload.cameras, pixels, "{id}");
        }
    }

    #[test]
    fn ids_are_unique_and_found_in_any_case() {
        for workload in WORKLOADS {
            assert_eq!(Workload::by_id(&workload.id.to_lowercase()), Some(workload));
            assert_eq!(WORKLOADS.iter().filter(|other| other.id == workload.id).count(), 1);
        }
        assert_eq!(Workload::by_id("W99"), None);
    }
}
