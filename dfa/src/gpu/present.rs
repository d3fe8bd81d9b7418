//! GPUs through the library.

use std::time::Duration;

use anyhow::Result;
use deformable_aggregation::GpuElement;
use deformable_aggregation::block::LinearPrecision;
use deformable_aggregation::cuda::{BlockOptions, BlockSession, Device, Session, SessionGraph};
use deformable_aggregation::{Algorithm, Backend, BorderRule};

use super::{DeviceInfo, KernelInfo};
use crate::block::BlockData;
use crate::block::times::{BlockTimes, GpuTimes, MeasuredBlock};
use crate::data::{Data, Results};
use crate::timing::{Cost, Direction, Limits, Runner, repeated};

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

/// Bytes per second that the multiprocessors read from the second-level cache; `None` if the backend is no GPU.
///
/// # Errors
///
/// What the driver reports.
pub fn l2_read_bandwidth(backend: &Backend) -> Result<Option<f64>> {
    match backend {
        Backend::Cuda(device) => Ok(Some(device.l2_read_bandwidth()?)),
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
    let mut runner = SessionRunner { session, algorithm, forward: None, backward: None };
    runner.choose(algorithm)?;
    Ok(Some(Box::new(runner)))
}

/// Replays of a graph between two events: enough that the gap before the first does not count.
const REPLAYS: u32 = 10;

/// A session with the kernels to run in it, timed by the device.
struct SessionRunner<T: GpuElement> {
    session: Session<T>,
    algorithm: Algorithm,
    /// The passes as graphs, once they were asked for.
    forward: Option<SessionGraph<T>>,
    backward: Option<SessionGraph<T>>,
}

impl<T: GpuElement> Runner<T> for SessionRunner<T> {
    fn choose(&mut self, algorithm: Algorithm) -> Result<()> {
        (self.forward, self.backward) = (None, None);
        self.algorithm = algorithm;
        // Whatever a kernel does not write stays NaN, which no comparison passes.
        Ok(self.session.poison()?)
    }

    fn run(&mut self, direction: Direction) -> Result<Duration> {
        Ok(self.session.time(|session| match direction {
            Direction::Forward => session.forward(self.algorithm),
            Direction::Backward => session.backward(self.algorithm),
        })?)
    }

    fn replay(&mut self, direction: Direction) -> Result<Option<Duration>> {
        let graph = match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        };
        let graph = match graph {
            Some(graph) => graph,
            None => graph.insert(match direction {
                Direction::Forward => self.session.forward_graph(self.algorithm)?,
                Direction::Backward => self.session.backward_graph(self.algorithm)?,
            }),
        };
        let time = self.session.time(|_| (0..REPLAYS).try_for_each(|_| graph.launch()))?;
        Ok(Some(time / REPLAYS))
    }

    fn cost(&self, direction: Direction) -> Result<Option<Cost>> {
        let operator = self.session.operator(self.algorithm);
        let (launches, workspace_bytes) = match direction {
            Direction::Forward => {
                (operator.forward_launches()?, operator.forward_workspace_bytes())
            }
            Direction::Backward => {
                (operator.backward_launches()?, operator.backward_workspace_bytes())
            }
        };
        Ok(Some(Cost { launches, workspace_bytes }))
    }

    fn results(&mut self) -> Result<Results<T>> {
        Ok(Results { output: self.session.output()?, gradients: self.session.gradients()? })
    }
}

/// Profiles that the median of each kernel is taken over.
const PROFILES: usize = 11;

/// The attention block on data that lies in the device's memory; `None` if the backend is no GPU.
///
/// # Errors
///
/// What the library reports.
pub(super) fn measured_block<T: GpuElement>(
    backend: &Backend,
    data: &BlockData<T>,
    tensor_cores: bool,
    limits: Limits,
) -> Result<Option<MeasuredBlock<T>>> {
    let Backend::Cuda(device) = backend else { return Ok(None) };
    let linear_precision = if tensor_cores { LinearPrecision::Tf32 } else { LinearPrecision::Full };
    let options = BlockOptions { linear_precision, ..BlockOptions::default() };
    let (inputs, upstream) = (data.inputs(), data.grad_output.view());
    let (config, parameters) = (&data.config, &data.parameters);
    let session =
        device.block_session(config, parameters, inputs, data.mode(), upstream, options)?;
    let both = |session: &BlockSession<T>| session.forward().and_then(|()| session.backward());
    let graph = session.graph()?;
    let replays = || (0..REPLAYS).try_for_each(|_| graph.launch());
    let times = BlockTimes {
        forward: repeated(limits, || Ok(session.time(BlockSession::forward)?))?,
        both: repeated(limits, || Ok(session.time(both)?))?,
        on_gpu: Some(GpuTimes {
            graph: repeated(limits, || Ok(session.time(|_| replays())? / REPLAYS))?,
            kernels: profiled(&session)?,
        }),
    };
    // Whatever a kernel does not write stays NaN, which no comparison passes.
    session.poison()?;
    both(&session)?;
    Ok(Some((times, session.output()?, session.gradients()?)))
}

/// The median time of every kernel of forward and of backward.
fn profiled<T: GpuElement>(
    session: &BlockSession<T>,
) -> Result<[Vec<(&'static str, Duration)>; 2]> {
    let profiles: Vec<_> =
        (0..PROFILES).map(|_| session.profile()).collect::<deformable_aggregation::Result<_>>()?;
    Ok([0, 1].map(|pass| {
        let kernels = profiles[0][pass].iter().enumerate();
        kernels
            .map(|(index, &(name, _))| {
                let mut times: Vec<_> =
                    profiles.iter().map(|profile| profile[pass][index].1).collect();
                times.sort();
                (name, times[PROFILES / 2])
            })
            .collect()
    }))
}
