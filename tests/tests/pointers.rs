//! The operator on device addresses, which may be those of parts of other arrays.

#![cfg(lab_cuda)]

use deformable_aggregation::cuda::{
    BackwardPointers, Device, DeviceArray, ForwardPointers, Operator,
};
use deformable_aggregation::half::f16;
use deformable_aggregation::{Algorithm, BorderRule, Error, GpuElement, Gradients};
use deformable_aggregation_tests::{Case, Sizes, cuda_device};
use ndarray::Array;

const RULE: BorderRule = BorderRule::Operator;

fn case() -> Case<f64> {
    Case::random(Sizes::usual().shape(), 6)
}

/// Numbers behind `before` others that nobody may read.
struct Part<A> {
    array: DeviceArray<A>,
    before: usize,
}

impl<A: bytemuck::Pod> Part<A> {
    fn of(device: &Device, before: usize, values: &[A]) -> Self {
        let poison = bytemuck::pod_read_unaligned(&vec![0xff; size_of::<A>()]);
        let mut all = vec![poison; before];
        all.extend(values);
        Self { array: device.upload("part of an array", &all).expect("memory"), before }
    }

    fn poisoned(device: &Device, before: usize, length: usize) -> Self {
        let array = device.poisoned("part of an array", before + length).expect("memory");
        Self { array, before }
    }

    fn pointer(&self) -> u64 {
        self.array.pointer() + (self.before * size_of::<A>()) as u64
    }

    fn values(&self) -> Vec<A> {
        self.array.download().expect("no fault").split_off(self.before)
    }
}

/// Every array of numbers begins one element, every array of locations one pair behind a multiple of 256 bytes.
fn shifted_arrays_match_the_exact_sums<T: GpuElement>(device: &Device, algorithm: Algorithm) {
    let case = case().cast::<T>();
    let operator = Operator::<T>::new(device, &case.shape, RULE).expect("small");
    let operator = operator.with_algorithm(algorithm);
    let slice = |values: &Array<T, _>| Part::of(device, 1, values.as_slice().expect("row-major"));
    let (features, upstream) = (slice(&case.feature_maps), slice(&case.grad_output));
    let weights = Part::of(device, 1, case.weights.as_slice().expect("row-major"));
    let locations = Part::of(device, 2, case.sampling_locations.as_slice().expect("row-major"));
    let output = Part::<T>::poisoned(device, 1, case.grad_output.len());
    let grad_features = Part::<T>::poisoned(device, 1, case.feature_maps.len());
    let grad_locations = Part::<f32>::poisoned(device, 2, case.sampling_locations.len());
    let grad_weights = Part::<T>::poisoned(device, 1, case.weights.len());
    let workspace = operator.forward_workspace_bytes().max(operator.backward_workspace_bytes());
    let workspace = device.poisoned::<u8>("workspace", workspace).expect("memory");
    let forward = ForwardPointers {
        feature_maps: features.pointer(),
        sampling_locations: locations.pointer(),
        weights: weights.pointer(),
        output: output.pointer(),
        workspace: workspace.pointer(),
    };
    let backward = BackwardPointers {
        feature_maps: features.pointer(),
        sampling_locations: locations.pointer(),
        weights: weights.pointer(),
        grad_output: upstream.pointer(),
        grad_feature_maps: grad_features.pointer(),
        grad_sampling_locations: grad_locations.pointer(),
        grad_weights: grad_weights.pointer(),
        workspace: workspace.pointer(),
    };
    // SAFETY: the arrays have the shape's sizes and live until the downloads have waited for the device.
    unsafe {
        operator.forward(device.stream(), &forward).expect("launched");
        // What another stream is given while a call is recorded is no part of the graph, and is done.
        operator.backward(device.stream(), &backward).expect("launched");
        let graph = device.capture(|stream| {
            operator.backward(stream, &backward)?;
            operator.backward(device.stream(), &backward)?;
            operator.backward(stream, &backward)
        });
        let launches = operator.backward_launches().expect("known");
        assert_eq!(graph.expect("recorded").nodes(), 2 * launches, "{algorithm} kernels");
    }
    let shape = &case.shape;
    let computed = Array::from_shape_vec(shape.output_dim(), output.values()).expect("all of it");
    let gradients = Gradients {
        feature_maps: Array::from_shape_vec(shape.feature_maps_dim(), grad_features.values())
            .expect("all of it"),
        sampling_locations: Array::from_shape_vec(
            shape.sampling_locations_dim(),
            grad_locations.values(),
        )
        .expect("all of it"),
        weights: Array::from_shape_vec(shape.weights_dim(), grad_weights.values())
            .expect("all of it"),
    };
    if let Err(mismatch) = case.check(RULE, &computed, &gradients) {
        panic!("{algorithm} kernels, {}: {mismatch}", T::DTYPE);
    }
}

#[test]
fn arrays_that_begin_between_vectors_match_the_exact_sums() {
    let Some(device) = cuda_device() else { return };
    for algorithm in [Algorithm::Fast, Algorithm::Repeatable, Algorithm::Naive] {
        shifted_arrays_match_the_exact_sums::<f32>(&device, algorithm);
        shifted_arrays_match_the_exact_sums::<f16>(&device, algorithm);
    }
}

#[test]
fn addresses_that_cannot_be_arrays_are_refused_by_name() {
    let Some(device) = cuda_device() else { return };
    let case = case();
    let operator = Operator::<f32>::new(&device, &case.shape, RULE).expect("small");
    let array = device.poisoned::<f32>("any", case.feature_maps.len()).expect("memory");
    let address = array.pointer();
    let good = ForwardPointers {
        feature_maps: address,
        sampling_locations: address,
        weights: address,
        output: address,
        workspace: address,
    };
    for (wrong, name) in [
        (ForwardPointers { feature_maps: 0, ..good }, "feature_maps"),
        (ForwardPointers { sampling_locations: address + 4, ..good }, "sampling_locations"),
        (ForwardPointers { output: address + 2, ..good }, "output"),
    ] {
        // SAFETY: the call ends before it puts anything on the stream.
        let refused = unsafe { operator.forward(device.stream(), &wrong) };
        let Err(Error::Pointer { argument, .. }) = refused else { panic!("{name}: {refused:?}") };
        assert_eq!(argument, name);
    }
}
