//! Which kernels make up the block's backward pass.

use std::ptr;

use kernels_gpu::args::Divisor;
use kernels_gpu::block_args::{
    CameraGradientArgs, DropArgs, PointsGradientArgs, Rows, SumArgs, Target, WeightsGradientArgs,
};
use kernels_gpu::{
    BlockKernels, CAMERA_GRADIENT, CAMERA_PARAMETERS, Kernels, POINTS_GRADIENT,
    PROJECTION_GRADIENT, SUM,
};

use crate::error::Result;
use crate::kernels::block::forward::{
    BlockArrays, element_rows, element_target, fp32_rows, fp32_target, strided_rows,
};
use crate::kernels::block::plan::BlockPlan;
use crate::kernels::block::products;
use crate::kernels::{Backward, BackwardArrays, Begins, Executor, Plan};

/// What the backward pass reads and writes besides [`BlockArrays`], where the kernels run.
#[derive(Clone, Copy)]
pub(crate) struct BlockGradientArrays<K> {
    /// Gradient of the output, (B, A, output_dims).
    pub(crate) output: *const K,
    /// The gradients, each of the dimensions of what it is the gradient of.
    pub(crate) instance_feature: *mut K,
    pub(crate) anchor: *mut f32,
    /// Null where there is no anchor embedding.
    pub(crate) anchor_embed: *mut K,
    pub(crate) feature_maps: *mut K,
    pub(crate) projection_mat: *mut f32,
    /// As the parameters; written as far as they are trained.
    pub(crate) parameters: *mut f32,
    /// `Scratch::bytes` bytes.
    pub(crate) scratch: *mut u8,
}

/// The gradients of `sum(output * grad_output)`.
///
/// # Safety
///
/// The arrays are valid for the plan's sizes until the launches are through, and `arrays` those of the forward pass,
/// which has left what is saved; the gradients and the scratch are nobody else's.
pub(crate) unsafe fn backward<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    arrays: &BlockArrays<K>,
    gradients: &BlockGradientArrays<K>,
) -> Result<()> {
    let call = Call { executor, plan, arrays, gradients };
    // SAFETY: the caller's promise.
    unsafe {
        if plan.rows == 0 {
            return call.nothing();
        }
        let upstream = call.through_dropout()?;
        let operator = call.operator()?;
        executor.together(
            Begins::First,
            |executor| {
                let project = |executor: &E| Call { executor, ..call }.project(&upstream);
                operator.visit_beside(executor, project)
            },
            |executor| Call { executor, ..call }.projection_parameters(&upstream),
        )?;
        // Nothing here waits for the feature gradient, whose blocks make way all the time.
        executor.together(
            Begins::First,
            |executor| operator.finish(executor),
            |executor| Call { executor, ..call }.attend(),
        )
    }
}

/// One backward pass.
struct Call<'a, K, E> {
    executor: &'a E,
    plan: &'a BlockPlan<K>,
    arrays: &'a BlockArrays<K>,
    gradients: &'a BlockGradientArrays<K>,
}

impl<K: Kernels + BlockKernels, E: Executor> Call<'_, K, E> {
    fn channels(&self) -> usize {
        self.plan.sizes.channels as usize
    }

    /// Without an anchor no gradient has a term.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn nothing(&self) -> Result<()> {
        let Self { executor, plan, gradients, .. } = self;
        let bytes = plan.operator.features * size_of::<K>();
        let matrices = (plan.sizes.batch * plan.sizes.cameras * 16 * 4) as usize;
        let trained = plan.tensors.trained_words * 4;
        // SAFETY: the caller's promise.
        unsafe {
            executor.zero("feature gradient", gradients.feature_maps.cast(), bytes)?;
            executor.zero("matrix gradient", gradients.projection_mat.cast(), matrices)?;
            executor.zero("parameter gradient", gradients.parameters.cast(), trained)
        }
    }

    /// The gradient of the projected output, from that of the block's.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn through_dropout(&self) -> Result<Rows<K>> {
        let Self { executor, plan, arrays, gradients } = self;
        let channels = self.channels();
        if !arrays.dropouts[1].is_active() {
            return Ok(strided_rows(gradients.output, plan.rows, channels, plan.output_dims()));
        }
        let target = plan.scratch.projected.at_mut(gradients.scratch);
        let args = DropArgs {
            source: gradients.output,
            target,
            dropout: arrays.dropouts[1],
            rows: plan.rows as u64,
            columns: plan.sizes.channels,
            stride: plan.output_dims() as u32,
        };
        // SAFETY: the caller's promise.
        unsafe { executor.launch(K::DROP, Plan::element_launch(plan.rows * channels), args)? };
        Ok(element_rows(target, plan.rows, channels))
    }

    /// From the gradient of the projected output to that of the operator's.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn project(&self, upstream: &Rows<K>) -> Result<()> {
        let Self { executor, plan, arrays, gradients } = self;
        let channels = self.channels();
        let weight = arrays.weight(plan, "output_proj.weight", channels, channels);
        let target = plan.scratch.features.at_mut(gradients.scratch);
        let target = element_target(target, plan.rows, channels);
        // SAFETY: the caller's promise.
        unsafe { products::multiply(*executor, plan.products().input, *upstream, weight, target) }
    }

    /// The parts of the gradients of the projection's parameters.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn projection_parameters(&self, upstream: &Rows<K>) -> Result<()> {
        let Self { plan, arrays, .. } = self;
        let features = plan.saved.features.at(arrays.saved);
        let features = element_rows(features, plan.rows, self.channels());
        // SAFETY: the caller's promise.
        unsafe { self.linear("output_proj.weight", *upstream, features) }
    }

    /// The operator's part.
    fn operator(&self) -> Result<Backward<'_, K>> {
        let Self { plan, arrays, gradients, .. } = self;
        let scratch = gradients.scratch;
        let operator = BackwardArrays {
            table: arrays.table,
            features: arrays.feature_maps,
            locations: plan.saved.locations.at(arrays.saved),
            weights: plan.saved.weights.at(arrays.saved),
            grad_output: plan.scratch.features.at(scratch),
            grad_features: gradients.feature_maps,
            grad_locations: plan.scratch.locations.at_mut(scratch),
            grad_weights: plan.scratch.weights.at_mut(scratch),
            leaves_unseen: true,
            scratch: plan.scratch.operator.at_mut(scratch),
        };
        Backward::new(&plan.operator, plan.algorithm, operator)
    }

    /// From the gradients of locations and weights to everything but that of the feature maps.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn attend(&self) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            self.executor.together(
                Begins::First,
                |executor| Call { executor, ..*self }.weigh(),
                |executor| Call { executor, ..*self }.look(),
            )?;
            self.executor.together(
                Begins::First,
                |executor| Call { executor, ..*self }.parameters(),
                |executor| {
                    let call = Call { executor, ..*self };
                    call.instances()?;
                    call.cameras()
                },
            )
        }
    }

    /// From the weights' gradient to that of the logits.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn weigh(&self) -> Result<()> {
        let Self { executor, plan, arrays, gradients } = self;
        let (scratch, saved) = (gradients.scratch, arrays.saved);
        let grad_anchor: *mut f32 = plan.scratch.logits.at_mut(scratch);
        let camera_parts = plan.scratch.camera_parts.at_mut(scratch);
        let args = WeightsGradientArgs {
            sizes: plan.sizes,
            logits: arrays.logits(plan),
            statistics: plan.saved.statistics.at(saved),
            locations: plan.saved.locations.at(saved),
            grad_weights: plan.scratch.weights.at(scratch),
            features: plan.saved.features.at(saved),
            grad_features: plan.scratch.features.at(scratch),
            grad_anchor,
            camera_parts: if plan.camera_rows > 0 { camera_parts } else { ptr::null_mut() },
            run: plan.run,
            runs: Divisor::new(plan.runs),
        };
        // SAFETY: the caller's promise.
        unsafe {
            executor.launch(K::WEIGHTS_GRADIENT, plan.weights_gradient_launch(), args)?;
            if plan.camera_rows == 0 {
                return Ok(());
            }
            let length = plan.sizes.cameras as usize * plan.logits;
            let args = SumArgs {
                partial: camera_parts,
                total: grad_anchor.wrapping_add(plan.rows * plan.logits),
                parts: plan.runs,
                length: length as u64,
            };
            let launch = BlockPlan::<K>::sum_launch(length, args.parts, plan.sizes.batch);
            executor.launch(SUM, launch, args)
        }
    }

    /// From the locations' gradient to those of anchors, learned offsets and, in parts, matrices; and from the offsets' to what
    /// instance features have of it.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn look(&self) -> Result<()> {
        let Self { executor, plan, arrays, gradients } = self;
        let (channels, scratch, saved) = (self.channels(), gradients.scratch, arrays.saved);
        let args = PointsGradientArgs {
            geometry: arrays.geometry(plan),
            key_points: plan.saved.key_points.at(saved),
            locations: plan.saved.locations.at(saved),
            grad_locations: plan.scratch.locations.at(scratch),
            grad_anchors: gradients.anchor,
            grad_offsets: plan.scratch.offsets.at_mut(scratch),
            projection_parts: plan.scratch.projection_parts.at_mut(scratch),
        };
        // SAFETY: the caller's promise.
        unsafe {
            executor.launch(POINTS_GRADIENT, plan.points_gradient_launch(), args)?;
            executor.launch(PROJECTION_GRADIENT, plan.projection_launch(), args)?;
            if plan.offsets > 0 {
                let name = "kps_generator.learnable_fc.weight";
                let upstream = plan.scratch.offsets.at(scratch);
                let from_offsets = plan.scratch.from_offsets.at_mut(scratch);
                let input = fp32_rows(upstream, plan.rows, plan.offsets);
                let weight = arrays.weight(plan, name, plan.offsets, channels);
                let target = fp32_target(from_offsets, plan.rows, channels);
                products::multiply(
                    *executor,
                    plan.products().input_of_numbers,
                    input,
                    weight,
                    target,
                )?;
            }
        }
        Ok(())
    }

    /// The gradients of instance features and anchor embeddings, and what reaches the cameras' embeddings.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn instances(&self) -> Result<()> {
        let Self { executor, plan, arrays, gradients } = self;
        let (channels, scratch) = (self.channels(), gradients.scratch);
        let from_offsets: *mut f32 = plan.scratch.from_offsets.at_mut(scratch);
        // SAFETY: the caller's promise.
        unsafe {
            let rows = plan.rows + plan.camera_rows;
            // The residual's gradient is the output's, or its second half.
            let residual = if plan.concatenates { channels } else { 0 };
            let input = fp32_rows(plan.scratch.logits.at(scratch), rows, plan.logits);
            let weight = arrays.weight(plan, "weights_fc.weight", plan.logits, channels);
            let target = Target {
                addend: if plan.offsets > 0 { from_offsets } else { ptr::null() },
                residual: gradients.output.wrapping_add(residual),
                residual_stride: plan.output_dims() as u32,
                plain: gradients.anchor_embed,
                tail: plan.scratch.cameras.at_mut(scratch),
                rows: rows as u64,
                ..element_target(gradients.instance_feature, plan.rows, channels)
            };
            products::multiply(*executor, plan.products().input_of_numbers, input, weight, target)
        }
    }

    /// The gradients of the matrices and of the camera encoder's parameters.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn cameras(&self) -> Result<()> {
        let Self { executor, plan, arrays, gradients } = self;
        let (scratch, saved) = (gradients.scratch, arrays.saved);
        let pair = |names: [&str; 2]| {
            names.map(|name| {
                let start = plan.tensors.start(name);
                start.map_or(ptr::null_mut(), |start| gradients.parameters.wrapping_add(start))
            })
        };
        let args = CameraGradientArgs {
            encoder: arrays.encoder(plan),
            projections: arrays.projection_mat,
            channels: plan.sizes.channels,
            rows: plan.camera_rows as u32,
            rectified: plan.saved.rectified.at(saved),
            middle: plan.saved.middle.at(saved),
            moments: plan.saved.moments.at(saved),
            grad_output: plan.scratch.cameras.at(scratch),
            grad_linear: plan.scratch.camera_linear.at_mut(scratch),
            grad_middle: plan.scratch.camera_middle.at_mut(scratch),
            projection_parts: plan.scratch.projection_parts.at(scratch),
            parts: plan.projection_parts,
            grad_projections: gradients.projection_mat,
            grad_weights: pair(["camera_encoder.0.weight", "camera_encoder.3.weight"]),
            grad_biases: pair(["camera_encoder.0.bias", "camera_encoder.3.bias"]),
            grad_scales: pair(["camera_encoder.2.weight", "camera_encoder.5.weight"]),
            grad_shifts: pair(["camera_encoder.2.bias", "camera_encoder.5.bias"]),
        };
        // SAFETY: the caller's promise.
        unsafe {
            executor.launch(CAMERA_GRADIENT, plan.camera_launch(), args)?;
            if plan.camera_rows == 0 {
                return Ok(());
            }
            executor.launch(CAMERA_PARAMETERS, plan.camera_parameters_launch(), args)
        }
    }

    /// The gradients of the linear layers' parameters: the parts that are not there yet, then the sums of all.
    ///
    /// # Safety
    ///
    /// As for [`backward`]; those of the [projection](Self::projection_parameters) are there.
    unsafe fn parameters(&self) -> Result<()> {
        let Self { executor, plan, arrays, gradients } = self;
        let scratch = gradients.scratch;
        let logits = plan.scratch.logits.at(scratch);
        let rows = plan.rows + plan.camera_rows;
        let logits = fp32_rows(logits, rows, plan.logits);
        // SAFETY: the caller's promise.
        unsafe {
            self.linear("weights_fc.weight", logits, arrays.embedded(plan))?;
            if plan.offsets > 0 {
                let offsets = plan.scratch.offsets.at(scratch);
                let offsets = fp32_rows(offsets, plan.rows, plan.offsets);
                let name = "kps_generator.learnable_fc.weight";
                self.linear(name, offsets, arrays.instances(plan))?;
            }
            let length = plan.tensors.linear_words;
            let args = SumArgs {
                partial: plan.scratch.parameter_parts.at(scratch),
                total: gradients.parameters,
                parts: plan.parts as u32,
                length: length as u64,
            };
            executor.launch(SUM, BlockPlan::<K>::sum_launch(length, args.parts, 1), args)
        }
    }

    /// The parts of a linear layer's gradients; its bias lies behind its weight.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn linear(&self, weight: &str, upstream: Rows<K>, input: Rows<K>) -> Result<()> {
        let Self { executor, plan, gradients, .. } = self;
        let parts: *mut f32 = plan.scratch.parameter_parts.at_mut(gradients.scratch);
        let weight = parts.wrapping_add(plan.tensors.start(weight).unwrap_or(0));
        // SAFETY: the caller's promise.
        unsafe { products::weigh(*executor, plan, upstream, input, weight) }
    }
}
