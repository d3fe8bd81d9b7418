//! Calls of the attention block with the settings of Sparse4D v3, on the camera rig.

use anyhow::Result;
use camera_rig::{ASPECT, Scene};
use deformable_aggregation::block::{
    BlockConfig, BlockParameters, BoxKeyPoints, KeyPointsConfig, ResidualMode,
};
use deformable_aggregation::{Element, FeatureLayout, Scalar};
use ndarray::{Array3, Array4};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::BlockData;
use crate::workloads::Workload;

/// Width of an image in pixels.
const WIDTH: f64 = 704.0;

/// The settings of Sparse4D v3 at the sizes of a workload.
pub fn config(workload: &Workload) -> BlockConfig {
    let fixed = BoxKeyPoints::CENTRE_AND_SIDES.len().min(workload.points);
    BlockConfig {
        embed_dims: workload.embed_dims,
        num_groups: workload.groups,
        num_levels: workload.levels.len(),
        num_cams: workload.cameras,
        kps_generator: KeyPointsConfig::Box(BoxKeyPoints {
            num_learnable_pts: workload.points - fixed,
            fix_scale: BoxKeyPoints::CENTRE_AND_SIDES[..fixed].to_vec(),
        }),
        use_deformable_func: true,
        use_camera_embed: true,
        residual_mode: ResidualMode::Cat,
        ..BlockConfig::default()
    }
}

/// A call with random boxes around the rig. Numbers are rounded to fp32, so that every type but those of 16 bits has the same.
///
/// # Errors
///
/// If the sizes are not valid.
pub fn generate<T: Element>(workload: &Workload, seed: u64) -> Result<BlockData<T>> {
    let config = config(workload);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut parameters = BlockParameters::<T::Location>::init(&config, seed)?;
    for (name, mut tensor) in parameters.named_mut() {
        // They begin as zeros, and every weight would be the same.
        if name.starts_with("weights_fc") {
            tensor.mapv_inplace(|_| T::Location::from_f64(rng.random_range(-0.1_f32..0.1).into()));
        }
    }
    let layout = FeatureLayout::uniform(workload.cameras, &workload.level_shapes())?;
    let (batch, anchors, channels) = (workload.batch, workload.anchors, workload.embed_dims);
    let mut values = |size: [usize; 3]| {
        Array3::from_shape_simple_fn(size, || T::from_f64(rng.random_range(-1.0_f32..1.0).into()))
    };
    let instance_feature = values([batch, anchors, channels]);
    let anchor_embed = values([batch, anchors, channels]);
    let feature_maps = values([batch, layout.num_feat(), channels]);
    let grad_output = values([batch, anchors, config.output_dims()]);
    let mut anchor = Array3::zeros((batch, anchors, 11));
    let mut projection_mat = Array4::zeros((batch, workload.cameras, 4, 4));
    for item in 0..batch {
        let scene = Scene::random(workload.cameras, anchors, 0, &mut rng);
        for (index, boxed) in scene.anchors.iter().enumerate() {
            let numbers = boxed.numbers();
            for (place, number) in numbers.into_iter().enumerate() {
                anchor[[item, index, place]] = T::Location::from_f64(f64::from(number as f32));
            }
        }
        for (index, camera) in scene.cameras.iter().enumerate() {
            // To fractions of the image; in pixels, as models have it, they are divided by its size.
            let scale = [WIDTH, WIDTH / ASPECT, 1.0, 1.0];
            for (row, numbers) in camera.matrix().into_iter().enumerate() {
                for (column, number) in numbers.into_iter().enumerate() {
                    let number = f64::from((scale[row] * number) as f32);
                    projection_mat[[item, index, row, column]] = T::Location::from_f64(number);
                }
            }
        }
    }
    let image_wh = Array3::from_shape_fn((batch, workload.cameras, 2), |(_, _, axis)| {
        T::Location::from_f64(if axis == 0 { WIDTH } else { WIDTH / ASPECT })
    });
    Ok(BlockData {
        config,
        parameters,
        instance_feature,
        anchor,
        anchor_embed: Some(anchor_embed),
        feature_maps,
        layout,
        projection_mat,
        image_wh: Some(image_wh),
        masks: None,
        grad_output,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::s;

    use super::*;
    use deformable_aggregation::block::DeformableFeatureAggregation;

    #[test]
    fn a_key_point_is_seen_by_about_one_camera_of_six() {
        let workload = Workload { embed_dims: 8, ..*Workload::by_id("W1").expect("listed") };
        let data = generate::<f64>(&workload, 3).expect("valid sizes");
        let block = DeformableFeatureAggregation::with_parameters(data.config, data.parameters)
            .expect("parameters of the settings");
        let points = block
            .key_points_generator()
            .key_points(data.anchor.view(), data.instance_feature.view())
            .expect("arrays fit");
        let (sizes, mut seen) = (data.image_wh.expect("drawn"), 0);
        for point in points.slice(s![0, .., .., ..]).rows() {
            for camera in 0..workload.cameras {
                let matrix = data.projection_mat.slice(s![0, camera, ..3, ..]);
                let [x, y, depth] = [0_usize, 1, 2].map(|row| {
                    let terms = (0..3_usize).map(|axis| matrix[[row, axis]] * point[axis]);
                    terms.sum::<f64>() + matrix[[row, 3]]
                });
                let size = [sizes[[0, camera, 0]], sizes[[0, camera, 1]]];
                let inside = |place: f64, size: f64| place > 0.0 && place < depth * size;
                seen += usize::from(depth > 0.0 && inside(x, size[0]) && inside(y, size[1]));
            }
        }
        let per_point = seen as f64 / (900.0 * 13.0);
        assert!((1.1..1.3).contains(&per_point), "{per_point}");
    }
}
