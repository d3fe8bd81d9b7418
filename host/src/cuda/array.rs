//! Arrays in device memory.

use std::marker::PhantomData;

use bytemuck::Pod;
use cust::sys;

use crate::cuda::device::Device;
use crate::cuda::driver::{check, check_allocation};
use crate::error::{Error, Result};
use crate::memory::zeros;

/// An array in the memory of a device; freed when dropped.
#[derive(Debug)]
pub struct DeviceArray<T> {
    pointer: sys::CUdeviceptr,
    length: usize,
    device: Device,
    marker: PhantomData<T>,
}

impl<T: Pod> DeviceArray<T> {
    /// Uninitialised memory, aligned to 256 bytes.
    fn allocate(device: &Device, purpose: &'static str, length: usize) -> Result<Self> {
        device.make_current()?;
        let bytes = length * size_of::<T>();
        let mut pointer = 0;
        // The driver refuses to allocate nothing; an empty array has no address to follow.
        if bytes > 0 {
            // SAFETY: the function writes one pointer.
            let status = unsafe { sys::cuMemAlloc_v2(&raw mut pointer, bytes) };
            check_allocation(purpose, bytes, status)?;
        }
        Ok(Self { pointer, length, device: device.clone(), marker: PhantomData })
    }

    pub(super) fn upload(device: &Device, purpose: &'static str, data: &[T]) -> Result<Self> {
        let array = Self::allocate(device, purpose, data.len())?;
        array.write(data)?;
        Ok(array)
    }

    /// Copies `data` into the array, once what was put on the device's stream before is through, and waits for that.
    ///
    /// # Errors
    ///
    /// [`Error::Dimensions`](crate::Error::Dimensions) unless `data` has as many elements as the array,
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn write(&self, data: &[T]) -> Result<()> {
        if data.len() != self.length {
            return Err(Error::Dimensions {
                argument: "data",
                axes: "(elements)",
                expected: vec![self.length],
                actual: vec![data.len()],
            });
        }
        self.device.make_current()?;
        if data.is_empty() {
            return Ok(());
        }
        // On our stream, which does not wait for the default stream's copies.
        let stream = self.device.stream();
        // SAFETY: both arrays have that many bytes, and live until the stream is through below.
        check("copying to the device", unsafe {
            sys::cuMemcpyHtoDAsync_v2(
                self.pointer,
                data.as_ptr().cast(),
                self.bytes(),
                stream.handle(),
            )
        })?;
        stream.synchronize()
    }

    pub(super) fn poisoned(device: &Device, purpose: &'static str, length: usize) -> Result<Self> {
        let array = Self::allocate(device, purpose, length)?;
        array.poison()?;
        Ok(array)
    }

    /// Sets every byte to 0xff and waits until that is done.
    pub(super) fn poison(&self) -> Result<()> {
        self.device.make_current()?;
        if self.bytes() == 0 {
            return Ok(());
        }
        let stream = self.device.stream();
        // SAFETY: the array has that many bytes.
        check("filling device memory", unsafe {
            sys::cuMemsetD8Async(self.pointer, 0xff, self.bytes(), stream.handle())
        })?;
        stream.synchronize()
    }

    /// The elements, copied back once everything launched before is through.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) on the host,
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong on the device.
    pub fn download(&self) -> Result<Vec<T>> {
        let mut values = zeros("downloaded array", self.length)?;
        self.download_into(&mut values)?;
        Ok(values)
    }

    /// As [`download`](Self::download), into a slice of the same length.
    pub(super) fn download_into(&self, target: &mut [T]) -> Result<()> {
        assert_eq!(target.len(), self.length, "the caller makes the slice for this array");
        self.device.synchronize()?;
        if target.is_empty() {
            return Ok(());
        }
        // SAFETY: both arrays have that many bytes, and the call returns when they are copied.
        check("copying from the device", unsafe {
            sys::cuMemcpyDtoH_v2(target.as_mut_ptr().cast(), self.pointer, self.bytes())
        })
    }

    fn bytes(&self) -> usize {
        self.length * size_of::<T>()
    }
}

impl<T> DeviceArray<T> {
    /// The device address of the first element; 0 for an empty array.
    #[must_use]
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl<T> Drop for DeviceArray<T> {
    fn drop(&mut self) {
        if self.pointer != 0 && self.device.make_current().is_ok() {
            // SAFETY: allocated by `allocate` and not used after this; the driver waits for kernels that
            // still use it. A failure has no remedy here.
            let _ = unsafe { sys::cuMemFree_v2(self.pointer) };
        }
    }
}
