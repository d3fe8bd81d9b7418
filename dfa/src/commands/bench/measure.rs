//! Measuring backends on a subject, and checking what they computed.

use std::time::Duration;

use anyhow::{Result, ensure};
use deformable_aggregation::{Algorithm, BorderRule};
use indicatif::ProgressBar;

use super::Args;
use super::choice::{Subject, engines};
use super::row::{Bandwidths, Floors, QuantityError, Row, Sizes};
use crate::compare::l2_bound;
use crate::data::{Data, Quantity, Results};
use crate::engines::Engine;
use crate::gpu::{self, Number};
use crate::scenario::{self, Touched};
use crate::system::copy_bandwidth;
use crate::timing::{Cost, Direction, Limits, Runner, Timing, measure, measure_replay, runner};
use crate::{judge, output, with_dtype};

/// A backend to measure.
pub(super) struct Machine {
    /// The backend, with the first of the algorithms.
    pub(super) engine: Engine,
    /// All algorithms to measure.
    algorithms: Vec<Algorithm>,
    /// What its memory can do.
    pub(super) bandwidths: Bandwidths,
}

/// What is run on every subject.
pub(super) struct Bench<'a> {
    args: &'a Args,
    pub(super) machines: Vec<Machine>,
    pub(super) spinner: ProgressBar,
}

/// A subject with its inputs.
struct Case<'a, T: Number> {
    subject: &'a Subject,
    data: &'a Data<T>,
    touched: Touched,
    judged: &'a [(usize, Results<f64>)],
}

/// What was measured of one direction.
struct Measured {
    direction: Direction,
    timing: Timing,
    replay: Option<Timing>,
    cost: Option<Cost>,
}

impl<'a> Bench<'a> {
    /// Opens the backends and measures their memories.
    ///
    /// # Errors
    ///
    /// A backend asked for that cannot be used.
    pub(super) fn new(args: &'a Args) -> Result<Self> {
        let spinner = output::spinner("measuring bandwidths");
        let mut machines: Vec<Machine> = Vec::new();
        for engine in engines(args)? {
            match machines.iter_mut().find(|machine| machine.engine.name == engine.name) {
                Some(machine) => machine.algorithms.push(engine.algorithm),
                None => machines.push(Machine {
                    algorithms: vec![engine.algorithm],
                    bandwidths: bandwidths(&engine)?,
                    engine,
                }),
            }
        }
        Ok(Self { args, machines, spinner })
    }

    /// Leaves the last backend, without the published algorithm.
    pub(super) fn keep_last(&mut self) {
        self.machines.drain(..self.machines.len().saturating_sub(1));
        for machine in &mut self.machines {
            machine.algorithms.retain(|algorithm| *algorithm != Algorithm::Naive);
        }
    }

    /// Measures and checks all backends, algorithms and directions on one subject. No rows if no backend has its type.
    ///
    /// # Errors
    ///
    /// What a backend reports.
    pub(super) fn measure(&self, subject: &Subject) -> Result<Vec<Row>> {
        with_dtype!(subject.dtype, T => self.measure_in::<T>(subject))
    }

    fn measure_in<T: Number>(&self, subject: &Subject) -> Result<Vec<Row>> {
        let machines: Vec<_> =
            self.machines.iter().filter(|machine| machine.engine.supports(T::DTYPE)).collect();
        if machines.is_empty() {
            return Ok(Vec::new());
        }
        let label = subject.label();
        self.spinner.set_message(format!("{label}: drawing inputs"));
        let data = scenario::generate::<T>(&subject.workload, subject.landing, self.args.seed)?;
        let touched = Touched::count(&data);
        self.spinner.set_message(format!("{label}: fp64 reference"));
        let judged = judge::sampled(&data, self.args.seed)?;
        let case = Case { subject, data: &data, touched, judged: &judged };
        let mut rows = Vec::new();
        for machine in machines {
            self.spinner.set_message(format!("{label}: {}", machine.engine.name.name()));
            let mut runner = runner(&machine.engine, &data, BorderRule::Operator)?;
            for &algorithm in &machine.algorithms {
                runner.choose(algorithm)?;
                rows.extend(self.measure_algorithm(&case, machine, algorithm, runner.as_mut())?);
            }
        }
        Ok(rows)
    }

    fn measure_algorithm<T: Number>(
        &self,
        case: &Case<'_, T>,
        machine: &Machine,
        algorithm: Algorithm,
        runner: &mut dyn Runner<T>,
    ) -> Result<Vec<Row>> {
        let limits = limits(self.args);
        // The repeatable kernels of the forward pass are the fast ones.
        let wanted = |direction: Direction| {
            self.args.direction.contains(&direction)
                && (algorithm != Algorithm::Repeatable || direction == Direction::Backward)
        };
        let mut all = Vec::new();
        for direction in [Direction::Forward, Direction::Backward] {
            if wanted(direction) {
                let timing = measure(runner, direction, limits)?;
                let replay =
                    if self.args.graph { measure_replay(runner, direction, limits)? } else { None };
                let cost = runner.cost(direction)?;
                all.push(Measured { direction, timing, replay, cost });
            } else {
                // Results of a direction that is not measured are wanted for the check all the same.
                runner.run(direction)?;
            }
        }
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let errors = judge::largest_errors(&runner.results()?, case.judged);
        let rows = all.iter().map(|measured| row(case, machine, algorithm, measured, errors));
        Ok(rows.collect())
    }
}

fn row<T: Number>(
    case: &Case<'_, T>,
    machine: &Machine,
    algorithm: Algorithm,
    measured: &Measured,
    errors: [f64; 4],
) -> Row {
    let Case { subject, data, touched, judged } = case;
    let Measured { direction, timing, replay, cost } = *measured;
    let (shape, element) = (&data.shape, T::DTYPE.size_bytes());
    let (dram_bytes, quantities) = match direction {
        Direction::Forward => (touched.forward_bytes(shape, element), 0..1),
        Direction::Backward => (touched.backward_bytes(shape, element), 1..4),
    };
    let errors: Vec<_> = quantities
        .map(|index| QuantityError { quantity: Quantity::ALL[index], relative_l2: errors[index] })
        .collect();
    let bound = l2_bound(T::DTYPE);
    let tap_bytes = touched.tap_bytes(shape, element);
    let median_us = micro(timing.median);
    Row {
        workload: subject.workload.id,
        model: subject.workload.model,
        source: subject.workload.source,
        sizes: Sizes::new(&subject.workload),
        scenario: subject.scenario.clone(),
        dtype: T::DTYPE.to_string(),
        backend: machine.engine.name.name(),
        algorithm,
        direction,
        runs: timing.runs,
        median_us,
        min_us: micro(timing.min),
        max_us: micro(timing.max),
        replay_us: replay.map(|replay| micro(replay.median)),
        touched: *touched,
        floors: Floors::new(machine.bandwidths, dram_bytes, tap_bytes, median_us),
        naive_over_this: None,
        over_fast: None,
        over_fp32: None,
        cost,
        has_algorithms: machine.engine.name.has_kernels(),
        checked_items: judged.iter().map(|(item, _)| *item).collect(),
        passed: errors.iter().all(|error| error.relative_l2 <= bound),
        errors,
        error_bound: bound,
    }
}

/// How often `args` ask for runs.
pub(super) fn limits(args: &Args) -> Limits {
    let time = Duration::from_secs_f64(args.seconds.max(0.0));
    Limits { warm_up: 2, runs: args.runs, time }
}

pub(super) fn micro(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What the memory of an engine can do.
fn bandwidths(engine: &Engine) -> Result<Bandwidths> {
    let copy = engine.copy_bandwidth()?.unwrap_or_else(copy_bandwidth);
    let l2 = gpu::l2_read_bandwidth(&engine.backend)?;
    ensure!(l2.is_none_or(|l2| l2 > 0.0), "the cache bandwidth measured is not a number");
    Ok(Bandwidths { copy, l2 })
}
