//! The kernels by name, one per element type and way to deal out channels.

use crate::args::{
    AddPartsArgs, BackwardArgs, Bf16, F16, ForwardArgs, GatherArgs, ListArgs, ReadArgs, RoundArgs,
};
#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
use crate::{
    backward::{ByLanes, ByMemory, Multiply, Scatter, backward},
    channels::{Any, Wide},
    forward::{self, ByWorkers, forward},
    gather::gather,
    lists, naive,
    parts::add_parts,
    read::read,
    round::round,
};
#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
use cuda_std::kernel;

/// A kernel that takes one argument of type `A`.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Entry<A> {
    /// Its name in the PTX.
    pub name: &'static str,
    /// The body of one thread, for the emulator.
    #[cfg(feature = "emulator")]
    pub thread: unsafe fn(A),
    #[cfg(not(feature = "emulator"))]
    pub(crate) marker: core::marker::PhantomData<fn(A)>,
}

/// The entry of a kernel of this name.
#[cfg(not(target_arch = "nvptx64"))]
macro_rules! entry {
    ($name:ident) => {
        Entry {
            name: stringify!($name),
            #[cfg(feature = "emulator")]
            thread: $name,
            #[cfg(not(feature = "emulator"))]
            marker: core::marker::PhantomData,
        }
    };
}

/// The kernels of one element type.
#[cfg(not(target_arch = "nvptx64"))]
pub trait Kernels: Copy + Sized + 'static {
    /// Elements in a 16-byte vector. The `WIDE` kernels need the channels of a group to be a multiple
    /// of it, and every array aligned to 16 bytes.
    const PER_VECTOR: u32;
    /// Forward, 16 bytes at a time.
    const FORWARD_WIDE: Entry<ForwardArgs<Self>>;
    /// Forward on tensor cores, for 16-bit types, 16 bytes at a time.
    const FORWARD_TENSOR: Option<Entry<ForwardArgs<Self>>>;
    /// Forward, any number of channels and groups.
    const FORWARD_ANY: Entry<ForwardArgs<Self>>;
    /// Adds up the parts of the output.
    const ADD_PARTS: Entry<AddPartsArgs<Self>>;
    /// Gradients of locations and weights, 16 bytes at a time. The vectors of a group must be a power of two, and a group must
    /// fit the tile of `lanes` lanes.
    const BACKWARD_WIDE: Entry<BackwardArgs<Self>>;
    /// Gradients of locations and weights, 16 bytes at a time, groups of any number of vectors.
    const BACKWARD_UNEVEN: Entry<BackwardArgs<Self>>;
    /// Gradients of locations and weights, any number of channels and groups.
    const BACKWARD_ANY: Entry<BackwardArgs<Self>>;
    /// Gradient of the features by ownership, 16 bytes at a time; as for forward.
    const GATHER_WIDE: Entry<GatherArgs<Self>>;
    /// Gradient of the features by ownership, any number of channels and groups.
    const GATHER_ANY: Entry<GatherArgs<Self>>;
    /// All three gradients in one, where maps share pixels; otherwise as `BACKWARD_WIDE`.
    const SCATTER_WIDE: Entry<BackwardArgs<Self>>;
    /// All three gradients in one, where maps share pixels; otherwise as `BACKWARD_UNEVEN`.
    const SCATTER_UNEVEN: Entry<BackwardArgs<Self>>;
    /// All three gradients in one, where maps share pixels, any number of channels and groups.
    const SCATTER_ANY: Entry<BackwardArgs<Self>>;
    /// The published forward algorithm.
    const FORWARD_NAIVE: Entry<ForwardArgs<Self, f32>>;
    /// The published backward algorithm.
    const BACKWARD_NAIVE: Entry<BackwardArgs<Self, f32>>;
    /// Rounds fp32 sums to the element type; nothing to do, and no kernel, for fp32.
    const ROUND: Option<Entry<RoundArgs<Self>>>;
}

/// Counts the points of each tile's list.
#[cfg(not(target_arch = "nvptx64"))]
pub const COUNT_POINTS: Entry<ListArgs> = entry!(count_points);

/// Says where the list of each tile begins.
#[cfg(not(target_arch = "nvptx64"))]
pub const PLACE_LISTS: Entry<ListArgs> = entry!(place_lists);

/// Writes points into the lists.
#[cfg(not(target_arch = "nvptx64"))]
pub const FILL_LISTS: Entry<ListArgs> = entry!(fill_lists);

/// Sorts the lists.
#[cfg(not(target_arch = "nvptx64"))]
pub const SORT_LISTS: Entry<ListArgs> = entry!(sort_lists);

/// Reads an array over and over, to measure how fast that goes.
#[cfg(not(target_arch = "nvptx64"))]
pub const READ_WORDS: Entry<ReadArgs> = entry!(read_words);

/// Declares kernels, and for the host an [`Entry`] for each.
macro_rules! entries {
    ($($name:ident($args:ty) = $body:path;)*) => {$(
        /// See the module of the kernel's name.
        ///
        /// # Safety
        ///
        /// The pointers of `args` are valid as its type says, for the sizes it gives, and the launch
        /// has the shape the kernel's module states.
        #[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
        #[kernel]
        pub(crate) unsafe fn $name(args: $args) {
            crate::memory::await_launches_before();
            // SAFETY: the caller's promise is the same.
            unsafe { $body(args) }
        }
    )*

        /// The names of all kernels of this file.
        #[cfg(test)]
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

entries! {
    forward_wide_f32(ForwardArgs<f32>) = forward::<f32, ByWorkers<Wide>>;
    forward_wide_f16(ForwardArgs<F16>) = forward::<F16, ByWorkers<Wide>>;
    forward_wide_bf16(ForwardArgs<Bf16>) = forward::<Bf16, ByWorkers<Wide>>;
    forward_any_f32(ForwardArgs<f32>) = forward::<f32, ByWorkers<Any>>;
    forward_tensor_f16(ForwardArgs<F16>) = forward::<F16, forward::ByTensor>;
    forward_any_f16(ForwardArgs<F16>) = forward::<F16, ByWorkers<Any>>;
    forward_tensor_bf16(ForwardArgs<Bf16>) = forward::<Bf16, forward::ByTensor>;
    forward_any_bf16(ForwardArgs<Bf16>) = forward::<Bf16, ByWorkers<Any>>;
    backward_wide_f32(BackwardArgs<f32>) = backward::<f32, Multiply<Wide, ByLanes>>;
    backward_uneven_f32(BackwardArgs<f32>) = backward::<f32, Multiply<Wide, ByMemory>>;
    scatter_wide_f32(BackwardArgs<f32>) = backward::<f32, Scatter<Wide, ByLanes>>;
    scatter_uneven_f32(BackwardArgs<f32>) = backward::<f32, Scatter<Wide, ByMemory>>;
    gather_wide_f32(GatherArgs<f32>) = gather::<f32, Wide>;
    backward_wide_f16(BackwardArgs<F16>) = backward::<F16, Multiply<Wide, ByLanes>>;
    backward_uneven_f16(BackwardArgs<F16>) = backward::<F16, Multiply<Wide, ByMemory>>;
    scatter_wide_f16(BackwardArgs<F16>) = backward::<F16, Scatter<Wide, ByLanes>>;
    scatter_uneven_f16(BackwardArgs<F16>) = backward::<F16, Scatter<Wide, ByMemory>>;
    gather_wide_f16(GatherArgs<F16>) = gather::<F16, Wide>;
    backward_wide_bf16(BackwardArgs<Bf16>) = backward::<Bf16, Multiply<Wide, ByLanes>>;
    backward_uneven_bf16(BackwardArgs<Bf16>) = backward::<Bf16, Multiply<Wide, ByMemory>>;
    scatter_wide_bf16(BackwardArgs<Bf16>) = backward::<Bf16, Scatter<Wide, ByLanes>>;
    scatter_uneven_bf16(BackwardArgs<Bf16>) = backward::<Bf16, Scatter<Wide, ByMemory>>;
    gather_wide_bf16(GatherArgs<Bf16>) = gather::<Bf16, Wide>;
    backward_any_f32(BackwardArgs<f32>) = backward::<f32, Multiply<Any, ByMemory>>;
    scatter_any_f32(BackwardArgs<f32>) = backward::<f32, Scatter<Any, ByMemory>>;
    gather_any_f32(GatherArgs<f32>) = gather::<f32, Any>;
    backward_any_f16(BackwardArgs<F16>) = backward::<F16, Multiply<Any, ByMemory>>;
    scatter_any_f16(BackwardArgs<F16>) = backward::<F16, Scatter<Any, ByMemory>>;
    gather_any_f16(GatherArgs<F16>) = gather::<F16, Any>;
    backward_any_bf16(BackwardArgs<Bf16>) = backward::<Bf16, Multiply<Any, ByMemory>>;
    scatter_any_bf16(BackwardArgs<Bf16>) = backward::<Bf16, Scatter<Any, ByMemory>>;
    gather_any_bf16(GatherArgs<Bf16>) = gather::<Bf16, Any>;
    forward_naive_f32(ForwardArgs<f32, f32>) = naive::forward::forward::<f32>;
    forward_naive_f16(ForwardArgs<F16, f32>) = naive::forward::forward::<F16>;
    forward_naive_bf16(ForwardArgs<Bf16, f32>) = naive::forward::forward::<Bf16>;
    backward_naive_f32(BackwardArgs<f32, f32>) = naive::backward::backward::<f32>;
    backward_naive_f16(BackwardArgs<F16, f32>) = naive::backward::backward::<F16>;
    backward_naive_bf16(BackwardArgs<Bf16, f32>) = naive::backward::backward::<Bf16>;
    add_parts_f32(AddPartsArgs<f32>) = add_parts::<f32>;
    add_parts_f16(AddPartsArgs<F16>) = add_parts::<F16>;
    add_parts_bf16(AddPartsArgs<Bf16>) = add_parts::<Bf16>;
    round_f16(RoundArgs<F16>) = round::<F16>;
    round_bf16(RoundArgs<Bf16>) = round::<Bf16>;
    count_points(ListArgs) = lists::count;
    place_lists(ListArgs) = lists::place;
    fill_lists(ListArgs) = lists::fill;
    sort_lists(ListArgs) = lists::sort;
    read_words(ReadArgs) = read;
}

#[cfg(not(target_arch = "nvptx64"))]
impl Kernels for f32 {
    const PER_VECTOR: u32 = 4;
    const FORWARD_WIDE: Entry<ForwardArgs<Self>> = entry!(forward_wide_f32);
    const FORWARD_TENSOR: Option<Entry<ForwardArgs<Self>>> = None;
    const FORWARD_ANY: Entry<ForwardArgs<Self>> = entry!(forward_any_f32);
    const ADD_PARTS: Entry<AddPartsArgs<Self>> = entry!(add_parts_f32);
    const BACKWARD_WIDE: Entry<BackwardArgs<Self>> = entry!(backward_wide_f32);
    const BACKWARD_UNEVEN: Entry<BackwardArgs<Self>> = entry!(backward_uneven_f32);
    const BACKWARD_ANY: Entry<BackwardArgs<Self>> = entry!(backward_any_f32);
    const GATHER_WIDE: Entry<GatherArgs<Self>> = entry!(gather_wide_f32);
    const GATHER_ANY: Entry<GatherArgs<Self>> = entry!(gather_any_f32);
    const SCATTER_WIDE: Entry<BackwardArgs<Self>> = entry!(scatter_wide_f32);
    const SCATTER_UNEVEN: Entry<BackwardArgs<Self>> = entry!(scatter_uneven_f32);
    const SCATTER_ANY: Entry<BackwardArgs<Self>> = entry!(scatter_any_f32);
    const FORWARD_NAIVE: Entry<ForwardArgs<Self, f32>> = entry!(forward_naive_f32);
    const BACKWARD_NAIVE: Entry<BackwardArgs<Self, f32>> = entry!(backward_naive_f32);
    const ROUND: Option<Entry<RoundArgs<Self>>> = None;
}

#[cfg(not(target_arch = "nvptx64"))]
impl Kernels for F16 {
    const PER_VECTOR: u32 = 8;
    const FORWARD_WIDE: Entry<ForwardArgs<Self>> = entry!(forward_wide_f16);
    const FORWARD_TENSOR: Option<Entry<ForwardArgs<Self>>> = Some(entry!(forward_tensor_f16));
    const FORWARD_ANY: Entry<ForwardArgs<Self>> = entry!(forward_any_f16);
    const ADD_PARTS: Entry<AddPartsArgs<Self>> = entry!(add_parts_f16);
    const BACKWARD_WIDE: Entry<BackwardArgs<Self>> = entry!(backward_wide_f16);
    const BACKWARD_UNEVEN: Entry<BackwardArgs<Self>> = entry!(backward_uneven_f16);
    const BACKWARD_ANY: Entry<BackwardArgs<Self>> = entry!(backward_any_f16);
    const GATHER_WIDE: Entry<GatherArgs<Self>> = entry!(gather_wide_f16);
    const GATHER_ANY: Entry<GatherArgs<Self>> = entry!(gather_any_f16);
    const SCATTER_WIDE: Entry<BackwardArgs<Self>> = entry!(scatter_wide_f16);
    const SCATTER_UNEVEN: Entry<BackwardArgs<Self>> = entry!(scatter_uneven_f16);
    const SCATTER_ANY: Entry<BackwardArgs<Self>> = entry!(scatter_any_f16);
    const FORWARD_NAIVE: Entry<ForwardArgs<Self, f32>> = entry!(forward_naive_f16);
    const BACKWARD_NAIVE: Entry<BackwardArgs<Self, f32>> = entry!(backward_naive_f16);
    const ROUND: Option<Entry<RoundArgs<Self>>> = Some(entry!(round_f16));
}

#[cfg(not(target_arch = "nvptx64"))]
impl Kernels for Bf16 {
    const PER_VECTOR: u32 = 8;
    const FORWARD_WIDE: Entry<ForwardArgs<Self>> = entry!(forward_wide_bf16);
    const FORWARD_TENSOR: Option<Entry<ForwardArgs<Self>>> = Some(entry!(forward_tensor_bf16));
    const FORWARD_ANY: Entry<ForwardArgs<Self>> = entry!(forward_any_bf16);
    const ADD_PARTS: Entry<AddPartsArgs<Self>> = entry!(add_parts_bf16);
    const BACKWARD_WIDE: Entry<BackwardArgs<Self>> = entry!(backward_wide_bf16);
    const BACKWARD_UNEVEN: Entry<BackwardArgs<Self>> = entry!(backward_uneven_bf16);
    const BACKWARD_ANY: Entry<BackwardArgs<Self>> = entry!(backward_any_bf16);
    const GATHER_WIDE: Entry<GatherArgs<Self>> = entry!(gather_wide_bf16);
    const GATHER_ANY: Entry<GatherArgs<Self>> = entry!(gather_any_bf16);
    const SCATTER_WIDE: Entry<BackwardArgs<Self>> = entry!(scatter_wide_bf16);
    const SCATTER_UNEVEN: Entry<BackwardArgs<Self>> = entry!(scatter_uneven_bf16);
    const SCATTER_ANY: Entry<BackwardArgs<Self>> = entry!(scatter_any_bf16);
    const FORWARD_NAIVE: Entry<ForwardArgs<Self, f32>> = entry!(forward_naive_bf16);
    const BACKWARD_NAIVE: Entry<BackwardArgs<Self, f32>> = entry!(backward_naive_bf16);
    const ROUND: Option<Entry<RoundArgs<Self>>> = Some(entry!(round_bf16));
}
