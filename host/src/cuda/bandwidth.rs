//! What the memories of a device deliver, measured.

use std::time::Duration;

use cust::sys;
use kernels_gpu::READ_WORDS;
use kernels_gpu::args::ReadArgs;

use crate::cuda::device::Device;
use crate::cuda::driver::check;
use crate::cuda::operator::{Queue, device_pointer, device_pointer_mut};
use crate::error::Result;
use crate::kernels::{Executor, Launch};

/// Measurements of which the median is taken.
const RUNS: usize = 9;

impl Device {
    /// Bandwidth of a large copy within device memory in bytes per second, read and written bytes both
    /// counted: what memory can do at best, measured now. The median of nine copies of half a GiB.
    ///
    /// # Errors
    ///
    /// As for [`upload`](Self::upload).
    pub fn copy_bandwidth(&self) -> Result<f64> {
        const BYTES: usize = 512 << 20;
        let source = self.poisoned::<u8>("copy bandwidth", BYTES)?;
        let target = self.poisoned::<u8>("copy bandwidth", BYTES)?;
        let stream = self.stream();
        let time = self.median_time(|| {
            // SAFETY: both arrays hold that many bytes and outlive the wait for the time.
            check("copying within the device", unsafe {
                sys::cuMemcpyDtoDAsync_v2(
                    target.pointer(),
                    source.pointer(),
                    BYTES,
                    stream.handle(),
                )
            })
        })?;
        Ok(2.0 * BYTES as f64 / time.as_secs_f64())
    }

    /// Bandwidth in bytes per second at which all multiprocessors together read from the second-level cache, measured now:
    /// a kernel reads an array of 24 MB, which such a cache holds, about sixty times over, 16 bytes a thread and past the
    /// first-level caches. The median of nine runs; the first reads after loading the array are not in it.
    ///
    /// On a device whose second-level cache is smaller the array comes from memory, and so does the number.
    ///
    /// # Errors
    ///
    /// As for [`upload`](Self::upload), and if the kernel cannot be loaded or launched.
    pub fn l2_read_bandwidth(&self) -> Result<f64> {
        const BYTES: usize = 24_000_000;
        const BYTES_OF_STEP: usize = 4 * 16;
        const THREADS: u32 = 256;
        const PASSES: usize = 64;
        // 2,048 threads are what the largest multiprocessors hold.
        let blocks = self.multiprocessors()? * (2048 / THREADS);
        let threads = (blocks * THREADS) as usize;
        let steps = (PASSES * BYTES).div_ceil(threads * BYTES_OF_STEP);
        let source = self.poisoned::<u32>("cache bandwidth", BYTES / 4)?;
        let sums = self.poisoned::<u32>("cache bandwidth", threads)?;
        let args = ReadArgs {
            vectors: (BYTES / 16) as u32,
            steps: steps as u32,
            source: device_pointer(source.pointer()),
            sums: device_pointer_mut(sums.pointer()),
        };
        let launch = Launch { grid: (blocks, 1), threads: THREADS, shared_bytes: 0 };
        let queue = Queue { device: self, stream: self.stream() };
        let time = self.median_time(|| {
            // SAFETY: the arrays have the sizes of the arguments and outlive the wait for the time.
            unsafe { queue.launch(READ_WORDS, launch, args) }
        })?;
        Ok((threads * steps * BYTES_OF_STEP) as f64 / time.as_secs_f64())
    }

    /// The middle of the times that the device takes for what `enqueue` puts on its stream, after one run that is not counted.
    fn median_time(&self, mut enqueue: impl FnMut() -> Result<()>) -> Result<Duration> {
        self.time(self.stream(), &mut enqueue)?;
        let mut times = [Duration::ZERO; RUNS];
        for time in &mut times {
            *time = self.time(self.stream(), &mut enqueue)?;
        }
        times.sort();
        Ok(times[RUNS / 2])
    }
}
