//! What training adds: dropout, from numbers that every backend draws alike.

use ndarray::{Array, Array3, Array4, Dimension};
use rayon::prelude::*;

use super::config::BlockConfig;
use super::random::{stream, uniform};
use crate::element::Scalar;
use crate::error::Result;
use crate::memory::zero_array;
use crate::shape::{AggregationShape, check_dim};

/// Whether a call is one of training, and where its dropout comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mode<'a> {
    /// No dropout.
    #[default]
    Evaluation,
    /// Dropout with the [masks](DropoutMasks::draw) of a seed: the same seed drops the same entries on every backend. Take another
    /// seed in every step and every block.
    Training {
        /// Key of the random numbers.
        seed: u64,
    },
    /// Dropout with these masks, such as those of another program.
    Masks(&'a DropoutMasks),
}

/// What dropout keeps. What is kept is multiplied by 1 / (1 − p), with p the probability of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropoutMasks {
    /// (batch, anchors, cameras, points): whether the attention weights of a point in a camera, at all levels and in all groups, are kept.
    pub attention: Array4<bool>,
    /// (batch, anchors, embed_dims): whether an entry of the projected output is kept.
    pub projection: Array3<bool>,
}

impl DropoutMasks {
    /// The masks of a seed.
    ///
    /// Entry `i`, counted through row by row, is kept if number `i` of the generator (Philox-4x32-10 keyed with the seed, counter (i
    /// mod 2³², i / 2³², stream, 0), the upper 24 bits of the first word as a fraction) is above `attn_drop` in stream 0, for the
    /// attention, and not below `proj_drop` in stream 1, for the projection: the comparisons of the PyTorch block. A
    /// probability of 0 keeps everything.
    ///
    /// # Errors
    ///
    /// Those of [`BlockConfig::check`], [`Error::TooLarge`](crate::Error::TooLarge) and
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    ///
    /// ```
    /// use deformable_aggregation::block::{BlockConfig, DropoutMasks};
    ///
    /// let config = BlockConfig { attn_drop: 0.15, ..BlockConfig::default() };
    /// let masks = DropoutMasks::draw(&config, 2, 900, 7)?;
    /// let kept = masks.attention.iter().filter(|&&kept| kept).count();
    /// assert!((kept as f64 / masks.attention.len() as f64 - 0.85).abs() < 0.02);
    /// assert!(masks.projection.iter().all(|&kept| kept));
    /// assert_eq!(masks, DropoutMasks::draw(&config, 2, 900, 7)?);
    /// # Ok::<(), deformable_aggregation::Error>(())
    /// ```
    pub fn draw(config: &BlockConfig, batch: usize, anchors: usize, seed: u64) -> Result<Self> {
        config.check()?;
        let dimensions = [batch, anchors, config.num_cams, config.num_pts()];
        let mut attention = zero_array::<bool, _>("attention dropout mask", dimensions)?;
        let (attn_drop, proj_drop) = (config.attn_drop as f32, config.proj_drop as f32);
        fill(&mut attention, |index| {
            config.attn_drop == 0.0 || uniform(seed, stream::ATTENTION, index) > attn_drop
        });
        let dimensions = [batch, anchors, config.embed_dims];
        let mut projection = zero_array::<bool, _>("projection dropout mask", dimensions)?;
        fill(&mut projection, |index| uniform(seed, stream::PROJECTION, index) >= proj_drop);
        Ok(Self { attention, projection })
    }
}

/// Fills a mask, entry by entry.
fn fill<D: Dimension>(mask: &mut Array<bool, D>, kept: impl Fn(u64) -> bool + Sync) {
    let entries = mask.as_slice_mut().expect("made row-major");
    entries.par_iter_mut().enumerate().for_each(|(index, entry)| *entry = kept(index as u64));
}

/// One dropout of a call.
#[derive(Clone, Debug)]
pub(super) struct Dropout<R> {
    /// Row-major.
    pub(super) kept: Vec<bool>,
    /// What is kept grows by this factor.
    pub(super) scale: R,
}

/// The dropouts of a call; `None` where everything is kept.
#[derive(Clone, Debug)]
pub(super) struct Dropouts<R> {
    /// (batch, anchors, cameras, points)
    pub(super) attention: Option<Dropout<R>>,
    /// (batch, anchors, embed_dims)
    pub(super) projection: Option<Dropout<R>>,
}

impl<R: Scalar> Dropouts<R> {
    /// Those of a checked mode.
    pub(super) fn new(
        mode: Mode<'_>,
        config: &BlockConfig,
        shape: &AggregationShape,
    ) -> Result<Self> {
        let drawn;
        let masks = match mode {
            Mode::Evaluation => return Ok(Self { attention: None, projection: None }),
            Mode::Masks(masks) => masks,
            Mode::Training { seed } => {
                drawn = DropoutMasks::draw(config, shape.batch(), shape.anchors(), seed)?;
                &drawn
            }
        };
        let dropout = |kept: Vec<bool>, probability: f64| {
            // A call without a dropped entry still scales, unless the probability is 0.
            let needed = probability > 0.0 || kept.contains(&false);
            let scale = R::from_f64((1.0 - probability).recip());
            needed.then_some(Dropout { kept, scale })
        };
        Ok(Self {
            attention: dropout(masks.attention.iter().copied().collect(), config.attn_drop),
            projection: dropout(masks.projection.iter().copied().collect(), config.proj_drop),
        })
    }
}

impl Mode<'_> {
    /// Whether masks have the sizes of the call.
    pub(crate) fn check(&self, shape: &AggregationShape) -> Result<()> {
        let Mode::Masks(masks) = self else { return Ok(()) };
        let (batch, anchors) = (shape.batch(), shape.anchors());
        let expected = [batch, anchors, shape.layout().cameras(), shape.points()];
        let axes = "(batch, anchors, cameras, points)";
        check_dim("masks.attention", axes, &expected, masks.attention.shape())?;
        let expected = [batch, anchors, shape.embed_dims()];
        let axes = "(batch, anchors, embed_dims)";
        check_dim("masks.projection", axes, &expected, masks.projection.shape())
    }
}
