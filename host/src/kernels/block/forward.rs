//! Which kernels make up the block's forward pass.

use std::ptr;

use kernels_gpu::args::Level;
use kernels_gpu::block_args::{
    CameraArgs, Dropout, Encoder, Generator, Geometry, Logits, PointsArgs, Rows, Target,
    WeightsArgs,
};
use kernels_gpu::{BlockKernels, CAMERA, Kernels, POINTS};

use crate::error::Result;
use crate::kernels::block::plan::BlockPlan;
use crate::kernels::block::products;
use crate::kernels::{self, Begins, Executor, ForwardArrays};

/// What both passes read, where the kernels run.
#[derive(Clone, Copy)]
pub(crate) struct BlockArrays<K> {
    /// The table of the operator's plan.
    pub(crate) table: *const Level,
    /// As `Tensors::pack` makes it.
    pub(crate) parameters: *const f32,
    /// (B, A, E)
    pub(crate) instance_feature: *const K,
    /// (B, A, numbers of an anchor)
    pub(crate) anchor: *const f32,
    /// (B, A, E), or null.
    pub(crate) anchor_embed: *const K,
    /// (B, F, C)
    pub(crate) feature_maps: *const K,
    /// (B, N, 4, 4)
    pub(crate) projection_mat: *const f32,
    /// (B, N, 2), or null.
    pub(crate) image_wh: *const f32,
    /// Dropout of the weights, and of the projected output.
    pub(crate) dropouts: [Dropout; 2],
    /// What the forward pass leaves for the backward pass.
    pub(crate) saved: *mut u8,
}

impl<K: Kernels + BlockKernels> BlockArrays<K> {
    /// A parameter; null if the configuration does not have it.
    pub(super) fn parameter(&self, plan: &BlockPlan<K>, name: &str) -> *const f32 {
        let start = plan.tensors.start(name);
        start.map_or(ptr::null(), |start| self.parameters.wrapping_add(start))
    }

    /// The weight of a linear layer as a product reads it.
    pub(super) fn weight(
        &self,
        plan: &BlockPlan<K>,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Rows<K> {
        fp32_rows(self.parameter(plan, name), outputs, inputs)
    }

    pub(super) fn geometry(&self, plan: &BlockPlan<K>) -> Geometry {
        let table = self.parameters.wrapping_add(plan.tensors.table());
        let offsets = plan.saved.offsets.at(self.saved);
        Geometry {
            sizes: plan.sizes,
            generator: Generator { table, ..plan.generator },
            anchors: self.anchor,
            offsets: if plan.offsets > 0 { offsets } else { ptr::null() },
            projections: self.projection_mat,
            image_wh: self.image_wh,
        }
    }

    pub(super) fn logits(&self, plan: &BlockPlan<K>) -> Logits {
        let anchor = plan.saved.logits.at(self.saved);
        let camera = anchor.wrapping_add(plan.rows * plan.logits);
        let hidden = plan.saved.hidden.at(self.saved);
        Logits {
            anchor,
            camera: if plan.camera_rows > 0 { camera } else { ptr::null() },
            hidden: if plan.filters_outliers { hidden } else { ptr::null() },
            dropout: self.dropouts[0],
        }
    }

    pub(super) fn encoder(&self, plan: &BlockPlan<K>) -> Encoder {
        let pair = |names: [&str; 2]| names.map(|name| self.parameter(plan, name));
        Encoder {
            weights: pair(["camera_encoder.0.weight", "camera_encoder.3.weight"]),
            biases: pair(["camera_encoder.0.bias", "camera_encoder.3.bias"]),
            scales: pair(["camera_encoder.2.weight", "camera_encoder.5.weight"]),
            shifts: pair(["camera_encoder.2.bias", "camera_encoder.5.bias"]),
        }
    }

    /// The instance features.
    pub(super) fn instances(&self, plan: &BlockPlan<K>) -> Rows<K> {
        element_rows(self.instance_feature, plan.rows, plan.sizes.channels as usize)
    }

    /// Instance features plus anchor embeddings.
    fn embedded_instances(&self, plan: &BlockPlan<K>) -> Rows<K> {
        let instances = self.instances(plan);
        Rows {
            added: self.anchor_embed,
            wide: instances.wide & u32::from(self.anchor_embed.addr().is_multiple_of(16)),
            ..instances
        }
    }

    /// What the weights' linear layer takes: instance features plus anchor embeddings, and the cameras' embeddings behind.
    pub(super) fn embedded(&self, plan: &BlockPlan<K>) -> Rows<K> {
        Rows {
            tail: plan.saved.cameras.at(self.saved),
            rows: (plan.rows + plan.camera_rows) as u64,
            ..self.embedded_instances(plan)
        }
    }
}

/// Whether rows of that many bytes, the first at `address`, all begin at a multiple of 16.
fn aligned(address: usize, row_bytes: usize) -> bool {
    address.is_multiple_of(16) && row_bytes.is_multiple_of(16)
}

/// A matrix of fp32 numbers.
pub(super) fn fp32_rows<K>(pointer: *const f32, rows: usize, columns: usize) -> Rows<K> {
    Rows {
        first: ptr::null(),
        added: ptr::null(),
        tail: pointer,
        first_rows: 0,
        rows: rows as u64,
        columns: columns as u32,
        stride: 0,
        wide: u32::from(aligned(pointer.addr(), 4 * columns)),
    }
}

/// A matrix of elements without gaps.
pub(super) fn element_rows<K>(pointer: *const K, rows: usize, columns: usize) -> Rows<K> {
    strided_rows(pointer, rows, columns, columns)
}

/// A matrix of elements, its rows `stride` apart.
pub(super) fn strided_rows<K>(
    pointer: *const K,
    rows: usize,
    columns: usize,
    stride: usize,
) -> Rows<K> {
    Rows {
        first: pointer,
        added: ptr::null(),
        tail: ptr::null(),
        first_rows: rows as u64,
        rows: rows as u64,
        columns: columns as u32,
        stride: stride as u32,
        wide: u32::from(
            aligned(pointer.addr(), size_of::<K>() * stride)
                && (size_of::<K>() * columns).is_multiple_of(16),
        ),
    }
}

/// A product that goes to an array of fp32 numbers.
pub(super) fn fp32_target<K>(pointer: *mut f32, rows: usize, columns: usize) -> Target<K> {
    Target {
        bias: ptr::null(),
        bias_rows: 0,
        dropout: Dropout::NONE,
        addend: ptr::null(),
        residual: ptr::null(),
        residual_stride: 0,
        concatenate: 0,
        first: ptr::null_mut(),
        stride: 0,
        columns: columns as u32,
        plain: ptr::null_mut(),
        tail: pointer,
        first_rows: 0,
        rows: rows as u64,
    }
}

/// A product that goes to an array of elements.
pub(super) fn element_target<K>(pointer: *mut K, rows: usize, columns: usize) -> Target<K> {
    Target {
        first: pointer,
        stride: columns as u32,
        first_rows: rows as u64,
        ..fp32_target(ptr::null_mut(), rows, columns)
    }
}

/// The block's output, (B, A, output_dims).
///
/// # Safety
///
/// The arrays are valid for the plan's sizes until the launches are through; the output, what is saved and `scratch`, of
/// [`BlockPlan::forward_bytes`] bytes, are nobody else's.
pub(crate) unsafe fn forward<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    arrays: &BlockArrays<K>,
    output: *mut K,
    scratch: *mut f32,
) -> Result<()> {
    if plan.rows == 0 {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe {
        // Where points are seen and what instances and cameras score depend on none of the others.
        executor.together(
            Begins::First,
            |executor| score(executor, plan, arrays),
            |executor| {
                executor.together(
                    Begins::First,
                    |executor| look(executor, plan, arrays),
                    |executor| embed(executor, plan, arrays),
                )
            },
        )?;
        weigh(executor, plan, arrays)?;
        let operator = ForwardArrays {
            table: arrays.table,
            features: arrays.feature_maps,
            locations: plan.saved.locations.at(arrays.saved),
            weights: plan.saved.weights.at(arrays.saved),
            output: plan.saved.features.at_mut(arrays.saved),
            scratch,
        };
        kernels::forward(executor, &plan.operator, plan.algorithm, operator)?;
        project(executor, plan, arrays, output)
    }
}

/// Key points and their places in the images.
///
/// # Safety
///
/// As for [`forward`].
unsafe fn look<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    arrays: &BlockArrays<K>,
) -> Result<()> {
    let (channels, saved) = (plan.sizes.channels as usize, arrays.saved);
    // SAFETY: the caller's promise.
    unsafe {
        if plan.offsets > 0 {
            let name = "kps_generator.learnable_fc.weight";
            let offsets = plan.saved.offsets.at_mut(saved);
            let input = arrays.instances(plan);
            let weight = arrays.weight(plan, name, plan.offsets, channels);
            let target = Target {
                bias: arrays.parameter(plan, "kps_generator.learnable_fc.bias"),
                bias_rows: plan.rows as u64,
                ..fp32_target(offsets, plan.rows, plan.offsets)
            };
            products::multiply(executor, plan.products().linear, input, weight, target)?;
        }
        let hidden = plan.saved.hidden.at_mut(saved);
        let args = PointsArgs {
            geometry: arrays.geometry(plan),
            key_points: plan.saved.key_points.at_mut(saved),
            locations: plan.saved.locations.at_mut(saved),
            hidden: if plan.filters_outliers { hidden } else { ptr::null_mut() },
        };
        executor.launch(POINTS, plan.points_launch(), args)
    }
}

/// The embeddings of the cameras, and their logits.
///
/// # Safety
///
/// As for [`forward`].
unsafe fn embed<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    arrays: &BlockArrays<K>,
) -> Result<()> {
    if plan.camera_rows == 0 {
        return Ok(());
    }
    let saved = arrays.saved;
    let args = CameraArgs {
        encoder: arrays.encoder(plan),
        projections: arrays.projection_mat,
        channels: plan.sizes.channels,
        rectified: plan.saved.rectified.at_mut(saved),
        middle: plan.saved.middle.at_mut(saved),
        moments: plan.saved.moments.at_mut(saved),
        output: plan.saved.cameras.at_mut(saved),
    };
    let embeddings = fp32_rows(args.output, plan.camera_rows, plan.sizes.channels as usize);
    let target = fp32_target(plan.saved.logits.at_mut(saved), plan.camera_rows, plan.logits);
    let tail = target.tail.wrapping_add(plan.rows * plan.logits);
    // SAFETY: the caller's promise.
    unsafe {
        executor.launch(CAMERA, plan.camera_launch(), args)?;
        multiply_by_weights(executor, plan, arrays, embeddings, Target { tail, ..target })
    }
}

/// The logits of the anchors.
///
/// # Safety
///
/// As for [`forward`].
unsafe fn score<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    arrays: &BlockArrays<K>,
) -> Result<()> {
    let target = Target {
        // Once for each sum of an anchor's and a camera's logit.
        bias: arrays.parameter(plan, "weights_fc.bias"),
        bias_rows: plan.rows as u64,
        ..fp32_target(plan.saved.logits.at_mut(arrays.saved), plan.rows, plan.logits)
    };
    // SAFETY: the caller's promise.
    unsafe { multiply_by_weights(executor, plan, arrays, arrays.embedded_instances(plan), target) }
}

/// What the weights' linear layer makes of some of its rows.
///
/// # Safety
///
/// As for [`forward`].
unsafe fn multiply_by_weights<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    arrays: &BlockArrays<K>,
    input: Rows<K>,
    target: Target<K>,
) -> Result<()> {
    let channels = plan.sizes.channels as usize;
    let weight = arrays.weight(plan, "weights_fc.weight", plan.logits, channels);
    // SAFETY: the caller's promise.
    unsafe { products::multiply(executor, plan.products().linear, input, weight, target) }
}

/// The attention weights.
///
/// # Safety
///
/// As for [`forward`].
unsafe fn weigh<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    arrays: &BlockArrays<K>,
) -> Result<()> {
    let saved = arrays.saved;
    let args = WeightsArgs {
        sizes: plan.sizes,
        logits: arrays.logits(plan),
        locations: plan.saved.locations.at(saved),
        statistics: plan.saved.statistics.at_mut(saved),
        weights: plan.saved.weights.at_mut(saved),
        run: plan.weights.run,
        has_table: plan.weights.has_table.into(),
    };
    // SAFETY: the caller's promise.
    unsafe { executor.launch(K::WEIGHTS, plan.weights_launch(), args) }
}

/// From the operator's output to the block's.
///
/// # Safety
///
/// As for [`forward`].
unsafe fn project<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    arrays: &BlockArrays<K>,
    output: *mut K,
) -> Result<()> {
    let channels = plan.sizes.channels as usize;
    let features = plan.saved.features.at(arrays.saved);
    let input = element_rows(features, plan.rows, channels);
    let weight = arrays.weight(plan, "output_proj.weight", channels, channels);
    let target = Target {
        bias: arrays.parameter(plan, "output_proj.bias"),
        bias_rows: plan.rows as u64,
        dropout: arrays.dropouts[1],
        residual: arrays.instance_feature,
        residual_stride: plan.sizes.channels,
        concatenate: u32::from(plan.concatenates),
        stride: plan.output_dims() as u32,
        ..element_target(output, plan.rows, channels)
    };
    // SAFETY: the caller's promise.
    unsafe { products::multiply(executor, plan.products().linear, input, weight, target) }
}
