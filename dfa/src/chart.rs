//! Charts of measured times: lines over logarithmic axes, with what proportion and memory would give.

use std::ops::RangeInclusive;

use anyhow::Result;
use image::RgbImage;
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, FontStyle, RGBColor};

use crate::drawing::{
    BACKGROUND, CARD, Canvas, DIM, INK, LINE, SCALE, blank, draw_on, finished, paste, scaled, text,
};

/// Panels, two in a row, below a title and one legend for all.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// First line.
    pub title: String,
    /// Second line.
    pub subtitle: String,
    /// Names of the quantities, in the order of their numbers in [`Line::quantity`].
    pub quantities: Vec<String>,
    /// Names of the strokes that occur, in the order of [`Stroke`].
    pub strokes: [&'static str; 3],
    /// The panels.
    pub panels: Vec<Panel>,
}

/// One pair of axes.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// What the horizontal axis has.
    pub x_label: String,
    /// The lines; points that are not positive have no place on the axes and are left out.
    pub lines: Vec<Line>,
    /// How a value of the vertical axis is written.
    pub y_tick: fn(f64) -> String,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Number of the quantity, which decides the colour.
    pub quantity: usize,
    /// How it is drawn.
    pub stroke: Stroke,
    /// (x, y) from left to right.
    pub points: Vec<(f64, f64)>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// Solid with a dot at each point: what was measured.
    Solid,
    /// Dashed.
    Dashed,
    /// Dotted.
    Dotted,
}

const PANEL: (i32, i32) = (640, 420);
const MARGIN: i32 = 24;
const GAP: i32 = 16;
const HEADER: i32 = 124;

/// Room for ticks and labels around the axes of a panel: left, top, right, below.
const ROOM: [i32; 4] = [82, 48, 26, 58];

const COLOURS: [RGBColor; 3] =
    [RGBColor(72, 202, 190), RGBColor(255, 178, 66), RGBColor(126, 164, 255)];

/// Draws a chart.
///
/// # Errors
///
/// When the drawing library refuses (text that has no glyphs, say).
pub fn render(chart: &Chart) -> Result<RgbImage> {
    let rows = chart.panels.len().div_ceil(2).max(1) as i32;
    let width = 2 * MARGIN + 2 * PANEL.0 + GAP;
    let height = HEADER + rows * (PANEL.1 + GAP) - GAP + MARGIN;
    let mut picture = blank(width, height);
    draw_on(&mut picture, |canvas| header(canvas, chart))?;
    for (place, panel) in chart.panels.iter().enumerate() {
        let mut part = blank(PANEL.0, PANEL.1);
        draw_on(&mut part, |canvas| draw_panel(canvas, panel))?;
        let (row, column) = (place as i32 / 2, place as i32 % 2);
        let left = MARGIN + column * (PANEL.0 + GAP);
        paste(&mut picture, &part, left, HEADER + row * (PANEL.1 + GAP));
    }
    Ok(finished(&picture))
}

fn header(canvas: &Canvas<'_>, chart: &Chart) -> Result<()> {
    text(canvas, &chart.title, (MARGIN, 32), 24, INK, HPos::Left, FontStyle::Bold)?;
    text(canvas, &chart.subtitle, (MARGIN, 62), 15, DIM, HPos::Left, FontStyle::Normal)?;
    let mut x = MARGIN;
    let y = 95;
    for (name, colour) in chart.quantities.iter().zip(COLOURS) {
        let swatch = [scaled(x, y - 6), scaled(x + 22, y + 6)];
        canvas.draw(&Rectangle::new(swatch, colour.filled()))?;
        text(canvas, name, (x + 30, y), 15, INK, HPos::Left, FontStyle::Normal)?;
        x += 62 + 7 * name.chars().count() as i32;
    }
    for (name, stroke) in chart.strokes.iter().zip([Stroke::Solid, Stroke::Dashed, Stroke::Dotted])
    {
        draw_line(canvas, stroke, INK, &[scaled(x, y), scaled(x + 44, y)])?;
        text(canvas, name, (x + 54, y), 15, INK, HPos::Left, FontStyle::Normal)?;
        x += 84 + 7 * name.chars().count() as i32;
    }
    Ok(())
}

/// Where values lie on the image.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    /// Axes that hold all points, and at least one decade each way.
    fn new(panel: &Panel) -> Self {
        let points = || panel.lines.iter().flat_map(|line| &line.points).copied().filter(on_axes);
        let around = |values: &mut dyn Iterator<Item = f64>, room: f64| {
            let (low, high) = values
                .map(f64::log10)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                    (low.min(value), high.max(value))
                });
            if low > high {
                return (0.0, 1.0);
            }
            let missing = (1.0 - (high - low)).max(0.0) / 2.0;
            (low - missing - room, high + missing + room)
        };
        Self {
            x: around(&mut points().map(|point| point.0), 0.06),
            y: around(&mut points().map(|point| point.1), 0.12),
        }
    }

    fn place(&self, (x, y): (f64, f64)) -> (i32, i32) {
        let [left, top, right, below] = ROOM.map(f64::from);
        let (width, height) = (f64::from(PANEL.0), f64::from(PANEL.1));
        let share = |value: f64, (low, high): (f64, f64)| (value.log10() - low) / (high - low);
        let across = left + share(x, self.x) * (width - left - right);
        let down = height - below - share(y, self.y) * (height - top - below);
        let pixel = |place: f64| (place * f64::from(SCALE)).round() as i32;
        (pixel(across), pixel(down))
    }
}

/// Whether a point has a place on logarithmic axes.
fn on_axes((x, y): &(f64, f64)) -> bool {
    *x > 0.0 && *y > 0.0 && x.is_finite() && y.is_finite()
}

/// Values at which an axis is labelled: 1, 2 and 5 times powers of ten, or powers alone where that gets crowded.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let steps: &[f64] = match high - low {
        decades if decades < 1.8 => &[1.0, 2.0, 5.0],
        decades if decades < 3.2 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let powers: RangeInclusive<i32> = low.floor() as i32..=high.ceil() as i32;
    powers
        .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)))
        .filter(|value| (low..=high).contains(&value.log10()))
        .collect()
}

fn draw_panel(canvas: &Canvas<'_>, panel: &Panel) -> Result<()> {
    canvas.fill(&CARD)?;
    let axes = Axes::new(panel);
    let [left, _, right, below] = ROOM;
    text(canvas, &panel.title, (left, 26), 16, INK, HPos::Left, FontStyle::Bold)?;
    let corner = |x: f64, y: f64| axes.place((10_f64.powf(x), 10_f64.powf(y)));
    for tick in ticks(axes.x) {
        let line = [(tick, axes.y.0), (tick, axes.y.1)].map(|(x, y)| corner(x.log10(), y));
        canvas.draw(&PathElement::new(line, LINE.mix(0.6).stroke_width(2)))?;
        let place = (line[0].0 / SCALE, PANEL.1 - below + 16);
        text(canvas, &count(tick), place, 13, DIM, HPos::Center, FontStyle::Normal)?;
    }
    for tick in ticks(axes.y) {
        let line = [(axes.x.0, tick), (axes.x.1, tick)].map(|(x, y)| corner(x, y.log10()));
        canvas.draw(&PathElement::new(line, LINE.mix(0.6).stroke_width(2)))?;
        let place = (left - 8, line[0].1 / SCALE);
        text(canvas, &(panel.y_tick)(tick), place, 13, DIM, HPos::Right, FontStyle::Normal)?;
    }
    let middle = (left + PANEL.0 - right) / 2;
    let under = (middle, PANEL.1 - 18);
    text(canvas, &panel.x_label, under, 14, DIM, HPos::Center, FontStyle::Normal)?;
    // What was measured goes on top.
    for stroke in [Stroke::Dotted, Stroke::Dashed, Stroke::Solid] {
        for line in panel.lines.iter().filter(|line| line.stroke == stroke) {
            let colour = COLOURS[line.quantity % COLOURS.len()];
            let places: Vec<_> = line
                .points
                .iter()
                .copied()
                .filter(on_axes)
                .map(|point| axes.place(point))
                .collect();
            draw_line(canvas, stroke, colour, &places)?;
        }
    }
    Ok(())
}

/// Draws a line through places of the image.
fn draw_line(
    canvas: &Canvas<'_>,
    stroke: Stroke,
    colour: RGBColor,
    places: &[(i32, i32)],
) -> Result<()> {
    // Length of a dash and of the gap behind it.
    let pattern = match stroke {
        Stroke::Solid => {
            canvas.draw(&PathElement::new(places.to_vec(), colour.stroke_width(4)))?;
            for &place in places {
                canvas.draw(&Circle::new(place, 9, BACKGROUND.filled()))?;
                canvas.draw(&Circle::new(place, 7, colour.filled()))?;
            }
            return Ok(());
        }
        Stroke::Dashed => (16.0, 12.0),
        Stroke::Dotted => (3.0, 9.0),
    };
    for dash in dashes(places, pattern) {
        canvas.draw(&PathElement::new(dash, colour.mix(0.75).stroke_width(3)))?;
    }
    Ok(())
}

/// A line cut into dashes, which go on around its corners.
fn dashes(places: &[(i32, i32)], (dash, gap): (f64, f64)) -> Vec<Vec<(i32, i32)>> {
    let mut all = Vec::new();
    // How far into dash and gap the line is.
    let mut phase = 0.0;
    for pair in places.windows(2) {
        let [from, to] = [pair[0], pair[1]].map(|(x, y)| (f64::from(x), f64::from(y)));
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let at = |along: f64| {
            let share = along / length;
            let coordinate = |from: f64, to: f64| (from + share * (to - from)).round() as i32;
            (coordinate(from.0, to.0), coordinate(from.1, to.1))
        };
        let mut along = 0.0;
        while along < length {
            let rest = if phase < dash { dash - phase } else { dash + gap - phase };
            let end = (along + rest).min(length);
            if phase < dash {
                all.push(vec![at(along), at(end)]);
            }
            phase = (phase + end - along) % (dash + gap);
            along = end;
        }
    }
    all
}

/// A count in few characters.
fn count(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{:.0}M", value / 1e6),
        _ if value >= 1e3 => format!("{:.0}k", value / 1e3),
        _ => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: &[(f64, f64)]) -> Panel {
        let line = |stroke| Line { quantity: 0, stroke, points: points.to_vec() };
        Panel {
            title: "Panel".to_owned(),
            x_label: "x".to_owned(),
            lines: [Stroke::Solid, Stroke::Dashed, Stroke::Dotted].map(line).to_vec(),
            y_tick: count,
        }
    }

    #[test]
    fn ticks_are_few_and_inside() {
        assert_eq!(ticks((0.0, 1.0)), [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(ticks((0.9, 4.1)), [10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4]);
        assert_eq!(ticks((-0.5, 6.0)).len(), 7);
        assert_eq!([5.0, 2e3, 3e6].map(count), ["5", "2k", "3M"]);
    }

    #[test]
    fn dashes_cover_their_share_of_the_line() {
        let dashes = dashes(&[(0, 0), (100, 0), (100, 180)], (16.0, 12.0));
        let covered: i32 =
            dashes.iter().map(|dash| (dash[1].0 - dash[0].0) + (dash[1].1 - dash[0].1)).sum();
        assert!((covered - 160).abs() <= 16, "{covered}");
    }

    #[test]
    fn points_lie_where_their_values_are() {
        let axes = Axes::new(&panel(&[(1.0, 1.0), (100.0, 1e4), (0.0, 3.0), (f64::NAN, 1.0)]));
        let [low, middle, high] = [(1.0, 1.0), (10.0, 100.0), (100.0, 1e4)].map(|p| axes.place(p));
        assert!(low.0 < middle.0 && middle.1 < low.1);
        assert!((low.0 + high.0 - 2 * middle.0).abs() <= 1);
        assert!((low.1 + high.1 - 2 * middle.1).abs() <= 1);
    }

    #[test]
    fn a_chart_is_drawn_also_of_nothing() {
        let chart = Chart {
            title: "Title".to_owned(),
            quantities: vec!["one".to_owned()],
            strokes: ["measured", "in proportion", "floor"],
            panels: vec![panel(&[(1.0, 2.0), (3.0, 4.0)]), panel(&[])],
            ..Chart::default()
        };
        let picture = render(&chart).expect("drawn");
        assert_eq!(picture.width(), (2 * MARGIN + 2 * PANEL.0 + GAP) as u32);
        let [r, g, b] = [COLOURS[0].0, COLOURS[0].1, COLOURS[0].2];
        assert!(picture.pixels().any(|pixel| pixel.0 == [r, g, b]));
    }
}
