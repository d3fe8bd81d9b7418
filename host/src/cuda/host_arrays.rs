//! The operator on arrays in host memory: over to the device, run, back.

use crate::algorithm::Algorithm;
use crate::cuda::device::Device;
use crate::cuda::operator::{BackwardPointers, ForwardPointers, Operator};
use crate::error::Result;
use crate::kernels::GpuElement;
use crate::problem::{GradientSlices, Problem};

/// Writes the output.
pub(crate) fn forward<T: GpuElement>(
    device: &Device,
    algorithm: Algorithm,
    problem: &Problem<'_, T>,
    output: &mut [T],
) -> Result<()> {
    let operator =
        Operator::<T>::new(device, problem.shape, problem.rule)?.with_algorithm(algorithm);
    let feature_maps = device.upload("feature maps", problem.feature_maps)?;
    let sampling_locations = device.upload("sampling locations", problem.sampling_locations)?;
    let weights = device.upload("weights", problem.weights)?;
    let result = device.poisoned::<T>("output", output.len())?;
    let workspace = device.poisoned::<u8>("workspace", operator.forward_workspace_bytes())?;
    let pointers = ForwardPointers {
        feature_maps: feature_maps.pointer(),
        sampling_locations: sampling_locations.pointer(),
        weights: weights.pointer(),
        output: result.pointer(),
        workspace: workspace.pointer(),
    };
    // SAFETY: the arrays have the sizes of the problem's slices, which are its shape's, and live until the
    // download has waited for the device.
    unsafe { operator.forward(device.stream(), &pointers)? };
    result.download_into(output)
}

/// Writes the three gradients.
pub(crate) fn backward<T: GpuElement>(
    device: &Device,
    algorithm: Algorithm,
    problem: &Problem<'_, T>,
    grad_output: &[T],
    gradients: GradientSlices<'_, T>,
) -> Result<()> {
    let operator =
        Operator::<T>::new(device, problem.shape, problem.rule)?.with_algorithm(algorithm);
    let feature_maps = device.upload("feature maps", problem.feature_maps)?;
    let sampling_locations = device.upload("sampling locations", problem.sampling_locations)?;
    let weights = device.upload("weights", problem.weights)?;
    let grad_output = device.upload("output gradient", grad_output)?;
    let grad_feature_maps =
        device.poisoned::<T>("feature map gradient", problem.feature_maps.len())?;
    let grad_sampling_locations =
        device.poisoned::<f32>("sampling location gradient", problem.sampling_locations.len())?;
    let grad_weights = device.poisoned::<T>("weight gradient", problem.weights.len())?;
    let workspace = device.poisoned::<u8>("workspace", operator.backward_workspace_bytes())?;
    let pointers = BackwardPointers {
        feature_maps: feature_maps.pointer(),
        sampling_locations: sampling_locations.pointer(),
        weights: weights.pointer(),
        grad_output: grad_output.pointer(),
        grad_feature_maps: grad_feature_maps.pointer(),
        grad_sampling_locations: grad_sampling_locations.pointer(),
        grad_weights: grad_weights.pointer(),
        workspace: workspace.pointer(),
    };
    // SAFETY: as in `forward`.
    unsafe { operator.backward(device.stream(), &pointers)? };
    grad_feature_maps.download_into(gradients.feature_maps)?;
    grad_sampling_locations.download_into(gradients.sampling_locations)?;
    grad_weights.download_into(gradients.weights)
}
