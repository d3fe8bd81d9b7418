//! A GPU: its context, its kernels, and what can be asked of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use cust::context::{Context, CurrentContext};
use cust::device::DeviceAttribute;
use cust::sys;
use ndarray::ArrayView3;

use crate::block::{BlockConfig, BlockInputs, BlockParameters, Mode};
use crate::cuda::array::DeviceArray;
use crate::cuda::block::{BlockOptions, BlockSession};
use crate::cuda::driver::{self, check, from_cust, unavailable};
use crate::cuda::module::Modules;
use crate::cuda::session::Session;
use crate::cuda::stream::{Event, Stream};
use crate::error::Result;
use crate::kernels::GpuElement;
use crate::operator::Inputs;
use crate::rule::BorderRule;
use crate::shape::AggregationShape;

/// The devices opened so far, by number.
static OPENED: LazyLock<Mutex<HashMap<u32, Device>>> = LazyLock::new(Mutex::default);

/// A CUDA device, ready for use. A clone is the same device.
///
/// ```
/// use deformable_aggregation::cuda::Device;
///
/// match Device::new(0) {
///     Ok(device) => println!("{} ({})", device.name(), device.level()),
///     Err(error) => println!("skipped: {error}"),
/// }
/// ```
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    modules: Modules,
    stream: Stream,
    context: Context,
    ordinal: u32,
    name: String,
    capability: (u32, u32),
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("ordinal", &self.inner.ordinal)
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Devices that the driver offers.
    ///
    /// # Errors
    ///
    /// [`Error::BackendUnavailable`](crate::Error::BackendUnavailable) without a driver.
    pub fn count() -> Result<u32> {
        initialise()?;
        cust::device::Device::num_devices().map_err(from_cust("counting devices"))
    }

    /// The device of this number, 0 for the first. It is opened once and stays open as long as the program runs, and
    /// with it the kernels that were loaded.
    ///
    /// # Errors
    ///
    /// [`Error::BackendUnavailable`](crate::Error::BackendUnavailable) if there is no driver, no such device, or no
    /// kernels for it; [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn new(ordinal: u32) -> Result<Self> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = opened.get(&ordinal) {
            return Ok(device.clone());
        }
        let device = Self::open(ordinal)?;
        opened.insert(ordinal, device.clone());
        Ok(device)
    }

    fn open(ordinal: u32) -> Result<Self> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(unavailable(
                format!("there are {count} CUDA devices and number {ordinal} was asked for"),
                "ask for a lower number, or look at CUDA_VISIBLE_DEVICES",
            ));
        }
        let raw =
            cust::device::Device::get_device(ordinal).map_err(from_cust("opening the device"))?;
        let attribute = |attribute| {
            raw.get_attribute(attribute)
                .map(|value| value as u32)
                .map_err(from_cust("reading the compute capability"))
        };
        let capability = (
            attribute(DeviceAttribute::ComputeCapabilityMajor)?,
            attribute(DeviceAttribute::ComputeCapabilityMinor)?,
        );
        let name = raw.name().map_err(from_cust("reading the device's name"))?;
        let modules = Modules::new(capability.0 * 10 + capability.1, driver::version())?;
        let context = Context::new(raw).map_err(from_cust("opening the primary context"))?;
        let stream = Stream::new()?;
        Ok(Self { inner: Arc::new(Inner { modules, stream, context, ordinal, name, capability }) })
    }

    /// The number the device was opened with.
    #[must_use]
    pub fn ordinal(&self) -> u32 {
        self.inner.ordinal
    }

    /// The vendor's name of the device.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Compute capability, (major, minor).
    #[must_use]
    pub fn compute_capability(&self) -> (u32, u32) {
        self.inner.capability
    }

    /// The architecture the kernels in use were compiled for, `sm_90` say: the highest one that the device (and its
    /// driver) can run.
    #[must_use]
    pub fn level(&self) -> String {
        self.inner.modules.level()
    }

    /// The CUDA version of the driver, (major, minor).
    #[must_use]
    pub fn driver_version(&self) -> (i32, i32) {
        driver::version()
    }

    /// Multiprocessors.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn multiprocessors(&self) -> Result<u32> {
        let raw = cust::device::Device::get_device(self.inner.ordinal)
            .map_err(from_cust("opening the device"))?;
        raw.get_attribute(DeviceAttribute::MultiprocessorCount)
            .map(|count| count as u32)
            .map_err(from_cust("reading the number of multiprocessors"))
    }

    /// Device memory in bytes, (free, total).
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.make_current()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the function writes two sizes.
        check("reading the free memory", unsafe {
            sys::cuMemGetInfo_v2(&raw mut free, &raw mut total)
        })?;
        Ok((free, total))
    }

    /// Waits for everything that was launched on the device.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong in the meantime.
    pub fn synchronize(&self) -> Result<()> {
        self.make_current()?;
        CurrentContext::synchronize().map_err(from_cust("waiting for the device"))
    }

    /// A copy of `data` in device memory.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), or [`Error::BackendFailed`](crate::Error::BackendFailed) if the
    /// driver fails.
    pub fn upload<T: bytemuck::Pod>(
        &self,
        purpose: &'static str,
        data: &[T],
    ) -> Result<DeviceArray<T>> {
        DeviceArray::upload(self, purpose, data)
    }

    /// Device memory for `length` elements, every byte 0xff: a NaN in each floating-point type.
    ///
    /// # Errors
    ///
    /// As for [`upload`](Self::upload).
    pub fn poisoned<T: bytemuck::Pod>(
        &self,
        purpose: &'static str,
        length: usize,
    ) -> Result<DeviceArray<T>> {
        DeviceArray::poisoned(self, purpose, length)
    }

    /// A problem with all its arrays on the device.
    ///
    /// # Errors
    ///
    /// Those of [`Operator::new`](crate::cuda::Operator::new) and of [`upload`](Self::upload), and
    /// [`Error::Dimensions`](crate::Error::Dimensions) if an array does not fit the shape.
    pub fn session<T: GpuElement>(
        &self,
        shape: &AggregationShape,
        rule: BorderRule,
        inputs: Inputs<'_, T>,
        grad_output: ArrayView3<'_, T>,
    ) -> Result<Session<T>> {
        Session::new(self, shape, rule, inputs, grad_output)
    }

    /// A call of the attention block with all its arrays on the device; `mode` and `grad_output` hold for every pass.
    ///
    /// # Errors
    ///
    /// Those of [`DeformableFeatureAggregation::forward`](crate::block::DeformableFeatureAggregation::forward) for arrays that do not
    /// fit, and those of [`upload`](Self::upload).
    pub fn block_session<T: GpuElement>(
        &self,
        config: &BlockConfig,
        parameters: &BlockParameters<f32>,
        inputs: BlockInputs<'_, T>,
        mode: Mode<'_>,
        grad_output: ArrayView3<'_, T>,
        options: BlockOptions,
    ) -> Result<BlockSession<T>> {
        BlockSession::new(self, config, parameters, inputs, mode, grad_output, options)
    }

    /// The stream that the safe functions of this crate use for this device.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.inner.stream
    }

    /// The time the device takes for what `enqueue` puts on `stream`, between two events.
    ///
    /// # Errors
    ///
    /// What `enqueue` returns, or [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn time(&self, stream: &Stream, enqueue: impl FnOnce() -> Result<()>) -> Result<Duration> {
        self.make_current()?;
        let (start, end) = (Event::new()?, Event::new()?);
        start.record(stream)?;
        enqueue()?;
        end.record(stream)?;
        end.since(&start)
    }

    /// Makes the device's context the calling thread's, as every driver call needs it.
    pub(super) fn make_current(&self) -> Result<()> {
        CurrentContext::set_current(&self.inner.context).map_err(from_cust("entering the context"))
    }

    pub(super) fn modules(&self) -> &Modules {
        &self.inner.modules
    }
}

/// Loads and starts the driver, once.
fn initialise() -> Result<()> {
    if let Err(error) = cuda_driver::status() {
        // It says itself what to install.
        return Err(unavailable(error.to_string(), "or use Backend::Cpu"));
    }
    cust::init(cust::CudaFlags::empty()).map_err(|error| {
        unavailable(
            format!("the driver does not start: {error:?}"),
            "check that `nvidia-smi` lists a GPU, or use Backend::Cpu",
        )
    })
}
