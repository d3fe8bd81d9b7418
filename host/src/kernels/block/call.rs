//! What a call of the block hands to a backend: checked sizes and contiguous slices in host memory.

use kernels_gpu::block_args::Dropout;

/// The numbers of a dropout.
#[derive(Clone, Debug)]
enum Numbers {
    /// Generated where they are needed.
    Seed(u64),
    /// 1 for what is kept, 0 for the others.
    Given(Vec<f32>),
}

/// One dropout of a call.
#[derive(Clone, Debug)]
pub(crate) struct BlockDropout {
    numbers: Numbers,
    stream: u32,
    threshold: f32,
    zero_equal: bool,
    scale: f32,
}

impl BlockDropout {
    /// Drops elements with this probability, by the numbers of a seed and stream. A number that equals the probability
    /// is dropped if `zero_equal`.
    pub(crate) fn seeded(seed: u64, stream: u32, probability: f64, zero_equal: bool) -> Self {
        Self {
            numbers: Numbers::Seed(seed),
            stream,
            threshold: probability as f32,
            zero_equal,
            scale: (1.0 - probability).recip() as f32,
        }
    }

    /// Drops what is not kept.
    pub(crate) fn given(kept: impl Iterator<Item = bool>, probability: f64) -> Self {
        Self {
            numbers: Numbers::Given(kept.map(|kept| if kept { 1.0 } else { 0.0 }).collect()),
            stream: 0,
            threshold: 0.5,
            zero_equal: true,
            scale: (1.0 - probability).recip() as f32,
        }
    }

    /// The numbers that have to be where the kernels run.
    pub(crate) fn numbers(&self) -> &[f32] {
        match &self.numbers {
            Numbers::Seed(_) => &[],
            Numbers::Given(numbers) => numbers,
        }
    }

    /// The dropout as the kernels see it, with its numbers at `numbers`.
    pub(crate) fn args(&self, numbers: *const f32) -> Dropout {
        let (numbers, seed) = match self.numbers {
            Numbers::Seed(seed) => (std::ptr::null(), seed),
            Numbers::Given(_) => (numbers, 0),
        };
        Dropout {
            numbers,
            seed,
            stream: self.stream,
            threshold: self.threshold,
            zero_equal: u32::from(self.zero_equal),
            scale: self.scale,
        }
    }
}

/// The arrays that a call reads, row-major.
#[derive(Clone, Copy)]
pub(crate) struct BlockSlices<'a, T> {
    /// As `Tensors::pack` makes it.
    pub(crate) parameters: &'a [f32],
    /// (B, A, E)
    pub(crate) instance_feature: &'a [T],
    /// (B, A, numbers of an anchor)
    pub(crate) anchor: &'a [f32],
    /// (B, A, E)
    pub(crate) anchor_embed: Option<&'a [T]>,
    /// (B, F, C)
    pub(crate) feature_maps: &'a [T],
    /// (B, N, 4, 4)
    pub(crate) projection_mat: &'a [f32],
    /// (B, N, 2)
    pub(crate) image_wh: Option<&'a [f32]>,
    /// Dropout of the weights, and of the projected output.
    pub(crate) dropouts: [Option<&'a BlockDropout>; 2],
}

/// Where the gradients of a call go, row-major. A backend writes every element, but of the parameters only those that
/// are trained.
pub(crate) struct BlockGradientSlices<'a, T> {
    pub(crate) instance_feature: &'a mut [T],
    pub(crate) anchor: &'a mut [f32],
    pub(crate) anchor_embed: Option<&'a mut [T]>,
    pub(crate) feature_maps: &'a mut [T],
    pub(crate) projection_mat: &'a mut [f32],
    pub(crate) parameters: &'a mut [f32],
}
