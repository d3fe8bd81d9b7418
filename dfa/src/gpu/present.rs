//! GPUs through the library.

use std::time::Duration;

use anyhow::Result;
use deformable_aggregation::GpuElement;
use deformable_aggregation::cuda::{Device, Session};
use deformable_aggregation::{Algorithm, Backend, BorderRule};

use super::{DeviceInfo, KernelInfo};
use crate::data::{Data, Results};
use crate::timing::{Direction, Runner};

/// All devices that can be used.
pub fn devices() -> Vec<DeviceInfo> {
    let count = Device::count().unwrap_or(0);
    (0..count).filter_map(|ordinal| Some(describe(&Device::new(ordinal).ok()?))).collect()
}

fn describe(device: &Device) -> DeviceInfo {
    let (major, minor) = device.compute_capability();
    let driver = device.driver_version();
    DeviceInfo {
        ordinal: device.ordinal(),
        name: device.name().to_owned(),
        compute_capability: format!("{major}.{minor}"),
        kernels: device.level(),
        driver: format!("CUDA {}.{}", driver.0, driver.1),
        memory: device.memory().ok().map(|(free, total)| [free as u64, total as u64]),
    }
}

/// The kernels that are part of this program.
pub fn kernels() -> Vec<KernelInfo> {
    kernels_gpu::ptx::LEVELS
        .iter()
        .map(|level| KernelInfo {
            architecture: format!("sm_{}", level.architecture),
            made_from: level.header().map(str::to_owned).collect(),
        })
        .collect()
}

/// What a device is, for people.
pub fn description(backend: &Backend) -> Option<String> {
    match backend {
        Backend::Cuda(device) => Some(describe(device).line()),
        _ => None,
    }
}

/// Bytes per second, read and written, of a copy within the device's memory; `None` if the backend is no GPU.
///
/// # Errors
///
/// What the driver reports.
pub fn copy_bandwidth(backend: &Backend) -> Result<Option<f64>> {
    match backend {
        Backend::Cuda(device) => Ok(Some(device.copy_bandwidth()?)),
        _ => Ok(None),
    }
}

/// The kernels on data that lies in the device's memory; `None` if the backend is no GPU.
///
/// # Errors
///
/// What the library reports.
pub(super) fn runner<T: GpuElement>(
    backend: &Backend,
    algorithm: Algorithm,
    data: &Data<T>,
    rule: BorderRule,
) -> Result<Option<Box<dyn Runner<T>>>> {
    let Backend::Cuda(device) = backend else { return Ok(None) };
    let session = device.session(&data.shape, rule, data.inputs(), data.grad_output.view())?;
    // Whatever a kernel does not write stays NaN, which no comparison passes.
    session.poison()?;
    Ok(Some(Box::new(SessionRunner { session, algorithm })))
}

/// A session with the kernels to run in it, timed by the device.
struct SessionRunner<T: GpuElement> {
    session: Session<T>,
    algorithm: Algorithm,
}

impl<T: GpuElement> Runner<T> for SessionRunner<T> {
    fn run(&mut self, direction: Direction) -> Result<Duration> {
        Ok(self.session.time(|session| match direction {
            Direction::Forward => session.forward(self.algorithm),
            Direction::Backward => session.backward(self.algorithm),
        })?)
    }

    fn results(&mut self) -> Result<Results<T>> {
        Ok(Results { output: self.session.output()?, gradients: self.session.gradients()? })
    }
}
