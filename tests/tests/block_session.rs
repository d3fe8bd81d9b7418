//! The block on arrays that stay on the GPU: what its streams do at the same time gives what one after the other gives, bit for bit.

#![cfg(lab_cuda)]

use deformable_aggregation::block::{
    BlockConfig, DropoutMasks, KeyPointsConfig, LinearPrecision, ResidualMode,
};
use deformable_aggregation::cuda::{BlockOptions, Device};
use deformable_aggregation::half::{bf16, f16};
use deformable_aggregation::{Algorithm, Backend, GpuElement};
use deformable_aggregation_tests::{BlockCase, MapsForm, Subject, cuda_device, named};

/// (height, width)
const LEVELS: [(usize, usize); 2] = [(16, 44), (8, 22)];

/// Enough anchors for blocks of one kernel to be under way when another one's begin.
const SIZES: [usize; 2] = [2, 700];

fn config() -> BlockConfig {
    BlockConfig {
        embed_dims: 64,
        num_groups: 4,
        num_levels: LEVELS.len(),
        num_cams: 2,
        use_camera_embed: true,
        residual_mode: ResidualMode::Cat,
        attn_drop: 0.25,
        proj_drop: 0.125,
        kps_generator: KeyPointsConfig::default(),
        ..BlockConfig::default()
    }
}

fn passes_agree<T: GpuElement>(device: &Device) {
    let config = config();
    let [batch, anchors] = SIZES;
    let mut case = BlockCase::random(&config, batch, anchors, &LEVELS, 1).cast::<T>();
    case.masks = Some(DropoutMasks::draw(&config, batch, anchors, 2).expect("valid settings"));
    let algorithm = Algorithm::Repeatable;
    let subject = Subject { backend: Backend::Cuda(device.clone()), algorithm };
    let (output, gradients) = case.run(&subject, MapsForm::Groups);
    let expected = named(&output, &gradients);
    let options = BlockOptions { algorithm, linear_precision: LinearPrecision::default() };
    let session = case
        .with_inputs(MapsForm::Groups, |inputs| {
            let upstream = case.grad_output.view();
            device.block_session(&config, &case.parameters, inputs, case.mode(), upstream, options)
        })
        .expect("memory for small arrays");
    let graph = session.graph().expect("recorded");
    for replays in [false, true, false, true] {
        session.poison().expect("filled");
        if replays {
            graph.launch().expect("launched");
        } else {
            session.forward().and_then(|()| session.backward()).expect("launched");
        }
        let output = session.output().expect("computed");
        let actual = named(&output, &session.gradients().expect("computed"));
        for ((name, expected), (_, actual)) in expected.iter().zip(&actual) {
            assert_eq!(actual, expected, "{name}, {}, as a graph: {replays}", T::DTYPE);
        }
    }
}

#[test]
fn passes_on_streams_agree_with_passes_on_one() {
    if let Some(device) = cuda_device() {
        passes_agree::<f32>(&device);
        passes_agree::<f16>(&device);
        passes_agree::<bf16>(&device);
    }
}
