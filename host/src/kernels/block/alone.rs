//! The kernels of the linear layers on their own, on arrays in host memory: for tests of these kernels.

use std::ptr;

#[cfg(feature = "emulator")]
use cuda_std::emulator::Memory;
use kernels_gpu::block_args::{
    DropArgs, Dropout, LinearArgs, LinearWeightArgs, Rows, SumArgs, Target,
};
use kernels_gpu::{BlockKernels, Entry, Products, SUM};

use crate::backend::Backend;
#[cfg(cuda_backend)]
use crate::cuda::{Device, DeviceArray, launch_alone};
#[cfg(feature = "emulator")]
use crate::emulated::Runner;
use crate::error::{Error, Result};
use crate::kernels::block::forward::{element_target, fp32_rows, strided_rows};
use crate::kernels::block::plan::BlockPlan;
use crate::kernels::block::products::{multiply_launch, weigh_launch};
use crate::kernels::{Executor as _, GpuElement, Launch, Plan};

/// Rows of elements, and of fp32 numbers behind them.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    /// The first rows, `stride` apart, whole ones.
    pub first: &'a [T],
    /// Elements that are added to them.
    pub added: Option<&'a [T]>,
    /// The other rows.
    pub tail: &'a [f32],
    /// Columns.
    pub columns: usize,
    /// Distance of the first rows.
    pub stride: usize,
}

impl<T> Matrix<'_, T> {
    fn first_rows(&self) -> usize {
        self.first.len() / self.stride.max(1)
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.first_rows() + self.tail.len() / self.columns.max(1)
    }
}

/// What is done to a product, as [`Target`] says.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// A number for each column.
    pub bias: Option<&'a [f32]>,
    /// Rows that get it.
    pub bias_rows: usize,
    /// A number for each element of the first rows, and the probability that one is dropped.
    pub dropout: Option<(&'a [f32], f32)>,
    /// `(first rows, columns)`.
    pub addend: Option<&'a [f32]>,
    /// `(first rows, columns)`.
    pub residual: Option<&'a [T]>,
    /// Whether the residual goes behind the product.
    pub concatenate: bool,
}

/// Where a product goes: every element is written.
#[derive(Debug)]
pub struct Results<'a, T> {
    /// `(first rows, columns)`, or twice the columns.
    pub first: &'a mut [T],
    /// `(first rows, columns)`.
    pub plain: Option<&'a mut [T]>,
    /// `(other rows, columns)`.
    pub tail: &'a mut [f32],
}

/// Which product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The layer: the weight is `(columns, depth)`.
    Forward,
    /// The gradient of its input: the weight is `(depth, columns)`.
    Input,
}

/// The backend's memory for one launch.
enum Site<'a> {
    #[cfg(feature = "emulator")]
    Emulator { memory: Memory<'a>, written: Vec<&'static str> },
    #[cfg(cuda_backend)]
    Device { device: Device, kept: Vec<Box<dyn Kept + 'a>> },
}

/// An array on the device.
#[cfg(cuda_backend)]
trait Kept {
    /// Copies it back if it is a result.
    fn finish(self: Box<Self>) -> Result<()>;
}

#[cfg(cuda_backend)]
impl<A: bytemuck::Pod> Kept for (DeviceArray<A>, Option<&mut [A]>) {
    fn finish(self: Box<Self>) -> Result<()> {
        let (array, target) = *self;
        target.map_or(Ok(()), |target| array.download_into(target))
    }
}

impl<'a> Site<'a> {
    fn new(backend: &Backend) -> Result<Self> {
        Ok(match backend {
            #[cfg(feature = "emulator")]
            Backend::Emulator => Self::Emulator { memory: Memory::new(), written: Vec::new() },
            #[cfg(cuda_backend)]
            Backend::Cuda(device) => Self::Device { device: device.clone(), kept: Vec::new() },
            Backend::Reference | Backend::Cpu => {
                return Err(Error::BackendFailed {
                    backend: backend.name(),
                    operation: "a kernel on its own".to_owned(),
                    message: "this backend has no kernels".to_owned(),
                });
            }
        })
    }

    fn read<A: bytemuck::Pod>(&mut self, name: &'static str, data: &'a [A]) -> Result<*const A> {
        match self {
            #[cfg(feature = "emulator")]
            Self::Emulator { memory, .. } => Ok(memory.read_only(name, data)),
            #[cfg(cuda_backend)]
            Self::Device { device, kept } => {
                let array = device.upload(name, data)?;
                let pointer = ptr::without_provenance(array.pointer() as usize);
                kept.push(Box::new((array, None)));
                Ok(pointer)
            }
        }
    }

    fn write<A: bytemuck::Pod>(&mut self, name: &'static str, data: &'a mut [A]) -> Result<*mut A> {
        match self {
            #[cfg(feature = "emulator")]
            Self::Emulator { memory, written } => {
                written.push(name);
                Ok(memory.uninitialised(name, data))
            }
            #[cfg(cuda_backend)]
            Self::Device { device, kept } => {
                let array = device.poisoned(name, data.len())?;
                let pointer = ptr::without_provenance_mut(array.pointer() as usize);
                kept.push(Box::new((array, Some(data))));
                Ok(pointer)
            }
        }
    }

    /// Runs the kernel and brings the results back.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are the site's, for arrays of the sizes that `args` gives.
    unsafe fn launch<A: Copy + Send + Sync>(
        self,
        entry: Entry<A>,
        launch: Launch,
        args: A,
    ) -> Result<()> {
        match self {
            #[cfg(feature = "emulator")]
            Self::Emulator { memory, written } => {
                let runner = Runner::new(&memory);
                // SAFETY: the caller's promise.
                unsafe { runner.launch(entry, launch, args)? };
                written.into_iter().try_for_each(|name| runner.check_written(name))
            }
            #[cfg(cuda_backend)]
            Self::Device { device, kept } => {
                // SAFETY: the caller's promise; the arrays live until the downloads have waited for the device.
                unsafe { launch_alone(&device, entry, launch, args)? };
                device.synchronize()?;
                kept.into_iter().try_for_each(Kept::finish)
            }
        }
    }
}

impl<'a> Site<'a> {
    fn rows<T: GpuElement>(
        &mut self,
        name: &'static str,
        matrix: Matrix<'a, T>,
    ) -> Result<Rows<T::Kernel>> {
        let first_rows = matrix.first_rows();
        let first: *const T::Kernel = self.read(name, matrix.first)?.cast();
        let added: *const T::Kernel = match matrix.added {
            Some(added) => self.read("added", added)?.cast(),
            None => ptr::null(),
        };
        let tail = self.read("tail", matrix.tail)?;
        let rows = strided_rows(first, first_rows, matrix.columns, matrix.stride);
        let tail = fp32_rows::<T::Kernel>(tail, matrix.rows(), matrix.columns);
        if first_rows == 0 {
            return Ok(tail);
        }
        let wide_added = added.addr().is_multiple_of(16);
        let wide = rows.wide & tail.wide & u32::from(wide_added);
        Ok(Rows { added, tail: tail.tail, rows: tail.rows, wide, ..rows })
    }

    fn option<A: bytemuck::Pod>(
        &mut self,
        name: &'static str,
        data: Option<&'a [A]>,
    ) -> Result<*const A> {
        data.map_or(Ok(ptr::null()), |data| self.read(name, data))
    }
}

fn products<T: GpuElement>(is_exact: bool) -> Products<T::Kernel> {
    if is_exact { T::Kernel::EXACT } else { T::Kernel::TENSOR }
}

/// A dropout of these numbers.
fn dropout(numbers: *const f32, probability: Option<f32>) -> Dropout {
    probability.map_or(Dropout::NONE, |threshold| Dropout {
        numbers,
        threshold,
        scale: (1.0 - threshold).recip(),
        ..Dropout::NONE
    })
}

/// The product of `input` and `weight`. The gradient of an input is one of elements or one of numbers.
///
/// # Errors
///
/// What the backend reports.
pub fn multiply<'a, T: GpuElement>(
    backend: &Backend,
    is_exact: bool,
    direction: Direction,
    input: Matrix<'a, T>,
    weight: &'a [f32],
    epilogue: &Epilogue<'a, T>,
    results: Results<'a, T>,
) -> Result<()> {
    let mut site = Site::new(backend)?;
    let columns = weight.len() / input.columns;
    let kernels = products::<T>(is_exact);
    let (kernel, [lines, depth]) = match direction {
        Direction::Forward => (kernels.linear, [columns, input.columns]),
        Direction::Input if input.first.is_empty() => {
            (kernels.input_of_numbers, [input.columns, columns])
        }
        Direction::Input => (kernels.input, [input.columns, columns]),
    };
    let numbers = site.option("dropout", epilogue.dropout.map(|(numbers, _)| numbers))?;
    let plain = match results.plain {
        Some(plain) => site.write("plain", plain)?.cast(),
        None => ptr::null_mut(),
    };
    let first = site.write("first", results.first)?.cast();
    let rows = input.rows();
    let target = Target {
        bias: site.option("bias", epilogue.bias)?,
        bias_rows: epilogue.bias_rows as u64,
        dropout: dropout(numbers, epilogue.dropout.map(|(_, probability)| probability)),
        addend: site.option("addend", epilogue.addend)?,
        residual: site.option("residual", epilogue.residual)?.cast(),
        residual_stride: columns as u32,
        concatenate: u32::from(epilogue.concatenate),
        stride: columns as u32 * if epilogue.concatenate { 2 } else { 1 },
        plain,
        tail: site.write("rest", results.tail)?,
        first_rows: input.first_rows() as u64,
        ..element_target(first, rows, columns)
    };
    let input = site.rows("input", input)?;
    let weight = fp32_rows(site.read("weight", weight)?, lines, depth);
    let (launch, paired) = multiply_launch(rows, columns);
    let args = LinearArgs { input, weight, target, paired };
    // SAFETY: the arrays are the site's; that their sizes agree is the test's business.
    unsafe { site.launch(kernel, launch, args) }
}

/// The gradients of weight and bias, `(out, in)` and `out` behind them, for each part of `part_rows` rows.
///
/// # Errors
///
/// What the backend reports.
pub fn weigh<'a, T: GpuElement>(
    backend: &Backend,
    is_exact: bool,
    upstream: Matrix<'a, T>,
    input: Matrix<'a, T>,
    bias_rows: usize,
    part_rows: usize,
    results: &'a mut [f32],
) -> Result<()> {
    let mut site = Site::new(backend)?;
    let (outputs, inputs) = (upstream.columns, input.columns);
    let parts = upstream.rows().div_ceil(part_rows);
    let kernels = products::<T>(is_exact);
    let kernel = if upstream.first.is_empty() { kernels.weight_of_numbers } else { kernels.weight };
    let weight = site.write("gradient", results)?;
    let (launch, paired) = weigh_launch(outputs, inputs, parts);
    let args = LinearWeightArgs {
        upstream: site.rows("upstream", upstream)?,
        input: site.rows("input", input)?,
        bias_rows: bias_rows as u64,
        weight,
        bias: weight.wrapping_add(outputs * inputs),
        part_rows: part_rows as u64,
        part_words: (outputs * inputs + outputs) as u64,
        paired,
    };
    // SAFETY: as in `multiply`.
    unsafe { site.launch(kernel, launch, args) }
}

/// The sums over `parts` of `(batch, parts, length)` numbers.
///
/// # Errors
///
/// What the backend reports.
pub fn sum<'a>(
    backend: &Backend,
    partial: &'a [f32],
    parts: usize,
    batch: usize,
    total: &'a mut [f32],
) -> Result<()> {
    let mut site = Site::new(backend)?;
    let length = total.len() / batch;
    let args = SumArgs {
        partial: site.read("partial", partial)?,
        total: site.write("total", total)?,
        parts: parts as u32,
        length: length as u64,
    };
    // SAFETY: as in `multiply`.
    unsafe { site.launch(SUM, BlockPlan::<f32>::sum_launch(length, batch as u32), args) }
}

/// The gradient `source`, rows of `columns` elements `stride` apart, back through a dropout of these numbers and probability.
///
/// # Errors
///
/// What the backend reports.
pub fn drop_back<'a, T: GpuElement>(
    backend: &Backend,
    source: Matrix<'a, T>,
    (numbers, probability): (&'a [f32], f32),
    target: &'a mut [T],
) -> Result<()> {
    let mut site = Site::new(backend)?;
    let elements = target.len();
    let args = DropArgs {
        source: site.read("source", source.first)?.cast(),
        target: site.write("target", target)?.cast(),
        dropout: dropout(site.read("dropout", numbers)?, Some(probability)),
        rows: source.first_rows() as u64,
        columns: source.columns as u32,
        stride: source.stride as u32,
    };
    // SAFETY: as in `multiply`.
    unsafe { site.launch(T::Kernel::DROP, Plan::element_launch(elements), args) }
}
