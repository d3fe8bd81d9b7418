//! The operator on arrays that are on the GPU already.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};
use std::{ptr, slice};

use cust::sys;
use kernels_gpu::Entry;

use crate::algorithm::Algorithm;
use crate::cuda::array::DeviceArray;
use crate::cuda::device::Device;
use crate::cuda::driver::check;
use crate::cuda::launch;
use crate::cuda::side::{Forked, Side};
use crate::cuda::stream::Stream;
use crate::error::{Error, Result};
use crate::kernels::{self, BackwardArrays, Executor, ForwardArrays, GpuElement, Launch, Plan};
use crate::rule::BorderRule;
use crate::shape::AggregationShape;

/// Device addresses of a forward call's arrays, row-major without gaps, each aligned to its elements (16 bytes make
/// it faster).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardPointers {
    /// Feature maps, (batch, num_feat, embed_dims), read.
    pub feature_maps: u64,
    /// Sampling locations, (batch, anchors, points, cameras, 2), `f32`, aligned to 8 bytes, read.
    pub sampling_locations: u64,
    /// Weights, (batch, anchors, points, cameras, levels, groups), read.
    pub weights: u64,
    /// Output, (batch, anchors, embed_dims), every element written.
    pub output: u64,
    /// [`Operator::forward_workspace_bytes`] bytes aligned to 16, any content; unused when that is 0.
    pub workspace: u64,
}

/// Device addresses of a backward call's arrays, as in [`ForwardPointers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackwardPointers {
    /// Feature maps, (batch, num_feat, embed_dims), read.
    pub feature_maps: u64,
    /// Sampling locations, (batch, anchors, points, cameras, 2), `f32`, aligned to 8 bytes, read.
    pub sampling_locations: u64,
    /// Weights, (batch, anchors, points, cameras, levels, groups), read.
    pub weights: u64,
    /// Gradient of the output, (batch, anchors, embed_dims), read.
    pub grad_output: u64,
    /// Gradient of the feature maps, every element written.
    pub grad_feature_maps: u64,
    /// Gradient of the sampling locations, `f32`, every element written.
    pub grad_sampling_locations: u64,
    /// Gradient of the weights, every element written.
    pub grad_weights: u64,
    /// [`Operator::backward_workspace_bytes`] bytes aligned to 16, any content; unused when that is 0.
    pub workspace: u64,
}

/// One problem on one device, for arrays that are there already: the entry point for other frameworks' tensors.
///
/// A call puts kernels on the caller's stream and returns; it allocates nothing, waits for nothing, and can be
/// captured into a CUDA graph once the kernels are loaded, which the first call of each direction does.
///
/// ```
/// use deformable_aggregation::cuda::{Device, ForwardPointers, Operator};
/// use deformable_aggregation::{AggregationShape, BorderRule, FeatureLayout, LevelShape};
///
/// # fn main() -> Result<(), deformable_aggregation::Error> {
/// let Ok(device) = Device::new(0) else {
///     println!("skipped: no CUDA device");
///     return Ok(());
/// };
/// let layout = FeatureLayout::uniform(1, &[LevelShape { height: 2, width: 2 }])?;
/// let shape = AggregationShape::new(layout, 1, 1, 1, 1, 1)?;
/// let operator = Operator::<f32>::new(&device, &shape, BorderRule::Operator)?;
///
/// // These would be tensors' addresses.
/// let feature_maps = device.upload("feature maps", &[1.0_f32, 2.0, 4.0, 8.0])?;
/// let sampling_locations = device.upload("locations", &[0.5_f32, 0.5])?;
/// let weights = device.upload("weights", &[2.0_f32])?;
/// let output = device.poisoned::<f32>("output", 1)?;
/// let pointers = ForwardPointers {
///     feature_maps: feature_maps.pointer(),
///     sampling_locations: sampling_locations.pointer(),
///     weights: weights.pointer(),
///     output: output.pointer(),
///     workspace: 0,
/// };
/// // SAFETY: the arrays have the shape's sizes and live until `download` has waited for the device.
/// unsafe { operator.forward(device.stream(), &pointers)? };
/// assert_eq!(output.download()?, [7.5]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Operator<T: GpuElement> {
    device: Device,
    plan: Plan,
    table: DeviceArray<u32>,
    algorithm: Algorithm,
    /// One call at a time puts work on it.
    side: Mutex<Side>,
    element: PhantomData<T>,
}

impl<T: GpuElement> Operator<T> {
    /// Prepares a problem: checks that the kernels can take it and puts the table of maps on the device.
    ///
    /// # Errors
    ///
    /// [`Error::KernelLimit`] if a size is beyond the kernels' 32-bit counters, [`Error::OutOfMemory`],
    /// [`Error::BackendFailed`] if the driver fails.
    pub fn new(device: &Device, shape: &AggregationShape, rule: BorderRule) -> Result<Self> {
        let plan = Plan::new(shape, rule)?;
        let table = device.upload("table of maps", plan.table.as_flattened())?;
        device.make_current()?;
        let side = if plan.hurries_lists() { Side::urgent()? } else { Side::new()? };
        Ok(Self {
            device: device.clone(),
            plan,
            table,
            algorithm: Algorithm::default(),
            side: Mutex::new(side),
            element: PhantomData,
        })
    }

    /// The same, with other kernels.
    #[must_use]
    pub fn with_algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// Bytes of workspace that [`forward`](Self::forward) needs: none, but for few anchors of many points, which are cut into
    /// parts for several blocks: 4 bytes for each channel of each part.
    #[must_use]
    pub fn forward_workspace_bytes(&self) -> usize {
        4 * kernels::forward_scratch::<T::Kernel>(&self.plan, self.algorithm)
    }

    /// Bytes of workspace that [`backward`](Self::backward) needs.
    ///
    /// Where the feature gradient is gathered ([`Algorithm::Repeatable`]; also otherwise, for up to 16,384 anchors of a batch item
    /// with up to 2,048 points each, with fp16 and bf16, anchors of 64 points or more, and more than 2,048 anchors of 256 channels
    /// or more, 512 where groups are no whole 16 bytes, in groups of 16 or more):
    /// whatever the number of channels, 4 bytes for each of the 2 by 2 pixels that a sample can touch, 16 for every sample of maps
    /// of more than two pixels along both sides, and 8 to 32 for every 2 by 2 pixels; and for batch items of more than 2,048 points
    /// 4 KB for each channel, those of the last tile of up to 256 counted as whole.
    ///
    /// Where it is added to memory: none for fp32, and for fp16 and bf16, when maps share pixels or there are more anchors
    /// or points than that, an fp32 copy of it.
    #[must_use]
    pub fn backward_workspace_bytes(&self) -> usize {
        4 * kernels::backward_scratch::<T::Kernel>(&self.plan, self.algorithm)
    }

    /// Kernel launches, with the clearing of arrays, that a [`forward`](Self::forward) call issues on arrays aligned to
    /// 16 bytes.
    ///
    /// # Errors
    ///
    /// Those of the call that the sizes alone decide.
    pub fn forward_launches(&self) -> Result<usize> {
        kernels::forward_launches::<T::Kernel>(&self.plan, self.algorithm)
    }

    /// Kernel launches, with the clearing of arrays, that a [`backward`](Self::backward) call issues on arrays aligned to
    /// 16 bytes.
    ///
    /// # Errors
    ///
    /// Those of the call that the sizes alone decide: [`Error::NotRepeatable`].
    pub fn backward_launches(&self) -> Result<usize> {
        kernels::backward_launches::<T::Kernel>(&self.plan, self.algorithm)
    }

    /// Puts the forward pass on `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::Pointer`] for an address that is null or not aligned, [`Error::BackendFailed`] if a kernel cannot be
    /// loaded or launched. What goes wrong while a kernel runs, the next call that waits reports.
    ///
    /// # Safety
    ///
    /// - Every address is valid in the device's primary context for the array its field describes, and stays so until
    ///   the stream is through.
    /// - Nothing else touches the output and the workspace meanwhile, nor writes the inputs; the five do not overlap.
    pub unsafe fn forward(&self, stream: &Stream, pointers: &ForwardPointers) -> Result<()> {
        let element = size_of::<T>();
        let plan = &self.plan;
        check_pointers(&[
            ("feature_maps", pointers.feature_maps, plan.features, element),
            ("sampling_locations", pointers.sampling_locations, plan.locations, 8),
            ("weights", pointers.weights, plan.weights, element),
            ("output", pointers.output, plan.outputs, element),
            ("workspace", pointers.workspace, self.forward_workspace_bytes(), 16),
        ])?;
        let arrays = ForwardArrays::<T::Kernel> {
            table: device_pointer(self.table.pointer()),
            features: device_pointer(pointers.feature_maps),
            locations: device_pointer(pointers.sampling_locations),
            weights: device_pointer(pointers.weights),
            output: device_pointer_mut(pointers.output),
            scratch: device_pointer_mut(pointers.workspace),
        };
        let queue = Queue { device: &self.device, stream };
        self.device.make_current()?;
        // SAFETY: the caller's promise.
        unsafe { kernels::forward(&queue, &self.plan, self.algorithm, arrays) }
    }

    /// Puts the backward pass on `stream`: the gradients of `sum(output * grad_output)` with respect to feature maps,
    /// locations and weights. Nothing has to be kept from [`forward`](Self::forward).
    ///
    /// Some of it runs on a stream of the operator's own, which waits for what is on `stream` before and is waited for on
    /// `stream`: to the caller it is as if all of it were on `stream`.
    ///
    /// # Errors
    ///
    /// As for [`forward`](Self::forward).
    ///
    /// # Safety
    ///
    /// - Every address is valid in the device's primary context for the array its field describes, and stays so until
    ///   the stream is through.
    /// - Nothing else touches the gradients and the workspace meanwhile, nor writes the other arrays; none of them
    ///   overlap.
    pub unsafe fn backward(&self, stream: &Stream, pointers: &BackwardPointers) -> Result<()> {
        let element = size_of::<T>();
        let plan = &self.plan;
        check_pointers(&[
            ("feature_maps", pointers.feature_maps, plan.features, element),
            ("sampling_locations", pointers.sampling_locations, plan.locations, 8),
            ("weights", pointers.weights, plan.weights, element),
            ("grad_output", pointers.grad_output, plan.outputs, element),
            ("grad_feature_maps", pointers.grad_feature_maps, plan.features, element),
            ("grad_sampling_locations", pointers.grad_sampling_locations, plan.locations, 8),
            ("grad_weights", pointers.grad_weights, plan.weights, element),
            ("workspace", pointers.workspace, self.backward_workspace_bytes(), 16),
        ])?;
        let arrays = BackwardArrays::<T::Kernel> {
            table: device_pointer(self.table.pointer()),
            features: device_pointer(pointers.feature_maps),
            locations: device_pointer(pointers.sampling_locations),
            weights: device_pointer(pointers.weights),
            grad_output: device_pointer(pointers.grad_output),
            grad_features: device_pointer_mut(pointers.grad_feature_maps),
            grad_locations: device_pointer_mut(pointers.grad_sampling_locations),
            grad_weights: device_pointer_mut(pointers.grad_weights),
            leaves_unseen: false,
            scratch: device_pointer_mut(pointers.workspace),
        };
        let queue = Queue { device: &self.device, stream };
        self.device.make_current()?;
        // There is nothing in it that a panic could have left half done.
        let side = self.side.lock().unwrap_or_else(PoisonError::into_inner);
        let sides = if side.serves(stream) { slice::from_ref(&*side) } else { &[] };
        let forked = Forked { queue, sides };
        // SAFETY: the caller's promise.
        unsafe { kernels::backward(&forked, &self.plan, self.algorithm, arrays) }
    }
}

/// A device address as a pointer; it is never followed on the host.
pub(super) fn device_pointer<A>(address: u64) -> *const A {
    ptr::without_provenance(address as usize)
}

/// As [`device_pointer`], for arrays that are written.
pub(super) fn device_pointer_mut<A>(address: u64) -> *mut A {
    ptr::without_provenance_mut(address as usize)
}

/// An error for the first (name, address, length, alignment) whose address cannot be that of an array.
fn check_pointers(arrays: &[(&'static str, u64, usize, usize)]) -> Result<()> {
    for &(argument, address, length, alignment) in arrays {
        if length > 0 && (address == 0 || !address.is_multiple_of(alignment as u64)) {
            return Err(Error::Pointer { argument, alignment, address });
        }
    }
    Ok(())
}

/// A stream that kernels are put on.
pub(super) struct Queue<'a> {
    pub(super) device: &'a Device,
    pub(super) stream: &'a Stream,
}

impl Executor for Queue<'_> {
    unsafe fn launch<A: Copy + Send + Sync>(
        &self,
        entry: Entry<A>,
        shape: Launch,
        mut args: A,
    ) -> Result<()> {
        let kernel = self.device.modules().kernel(entry.name)?;
        // SAFETY: the kernel takes one parameter of type `A`; the pointers in it are the caller's promise.
        let status =
            unsafe { launch::launch(kernel, shape, self.stream.handle(), (&raw mut args).cast()) };
        check(&format!("launching kernel {}", entry.name), status)
    }

    unsafe fn zero(&self, name: &'static str, array: *mut u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        check(&format!("zeroing the {name}"), unsafe {
            sys::cuMemsetD8Async(array.addr() as u64, 0, bytes, self.stream.handle())
        })
    }
}
