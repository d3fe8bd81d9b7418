//! What a launch hands to the kernels of the attention block: plain structures, the same bytes on both sides.
//!
//! As in [`args`](crate::args). Letters besides those of the operator: `R = B * A` anchors of all batch items, `E` the
//! length of an instance feature, which equals `C`. Parameters are fp32 whatever the element type `T`.

use crate::args::Divisor;
use crate::tiles::Tiles;

/// A matrix that kernels read: rows of elements, and rows of fp32 numbers behind them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Rows<T> {
    /// The first rows, `stride` elements apart.
    pub first: *const T,
    /// Rows of the same stride that are added to the first ones; null for none.
    pub added: *const T,
    /// The other rows, `columns` apart.
    pub tail: *const f32,
    /// Rows at `first`.
    pub first_rows: u64,
    /// All rows.
    pub rows: u64,
    /// Columns of all rows.
    pub columns: u32,
    /// Distance of the rows at `first` and `added`.
    pub stride: u32,
    /// 1 when every row of every part begins and ends at a multiple of 16 bytes, else 0.
    pub wide: u32,
}

/// Elements that are zeroed at random in training, while the others grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// A number from 0 to 1 for each element; null to generate them from the seed.
    pub numbers: *const f32,
    /// The seed of the generator.
    pub seed: u64,
    /// Numbers of the same seed and different streams are independent.
    pub stream: u32,
    /// Elements whose number is smaller are zeroed.
    pub threshold: f32,
    /// 1 to zero elements whose number equals the threshold, too, else 0.
    pub zero_equal: u32,
    /// What the others are multiplied with; 0 where there is no dropout.
    pub scale: f32,
}

impl Dropout {
    /// Leaves every element as it is.
    pub const NONE: Self = Self {
        numbers: core::ptr::null(),
        seed: 0,
        stream: 0,
        threshold: 0.0,
        zero_equal: 0,
        scale: 0.0,
    };

    /// Whether there is any dropout.
    #[inline(always)]
    pub fn is_active(&self) -> bool {
        self.scale != 0.0
    }

    /// What an element that is not zeroed is multiplied with.
    #[inline(always)]
    pub fn kept(&self) -> f32 {
        if self.is_active() { self.scale } else { 1.0 }
    }
}

/// Where a product of matrices goes, and what is done to it on the way.
///
/// For the first rows, `first = (product + bias) * dropout + addend + residual`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Target<T> {
    /// A number for each column, added to the rows below `bias_rows`; null for none.
    pub bias: *const f32,
    /// Rows that get the bias.
    pub bias_rows: u64,
    /// Applied to the first rows.
    pub dropout: Dropout,
    /// `(first_rows, columns)`, added after the dropout; null for none.
    pub addend: *const f32,
    /// Rows of `residual_stride` elements, added last; null for none.
    pub residual: *const T,
    /// Distance of the residual's rows.
    pub residual_stride: u32,
    /// 1 to write the residual behind the product, in columns `columns` to `2 * columns`, instead of adding it.
    pub concatenate: u32,
    /// Result of the first rows, `stride` elements apart.
    pub first: *mut T,
    /// Distance of the rows at `first`.
    pub stride: u32,
    /// Columns of the product.
    pub columns: u32,
    /// `(first_rows, columns)`: the same without addend, residual and dropout; null for none.
    pub plain: *mut T,
    /// Result of the other rows, `columns` apart, without addend, residual and dropout.
    pub tail: *mut f32,
    /// Rows that go to `first`.
    pub first_rows: u64,
    /// All rows.
    pub rows: u64,
}

/// Arguments of the kernel that takes a gradient back through dropout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DropArgs<T> {
    /// Rows of `stride` elements.
    pub source: *const T,
    /// `(rows, columns)` result.
    pub target: *mut T,
    /// What every element is multiplied with.
    pub dropout: Dropout,
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub columns: u32,
    /// Distance of the source's rows.
    pub stride: u32,
}

/// Arguments of the linear layer and of the gradient of its input.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LinearArgs<T> {
    /// `(rows, in)` input, or `(rows, out)` gradient of the output.
    pub input: Rows<T>,
    /// `(out, in)` weight.
    pub weight: Rows<T>,
    /// `(rows, out)` output, or `(rows, in)` gradient of the input.
    pub target: Target<T>,
    /// Which tiles a block computes.
    pub tiles: Tiles,
}

/// Arguments of the gradient of a linear layer's weight and bias.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LinearWeightArgs<T> {
    /// `(rows, out)` gradient of the output.
    pub upstream: Rows<T>,
    /// `(rows, in)` input. Nothing is added to its elements where they have 16 bits and the gradient of the output comes in elements.
    pub input: Rows<T>,
    /// Rows that had the bias added.
    pub bias_rows: u64,
    /// For each part of the rows, `(out, in)` sums.
    pub weight: *mut f32,
    /// For each part of the rows, `out` sums.
    pub bias: *mut f32,
    /// Rows of a part.
    pub part_rows: u32,
    /// Words between the sums of one part and those of the next.
    pub part_words: u64,
    /// Which tiles a block computes.
    pub tiles: Tiles,
}

/// Arguments of the kernel that adds up partial sums.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SumArgs {
    /// `(batch, parts, length)` partial sums.
    pub partial: *const f32,
    /// `(batch, length)` sums.
    pub total: *mut f32,
    /// Partial sums of each number.
    pub parts: u32,
    /// Numbers of a batch item.
    pub length: u64,
}

/// The sizes of a block.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Batch items, `B`.
    pub batch: u32,
    /// Anchors of a batch item, `A`.
    pub anchors: u32,
    /// Key points of an anchor, `P`.
    pub points: u32,
    /// Cameras, `N`.
    pub cameras: u32,
    /// Levels, `L`.
    pub levels: u32,
    /// Weight groups, `G`; divides `channels`.
    pub groups: u32,
    /// Channels, `C = E`.
    pub channels: u32,
    /// Which locations count, [`rule`](crate::args::rule).
    pub rule: u32,
    /// `points`, to divide by.
    pub by_points: Divisor,
    /// `cameras`, to divide by.
    pub by_cameras: Divisor,
    /// `groups`, to divide by.
    pub by_groups: Divisor,
    /// Lanes of a warp that share the weights of a (point, camera) pair, a power of two up to 32.
    pub weight_lanes: u32,
}

impl BlockSizes {
    /// (point, camera) pairs of an anchor.
    #[inline(always)]
    pub const fn pairs(&self) -> u32 {
        self.points * self.cameras
    }

    /// Logits of an anchor for one camera.
    #[inline(always)]
    pub const fn logits(&self) -> u32 {
        self.levels * self.points * self.groups
    }

    /// Weights of a (point, camera) pair.
    #[inline(always)]
    pub const fn weights_of_pair(&self) -> u32 {
        self.levels * self.groups
    }
}

/// How key points follow from an anchor: the value of [`Generator::kind`].
pub mod generator {
    /// Points of a rotated box.
    pub const BOX: u32 = 0;
    /// Points around the vertices of a polyline.
    pub const POLYLINE: u32 = 1;
}

/// How key points follow from an anchor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    /// Box: `(fixed, 3)` offsets in units of the size. Polyline: a height for each of `fixed`.
    pub table: *const f32,
    /// [`generator::BOX`] or [`generator::POLYLINE`].
    pub kind: u32,
    /// Box: points at fixed offsets. Polyline: heights of each vertex.
    pub fixed: u32,
    /// Box: points at learned offsets. Polyline: points at each height, with learned offsets; 1 without any.
    pub learned: u32,
    /// Polyline: vertices.
    pub vertices: u32,
    /// Numbers of an anchor.
    pub anchor_dims: u32,
    /// Polyline: height that the heights are counted from.
    pub ground: f32,
}

impl Generator {
    /// Numbers that the learned offsets of an anchor are.
    #[inline(always)]
    pub const fn offsets(&self) -> u32 {
        if self.kind == generator::BOX {
            3 * self.learned
        } else {
            2 * self.vertices * self.fixed * self.learned
        }
    }
}

/// What the key points of an anchor and their places in the images follow from.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// The sizes.
    pub sizes: BlockSizes,
    /// How key points follow from an anchor.
    pub generator: Generator,
    /// `(R, anchor_dims)` anchors.
    pub anchors: *const f32,
    /// `(R, offsets)` what the linear layer made of the instance features; null where nothing is learned.
    pub offsets: *const f32,
    /// `(B, N, 4, 4)` matrices from space to pixels.
    pub projections: *const f32,
    /// `(B, N, 2)` width and height of the images; null where matrices map to fractions of them.
    pub image_wh: *const f32,
}

/// Arguments of the kernel of key points and their projection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PointsArgs {
    /// What goes in.
    pub geometry: Geometry,
    /// `(R, P, 3)` key points.
    pub key_points: *mut f32,
    /// `(R, P, N, 2)` their places, in fractions of the image.
    pub locations: *mut f32,
    /// `(R, P, N)`: 1 where a camera does not see the point and another one does, else 0; null to leave it out.
    pub hidden: *mut u32,
}

/// Arguments of the backward kernels of key points and projection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PointsGradientArgs {
    /// What went in.
    pub geometry: Geometry,
    /// `(R, P, 3)` key points.
    pub key_points: *const f32,
    /// `(R, P, N, 2)` their places.
    pub locations: *const f32,
    /// `(R, P, N, 2)` gradient of the places.
    pub grad_locations: *const f32,
    /// `(R, anchor_dims)` gradient of the anchors.
    pub grad_anchors: *mut f32,
    /// `(R, offsets)` gradient of what the linear layer made.
    pub grad_offsets: *mut f32,
    /// `(B, N, parts, 3, 4)` sums over parts of the points.
    pub projection_parts: *mut f32,
}

/// The logits of the attention weights: for an anchor and a camera, `(L, P, G)` numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Logits {
    /// `(R, L * P * G)`, the same for every camera, or `(R, N * L * P * G)`.
    pub anchor: *const f32,
    /// `(B, N, L * P * G)`, added to those of the anchors; null where they have logits for each camera.
    pub camera: *const f32,
    /// `(R, P, N)`: not 0 where the logit is minus infinity; null for nowhere.
    pub hidden: *const u32,
    /// Applied to the weights; the numbers are `(R, N, P)`.
    pub dropout: Dropout,
}

/// Arguments of the kernel that makes weights of logits.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WeightsArgs<T> {
    /// The sizes.
    pub sizes: BlockSizes,
    /// The logits.
    pub logits: Logits,
    /// `(R, P, N, 2)` sampling locations.
    pub locations: *const f32,
    /// `(R, G, 2)`: the largest logit times log₂ e, and one over the sum of `exp(logit - largest)`.
    pub statistics: *mut f32,
    /// `(R, P, N, L, G)` weights, written where the location counts.
    pub weights: *mut T,
    /// Anchors that a block works on.
    pub run: u32,
    /// 1 when shared memory has room for a table of the cameras' logits, and no logit is minus infinity; else 0.
    pub has_table: u32,
}

/// Arguments of the backward kernel of the softmax.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WeightsGradientArgs<T> {
    /// The sizes.
    pub sizes: BlockSizes,
    /// The logits.
    pub logits: Logits,
    /// `(R, G, 2)` as [`WeightsArgs::statistics`].
    pub statistics: *const f32,
    /// `(R, P, N, 2)` sampling locations.
    pub locations: *const f32,
    /// `(R, P, N, L, G)` gradient of the weights, read where the location counts.
    pub grad_weights: *const T,
    /// `(R, C)` what the operator made.
    pub features: *const T,
    /// `(R, C)` its gradient.
    pub grad_features: *const T,
    /// Gradient of [`Logits::anchor`].
    pub grad_anchor: *mut f32,
    /// `(B, runs, N, L * P * G)`: the gradient of [`Logits::camera`], summed over runs of anchors; null without them.
    pub camera_parts: *mut f32,
    /// Anchors of a run.
    pub run: u32,
    /// Runs of a batch item.
    pub runs: Divisor,
}

/// The parameters of the camera encoder.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// `(E, 12)` and `(E, E)` weights of the linear layers; the first is null where there is no encoder.
    pub weights: [*const f32; 2],
    /// `E` biases of each.
    pub biases: [*const f32; 2],
    /// `E` scales of each normalisation.
    pub scales: [*const f32; 2],
    /// `E` shifts of each.
    pub shifts: [*const f32; 2],
}

/// Arguments of the camera encoder's kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CameraArgs {
    /// The parameters.
    pub encoder: Encoder,
    /// `(B * N, 4, 4)` matrices.
    pub projections: *const f32,
    /// `E`.
    pub channels: u32,
    /// `(B * N, 2, E)` outputs of the linear layers after ReLU.
    pub rectified: *mut f32,
    /// `(B * N, E)` what goes into the second layer.
    pub middle: *mut f32,
    /// `(B * N, 2, 2)` mean, and one over the standard deviation, of each normalisation.
    pub moments: *mut f32,
    /// `(B * N, E)` the cameras' embeddings.
    pub output: *mut f32,
}

/// Arguments of the camera encoder's backward kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CameraGradientArgs {
    /// The parameters.
    pub encoder: Encoder,
    /// `(B * N, 4, 4)` matrices.
    pub projections: *const f32,
    /// `E`.
    pub channels: u32,
    /// Cameras of all batch items, `B * N`.
    pub rows: u32,
    /// As in [`CameraArgs`].
    pub rectified: *const f32,
    /// As in [`CameraArgs`].
    pub middle: *const f32,
    /// As in [`CameraArgs`].
    pub moments: *const f32,
    /// `(B * N, E)` gradient of the embeddings.
    pub grad_output: *const f32,
    /// `(B * N, 2, E)` gradients of what the linear layers make, before ReLU.
    pub grad_linear: *mut f32,
    /// `(B * N, E)` gradient of what goes into the second layer.
    pub grad_middle: *mut f32,
    /// `(B * N, parts, 3, 4)` sums of the matrices' gradient from the key points.
    pub projection_parts: *const f32,
    /// Parts of them.
    pub parts: u32,
    /// `(B * N, 4, 4)` gradient of the matrices.
    pub grad_projections: *mut f32,
    /// Gradients of the parameters, in the order of [`Encoder`].
    pub grad_weights: [*mut f32; 2],
    /// `E` each.
    pub grad_biases: [*mut f32; 2],
    /// `E` each.
    pub grad_scales: [*mut f32; 2],
    /// `E` each.
    pub grad_shifts: [*mut f32; 2],
}

/// Says that structures of addresses may go to the threads that launch.
macro_rules! shared_between_threads {
    ($($name:ident $(<$element:ident>)?),* $(,)?) => {$(
        // SAFETY: the structure only carries addresses; following them is the launch's business, and its obligation.
        unsafe impl $(<$element>)? Send for $name $(<$element>)? {}
        // SAFETY: as above.
        unsafe impl $(<$element>)? Sync for $name $(<$element>)? {}
    )*};
}

shared_between_threads! {
    Rows<T>, Dropout, Target<T>, DropArgs<T>, LinearArgs<T>, LinearWeightArgs<T>, SumArgs, Generator, Geometry, PointsArgs,
    PointsGradientArgs, Logits, WeightsArgs<T>, WeightsGradientArgs<T>, Encoder, CameraArgs, CameraGradientArgs,
}
