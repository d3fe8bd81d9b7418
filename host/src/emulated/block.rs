//! The attention block in the emulator.

use cuda_std::emulator::Memory;
use kernels_gpu::block_args::Dropout;

use super::{Runner, table};
use crate::error::Result;
use crate::kernels::GpuElement;
use crate::kernels::block::{
    self, BlockArrays, BlockDropout, BlockGradientArrays, BlockGradientSlices, BlockPlan,
    BlockSlices,
};
use crate::memory::zeros;

/// Writes the output; returns what the backward pass needs.
pub(crate) fn forward<T: GpuElement>(
    plan: &BlockPlan<T::Kernel>,
    slices: &BlockSlices<'_, T>,
    output: &mut [T],
) -> Result<Vec<u128>> {
    // In words of 16 bytes, so that 16-byte accesses may begin at the first.
    let mut saved = zeros::<u128>("saved for backward", plan.saved.bytes.div_ceil(16))?;
    let mut scratch = zeros::<f32>("workspace", plan.forward_bytes.div_ceil(4))?;
    let mut memory = Memory::new();
    let mut arrays = arrays::<T>(&mut memory, plan, slices);
    arrays.saved = memory.uninitialised("saved", &mut saved).cast();
    let output = memory.uninitialised("output", output).cast();
    let scratch = memory.uninitialised("workspace", &mut scratch);
    let runner = Runner::new(&memory);
    // SAFETY: the slices have the sizes of the plan, and outlive the call.
    unsafe { block::forward(&runner, plan, &arrays, output, scratch)? };
    runner.check_written("output")?;
    drop(memory);
    Ok(saved)
}

/// Writes the gradients. `saved` is what [`forward`] returned for the same plan and slices.
pub(crate) fn backward<T: GpuElement>(
    plan: &BlockPlan<T::Kernel>,
    slices: &BlockSlices<'_, T>,
    saved: &[u128],
    grad_output: &[T],
    gradients: BlockGradientSlices<'_, T>,
) -> Result<()> {
    let mut scratch = zeros::<u128>("workspace", plan.scratch.bytes.div_ceil(16))?;
    let trained = plan.tensors.trained_words;
    let mut memory = Memory::new();
    let mut arrays = arrays::<T>(&mut memory, plan, slices);
    arrays.saved = memory.read_only("saved", saved).cast_mut().cast();
    let anchor_embed = gradients.anchor_embed.map_or(std::ptr::null_mut(), |gradient| {
        memory.uninitialised("grad_anchor_embed", gradient).cast()
    });
    let gradients = BlockGradientArrays::<T::Kernel> {
        output: memory.read_only("grad_output", grad_output).cast(),
        instance_feature: memory
            .uninitialised("grad_instance_feature", gradients.instance_feature)
            .cast(),
        anchor: memory.uninitialised("grad_anchor", gradients.anchor),
        anchor_embed,
        feature_maps: memory.uninitialised("grad_feature_maps", gradients.feature_maps).cast(),
        projection_mat: memory.uninitialised("grad_projection_mat", gradients.projection_mat),
        parameters: memory.uninitialised("grad_parameters", &mut gradients.parameters[..trained]),
        scratch: memory.uninitialised("workspace", &mut scratch).cast(),
    };
    let runner = Runner::new(&memory);
    // SAFETY: as in `forward`.
    unsafe { block::backward(&runner, plan, &arrays, &gradients)? };
    for name in [
        "grad_instance_feature",
        "grad_anchor",
        "grad_anchor_embed",
        "grad_feature_maps",
        "grad_projection_mat",
        "grad_parameters",
    ] {
        runner.check_written(name)?;
    }
    Ok(())
}

/// The arrays of a call; what is saved is not set.
fn arrays<'a, T: GpuElement>(
    memory: &mut Memory<'a>,
    plan: &'a BlockPlan<T::Kernel>,
    slices: &BlockSlices<'a, T>,
) -> BlockArrays<T::Kernel> {
    let mut dropout = |name, dropout: Option<&'a BlockDropout>| {
        dropout.map_or(Dropout::NONE, |dropout| {
            dropout.args(memory.read_only(name, dropout.numbers()))
        })
    };
    let dropouts =
        [dropout("attention mask", slices.dropouts[0]), dropout("output mask", slices.dropouts[1])];
    BlockArrays {
        table: table(memory, &plan.operator),
        parameters: memory.read_only("parameters", slices.parameters),
        instance_feature: memory.read_only("instance_feature", slices.instance_feature).cast(),
        anchor: memory.read_only("anchor", slices.anchor),
        anchor_embed: slices.anchor_embed.map_or(std::ptr::null(), |anchor_embed| {
            memory.read_only("anchor_embed", anchor_embed).cast()
        }),
        feature_maps: memory.read_only("feature_maps", slices.feature_maps).cast(),
        projection_mat: memory.read_only("projection_mat", slices.projection_mat),
        image_wh: slices
            .image_wh
            .map_or(std::ptr::null(), |image_wh| memory.read_only("image_wh", image_wh)),
        dropouts,
        saved: std::ptr::null_mut(),
    }
}
