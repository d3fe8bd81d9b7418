//! Parameters from and to `safetensors` files, under the names that the PyTorch module gives them.

use std::path::Path;

use bytemuck::cast_slice;
use half::{bf16, f16};
use ndarray::ArrayViewD;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use super::config::BlockConfig;
use super::parameters::{BlockParameters, compare, expected_tensors};
use crate::element::Scalar;
use crate::error::{Error, Result};

/// The one tensor that a checkpoint may lack: some projects keep the fixed points as a constant.
const OPTIONAL: &str = "kps_generator.fix_scale";

impl<R: Scalar> BlockParameters<R> {
    /// Reads the parameters of a block out of the bytes of a `safetensors` file.
    ///
    /// Names are `prefix`, a dot, and those of [`expected_tensors`]; tensors whose names begin otherwise are left
    /// alone, so one file may hold a whole model. An empty prefix takes all tensors of the file. Numbers may be fp64, fp32, fp16
    /// or bf16 and are converted to `R`. Where the file has no `kps_generator.fix_scale`, the places are those of the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensors`], [`Error::UnexpectedTensors`], [`Error::TensorDimensions`], [`Error::TensorType`] with the full names;
    /// [`Error::Checkpoint`] if the bytes are no such file; those of [`BlockConfig::check`].
    ///
    /// ```
    /// use deformable_aggregation::block::{BlockConfig, BlockParameters};
    ///
    /// let config = BlockConfig::default();
    /// let parameters = BlockParameters::<f32>::init(&config, 1)?;
    /// let bytes = parameters.to_safetensors("head.layers.2")?;
    /// let loaded = BlockParameters::<f32>::from_safetensors(&config, &bytes, "head.layers.2")?;
    /// assert_eq!(loaded, parameters);
    /// # Ok::<(), deformable_aggregation::Error>(())
    /// ```
    pub fn from_safetensors(config: &BlockConfig, bytes: &[u8], prefix: &str) -> Result<Self> {
        let mut parameters = Self::zeros(config)?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| unreadable(&error))?;
        let prefix = dotted(prefix);
        let mut found: Vec<_> = file.iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
        found.sort_unstable_by_key(|(name, _)| *name);

        let actual: Vec<_> = found
            .iter()
            .map(|(name, tensor)| ((*name).to_owned(), tensor.shape().to_vec()))
            .collect();
        let mut expected: Vec<_> = expected_tensors(config)
            .into_iter()
            .map(|(name, size)| (format!("{prefix}{name}"), size))
            .collect();
        let optional = format!("{prefix}{OPTIONAL}");
        expected.retain(|(name, _)| *name != optional || actual.iter().any(|(a, _)| a == name));
        compare(&expected, &actual)?;

        for (name, mut tensor) in parameters.named_mut() {
            let name = format!("{prefix}{name}");
            let Some((_, stored)) = found.iter().find(|(found, _)| *found == name) else {
                continue;
            };
            for (value, stored) in tensor.iter_mut().zip(numbers(&name, stored)?) {
                *value = R::from_f64(stored);
            }
        }
        Ok(parameters)
    }

    /// Reads a file; see [`from_safetensors`](Self::from_safetensors).
    ///
    /// # Errors
    ///
    /// Those of [`from_safetensors`](Self::from_safetensors), and [`Error::Checkpoint`] if the file cannot be read.
    pub fn load(config: &BlockConfig, path: impl AsRef<Path>, prefix: &str) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::Checkpoint {
            operation: format!("read {}", path.display()),
            message: error.to_string(),
        })?;
        Self::from_safetensors(config, &bytes, prefix)
    }

    /// The bytes of a `safetensors` file of the parameters, in the type they have here.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if they cannot be put into the format.
    pub fn to_safetensors(&self, prefix: &str) -> Result<Vec<u8>> {
        let prefix = dotted(prefix);
        let dtype = if size_of::<R>() == size_of::<f64>() { Dtype::F64 } else { Dtype::F32 };
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .named()
            .into_iter()
            .map(|(name, tensor)| {
                (format!("{prefix}{name}"), tensor.shape().to_vec(), little_endian(&tensor))
            })
            .collect();
        let views = tensors
            .iter()
            .map(|(name, size, bytes)| {
                TensorView::new(dtype, size.clone(), bytes).map(|view| (name.as_str(), view))
            })
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| unwritable(&error))?;
        serialize(views, None).map_err(|error| unwritable(&error))
    }

    /// Writes a file; see [`to_safetensors`](Self::to_safetensors).
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>, prefix: &str) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.to_safetensors(prefix)?).map_err(|error| Error::Checkpoint {
            operation: format!("write {}", path.display()),
            message: error.to_string(),
        })
    }
}

/// The prefix with the dot that separates it from a name.
fn dotted(prefix: &str) -> String {
    if prefix.is_empty() || prefix.ends_with('.') {
        prefix.to_owned()
    } else {
        format!("{prefix}.")
    }
}

/// The numbers of a tensor; every type that is taken fits `f64` exactly.
fn numbers(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f64>> {
    let bytes = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::F64 => words(bytes).map(f64::from_le_bytes).collect(),
        Dtype::F32 => words(bytes).map(|word| f32::from_le_bytes(word).into()).collect(),
        Dtype::F16 => words(bytes).map(|word| f16::from_le_bytes(word).to_f64()).collect(),
        Dtype::BF16 => words(bytes).map(|word| bf16::from_le_bytes(word).to_f64()).collect(),
        other => {
            return Err(Error::TensorType { name: name.to_owned(), actual: format!("{other:?}") });
        }
    })
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// The numbers row by row, as the format has them.
fn little_endian<R: Scalar>(tensor: &ArrayViewD<'_, R>) -> Vec<u8> {
    let numbers: Vec<R> = tensor.iter().copied().collect();
    let mut bytes = cast_slice(&numbers).to_vec();
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(size_of::<R>()).for_each(<[u8]>::reverse);
    }
    bytes
}

fn unreadable(error: &safetensors::SafeTensorError) -> Error {
    Error::Checkpoint { operation: "read safetensors".to_owned(), message: error.to_string() }
}

fn unwritable(error: &safetensors::SafeTensorError) -> Error {
    Error::Checkpoint { operation: "write safetensors".to_owned(), message: error.to_string() }
}
