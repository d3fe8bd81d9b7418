//! Forward and backward of one aggregation: `cargo run --release --example quickstart -p deformable-aggregation`.

use deformable_aggregation::ndarray::{Array3, Array5, Array6};
use deformable_aggregation::{
    AggregationShape, Backend, DeformableAggregation, FeatureLayout, Inputs, LevelShape, Result,
};

fn main() -> Result<()> {
    // Six cameras with four levels each; 900 anchors of 13 points; 256 channels in 8 groups.
    let levels = [(64, 176), (32, 88), (16, 44), (8, 22)];
    let levels = levels.map(|(height, width)| LevelShape { height, width });
    let shape = AggregationShape::new(FeatureLayout::uniform(6, &levels)?, 1, 900, 13, 256, 8)?;

    // A network's arrays go here. These see every point in the middle of every image.
    let feature_maps = Array3::<f32>::ones(shape.feature_maps_dim());
    let sampling_locations = Array5::from_elem(shape.sampling_locations_dim(), 0.5);
    let weights = Array6::from_elem(shape.weights_dim(), 1.0 / (13.0 * 6.0 * 4.0));
    let grad_output = Array3::ones(shape.output_dim());

    let operator = DeformableAggregation::new(shape).with_backend(Backend::auto());
    let (output, context) = operator.forward_with_context(Inputs {
        feature_maps: feature_maps.view(),
        sampling_locations: sampling_locations.view(),
        weights: weights.view(),
    })?;
    let gradients = context.backward(grad_output.view())?;

    println!("computed by {}", operator.backend());
    println!("output {:?}, first entry {}", output.dim(), output[[0, 0, 0]]);
    println!("feature map gradient {:?}", gradients.feature_maps.dim());
    Ok(())
}
