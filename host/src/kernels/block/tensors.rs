//! Where each parameter lies in the one array that holds them all.

use std::collections::HashMap;

use crate::block::{BlockConfig, BlockParameters, KeyPointsConfig, expected_tensors};
use crate::element::Scalar;
use crate::error::Result;
use crate::memory::zeros;

/// The linear layers come first, one behind the other, weight before bias: their gradients are sums over parts of the
/// rows, which one launch adds up.
const ORDER: [&str; 15] = [
    "output_proj.weight",
    "output_proj.bias",
    "weights_fc.weight",
    "weights_fc.bias",
    "kps_generator.learnable_fc.weight",
    "kps_generator.learnable_fc.bias",
    "camera_encoder.0.weight",
    "camera_encoder.0.bias",
    "camera_encoder.2.weight",
    "camera_encoder.2.bias",
    "camera_encoder.3.weight",
    "camera_encoder.3.bias",
    "camera_encoder.5.weight",
    "camera_encoder.5.bias",
    FIXED,
];

/// The offsets of a box's points, which are not trained.
const FIXED: &str = "kps_generator.fix_scale";

/// The parameters of a configuration in one array of fp32 numbers.
#[derive(Clone, Debug)]
pub(crate) struct Tensors {
    /// First word of each tensor.
    starts: HashMap<&'static str, usize>,
    /// The numbers behind the tensors: the heights of polylines' points.
    constants: Vec<f32>,
    /// Words of the tensors.
    words: usize,
    /// Words of the linear layers, from the first on.
    pub(crate) linear_words: usize,
    /// Words that have gradients, from the first on.
    pub(crate) trained_words: usize,
}

impl Tensors {
    pub(crate) fn new(config: &BlockConfig) -> Self {
        let mut sizes: HashMap<_, usize> = expected_tensors(config)
            .into_iter()
            .map(|(name, shape)| (name, shape.iter().product()))
            .collect();
        let mut tensors = Self {
            starts: HashMap::new(),
            constants: match &config.kps_generator {
                KeyPointsConfig::Box(_) => Vec::new(),
                KeyPointsConfig::Polyline(points) => {
                    points.fix_height.iter().map(|&height| height as f32).collect()
                }
            },
            words: 0,
            linear_words: 0,
            trained_words: 0,
        };
        for name in ORDER {
            let Some(size) = sizes.remove(name) else { continue };
            tensors.starts.insert(name, tensors.words);
            tensors.words += size;
            if name != FIXED {
                tensors.trained_words = tensors.words;
            }
            if !name.starts_with("camera_encoder") && name != FIXED {
                tensors.linear_words = tensors.words;
            }
        }
        debug_assert!(sizes.is_empty(), "tensors without a place: {sizes:?}");
        tensors
    }

    /// All words, those of the constants included.
    pub(crate) fn all_words(&self) -> usize {
        self.words + self.constants.len()
    }

    /// First word of a tensor, if the configuration has it.
    pub(crate) fn start(&self, name: &str) -> Option<usize> {
        self.starts.get(name).copied()
    }

    /// First word of the table of key points: offsets of a box's points, or heights of a polyline's.
    pub(crate) fn table(&self) -> usize {
        self.start(FIXED).unwrap_or(self.words)
    }

    /// The array of these parameters, which fit the configuration.
    pub(crate) fn pack<R: Scalar>(&self, parameters: &BlockParameters<R>) -> Result<Vec<f32>> {
        let mut packed = zeros("parameters", self.all_words())?;
        for (name, tensor) in parameters.named() {
            if let Some(start) = self.start(name) {
                for (word, &value) in packed[start..].iter_mut().zip(tensor) {
                    *word = value.into() as f32;
                }
            }
        }
        packed[self.words..].copy_from_slice(&self.constants);
        Ok(packed)
    }

    /// Copies the trained tensors of `packed` to those of the same names; the others become zeros.
    pub(crate) fn unpack<R: Scalar>(&self, packed: &[f32], parameters: &mut BlockParameters<R>) {
        for (name, mut tensor) in parameters.named_mut() {
            match self.start(name).filter(|_| name != FIXED) {
                Some(start) => {
                    for (value, &word) in tensor.iter_mut().zip(&packed[start..]) {
                        *value = R::from_f64(word.into());
                    }
                }
                None => tensor.fill(R::zero()),
            }
        }
    }
}
