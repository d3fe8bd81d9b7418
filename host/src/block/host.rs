//! The block in host memory: one stage after the other, the aggregation by the operator.

use ndarray::{Array, Array2, Array3, Array5, ArrayView2, ArrayView6, Axis, Dimension, Zip, s};

use super::attention::{self, Logits};
use super::camera::{self, Encoding, INPUTS};
use super::config::{BlockConfig, ResidualMode};
use super::dropout::Dropouts;
use super::gradients::BlockGradients;
use super::inputs::CheckedInputs;
use super::key_points::{KeyPointsGenerator, rows};
use super::linear;
use super::parameters::BlockParameters;
use super::projection::Cameras;
use super::storage::{load, load_rows, store, store_rows};
use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::memory::zero_array;
use crate::operator::{DeformableAggregation, Inputs};

/// What both directions work on.
pub(super) struct Pass<'p, 'a, T: Element> {
    pub(super) config: &'p BlockConfig,
    pub(super) parameters: &'p BlockParameters<T::Location>,
    /// The operator of the call's sizes.
    pub(super) operator: &'p DeformableAggregation,
    pub(super) inputs: &'p CheckedInputs<'a, T>,
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(super) struct Saved<T: Element> {
    dropouts: Dropouts<T::Location>,
    /// Predictions of the learned points.
    offsets: Option<Array2<T::Location>>,
    /// (batch · anchors, points · 3)
    key_points: Array2<T::Location>,
    sampling_locations: Array5<T::Location>,
    /// Instance feature plus anchor embedding, (batch · anchors, embed_dims).
    embedded: Array2<T::Location>,
    encoding: Option<Encoding<T::Location>>,
    /// Before dropout, in the order of the operator's weights.
    attention: Vec<T>,
    /// After dropout, if there is any.
    weights: Option<Vec<T>>,
    /// The aggregated features.
    features: Array3<T>,
}

/// The output, (batch, anchors, output_dims), and what the backward pass needs.
pub(super) fn forward<T: Element>(
    pass: &Pass<'_, '_, T>,
    dropouts: Dropouts<T::Location>,
) -> Result<(Array3<T>, Saved<T>)> {
    let Pass { config, parameters, operator, inputs } = pass;
    let (shape, channels) = (operator.shape(), config.embed_dims);
    let instances = load_rows("instance features", inputs.instance_feature(), channels)?;

    let generator = KeyPointsGenerator::new(&config.kps_generator, parameters);
    let offsets = generator.offsets(instances.view())?;
    let anchors = rows(inputs.anchor(), inputs.anchor_dims);
    let key_points = generator.points(anchors, offsets.as_ref())?;
    let views = pass.cameras().views(row_major(&key_points), config.filter_outlier)?;
    let sampling_locations =
        Array5::from_shape_vec(shape.sampling_locations_dim(), views.locations)
            .expect("one location for each point and camera");

    let mut embedded = instances;
    if let Some(anchor_embed) = inputs.anchor_embed() {
        embedded += &load_rows("anchor embedding", anchor_embed, channels)?;
    }
    let encoder = parameters.camera_encoder.as_ref();
    let matrices = rows(inputs.projection_mat(), 16);
    let encoding = encoder.map(|encoder| camera::forward(encoder, matrices)).transpose()?;
    let cameras = encoding.as_ref().map(|encoding| encoding.output.view());
    let logits = Logits::new(&parameters.weights_fc, embedded.view(), cameras)?;
    let attention = attention::softmax(shape, &logits, views.left_out.as_deref())?;
    let weights = dropouts
        .attention
        .as_ref()
        .map(|dropout| attention::drop_out(shape, &attention, dropout))
        .transpose()?;

    let features = operator.forward(Inputs {
        feature_maps: inputs.feature_maps(),
        sampling_locations: sampling_locations.view(),
        weights: pass.shaped_weights(weights.as_ref().unwrap_or(&attention)),
    })?;
    let output = pass.project_output(&features, &dropouts)?;
    let saved = Saved {
        dropouts,
        offsets,
        key_points,
        sampling_locations,
        embedded,
        encoding,
        attention,
        weights,
        features,
    };
    Ok((output, saved))
}

/// The gradients of `sum(output * grad_output)`; `grad_output` is row-major.
pub(super) fn backward<T: Element>(
    pass: &Pass<'_, '_, T>,
    saved: &Saved<T>,
    grad_output: &[T],
) -> Result<BlockGradients<T>> {
    let Pass { config, parameters, operator, inputs } = pass;
    let (shape, channels) = (operator.shape(), config.embed_dims);
    let [grad_projected, mut grad_instances] = pass.split_output(grad_output, &saved.dropouts)?;
    let features = load_rows("aggregated features", row_major(&saved.features), channels)?;
    let output_proj = linear::backward_layer(grad_projected.view(), features.view())?;
    let grad_features =
        linear::backward_input(parameters.output_proj.weight.view(), grad_projected.view())?;
    drop((features, grad_projected));

    let grad_features = store_rows::<T>("feature gradient", &grad_features)?;
    let grad_features =
        Array3::from_shape_vec(shape.output_dim(), grad_features).expect("one row for each anchor");
    let weights = saved.weights.as_ref().unwrap_or(&saved.attention);
    let aggregation = operator.backward(
        Inputs {
            feature_maps: inputs.feature_maps(),
            sampling_locations: saved.sampling_locations.view(),
            weights: pass.shaped_weights(weights),
        },
        grad_features.view(),
    )?;

    let grad_logits = attention::backward(
        shape,
        &saved.attention,
        row_major(&aggregation.weights),
        saved.dropouts.attention.as_ref(),
        saved.encoding.is_some(),
    )?;
    let cameras = saved.encoding.as_ref().map(|encoding| encoding.output.view());
    let logits = grad_logits.backward(&parameters.weights_fc, saved.embedded.view(), cameras)?;
    drop(grad_logits);

    let key_points = row_major(&saved.key_points);
    let grad_locations = row_major(&aggregation.sampling_locations);
    let mut projection = pass.cameras().backward(key_points, grad_locations)?;
    let mut camera_encoder = None;
    if let (Some(encoder), Some(encoding), Some(grad)) =
        (&parameters.camera_encoder, &saved.encoding, logits.cameras)
    {
        let (gradients, grad_encoded) = camera::backward(encoder, encoding, grad)?;
        let mut upper = projection.matrices.slice_mut(s![.., ..INPUTS]);
        upper += &grad_encoded;
        camera_encoder = Some(gradients);
    }

    let generator = KeyPointsGenerator::new(&config.kps_generator, parameters);
    let anchors = rows(inputs.anchor(), inputs.anchor_dims);
    let (grad_anchors, grad_offsets) =
        generator.points_backward(anchors, saved.offsets.as_ref(), &projection.points)?;
    let mut learnable_fc = None;
    if let Some(grad_offsets) = grad_offsets {
        let instances = load_rows("instance features", inputs.instance_feature(), channels)?;
        let (gradients, grad) =
            generator.offsets_backward(instances.view(), grad_offsets.view())?;
        learnable_fc = gradients;
        grad_instances += &grad;
    }
    grad_instances += &logits.instances;

    let (batch, count) = (shape.batch(), shape.anchors());
    let activations = |rows: &Array2<T::Location>| -> Result<Array3<T>> {
        let values = store_rows("gradient", rows)?;
        Ok(Array3::from_shape_vec(shape.output_dim(), values).expect("one row for each anchor"))
    };
    let fix_scale = parameters.fix_scale.as_ref();
    Ok(BlockGradients {
        instance_feature: activations(&grad_instances)?,
        anchor: grad_anchors
            .into_shape_with_order((batch, count, inputs.anchor_dims))
            .expect("one row for each anchor"),
        anchor_embed: match inputs.anchor_embed() {
            Some(_) => Some(activations(&logits.instances)?),
            None => None,
        },
        feature_maps: aggregation.feature_maps,
        layout: shape.layout().clone(),
        projection_mat: projection
            .matrices
            .into_shape_with_order((batch, config.num_cams, 4, 4))
            .expect("one row for each camera"),
        parameters: BlockParameters {
            fix_scale: fix_scale.map(|places| Array2::zeros(places.raw_dim())),
            learnable_fc,
            output_proj,
            camera_encoder,
            weights_fc: logits.layer,
        },
    })
}

impl<T: Element> Pass<'_, '_, T> {
    fn cameras(&self) -> Cameras<'_, T::Location> {
        let matrices = self.inputs.projection_mat();
        let shape = self.operator.shape();
        Cameras::new(matrices, self.inputs.image_wh(), self.config.num_cams, shape)
    }

    fn shaped_weights<'w>(&self, weights: &'w [T]) -> ArrayView6<'w, T> {
        ArrayView6::from_shape(self.operator.shape().weights_dim(), weights)
            .expect("made for these sizes")
    }

    /// Projection, dropout and residual.
    fn project_output(
        &self,
        features: &Array3<T>,
        dropouts: &Dropouts<T::Location>,
    ) -> Result<Array3<T>> {
        let (batch, anchors, channels) = features.dim();
        let layer = &self.parameters.output_proj;
        let features = load_rows("aggregated features", row_major(features), channels)?;
        let mut projected =
            linear::forward(layer.weight.view(), Some(layer.bias.view()), features.view())?;
        apply(dropouts, &mut projected);
        let mut output = zero_array("output", (batch * anchors, self.config.output_dims()))?;
        let instances = rows(self.inputs.instance_feature(), channels);
        Zip::from(output.rows_mut()).and(projected.rows()).and(instances.rows()).par_for_each(
            |mut output, projected, instance| match self.config.residual_mode {
                ResidualMode::Add => {
                    for channel in 0..channels {
                        output[channel] = store(projected[channel] + load(instance[channel]));
                    }
                }
                ResidualMode::Cat => {
                    for channel in 0..channels {
                        output[channel] = store(projected[channel]);
                        output[channels + channel] = instance[channel];
                    }
                }
            },
        );
        let dimensions = (batch, anchors, self.config.output_dims());
        Ok(output.into_shape_with_order(dimensions).expect("one row for each anchor"))
    }

    /// The gradients of what the output layer gave, and of the instances through the residual.
    fn split_output(
        &self,
        grad_output: &[T],
        dropouts: &Dropouts<T::Location>,
    ) -> Result<[Array2<T::Location>; 2]> {
        let channels = self.config.embed_dims;
        let grad = load_rows("output gradient", grad_output, self.config.output_dims())?;
        let [mut projected, residual] = match self.config.residual_mode {
            ResidualMode::Add => [grad.clone(), grad],
            ResidualMode::Cat => {
                let (projected, residual) = grad.view().split_at(Axis(1), channels);
                [to_rows(projected)?, to_rows(residual)?]
            }
        };
        apply(dropouts, &mut projected);
        Ok([projected, residual])
    }
}

/// The dropout of the projection, which is the same forward and backward.
fn apply<R: Scalar>(dropouts: &Dropouts<R>, projected: &mut Array2<R>) {
    if let Some(dropout) = &dropouts.projection {
        for (value, &kept) in projected.iter_mut().zip(&dropout.kept) {
            *value = if kept { *value * dropout.scale } else { R::zero() };
        }
    }
}

/// A row-major copy.
fn to_rows<R: Scalar>(array: ArrayView2<'_, R>) -> Result<Array2<R>> {
    let mut copy = zero_array("row-major copy", array.raw_dim())?;
    copy.assign(&array);
    Ok(copy)
}

fn row_major<A, D: Dimension>(array: &Array<A, D>) -> &[A] {
    array.as_slice().expect("made row-major")
}
