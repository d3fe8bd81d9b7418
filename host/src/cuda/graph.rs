//! CUDA graphs: calls recorded once and launched again as one.

use std::ptr;

use cust::sys;
use cust::sys::cudaError_enum as Status;

use crate::cuda::device::Device;
use crate::cuda::driver::check;
use crate::cuda::stream::Stream;
use crate::error::Result;

/// Work that was recorded instead of run, to be launched as often as wanted; made by [`Device::capture`]. A launch costs the
/// host about as much as that of one kernel, however many kernels are recorded.
///
/// A graph keeps the addresses of the recorded calls, not the arrays: [`launch`](Self::launch) is unsafe. The graphs of a
/// [`Session`](crate::cuda::Session) keep their arrays and are safe.
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
///
/// // The first call loads the kernels, which cannot be done while recording.
/// // SAFETY: the arrays have the shape's sizes and live until `download` has waited for the device.
/// unsafe { operator.forward(device.stream(), &pointers)? };
/// // SAFETY: as above; the call is recorded only.
/// let graph = device.capture(|stream| unsafe { operator.forward(stream, &pointers) })?;
/// assert_eq!(graph.nodes(), operator.forward_launches()?);
///
/// weights.write(&[4.0])?;
/// // SAFETY: the arrays and the operator still exist.
/// unsafe { graph.launch(device.stream())? };
/// assert_eq!(output.download()?, [15.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Graph {
    device: Device,
    executable: sys::CUgraphExec,
    nodes: usize,
}

// SAFETY: the driver lets any thread use a graph, one at a time; the type is not `Sync`.
unsafe impl Send for Graph {}

impl Device {
    /// Records what `enqueue` puts on the stream that it is given, a new one. Nothing of it runs.
    ///
    /// Kernels have to be loaded before: make each call once on another stream, as a call whose kernels are not loaded yet
    /// cannot be recorded. Work that `enqueue` puts on other streams is not recorded, and waiting is an error.
    ///
    /// # Errors
    ///
    /// What `enqueue` returns, or [`Error::BackendFailed`](crate::Error::BackendFailed) if something in it cannot be
    /// recorded or the driver fails.
    pub fn capture(&self, enqueue: impl FnOnce(&Stream) -> Result<()>) -> Result<Graph> {
        self.make_current()?;
        // Of our own: what other threads put on the device's stream meanwhile is none of the graph's.
        let stream = Stream::new()?;
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is live and records nothing yet.
        check("starting to record", unsafe {
            sys::cuStreamBeginCapture_v2(stream.handle(), mode)
        })?;
        let enqueued = enqueue(&stream);
        let mut recorded = Recorded(ptr::null_mut());
        // SAFETY: the stream is live; the call writes one handle. Made whether or not `enqueue` succeeded.
        let status = unsafe { sys::cuStreamEndCapture(stream.handle(), &raw mut recorded.0) };
        enqueued?;
        check("recording", status)?;
        let (mut nodes, mut executable) = (0, ptr::null_mut());
        // SAFETY: the graph was just recorded; without a list the first call writes the number of its nodes, the second
        // writes one handle.
        unsafe {
            let status = sys::cuGraphGetNodes(recorded.0, ptr::null_mut(), &raw mut nodes);
            check("counting what was recorded", status)?;
            let status = sys::cuGraphInstantiateWithFlags(&raw mut executable, recorded.0, 0);
            check("preparing what was recorded", status)?;
        }
        Ok(Graph { device: self.clone(), executable, nodes })
    }
}

impl Graph {
    /// How many kernel launches and clearings of arrays were recorded.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Puts everything recorded on `stream`, in its order.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails. What goes wrong while a kernel runs, the
    /// next call that waits reports.
    ///
    /// # Safety
    ///
    /// What the recorded calls ask for, on every launch: that their arrays, and the operators whose calls they are, still
    /// exist and stay until the stream is through, and that nothing else touches what is written meanwhile, the launches of
    /// this graph on other streams included.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<()> {
        self.device.make_current()?;
        // SAFETY: the graph is live, and used by one thread at a time; the rest is the caller's promise.
        let status = unsafe { sys::cuGraphLaunch(self.executable, stream.handle()) };
        check("launching what was recorded", status)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.device.make_current().is_ok() {
            // SAFETY: made by `capture` and not used after this; the driver waits for a launch that is under way. A
            // failure has no remedy here.
            let _: Status = unsafe { sys::cuGraphExecDestroy(self.executable) };
        }
    }
}

/// What was recorded, until an executable graph is made from it.
struct Recorded(sys::CUgraph);

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the graph is nobody else's. A failure has no remedy here.
            let _: Status = unsafe { sys::cuGraphDestroy(self.0) };
        }
    }
}
