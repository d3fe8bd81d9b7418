//! CUDA graphs: what is recorded once computes right again and again, on inputs that change where they lie.

#![cfg(lab_cuda)]

use deformable_aggregation::cuda::{Device, SessionGraph, Stream};
use deformable_aggregation::half::bf16;
use deformable_aggregation::{Algorithm, BorderRule, GpuElement};
use deformable_aggregation_tests::{Case, Sizes, cuda_device};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Fast, Algorithm::Repeatable, Algorithm::Naive];

fn replays_follow_the_inputs<T: GpuElement>(device: &Device) {
    let rule = BorderRule::Operator;
    let cases = [1, 2, 3].map(|seed| Case::random(Sizes::usual().shape(), seed).cast::<T>());
    for algorithm in ALGORITHMS {
        let session = device
            .session(&cases[0].shape, rule, cases[0].inputs(), cases[0].grad_output.view())
            .expect("memory for small arrays");
        let forward = session.forward_graph(algorithm).expect("recorded");
        let backward = session.backward_graph(algorithm).expect("recorded");
        let operator = session.operator(algorithm);
        assert_eq!(Ok(forward.nodes()), operator.forward_launches(), "{algorithm}");
        assert_eq!(Ok(backward.nodes()), operator.backward_launches(), "{algorithm}");
        for case in &cases {
            session.update(case.inputs(), case.grad_output.view()).expect("same sizes");
            session.poison().expect("filled");
            for graph in [&forward, &backward, &forward, &backward] {
                SessionGraph::launch(graph).expect("launched");
            }
            let output = session.output().expect("computed");
            let gradients = session.gradients().expect("computed");
            if let Err(mismatch) = case.check(rule, &output, &gradients) {
                panic!("{algorithm} kernels, {}: {mismatch}", T::DTYPE);
            }
        }
    }
}

#[test]
fn replayed_passes_follow_inputs_that_change_in_place() {
    if let Some(device) = cuda_device() {
        replays_follow_the_inputs::<f32>(&device);
        replays_follow_the_inputs::<bf16>(&device);
    }
}

#[test]
fn a_graph_keeps_the_arrays_of_its_session() {
    let Some(device) = cuda_device() else { return };
    let case = Case::random(Sizes::usual().shape(), 4).cast::<f32>();
    let session = device
        .session(&case.shape, BorderRule::Operator, case.inputs(), case.grad_output.view())
        .expect("memory for small arrays");
    let graph = session.backward_graph(Algorithm::Fast).expect("recorded");
    drop(session);
    graph.launch().expect("launched");
    device.synchronize().expect("no fault");
}

#[test]
fn what_cannot_be_recorded_is_an_error_and_the_device_goes_on() {
    let Some(device) = cuda_device() else { return };
    let waited = device.capture(Stream::synchronize);
    assert!(waited.is_err());
    let values = device.upload("values", &[1.0_f32, 2.0]).expect("memory for two numbers");
    assert!(values.write(&[1.0]).is_err());
    values.write(&[3.0, 4.0]).expect("same length");
    assert_eq!(values.download().expect("copied"), [3.0, 4.0]);
}

#[test]
fn measured_bandwidths_are_those_of_memories() {
    let Some(device) = cuda_device() else { return };
    let memory = device.copy_bandwidth().expect("measured");
    let cache = device.l2_read_bandwidth().expect("measured");
    // From the slowest memory of a GPU in use to beyond the fastest cache.
    for bandwidth in [memory, cache] {
        assert!((5e9..5e14).contains(&bandwidth), "{bandwidth} bytes per second");
    }
}
