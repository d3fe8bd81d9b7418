//! One size at a time from small to large: is there one at which the time jumps?

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use deformable_aggregation::{Algorithm, DType};
use serde::Serialize;

use super::Args;
use super::choice::Subject;
use super::measure::Bench;
use super::print;
use super::row::Row;
use crate::chart::{self, Chart, Line, Panel, Stroke};
use crate::engines::BackendName;
use crate::output;
use crate::scenario::{Landing, Scenario};
use crate::system::Origin;
use crate::timing::Direction;
use crate::workloads::Workload;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sweep {
    /// The share of key points that are seen, from none to all
    Visible,
    /// Channels from 8 to 1024, odd numbers among them
    Channels,
    /// Samples per batch
    Batch,
    /// Weight groups from 1 to the number of channels
    Groups,
    /// Levels from 1 to 8
    Levels,
    /// Anchors from one with all the points to many with nine each
    Points,
}

/// What a line of the picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Series {
    Forward,
    Backward,
    /// Backward that gives the same in every run, where that is another algorithm.
    Repeatable,
}

impl Series {
    const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Repeatable];

    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Repeatable => "repeatable backward",
        }
    }

    fn has(self, row: &Row) -> bool {
        let (direction, algorithm) = match self {
            Self::Forward => (Direction::Forward, Algorithm::Fast),
            Self::Backward => (Direction::Backward, Algorithm::Fast),
            Self::Repeatable => (Direction::Backward, Algorithm::Repeatable),
        };
        row.direction == direction && row.algorithm == algorithm
    }
}

/// Eight levels, each a quarter of the one before.
const LEVELS: [(usize, usize); 8] =
    [(64, 176), (32, 88), (16, 44), (8, 22), (4, 11), (2, 6), (1, 3), (1, 2)];

/// The same for processors that would take long.
const SMALL_LEVELS: [(usize, usize); 8] =
    [(32, 88), (16, 44), (8, 22), (4, 11), (2, 6), (1, 3), (1, 2), (1, 1)];

const CHANNELS: [usize; 24] = [
    8, 12, 16, 24, 31, 32, 48, 64, 77, 96, 128, 129, 192, 256, 257, 320, 384, 509, 512, 640, 768,
    1000, 1021, 1024,
];

/// The sizes that a sweep starts from, and how far it goes.
#[derive(Clone, Copy)]
struct Base {
    workload: Workload,
    levels: &'static [(usize, usize); 8],
    /// Largest batch.
    batch: usize,
    /// Points of the one anchor, and anchors with nine points at the other end.
    points: (usize, usize),
}

impl Base {
    fn new(args: &Args, backend: BackendName) -> Result<Self> {
        ensure!(args.workload.len() <= 1, "--sweep: choose one workload to start from");
        let by_id = |id| Workload::by_id(id).copied().context("a workload of the list");
        let named = args.workload.first().map(|workload| **workload);
        Ok(if backend == BackendName::Cuda {
            let workload = args.sized(named.map_or_else(|| by_id("W2"), Ok)?);
            Self { workload, levels: &LEVELS, batch: 32, points: (100_000, 144_000) }
        } else {
            let listed = named.map_or_else(|| by_id("W1"), Ok)?;
            let workload = args.sized(Workload {
                batch: 1,
                anchors: listed.anchors.min(90),
                levels: &SMALL_LEVELS[..4],
                ..listed
            });
            Self { workload, levels: &SMALL_LEVELS, batch: 8, points: (1_000, 1_440) }
        })
    }
}

impl Sweep {
    /// What the horizontal axis has.
    fn label(self) -> &'static str {
        match self {
            Self::Visible => "samples that count",
            Self::Channels => "channels",
            Self::Batch => "samples per batch",
            Self::Groups => "weight groups",
            Self::Levels => "levels",
            Self::Points => "anchors",
        }
    }

    /// What the picture's panel is called.
    fn title(self, base: &Base) -> String {
        match self {
            Self::Visible => "More of the key points seen".to_owned(),
            Self::Channels => "More channels".to_owned(),
            Self::Batch => "Larger batches".to_owned(),
            Self::Groups => "More weight groups".to_owned(),
            Self::Levels => "More levels".to_owned(),
            Self::Points => format!(
                "{} points on 1 to {0} anchors, then 9 on each of {}",
                output::grouped(base.points.0),
                output::grouped(base.points.1)
            ),
        }
    }

    /// The value on the horizontal axis.
    fn x(self, row: &Row) -> usize {
        match self {
            Self::Visible => row.touched.samples,
            Self::Channels => row.sizes.embed_dims,
            Self::Batch => row.sizes.batch,
            Self::Groups => row.sizes.groups,
            Self::Levels => row.sizes.levels.len(),
            Self::Points => row.sizes.anchors,
        }
    }

    /// What is measured, from small to large.
    fn subjects(self, base: &Base, dtype: DType) -> Vec<Subject> {
        let from = base.workload;
        let sized = |workload| (workload, Landing::Rig);
        let cases: Vec<(Workload, Landing)> = match self {
            Self::Visible => [0.0, 1.0 / 256.0, 1.0 / 64.0, 1.0 / 16.0, 1.0 / 8.0, 0.25, 0.5, 1.0]
                .into_iter()
                .map(|share| (from, Landing::Share(share)))
                .collect(),
            Self::Channels => CHANNELS
                .into_iter()
                .map(|embed_dims| Workload { embed_dims, groups: groups(embed_dims), ..from })
                .map(sized)
                .collect(),
            Self::Batch => [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
                .into_iter()
                .filter(|&batch| batch <= base.batch)
                .map(|batch| sized(Workload { batch, ..from }))
                .collect(),
            Self::Groups => (1..=from.embed_dims)
                .filter(|groups| from.embed_dims.is_multiple_of(*groups))
                .map(|groups| sized(Workload { groups, ..from }))
                .collect(),
            Self::Levels => (1..=base.levels.len())
                .map(|count| sized(Workload { levels: &base.levels[..count], ..from }))
                .collect(),
            Self::Points => {
                let (total, anchors) = base.points;
                let split =
                    |anchors| Workload { batch: 1, anchors, points: total / anchors, ..from };
                let powers = (0..).map(|power| 10_usize.pow(power));
                powers
                    .take_while(|&anchors| anchors <= total)
                    .map(split)
                    .chain([Workload { batch: 1, anchors, points: 9, ..from }])
                    .map(sized)
                    .collect()
            }
        };
        cases
            .into_iter()
            .map(|(workload, landing)| {
                let scenario = match landing {
                    Landing::Rig => Scenario::Rig.name().to_owned(),
                    Landing::Share(share) => format!("{} % seen", 100.0 * share),
                };
                Subject { workload, landing, scenario, dtype }
            })
            .collect()
    }
}

/// At most eight groups that divide the channels.
fn groups(channels: usize) -> usize {
    (1..=8).rev().find(|groups| channels.is_multiple_of(*groups)).unwrap_or(1)
}

/// One sweep with what was measured.
#[derive(Serialize)]
struct Swept {
    sweep: Sweep,
    x: &'static str,
    skipped: Vec<String>,
    points: Vec<Point>,
    #[serde(skip)]
    title: String,
}

#[derive(Serialize)]
struct Point {
    x: usize,
    /// Time over samples that count times channels.
    ns_per_sample_and_channel: f64,
    #[serde(flatten)]
    row: Row,
}

impl Point {
    /// What the time is expected to be in proportion to.
    fn work(&self) -> f64 {
        (self.row.touched.samples * self.row.sizes.embed_dims) as f64
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    origin: Origin,
    seed: u64,
    device: String,
    passed: bool,
    sweeps: Vec<Swept>,
}

/// Measures the sweeps asked for on one backend: that asked for, else a GPU, else the CPU. `false` if a result is wrong.
///
/// # Errors
///
/// A backend that cannot be used, or an unwritable picture.
pub(super) fn run(args: &Args) -> Result<bool> {
    ensure!(args.backend.len() <= 1, "--sweep: choose one backend");
    ensure!(args.dtype.len() <= 1, "--sweep: choose one element type");
    let dtype = args.dtype.first().copied().unwrap_or(DType::F32);
    let mut bench = Bench::new(args)?;
    bench.keep_last();
    let machine = bench.machines.first().context("no backend can be used")?;
    ensure!(machine.engine.supports(dtype), "the backend does not compute in {dtype}");
    let base = Base::new(args, machine.engine.name)?;
    let device = machine.engine.device();

    let mut sweeps = Vec::new();
    for &sweep in &args.sweep {
        let (mut points, mut skipped) = (Vec::new(), Vec::new());
        for subject in sweep.subjects(&base, dtype) {
            if let Err(reason) = subject.check_memory() {
                skipped.push(reason.to_string());
                continue;
            }
            points.extend(bench.measure(&subject)?.into_iter().map(|row| Point {
                x: sweep.x(&row),
                ns_per_sample_and_channel: row.median_us * 1e3
                    / (row.touched.samples * row.sizes.embed_dims) as f64,
                row,
            }));
        }
        sweeps.push(Swept { sweep, x: sweep.label(), skipped, points, title: sweep.title(&base) });
    }
    bench.spinner.finish_and_clear();
    let passed = sweeps.iter().flat_map(|sweep| &sweep.points).all(|point| point.row.passed);
    if let Some(path) = &args.picture {
        save_picture(path, &sweeps, &device, dtype, &base)?;
    }
    if args.json {
        let report = Report { origin: Origin::here(), seed: args.seed, device, passed, sweeps };
        output::json(&report)?;
    } else {
        print::machines(&bench)?;
        sweeps.iter().try_for_each(print_sweep)?;
        print::verdict(passed)?;
    }
    Ok(passed)
}

fn print_sweep(swept: &Swept) -> Result<()> {
    output::line(&format!("\n{}", output::styled(output::HEADING, &swept.title)))?;
    let heading = [
        "pass",
        "check",
        swept.x,
        "batch",
        "anchors",
        "points",
        "C",
        "G",
        "L",
        "samples",
        "median",
        "per sample and C",
        "DRAM",
        "x DRAM",
        "error",
    ];
    let time = |micro: f64| output::duration(Duration::from_secs_f64(micro / 1e6));
    for series in Series::ALL {
        let points = swept.points.iter().filter(|point| series.has(&point.row));
        let rows: Vec<Vec<String>> = points
            .map(|point| {
                let Point { row, .. } = point;
                let sizes = &row.sizes;
                vec![
                    series.name().to_owned(),
                    if row.passed { "ok" } else { "FAIL" }.to_owned(),
                    output::grouped(point.x),
                    sizes.batch.to_string(),
                    output::grouped(sizes.anchors),
                    output::grouped(sizes.points),
                    sizes.embed_dims.to_string(),
                    sizes.groups.to_string(),
                    sizes.levels.len().to_string(),
                    output::grouped(row.touched.samples),
                    time(row.median_us),
                    if point.work() > 0.0 {
                        per_work(point.ns_per_sample_and_channel)
                    } else {
                        "-".to_owned()
                    },
                    time(row.floors.dram_floor_us),
                    format!("{:.2}", row.floors.over_dram_floor),
                    format!("{:.1e}", row.error()),
                ]
            })
            .collect();
        if !rows.is_empty() {
            output::line(&output::table(&heading, 2, &rows))?;
        }
    }
    for reason in &swept.skipped {
        output::line(&output::styled(output::FAINT, &format!("skipped: {reason}")))?;
    }
    Ok(())
}

/// A time for one sample and channel; `ns` in nanoseconds.
fn per_work(ns: f64) -> String {
    if ns < 1.0 { format!("{:.3} ps", ns * 1e3) } else { format!("{ns:.3} ns") }
}

fn save_picture(
    path: &Path,
    sweeps: &[Swept],
    device: &str,
    dtype: DType,
    base: &Base,
) -> Result<()> {
    let chart = Chart {
        title: "Time by size".to_owned(),
        subtitle: format!(
            "{dtype}, from {} ({} channels, {} groups, {} anchors × {} points) on; {device}",
            base.workload.id,
            base.workload.embed_dims,
            base.workload.groups,
            output::grouped(base.workload.anchors),
            base.workload.points,
        ),
        quantities: Series::ALL
            .into_iter()
            .filter(|series| {
                sweeps.iter().flat_map(|sweep| &sweep.points).any(|point| series.has(&point.row))
            })
            .map(|series| series.name().to_owned())
            .collect(),
        strokes: [
            "measured",
            "in proportion to samples × channels, through the last point",
            "DRAM floor",
        ],
        panels: sweeps.iter().flat_map(panels).collect(),
    };
    chart::render(&chart)?.save(path).with_context(|| format!("cannot write {}", path.display()))
}

/// The time, and the time for each sample and channel.
fn panels(swept: &Swept) -> [Panel; 2] {
    let panel = |title: &str, y_tick, y: &dyn Fn(&Point, f64) -> f64| Panel {
        title: title.to_owned(),
        x_label: swept.x.to_owned(),
        lines: Series::ALL
            .into_iter()
            .enumerate()
            .flat_map(|(quantity, series)| lines(swept, quantity, series, y))
            .collect(),
        y_tick,
    };
    let seconds = |value: f64| short(&output::duration(Duration::from_secs_f64(value)));
    [
        panel(&swept.title, seconds, &|_, micro| micro * 1e-6),
        panel("Time for each sample and channel", |ns| short(&per_work(ns)), &|point, micro| {
            micro * 1e3 / point.work()
        }),
    ]
}

/// A number with its unit, without zeros behind the point.
fn short(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

/// What was measured of a series, what proportion gives, and the floor; the last two once for each direction.
fn lines(
    swept: &Swept,
    quantity: usize,
    series: Series,
    y: &dyn Fn(&Point, f64) -> f64,
) -> Vec<Line> {
    let points: Vec<&Point> = swept.points.iter().filter(|point| series.has(&point.row)).collect();
    let Some(last) = points.last() else { return Vec::new() };
    let per_work = last.row.median_us / last.work();
    let line = |stroke, micro: &dyn Fn(&Point) -> f64| Line {
        quantity,
        stroke,
        points: points.iter().map(|point| (point.x as f64, y(point, micro(point)))).collect(),
    };
    let measured = line(Stroke::Solid, &|point| point.row.median_us);
    if series == Series::Repeatable {
        return vec![measured];
    }
    vec![
        measured,
        line(Stroke::Dashed, &|point| per_work * point.work()),
        line(Stroke::Dotted, &|point| point.row.floors.dram_floor_us),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        let workload = *Workload::by_id("W2").expect("listed");
        Base { workload, levels: &LEVELS, batch: 32, points: (100_000, 144_000) }
    }

    #[test]
    fn sweeps_go_as_far_as_they_say() {
        let sizes = |sweep: Sweep, size: fn(&Workload) -> usize| -> Vec<usize> {
            let subjects = sweep.subjects(&base(), DType::F32);
            subjects.iter().map(|subject| size(&subject.workload)).collect()
        };
        let channels = sizes(Sweep::Channels, |workload| workload.embed_dims);
        assert_eq!((channels[0], channels[channels.len() - 1]), (8, 1024));
        assert!(channels.iter().any(|channels| channels % 2 == 1));
        assert_eq!(
            sizes(Sweep::Groups, |workload| workload.groups),
            [1, 2, 4, 8, 16, 32, 64, 128, 256]
        );
        assert_eq!(
            sizes(Sweep::Levels, |workload| workload.levels.len()),
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
        assert_eq!(
            sizes(Sweep::Points, |workload| workload.anchors * workload.points),
            [100_000, 100_000, 100_000, 100_000, 100_000, 100_000, 1_296_000]
        );
        assert_eq!(sizes(Sweep::Batch, |workload| workload.batch).last(), Some(&32));
        for sweep in Sweep::value_variants() {
            for subject in sweep.subjects(&base(), DType::F32) {
                crate::scenario::shape(&subject.workload).expect("valid sizes");
            }
        }
    }

    #[test]
    fn groups_divide_the_channels() {
        assert_eq!([8, 31, 77, 129, 1000].map(groups), [8, 1, 7, 3, 8]);
        assert_eq!(["1.500 ps", "20.000 ns", "100 ms"].map(short), ["1.5 ps", "20 ns", "100 ms"]);
    }
}
