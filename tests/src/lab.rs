//! Single kernels on arrays of a test's own: in the emulator, and on a GPU.

use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use bytemuck::Pod;
use cuda_std::emulator::{Emulator, LaunchConfig, Memory};
use kernels_gpu::Entry;

/// Where a kernel runs.
#[derive(Debug)]
pub enum Lab {
    /// On the CPU, every access checked.
    Emulator,
    /// On the first GPU.
    #[cfg(lab_cuda)]
    Cuda(deformable_aggregation::cuda::Device),
}

impl Lab {
    /// The lab of this name, or `None` with a line on standard output that says why the test is skipped.
    ///
    /// # Panics
    ///
    /// If nothing has this name.
    #[must_use]
    pub fn open(name: &str) -> Option<Self> {
        match name {
            "emulator" => Some(Self::Emulator),
            "cuda" => gpu(),
            _ => panic!("no lab is called {name}"),
        }
    }

    /// Whether the kernels for tensor cores multiply on them; in fp32 where there are none.
    #[must_use]
    pub fn has_tensor_cores(&self) -> bool {
        match self {
            Self::Emulator => true,
            #[cfg(lab_cuda)]
            Self::Cuda(device) => device.compute_capability() >= (8, 0),
        }
    }

    /// A bench without arrays.
    #[must_use]
    pub fn bench(&self) -> Bench<'_> {
        Bench { lab: self, buffers: Vec::new(), has_run: false }
    }
}

#[cfg(lab_cuda)]
fn gpu() -> Option<Lab> {
    cuda_device().map(Lab::Cuda)
}

/// The first GPU, or `None` with a line on standard output that says why the test is skipped.
#[cfg(lab_cuda)]
#[must_use]
pub fn cuda_device() -> Option<deformable_aggregation::cuda::Device> {
    deformable_aggregation::cuda::Device::new(0)
        .inspect_err(|error| println!("skipped because {error}"))
        .ok()
}

#[cfg(not(lab_cuda))]
fn gpu() -> Option<Lab> {
    println!("skipped because the tests were built without CUDA");
    None
}

impl fmt::Display for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Emulator => "emulator",
            #[cfg(lab_cuda)]
            Self::Cuda(_) => "cuda",
        })
    }
}

/// An array on a bench.
#[derive(Debug)]
pub struct Array<T> {
    number: usize,
    length: usize,
    element: PhantomData<T>,
}

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Array<T> {}

/// Arrays for one launch of a kernel, or some in a row.
#[derive(Debug)]
pub struct Bench<'a> {
    lab: &'a Lab,
    buffers: Vec<Buffer>,
    /// Whether a kernel has run, so that the next may read what it wrote.
    has_run: bool,
}

#[derive(Debug)]
struct Buffer {
    /// Words of 16 bytes: kernels may read as many at a time.
    words: Vec<u128>,
    /// Bytes that the array has of them.
    bytes: usize,
    is_output: bool,
}

/// Where the arrays of a launch lie.
#[derive(Debug)]
pub struct Addresses(Vec<*mut u8>);

impl Addresses {
    /// The first element of an array.
    #[must_use]
    pub fn of<T>(&self, array: Array<T>) -> *const T {
        self.0[array.number].cast_const().cast()
    }

    /// The first element of an array that may be missing; null if it is.
    #[must_use]
    pub fn of_some<T>(&self, array: Option<Array<T>>) -> *const T {
        array.map_or(ptr::null(), |array| self.of(array))
    }

    /// The first element of an output.
    #[must_use]
    pub fn of_mut<T>(&self, array: Array<T>) -> *mut T {
        self.0[array.number].cast()
    }
}

impl Bench<'_> {
    /// An array that the kernel may read.
    pub fn input<T: Pod>(&mut self, data: &[T]) -> Array<T> {
        let array = self.add(data.len(), false);
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let words: &mut [u8] = bytemuck::cast_slice_mut(&mut self.buffers[array.number].words);
        words[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// An array that the kernel writes. Every bit of it is 1 before, which is no number in any element type.
    pub fn output<T: Pod>(&mut self, length: usize) -> Array<T> {
        self.add(length, true)
    }

    fn add<T>(&mut self, length: usize, is_output: bool) -> Array<T> {
        let bytes = length * size_of::<T>();
        let words = vec![u128::MAX; bytes.div_ceil(16).max(1)];
        self.buffers.push(Buffer { words, bytes, is_output });
        Array { number: self.buffers.len() - 1, length, element: PhantomData }
    }

    /// The elements of an array.
    #[must_use]
    pub fn read<T: Pod>(&self, array: Array<T>) -> Vec<T> {
        bytemuck::cast_slice(&self.buffers[array.number].words)[..array.length].to_vec()
    }

    /// Runs a kernel with the arguments that `args` makes of the arrays' addresses, and waits for it.
    ///
    /// # Panics
    ///
    /// If the emulator finds a fault, or the driver reports one.
    ///
    /// # Safety
    ///
    /// On a GPU, what the kernel asks of its arguments holds. The emulator checks it.
    pub unsafe fn launch<A: Copy + Send + Sync>(
        &mut self,
        entry: Entry<A>,
        grid: (u32, u32),
        threads: u32,
        shared_bytes: u32,
        args: impl FnOnce(&Addresses) -> A,
    ) {
        match self.lab {
            Lab::Emulator => {
                let mut memory = Memory::new();
                let addresses = self.buffers.iter_mut().map(|buffer| {
                    let words = bytemuck::cast_slice_mut(&mut buffer.words);
                    let array: &mut [u8] = &mut words[..buffer.bytes];
                    if !buffer.is_output {
                        memory.read_only("input", array).cast_mut()
                    } else if self.has_run {
                        memory.read_write("output", array)
                    } else {
                        memory.uninitialised("output", array)
                    }
                });
                let args = args(&Addresses(addresses.collect()));
                let config = LaunchConfig {
                    grid: grid.into(),
                    block: threads.into(),
                    dynamic_shared_bytes: shared_bytes,
                };
                Emulator::new()
                    .with_race_checks(true)
                    // SAFETY: the emulator checks every access.
                    .launch(entry.name, config, &memory, || unsafe { (entry.thread)(args) })
                    .unwrap_or_else(|fault| panic!("{}: {fault}", entry.name));
            }
            #[cfg(lab_cuda)]
            Lab::Cuda(device) => {
                let arrays: Vec<_> = self
                    .buffers
                    .iter()
                    .map(|buffer| {
                        device.upload(
                            "an array of a test",
                            bytemuck::cast_slice::<_, u8>(&buffer.words),
                        )
                    })
                    .collect::<Result<_, _>>()
                    .expect("room for the arrays of a test");
                let addresses = arrays
                    .iter()
                    .map(|array| ptr::without_provenance_mut(array.pointer() as usize));
                let args = args(&Addresses(addresses.collect()));
                // SAFETY: the caller's promise. Uploading has made the device's context current.
                unsafe { driver::launch(device, entry.name, grid, threads, shared_bytes, args) };
                for (buffer, array) in self.buffers.iter_mut().zip(&arrays) {
                    let bytes = array.download().expect("the kernel runs through");
                    bytemuck::cast_slice_mut(&mut buffer.words).copy_from_slice(&bytes);
                }
            }
        }
        self.has_run = true;
    }
}

/// Launches by the driver.
#[cfg(lab_cuda)]
mod driver {
    use std::ffi::{CString, c_void};
    use std::ptr;

    use cust::sys;
    use deformable_aggregation::cuda::Device;
    use kernels_gpu::ptx::LEVELS;

    /// # Safety
    ///
    /// The device's context is current, and what the kernel asks of its arguments holds.
    pub(super) unsafe fn launch<A: Copy>(
        device: &Device,
        name: &str,
        grid: (u32, u32),
        threads: u32,
        shared_bytes: u32,
        mut args: A,
    ) {
        let (major, minor) = device.compute_capability();
        let level = LEVELS.iter().rfind(|level| level.architecture <= 10 * major + minor);
        let text = level.expect("kernels for the device").kernel(name);
        let text = CString::new(text).expect("PTX has no NUL");
        let kernel = CString::new(name).expect("names have no NUL");
        let (mut module, mut function) = (ptr::null_mut(), ptr::null_mut());
        let mut parameters: [*mut c_void; 1] = [(&raw mut args).cast()];
        let handle = device.stream().handle();
        // SAFETY: both texts end with a NUL; the kernel takes one argument, which is the caller's.
        let done = unsafe {
            sys::cuModuleLoadData(&raw mut module, text.as_ptr().cast()) as u32 == 0
                && sys::cuModuleGetFunction(&raw mut function, module, kernel.as_ptr()) as u32 == 0
                && sys::cuLaunchKernel(
                    function,
                    grid.0,
                    grid.1,
                    1,
                    threads,
                    1,
                    1,
                    shared_bytes,
                    handle,
                    parameters.as_mut_ptr(),
                    ptr::null_mut(),
                ) as u32
                    == 0
        };
        assert!(done, "the driver loads and launches {name}");
        device.synchronize().unwrap_or_else(|error| panic!("{name}: {error}"));
        // SAFETY: loaded above, and nothing of it runs any more. A failure has no remedy here.
        let _ = unsafe { sys::cuModuleUnload(module) };
    }
}

/// Instantiates tests of kernels that are generic over the element type: `in_every_lab!(check, ...)` makes, for every function
/// `fn check<T: GpuElement>(lab: &Lab)`, the tests `check::<lab>::<dtype>`. `in_every_lab!(fp32: check, ...)` is for kernels that
/// know no other type, and functions `fn check(lab: &Lab)`.
#[macro_export]
macro_rules! in_every_lab {
    ($($check:ident),+ $(,)?) => {
        $(mod $check {
            $crate::in_every_lab!(@lab $check emulator fp32 f32, fp16 half::f16, bf16 half::bf16);
            $crate::in_every_lab!(@lab $check cuda fp32 f32, fp16 half::f16, bf16 half::bf16);
        })+
    };
    (fp32: $($check:ident),+ $(,)?) => {
        $(mod $check {
            $crate::in_every_lab!(@fp32 $check emulator cuda);
        })+
    };
    (@fp32 $check:ident $($lab:ident)+) => {
        $(#[test]
        fn $lab() {
            if let Some(lab) = $crate::Lab::open(stringify!($lab)) {
                super::$check(&lab);
            }
        })+
    };
    (@lab $check:ident $lab:ident $($dtype:ident $type:ty),+) => {
        mod $lab {
            $(#[test]
            fn $dtype() {
                if let Some(lab) = $crate::Lab::open(stringify!($lab)) {
                    super::super::$check::<$type>(&lab);
                }
            })+
        }
    };
}
