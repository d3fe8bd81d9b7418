//! Running an engine again and again, and what a run takes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use deformable_aggregation::{Algorithm, BorderRule, DeformableAggregation, Element, Gradients};
use ndarray::Array3;
use serde::Serialize;

use crate::data::{Data, Results};
use crate::engines::Engine;
use crate::gpu::Number;

/// A pass through the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Inputs to output.
    Forward,
    /// Output gradient to the three input gradients.
    Backward,
}

impl Direction {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }
}

/// What one run takes besides time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Kernel launches and clearings of arrays.
    pub launches: usize,
    /// Bytes of memory besides inputs and results.
    pub workspace_bytes: usize,
}

/// An engine with the data it runs on in place.
pub trait Runner<T: Element> {
    /// Takes the kernels of this algorithm from now on, and forgets the results of others.
    ///
    /// # Errors
    ///
    /// What the backend reports.
    fn choose(&mut self, algorithm: Algorithm) -> Result<()>;

    /// Runs once and tells how long it took.
    ///
    /// # Errors
    ///
    /// What the backend reports.
    fn run(&mut self, direction: Direction) -> Result<Duration>;

    /// Runs as a CUDA graph, recorded at the first call, and tells how long one run of several in a row took; `None` on a
    /// backend that has no graphs.
    ///
    /// # Errors
    ///
    /// What the backend reports.
    fn replay(&mut self, direction: Direction) -> Result<Option<Duration>>;

    /// What a run takes besides time; `None` on a backend without kernels and workspace.
    ///
    /// # Errors
    ///
    /// What the backend reports.
    fn cost(&self, direction: Direction) -> Result<Option<Cost>>;

    /// What the last runs computed.
    ///
    /// # Errors
    ///
    /// If a direction has not been run, or what the backend reports.
    fn results(&mut self) -> Result<Results<T>>;
}

/// An engine with the data it is to run on.
///
/// # Errors
///
/// What the backend reports.
pub fn runner<'a, T: Number>(
    engine: &Engine,
    data: &'a Data<T>,
    rule: BorderRule,
) -> Result<Box<dyn Runner<T> + 'a>> {
    if let Some(runner) = T::gpu_runner(&engine.backend, engine.algorithm, data, rule)? {
        return Ok(runner);
    }
    let operator = engine.operator(data, rule);
    Ok(Box::new(HostRunner { operator, data, output: None, gradients: None }))
}

/// A backend on host memory, timed by the clock. A run includes what a user of the library pays for: checks of the sizes,
/// and memory for the results.
struct HostRunner<'a, T: Element> {
    operator: DeformableAggregation,
    data: &'a Data<T>,
    output: Option<Array3<T>>,
    gradients: Option<Gradients<T>>,
}

impl<T: Element> Runner<T> for HostRunner<'_, T> {
    fn choose(&mut self, algorithm: Algorithm) -> Result<()> {
        self.operator = self.operator.clone().with_algorithm(algorithm);
        (self.output, self.gradients) = (None, None);
        Ok(())
    }

    fn replay(&mut self, _: Direction) -> Result<Option<Duration>> {
        Ok(None)
    }

    fn cost(&self, _: Direction) -> Result<Option<Cost>> {
        Ok(None)
    }

    fn run(&mut self, direction: Direction) -> Result<Duration> {
        let inputs = self.data.inputs();
        let start;
        match direction {
            Direction::Forward => {
                self.output = None;
                start = Instant::now();
                self.output = Some(self.operator.forward(inputs)?);
            }
            Direction::Backward => {
                self.gradients = None;
                start = Instant::now();
                let grad_output = self.data.grad_output.view();
                self.gradients = Some(self.operator.backward(inputs, grad_output)?);
            }
        }
        Ok(start.elapsed())
    }

    fn results(&mut self) -> Result<Results<T>> {
        Ok(Results {
            output: self.output.take().context("forward has not been run")?,
            gradients: self.gradients.take().context("backward has not been run")?,
        })
    }
}

/// How often to run.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs before the measured ones.
    pub warm_up: usize,
    /// Most measured runs.
    pub runs: usize,
    /// No further run starts after this time, except for the first three.
    pub time: Duration,
}

/// Times of the measured runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// The middle one.
    pub median: Duration,
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// How many.
    pub runs: usize,
}

/// Measures a direction.
///
/// # Errors
///
/// What the backend reports.
pub fn measure<T: Element>(
    runner: &mut dyn Runner<T>,
    direction: Direction,
    limits: Limits,
) -> Result<Timing> {
    repeated(limits, || runner.run(direction))
}

/// Measures a direction as a CUDA graph; `None` on a backend that has none.
///
/// # Errors
///
/// What the backend reports.
pub fn measure_replay<T: Element>(
    runner: &mut dyn Runner<T>,
    direction: Direction,
    limits: Limits,
) -> Result<Option<Timing>> {
    if runner.replay(direction)?.is_none() {
        return Ok(None);
    }
    let timing = repeated(limits, || {
        runner.replay(direction)?.context("the backend had graphs a moment ago")
    })?;
    Ok(Some(timing))
}

/// Runs as often as the limits say.
///
/// # Errors
///
/// What a run returns.
pub fn repeated(limits: Limits, mut run: impl FnMut() -> Result<Duration>) -> Result<Timing> {
    for _ in 0..limits.warm_up {
        run()?;
    }
    let start = Instant::now();
    let mut times = Vec::with_capacity(limits.runs);
    while times.len() < limits.runs.max(1) && (times.len() < 3 || start.elapsed() < limits.time) {
        times.push(run()?);
    }
    Ok(summary(times))
}

fn summary(mut times: Vec<Duration>) -> Timing {
    times.sort();
    let runs = times.len();
    let median = (times[(runs - 1) / 2] + times[runs / 2]) / 2;
    Timing { median, min: times[0], max: times[runs - 1], runs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_with_their_number_or_the_time() {
        let count = |runs, time| {
            let mut calls = 0;
            let limits = Limits { warm_up: 2, runs, time };
            let timing = repeated(limits, || {
                calls += 1;
                Ok(Duration::from_millis(1))
            });
            (timing.expect("no run fails").runs, calls)
        };
        assert_eq!(count(7, Duration::from_secs(60)), (7, 9));
        assert_eq!(count(7, Duration::ZERO), (3, 5));
        assert_eq!(count(0, Duration::ZERO), (1, 3));
    }

    #[test]
    fn the_median_is_the_middle() {
        let times = |values: &[u64]| values.iter().copied().map(Duration::from_millis).collect();
        let odd = summary(times(&[9, 1, 4]));
        assert_eq!((odd.median, odd.min, odd.max), {
            let [median, min, max] = [4, 1, 9].map(Duration::from_millis);
            (median, min, max)
        });
        assert_eq!(summary(times(&[1, 4, 2, 9])).median, Duration::from_millis(3));
    }
}
