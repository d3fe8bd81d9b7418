//! Streams and events.

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use cust::sys;
use cust::sys::CUstreamCaptureStatus_enum as Capture;

use crate::cuda::driver::check;
use crate::error::Result;

/// `CU_STREAM_NON_BLOCKING` of the driver API.
const NON_BLOCKING: u32 = 1;

/// A queue of work on a device, our own or another framework's.
#[derive(Debug)]
pub struct Stream {
    handle: sys::CUstream,
    owned: bool,
}

// SAFETY: the driver lets any thread use a stream.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver serialises what threads put on it.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream on the current context's device. It does not wait for the legacy default stream.
    pub(super) fn new() -> Result<Self> {
        let mut handle = ptr::null_mut();
        // SAFETY: the function writes one handle.
        check("creating a stream", unsafe { sys::cuStreamCreate(&raw mut handle, NON_BLOCKING) })?;
        Ok(Self { handle, owned: true })
    }

    /// A new stream as above, whose kernels get free places on the GPU before those of other streams.
    pub(super) fn urgent() -> Result<Self> {
        let (mut least, mut greatest) = (0, 0);
        let mut handle = ptr::null_mut();
        // SAFETY: the functions write two numbers and one handle.
        unsafe {
            let status = sys::cuCtxGetStreamPriorityRange(&raw mut least, &raw mut greatest);
            check("asking for the priorities of streams", status)?;
            let status = sys::cuStreamCreateWithPriority(&raw mut handle, NON_BLOCKING, greatest);
            check("creating a stream", status)?;
        }
        Ok(Self { handle, owned: true })
    }

    /// What is put on the stream at the moment is recorded for the graph of this number, if for any.
    pub(super) fn recorded_for(&self) -> Result<Option<u64>> {
        let (mut status, mut number) = (Capture::CU_STREAM_CAPTURE_STATUS_NONE, 0);
        // SAFETY: the handle is a stream's; the function writes a status and a number.
        check("asking whether a stream is recorded", unsafe {
            sys::cuStreamGetCaptureInfo(self.handle, &raw mut status, &raw mut number)
        })?;
        Ok((status != Capture::CU_STREAM_CAPTURE_STATUS_NONE).then_some(number))
    }

    /// Somebody else's stream: a `cudaStream_t` or `CUstream`, such as PyTorch's
    /// `torch.cuda.current_stream().cuda_stream`. A null handle is the legacy default stream.
    ///
    /// # Safety
    ///
    /// - `handle` is a stream of the primary context of the device it will be used with, or null.
    /// - It outlives the value.
    #[must_use]
    pub unsafe fn from_raw(handle: *mut c_void) -> Self {
        Self { handle: handle.cast(), owned: false }
    }

    /// Waits for the work on the stream.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong in the meantime.
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: the handle is a stream's, by construction.
        check("running the kernels", unsafe { sys::cuStreamSynchronize(self.handle) })
    }

    /// The stream as the driver knows it.
    #[must_use]
    pub fn handle(&self) -> sys::CUstream {
        self.handle
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: made by `new` and not used after this. A failure has no remedy here.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.handle) };
        }
    }
}

/// A point in a stream's work, whose time is taken or which other streams wait for.
#[derive(Debug)]
pub(super) struct Event {
    handle: sys::CUevent,
}

// SAFETY: the driver lets any thread use an event.
unsafe impl Send for Event {}
// SAFETY: as above; the driver serialises what threads do with it.
unsafe impl Sync for Event {}

impl Event {
    /// An event whose time can be read.
    pub(super) fn new() -> Result<Self> {
        Self::with_flags(0)
    }

    /// An event that is only waited for.
    pub(super) fn untimed() -> Result<Self> {
        const DISABLE_TIMING: u32 = 2;
        Self::with_flags(DISABLE_TIMING)
    }

    fn with_flags(flags: u32) -> Result<Self> {
        let mut handle = ptr::null_mut();
        // SAFETY: the function writes one handle.
        check("creating an event", unsafe { sys::cuEventCreate(&raw mut handle, flags) })?;
        Ok(Self { handle })
    }

    /// Lets what is put on the stream from now on wait until the event has come about.
    pub(super) fn hold(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both handles are live.
        check("waiting for an event", unsafe {
            sys::cuStreamWaitEvent(stream.handle, self.handle, 0)
        })
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both handles are live.
        check("recording an event", unsafe { sys::cuEventRecord(self.handle, stream.handle) })
    }

    /// Waits for this event and returns the time since the earlier one.
    pub(super) fn since(&self, start: &Self) -> Result<Duration> {
        let mut milliseconds = 0.0;
        // SAFETY: both events were recorded; the second call writes one number.
        unsafe {
            check("running the kernels", sys::cuEventSynchronize(self.handle))?;
            let status = sys::cuEventElapsedTime(&raw mut milliseconds, start.handle, self.handle);
            check("reading an event's time", status)?;
        }
        Ok(Duration::from_secs_f64(f64::from(milliseconds) * 1e-3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new` and not used after this. A failure has no remedy here.
        let _ = unsafe { sys::cuEventDestroy_v2(self.handle) };
    }
}
