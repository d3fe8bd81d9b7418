//! GPUs: which there are, and running on their memory.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod absent;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod present;

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
use absent as side;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use present as side;

use anyhow::Result;
use deformable_aggregation::{Algorithm, Backend, BorderRule, Element};
use serde::Serialize;

use crate::block::BlockData;
use crate::block::times::MeasuredBlock;
use crate::data::Data;
use crate::output;
use crate::timing::{Limits, Runner};

pub use side::{copy_bandwidth, description, devices, kernels, l2_read_bandwidth};

/// A GPU.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceInfo {
    /// Number, from 0.
    pub ordinal: u32,
    /// The vendor's name.
    pub name: String,
    /// `major.minor`
    pub compute_capability: String,
    /// The architecture of the kernels that run on it.
    pub kernels: String,
    /// The CUDA version of the driver.
    pub driver: String,
    /// Bytes of memory, free and in all, if the driver tells.
    pub memory: Option<[u64; 2]>,
}

impl DeviceInfo {
    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{}, compute capability {}, kernels {}, driver {}",
            self.name, self.compute_capability, self.kernels, self.driver
        )
    }

    /// The memory for people; empty if the driver does not tell.
    pub fn memory_line(&self) -> String {
        self.memory.map_or(String::new(), |[free, total]| {
            let [free, total] = [free, total].map(|bytes| output::bytes(bytes as f64));
            format!("{free} of {total} free")
        })
    }
}

/// The kernels of one architecture level.
#[derive(Clone, Debug, Serialize)]
pub struct KernelInfo {
    /// `sm_90`, say: they run on it and on every later one.
    pub architecture: String,
    /// What the PTX says about the sources and the compiler it was made from.
    pub made_from: Vec<String>,
}

/// An element type with what a GPU has for it.
pub trait Number: Element {
    /// The kernels on data in the memory of the device; `None` if the backend is no GPU or has no kernels for
    /// the type.
    ///
    /// # Errors
    ///
    /// What the library reports.
    fn gpu_runner(
        backend: &Backend,
        algorithm: Algorithm,
        data: &Data<Self>,
        rule: BorderRule,
    ) -> Result<Option<Box<dyn Runner<Self>>>>;

    /// Measures the attention block with all arrays in the memory of the device; `None` if the backend is no GPU or has no
    /// kernels for the type.
    ///
    /// # Errors
    ///
    /// What the library reports.
    fn gpu_block(
        backend: &Backend,
        data: &BlockData<Self>,
        tensor_cores: bool,
        limits: Limits,
    ) -> Result<Option<MeasuredBlock<Self>>>;
}

impl Number for f64 {
    fn gpu_runner(
        _: &Backend,
        _: Algorithm,
        _: &Data<Self>,
        _: BorderRule,
    ) -> Result<Option<Box<dyn Runner<Self>>>> {
        Ok(None)
    }

    fn gpu_block(
        _: &Backend,
        _: &BlockData<Self>,
        _: bool,
        _: Limits,
    ) -> Result<Option<MeasuredBlock<Self>>> {
        Ok(None)
    }
}

macro_rules! on_gpu {
    ($type:ty) => {
        impl Number for $type {
            fn gpu_runner(
                backend: &Backend,
                algorithm: Algorithm,
                data: &Data<Self>,
                rule: BorderRule,
            ) -> Result<Option<Box<dyn Runner<Self>>>> {
                side::runner(backend, algorithm, data, rule)
            }

            fn gpu_block(
                backend: &Backend,
                data: &BlockData<Self>,
                tensor_cores: bool,
                limits: Limits,
            ) -> Result<Option<MeasuredBlock<Self>>> {
                side::measured_block(backend, data, tensor_cores, limits)
            }
        }
    };
}

on_gpu!(f32);
on_gpu!(half::f16);
on_gpu!(half::bf16);
