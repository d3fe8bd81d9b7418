//! The arrays of one call of the attention block.

use anyhow::{Context, Result};
use deformable_aggregation::block::{
    BlockConfig, BlockGradients, BlockInputs, BlockParameters, DeformableFeatureAggregation,
    DropoutMasks, FeatureMaps, Mode,
};
use deformable_aggregation::{BorderRule, Element, FeatureLayout, Scalar};
use ndarray::{Array3, Array4};

use crate::engines::Engine;

/// Settings, parameters, inputs and the upstream gradient.
#[derive(Clone, Debug)]
pub struct BlockData<T: Element> {
    /// The settings.
    pub config: BlockConfig,
    /// The parameters.
    pub parameters: BlockParameters<T::Location>,
    /// (batch, anchors, embed_dims)
    pub instance_feature: Array3<T>,
    /// (batch, anchors, numbers of an anchor)
    pub anchor: Array3<T::Location>,
    /// (batch, anchors, embed_dims)
    pub anchor_embed: Option<Array3<T>>,
    /// (batch, num_feat, embed_dims)
    pub feature_maps: Array3<T>,
    /// Where the maps lie.
    pub layout: FeatureLayout,
    /// (batch, cameras, 4, 4)
    pub projection_mat: Array4<T::Location>,
    /// (batch, cameras, 2)
    pub image_wh: Option<Array3<T::Location>>,
    /// What dropout keeps; `None` for evaluation mode.
    pub masks: Option<DropoutMasks>,
    /// Gradient of the output, (batch, anchors, output_dims).
    pub grad_output: Array3<T>,
}

/// Arrays by name, flat.
pub type NamedArrays = Vec<(String, Vec<f64>)>;

impl<T: Element> BlockData<T> {
    /// The inputs as the block takes them.
    pub fn inputs(&self) -> BlockInputs<'_, T> {
        BlockInputs {
            instance_feature: self.instance_feature.view(),
            anchor: self.anchor.view(),
            anchor_embed: self.anchor_embed.as_ref().map(|embed| embed.view()),
            feature_maps: FeatureMaps::Packed {
                feature_maps: self.feature_maps.view(),
                layout: &self.layout,
            },
            projection_mat: self.projection_mat.view(),
            image_wh: self.image_wh.as_ref().map(|sizes| sizes.view()),
        }
    }

    /// The mode of the call.
    pub fn mode(&self) -> Mode<'_> {
        self.masks.as_ref().map_or(Mode::Evaluation, Mode::Masks)
    }

    /// The block on an engine.
    ///
    /// # Errors
    ///
    /// If the parameters do not fit the settings.
    pub fn block(&self, engine: &Engine) -> Result<DeformableFeatureAggregation<T::Location>> {
        let (config, parameters) = (self.config.clone(), self.parameters.clone());
        Ok(DeformableFeatureAggregation::with_parameters(config, parameters)?
            .with_backend(engine.backend.clone())
            .with_algorithm(engine.algorithm))
    }

    /// Output and gradients on an engine, under the names that files of vectors have for them.
    ///
    /// # Errors
    ///
    /// What the backend reports.
    pub fn run(&self, engine: &Engine) -> Result<NamedArrays> {
        let place = |direction: &str| format!("{direction} of the block on {}", engine.label());
        let block = self.block(engine)?;
        let (output, context) = block
            .forward_with_context(self.inputs(), self.mode())
            .with_context(|| place("forward"))?;
        let gradients =
            context.backward(self.grad_output.view()).with_context(|| place("backward"))?;
        named(&output, &gradients)
    }

    /// The same with another border rule.
    #[must_use]
    pub fn with_rule(mut self, rule: BorderRule) -> Self {
        self.config.use_deformable_func = rule == BorderRule::Operator;
        self
    }

    /// The same numbers in another element type, rounded to nearest.
    ///
    /// # Errors
    ///
    /// If the settings are not valid.
    pub fn converted<U: Element>(&self) -> Result<BlockData<U>> {
        let location = |value: T::Location| U::Location::from_f64(value.into());
        let element = |value: T| U::from_f64(value.to_f64());
        let mut parameters = BlockParameters::init(&self.config, 0)?;
        for ((_, mut to), (_, from)) in
            parameters.named_mut().into_iter().zip(self.parameters.named())
        {
            to.assign(&from.mapv(location));
        }
        Ok(BlockData {
            config: self.config.clone(),
            parameters,
            instance_feature: self.instance_feature.mapv(element),
            anchor: self.anchor.mapv(location),
            anchor_embed: self.anchor_embed.as_ref().map(|embed| embed.mapv(element)),
            feature_maps: self.feature_maps.mapv(element),
            layout: self.layout.clone(),
            projection_mat: self.projection_mat.mapv(location),
            image_wh: self.image_wh.as_ref().map(|sizes| sizes.mapv(location)),
            masks: self.masks.clone(),
            grad_output: self.grad_output.mapv(element),
        })
    }
}

/// Output and gradients by name: `output`, `grad.<input>`, `grad.fm.<group>.<level>`, `grad.param.<parameter>`.
fn named<T: Element>(output: &Array3<T>, gradients: &BlockGradients<T>) -> Result<NamedArrays> {
    let elements = |array: &Array3<T>| array.iter().map(|&value| value.to_f64()).collect();
    let mut arrays: NamedArrays = vec![
        ("output".to_owned(), elements(output)),
        ("grad.instance_feature".to_owned(), elements(&gradients.instance_feature)),
        ("grad.anchor".to_owned(), wide(&gradients.anchor)),
        ("grad.projection_mat".to_owned(), wide(&gradients.projection_mat)),
    ];
    if let Some(embed) = &gradients.anchor_embed {
        arrays.push(("grad.anchor_embed".to_owned(), elements(embed)));
    }
    for (group, levels) in gradients.feature_maps_by_level()?.iter().enumerate() {
        for (level, maps) in levels.iter().enumerate() {
            let values = maps.iter().map(|&value| value.to_f64()).collect();
            arrays.push((format!("grad.fm.{group}.{level}"), values));
        }
    }
    for (name, tensor) in gradients.parameters.named() {
        arrays.push((format!("grad.param.{name}"), wide(&tensor)));
    }
    Ok(arrays)
}

/// Numbers of any dimensions, flat.
pub fn wide<'a, R: Scalar>(values: impl IntoIterator<Item = &'a R>) -> Vec<f64> {
    values.into_iter().map(|&value| value.into()).collect()
}
