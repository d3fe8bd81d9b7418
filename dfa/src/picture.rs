//! The picture of a rig: what each camera sees of the boxes, and the same from above.

use std::ops::Range;

use anyhow::Result;
use camera_rig::{ASPECT, Anchor, Camera, Projection, RADIUS, Scene};
use image::RgbImage;
use plotters::element::{Circle, PathElement, Polygon, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color, FontStyle, RGBColor};
use rayon::prelude::*;

use crate::drawing::{
    BACKGROUND, CARD, Canvas, DIM, INK, LINE, SCALE, blank, draw_on, finished, paste, scaled, text,
};
use crate::output::grouped;

/// What the picture says beside what it shows.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// First line.
    pub title: String,
    /// Second line.
    pub subtitle: String,
    /// A table: its first row is the heading, its first column is aligned left and the others right.
    pub table: Vec<Vec<String>>,
    /// Lines below the table.
    pub remarks: Vec<String>,
}

/// Sizes in pixels of the finished picture.
const WIDTH: i32 = 1_920;
const MARGIN: i32 = 24;
const GAP: i32 = 12;
const HEADER: i32 = 84;
const LABEL: i32 = 34;
const VIEW_WIDTH: i32 = (WIDTH - 2 * MARGIN - 2 * GAP) / 3;
const BIRD: i32 = 640;

/// Height of the ground below the cameras, in metres.
const GROUND: f64 = -1.84;

/// Depths in metres at which boxes are outlined: nearer ones fill the image, farther ones are a few pixels high.
const OUTLINED: Range<f64> = 8.0..38.0;

/// Colours of depth, near to far.
const DEPTH_STOPS: [(f64, [f64; 3]); 5] = [
    (0.0, [255.0, 92.0, 74.0]),
    (0.2, [255.0, 178.0, 66.0]),
    (0.42, [240.0, 240.0, 110.0]),
    (0.68, [84.0, 222.0, 184.0]),
    (1.0, [86.0, 146.0, 255.0]),
];

/// How much of an anchor the ring sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// Every key point is in exactly one image.
    One,
    /// Every key point is in an image, some in two.
    Overlap,
    /// Some key points are in no image.
    Partly,
    /// No key point is in any image.
    Unseen,
}

impl Sight {
    const ALL: [Self; 4] = [Self::One, Self::Overlap, Self::Partly, Self::Unseen];

    fn colour(self) -> RGBColor {
        match self {
            Self::One => RGBColor(72, 202, 190),
            Self::Overlap => RGBColor(255, 214, 92),
            Self::Partly => RGBColor(255, 140, 80),
            Self::Unseen => RGBColor(244, 86, 120),
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::One => "every key point in one image",
            Self::Overlap => "some key points in two images",
            Self::Partly => "some key points in no image",
            Self::Unseen => "no key point in any image",
        }
    }
}

/// Counts shown in the picture.
struct Counts {
    /// Key points inside the image of each camera.
    per_camera: Vec<usize>,
    /// Key points seen by no, one, two and more cameras.
    by_cameras: [usize; 3],
    /// What the ring sees of each anchor.
    sights: Vec<Sight>,
}

impl Counts {
    fn new(scene: &Scene) -> Self {
        let mut counts = Self {
            per_camera: vec![0; scene.cameras.len()],
            by_cameras: [0; 3],
            sights: Vec::with_capacity(scene.anchors.len()),
        };
        for points in &scene.key_points {
            let (mut least, mut most) = (usize::MAX, 0);
            for &point in points {
                let mut seen = 0;
                for (camera, total) in scene.cameras.iter().zip(&mut counts.per_camera) {
                    let inside = usize::from(camera.project(point).is_inside());
                    *total += inside;
                    seen += inside;
                }
                counts.by_cameras[seen.min(2)] += 1;
                (least, most) = (least.min(seen), most.max(seen));
            }
            counts.sights.push(match (least, most) {
                (_, 0) => Sight::Unseen,
                (0, _) => Sight::Partly,
                (_, 1) => Sight::One,
                _ => Sight::Overlap,
            });
        }
        counts
    }
}

/// Draws the picture of a scene.
///
/// # Errors
///
/// When the drawing library refuses (text that has no glyphs, say).
pub fn render(scene: &Scene, notes: &Notes) -> Result<RgbImage> {
    let counts = Counts::new(scene);
    let order = mosaic(&scene.cameras);
    let rows = order.len().div_ceil(3) as i32;
    let view_height = (f64::from(VIEW_WIDTH) / ASPECT).round() as i32;
    let views_height = rows * (view_height + LABEL + GAP);
    let height = HEADER + views_height + GAP + BIRD + MARGIN;

    let mut picture = blank(WIDTH, height);
    draw_on(&mut picture, |canvas| header(canvas, notes))?;
    for (place, &index) in order.iter().enumerate() {
        let left = MARGIN + (place as i32 % 3) * (VIEW_WIDTH + GAP);
        let top = HEADER + (place as i32 / 3) * (view_height + LABEL + GAP);
        let mut view = blank(VIEW_WIDTH, view_height + LABEL);
        camera_view(&mut view, scene, index, &counts, view_height)?;
        paste(&mut picture, &view, left, top);
    }

    let top = HEADER + views_height + GAP;
    let mut above = blank(BIRD, BIRD);
    draw_on(&mut above, |canvas| bird(canvas, scene, &counts))?;
    paste(&mut picture, &above, MARGIN, top);
    let side_left = MARGIN + BIRD + GAP;
    let mut side = blank(WIDTH - MARGIN - side_left, BIRD);
    draw_on(&mut side, |canvas| side_panel(canvas, scene, &counts, notes))?;
    paste(&mut picture, &side, side_left, top);

    Ok(finished(&picture))
}

/// Camera indices from left to right as one looks around: with six, the front row and then the rear row.
fn mosaic(cameras: &[Camera]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cameras.len()).collect();
    let signed = |index: usize| (cameras[index].yaw_degrees + 180.0).rem_euclid(360.0) - 180.0;
    let rear = |index: usize| signed(index).abs() > 90.0;
    // In the rear row the picture keeps the vehicle's left on the left: rear-left, rear, rear-right.
    let across = |index: usize| {
        let yaw = signed(index);
        if rear(index) { (180.0 - yaw.abs()) * -yaw.signum() } else { -yaw }
    };
    order.sort_by(|&a, &b| rear(a).cmp(&rear(b)).then(across(a).total_cmp(&across(b))));
    order
}

fn camera_name(camera: &Camera) -> String {
    let name = match camera.yaw_degrees as i64 {
        0 => "front",
        55 => "front-left",
        -55 => "front-right",
        110 => "rear-left",
        -110 => "rear-right",
        180 => "rear",
        _ => "camera",
    };
    name.to_owned()
}

/// An angle, positive to the left; straight ahead and straight back have no side.
fn degrees(angle: f64) -> String {
    if angle == 0.0 || angle == 180.0 {
        format!("{angle:.0}°")
    } else {
        format!("{}{:.0}°", if angle < 0.0 { "−" } else { "+" }, angle.abs())
    }
}

/// One camera: the synthetic image, the boxes' outlines, the key points, and a label below.
fn camera_view(
    view: &mut RgbImage,
    scene: &Scene,
    index: usize,
    counts: &Counts,
    height: i32,
) -> Result<()> {
    let camera = &scene.cameras[index];
    let mut image = blank(VIEW_WIDTH, height);
    paint_world(&mut image, camera);
    draw_on(&mut image, |canvas| {
        outlines(canvas, scene, camera)?;
        dots(canvas, scene, camera)
    })?;
    draw_on(view, |canvas| {
        canvas.fill(&CARD)?;
        let top = height + LABEL / 2;
        let name = format!("{}  {}", camera_name(camera), degrees(camera.yaw_degrees));
        text(canvas, &name, (12, top), 17, INK, HPos::Left, FontStyle::Bold)?;
        let points: usize = scene.key_points.iter().map(Vec::len).sum();
        let seen = counts.per_camera[index];
        let label = format!(
            "{:.0}° wide · {} key points here · {} skipped",
            camera.fov_degrees,
            grouped(seen),
            grouped(points - seen)
        );
        text(canvas, &label, (VIEW_WIDTH - 12, top), 15, DIM, HPos::Right, FontStyle::Normal)
    })?;
    paste(view, &image, 0, 0);
    Ok(())
}

/// Sky, and a ground plane with a grid of ten metres and range rings.
fn paint_world(image: &mut RgbImage, camera: &Camera) {
    let (width, height) = image.dimensions();
    let origin = camera.position();
    let stride = width as usize * 3;
    image.par_chunks_mut(stride).enumerate().for_each(|(row, line)| {
        let y = (row as f64 + 0.5) / f64::from(height);
        for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
            let x = (column as f64 + 0.5) / f64::from(width);
            let ray = camera.ray(x, y);
            let colour = if ray[2] < 0.0 {
                let depth = GROUND / ray[2];
                let place = [origin[0] + ray[0] * depth, origin[1] + ray[1] * depth];
                // Metres per pixel along and across the line of sight: lines keep their width.
                let across = depth / (camera.focal() * f64::from(width));
                let along = across * depth / -GROUND;
                ground(place, across, along, depth)
            } else {
                sky(1.0 - 2.0 * y)
            };
            for (channel, value) in pixel.iter_mut().zip(colour) {
                *channel = value.clamp(0.0, 255.0) as u8;
            }
        }
    });
}

const HAZE: [f64; 3] = [104.0, 116.0, 138.0];

/// Colour of the sky, 0 at the horizon and 1 at the top of the image.
fn sky(elevation: f64) -> [f64; 3] {
    mix(HAZE, [36.0, 50.0, 82.0], elevation.max(0.0).powf(0.6))
}

/// Colour of the ground at a place; `across` and `along` are the metres one pixel covers there.
fn ground(place: [f64; 2], across: f64, along: f64, depth: f64) -> [f64; 3] {
    let line = |value: f64, every: f64, width: f64| {
        let distance = (value / every - (value / every).round()).abs() * every;
        let spread = along.max(across);
        // Lines thinner than a pixel fade instead of breaking up.
        let cover = (width / spread).min(1.0);
        (1.0 - ((distance - width / 2.0) / spread).clamp(0.0, 1.0)) * cover
    };
    let range = place[0].hypot(place[1]);
    let grid = line(place[0], 10.0, 0.14).max(line(place[1], 10.0, 0.14));
    let fine = line(place[0], 2.0, 0.04).max(line(place[1], 2.0, 0.04));
    let rim = if (range - RADIUS).abs() < RADIUS / 2.0 { line(range, RADIUS, 0.2) } else { 0.0 };
    let mut colour = mix([40.0, 45.0, 53.0], [74.0, 84.0, 100.0], 0.8 * fine);
    colour = mix(colour, [140.0, 158.0, 188.0], 0.85 * grid);
    colour = mix(colour, [150.0, 170.0, 205.0], 0.8 * rim);
    mix(HAZE, colour, (-depth / 60.0).exp())
}

/// Boxes as dark glass with bright edges, far ones first.
fn outlines(canvas: &Canvas<'_>, scene: &Scene, camera: &Camera) -> Result<()> {
    let mut boxes: Vec<(f64, &Anchor)> = scene
        .anchors
        .iter()
        .map(|anchor| (camera.project(anchor.centre).depth, anchor))
        .filter(|(depth, _)| OUTLINED.contains(depth))
        .collect();
    boxes.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (depth, anchor) in boxes {
        let corners = anchor.corners().map(|corner| camera.project(corner));
        // Boxes that are cut by the side of the image would cross it as clutter.
        if corners.iter().any(|corner| corner.depth < 0.5 || !(-0.2..1.2).contains(&corner.x)) {
            continue;
        }
        let corners = corners.map(|corner| at(canvas, corner.x, corner.y));
        let near = 1.0 - depth / OUTLINED.end;
        canvas.draw(&Polygon::new(hull(corners), BACKGROUND.mix(0.10 + 0.35 * near)))?;
        let style =
            depth_colour(depth).mix(0.25 + 0.6 * near).stroke_width(1 + (near * 2.5) as u32);
        for from in 0..8_usize {
            for axis in 0..3 {
                let to = from | 1 << axis;
                if to != from {
                    canvas.draw(&PathElement::new([corners[from], corners[to]], style))?;
                }
            }
        }
    }
    Ok(())
}

/// The convex hull of some points, in order around it (Andrew's monotone chain).
fn hull(points: [(i32, i32); 8]) -> Vec<(i32, i32)> {
    let mut points = points.to_vec();
    points.sort_unstable();
    let turns_left = |chain: &[(i32, i32)], next: (i32, i32)| {
        let &[.., a, b] = chain else { return true };
        let (a, b, next) = (wide(a), wide(b), wide(next));
        (b.0 - a.0) * (next.1 - a.1) > (b.1 - a.1) * (next.0 - a.0)
    };
    let chain = |points: &mut dyn Iterator<Item = (i32, i32)>| {
        let mut chain: Vec<(i32, i32)> = Vec::new();
        for point in points {
            while !turns_left(&chain, point) {
                chain.pop();
            }
            chain.push(point);
        }
        // The last point is the first of the other half.
        chain.pop();
        chain
    };
    let mut hull = chain(&mut points.iter().copied());
    hull.extend(chain(&mut points.iter().rev().copied()));
    hull
}

fn wide((x, y): (i32, i32)) -> (i64, i64) {
    (x.into(), y.into())
}

/// Key points inside the image, far ones first.
fn dots(canvas: &Canvas<'_>, scene: &Scene, camera: &Camera) -> Result<()> {
    let mut points: Vec<_> = scene
        .key_points
        .iter()
        .flatten()
        .map(|&point| camera.project(point))
        .filter(Projection::is_inside)
        .collect();
    points.sort_by(|a, b| b.depth.total_cmp(&a.depth));
    for point in points {
        let radius = (1.6 + 30.0 / (point.depth + 3.0)).min(6.0).round() as i32;
        let place = at(canvas, point.x, point.y);
        let colour = depth_colour(point.depth);
        canvas.draw(&Circle::new(place, radius + 1, BACKGROUND.mix(0.55).filled()))?;
        canvas.draw(&Circle::new(place, radius, colour.mix(0.95).filled()))?;
    }
    Ok(())
}

/// The scene from above: forward is up, left is left.
fn bird(canvas: &Canvas<'_>, scene: &Scene, counts: &Counts) -> Result<()> {
    canvas.fill(&CARD)?;
    let side = f64::from(BIRD * SCALE);
    let scale = side / (2.0 * (RADIUS + 11.0));
    let place = |x: f64, y: f64| {
        ((side / 2.0 - y * scale).round() as i32, (side / 2.0 - x * scale).round() as i32)
    };
    let middle = place(0.0, 0.0);
    for camera in &scene.cameras {
        let fan = frustum(camera).into_iter().map(|[x, y]| place(x, y)).collect::<Vec<_>>();
        canvas.draw(&Polygon::new(fan.clone(), RGBColor(110, 150, 220).mix(0.10)))?;
        let outline = RGBColor(126, 164, 228).mix(0.55).stroke_width(2);
        canvas.draw(&PathElement::new([fan[1], fan[0], fan[fan.len() - 1]], outline))?;
    }
    for range in (10..=50).step_by(10) {
        let radius = (f64::from(range) * scale) as i32;
        canvas.draw(&Circle::new(middle, radius, LINE.stroke_width(1)))?;
    }
    let rim = RGBColor(150, 170, 205).mix(0.8).stroke_width(2);
    canvas.draw(&Circle::new(middle, (RADIUS * scale) as i32, rim))?;

    // The rarer kinds go on top.
    for sight in Sight::ALL {
        let seen = scene.anchors.iter().zip(&counts.sights);
        for (anchor, _) in seen.filter(|(_, other)| **other == sight) {
            let [a, b, c, d] = [0, 1, 3, 2].map(|corner| {
                let [x, y, _] = anchor.corners()[corner];
                place(x, y)
            });
            let colour = sight.colour();
            canvas.draw(&Polygon::new([a, b, c, d], colour.mix(0.45)))?;
            canvas.draw(&PathElement::new([a, b, c, d, a], colour.mix(0.95).stroke_width(2)))?;
        }
    }
    vehicle(canvas, &place)?;
    for range in [10.0, 30.0, 50.0] {
        let (x, y) = place(-range * 0.42, range * 0.9075);
        let (x, y) = (x / SCALE, y / SCALE);
        backing(canvas, (x - 18, y - 9), (x + 18, y + 9))?;
        text(canvas, &format!("{range:.0} m"), (x, y), 13, INK, HPos::Center, FontStyle::Normal)?;
    }
    for camera in &scene.cameras {
        let (sin, cos) = camera.yaw_degrees.to_radians().sin_cos();
        let (x, y) = place((RADIUS + 7.0) * cos, (RADIUS + 7.0) * sin);
        text(
            canvas,
            &degrees(camera.yaw_degrees),
            (x / SCALE, y / SCALE),
            15,
            INK,
            HPos::Center,
            FontStyle::Bold,
        )?;
    }
    let title = "from above, forward is up";
    text(canvas, title, (14, 20), 15, DIM, HPos::Left, FontStyle::Normal)
}

/// The vehicle that carries the ring.
fn vehicle(canvas: &Canvas<'_>, place: &impl Fn(f64, f64) -> (i32, i32)) -> Result<()> {
    let body = Rectangle::new([place(2.2, 0.95), place(-2.2, -0.95)], INK.filled());
    canvas.draw(&body)?;
    let nose = [place(2.0, 0.7), place(3.4, 0.0), place(2.0, -0.7)];
    Ok(canvas.draw(&Polygon::new(nose, INK))?)
}

/// Corner points of what a camera sees from above, from the camera along the rim of the disc.
fn frustum(camera: &Camera) -> Vec<[f64; 2]> {
    const STEPS: usize = 40;
    let [x, y, _] = camera.position();
    let mut fan = vec![[x, y]];
    for step in 0..=STEPS {
        let ray = camera.ray(step as f64 / STEPS as f64, 0.5);
        let length = ray[0].hypot(ray[1]);
        let (dx, dy) = (ray[0] / length, ray[1] / length);
        // Where the ray leaves the disc: |p + s d| = radius.
        let along = x * dx + y * dy;
        let reach = -along + (along * along - (x * x + y * y) + RADIUS * RADIUS).sqrt();
        fan.push([x + reach * dx, y + reach * dy]);
    }
    fan
}

fn header(canvas: &Canvas<'_>, notes: &Notes) -> Result<()> {
    text(canvas, &notes.title, (MARGIN, 34), 27, INK, HPos::Left, FontStyle::Bold)?;
    text(canvas, &notes.subtitle, (MARGIN, 64), 17, DIM, HPos::Left, FontStyle::Normal)
}

/// Legend, depth scale, counts and the table of the notes.
fn side_panel(canvas: &Canvas<'_>, scene: &Scene, counts: &Counts, notes: &Notes) -> Result<()> {
    const LEFT: i32 = 28;
    canvas.fill(&CARD)?;
    let right = canvas.dim_in_pixel().0 as i32 / SCALE - LEFT;
    let middle = (LEFT + right) / 2;

    heading(canvas, "Anchors, from above", (LEFT, 36))?;
    for (row, sight) in Sight::ALL.into_iter().enumerate() {
        let y = 68 + 28 * row as i32;
        let colour = sight.colour();
        let swatch = [scaled(LEFT, y - 7), scaled(LEFT + 26, y + 7)];
        canvas.draw(&Rectangle::new(swatch, colour.mix(0.45).filled()))?;
        canvas.draw(&Rectangle::new(swatch, colour.stroke_width(2)))?;
        let number = counts.sights.iter().filter(|other| **other == sight).count();
        text(canvas, &grouped(number), (LEFT + 84, y), 16, INK, HPos::Right, FontStyle::Bold)?;
        text(canvas, sight.meaning(), (LEFT + 98, y), 16, DIM, HPos::Left, FontStyle::Normal)?;
    }

    let column = middle + 20;
    heading(canvas, "Key points", (column, 36))?;
    let total: usize = counts.by_cameras.iter().sum();
    let share = |count: usize| format!("{:.1} %", 100.0 * count as f64 / total.max(1) as f64);
    let lines = [
        (counts.by_cameras[1], "in one image"),
        (counts.by_cameras[2], "in two images"),
        (counts.by_cameras[0], "in no image: skipped everywhere"),
        (total, "in all"),
    ];
    for (row, (count, meaning)) in lines.into_iter().enumerate() {
        let y = 68 + 28 * row as i32;
        text(canvas, &grouped(count), (column + 62, y), 16, INK, HPos::Right, FontStyle::Bold)?;
        text(canvas, &share(count), (column + 138, y), 16, DIM, HPos::Right, FontStyle::Normal)?;
        text(canvas, meaning, (column + 152, y), 16, DIM, HPos::Left, FontStyle::Normal)?;
    }

    depth_bar(canvas, (LEFT, 206), right)?;
    let table_top = 290;
    results(canvas, notes, (LEFT, table_top), right)?;
    let points = scene.key_points.first().map_or(0, Vec::len);
    let size = format!(
        "{} anchors × {points} key points × {} cameras.",
        grouped(scene.anchors.len()),
        scene.cameras.len()
    );
    let mut y = table_top + 16 + 28 * notes.table.len() as i32;
    for remark in std::iter::once(&size).chain(&notes.remarks) {
        text(canvas, remark, (LEFT, y), 15, DIM, HPos::Left, FontStyle::Normal)?;
        y += 21;
    }
    Ok(())
}

/// The scale of the depth colours.
fn depth_bar(canvas: &Canvas<'_>, (left, top): (i32, i32), right: i32) -> Result<()> {
    text(canvas, "Depth of a key point", (left, top), 16, INK, HPos::Left, FontStyle::Bold)?;
    let start = left + 200;
    for x in start * SCALE..right * SCALE {
        let share = f64::from(x - start * SCALE) / f64::from((right - start) * SCALE);
        let line = [(x, (top - 8) * SCALE), (x, (top + 8) * SCALE)];
        canvas.draw(&PathElement::new(line, depth_colour(share * RADIUS)))?;
    }
    for metres in (0..=50).step_by(10) {
        let x = start + (f64::from(right - start) * f64::from(metres) / RADIUS) as i32;
        let label = format!("{metres} m");
        text(canvas, &label, (x, top + 24), 14, DIM, HPos::Center, FontStyle::Normal)?;
    }
    Ok(())
}

/// The table of the notes.
fn results(canvas: &Canvas<'_>, notes: &Notes, (left, top): (i32, i32), right: i32) -> Result<()> {
    let Some(columns) = notes.table.first().map(|row| row.len().max(2)) else {
        return Ok(());
    };
    // The first column holds names and gets twice the width of a number.
    let step = f64::from(right - left) / (columns as f64 + 1.0);
    for (row, cells) in notes.table.iter().enumerate() {
        let y = top + 28 * row as i32;
        let (colour, weight) =
            if row == 0 { (DIM, FontStyle::Normal) } else { (INK, FontStyle::Normal) };
        for (column, cell) in cells.iter().enumerate() {
            let (x, align) = if column == 0 {
                (left, HPos::Left)
            } else {
                (left + (step * (column as f64 + 2.0)) as i32, HPos::Right)
            };
            text(canvas, cell, (x, y), 16, colour, align, weight)?;
        }
        if row == 0 {
            let rule = [scaled(left, y + 15), scaled(right, y + 15)];
            canvas.draw(&PathElement::new(rule, LINE.stroke_width(2)))?;
        }
    }
    Ok(())
}

fn heading(canvas: &Canvas<'_>, what: &str, place: (i32, i32)) -> Result<()> {
    text(canvas, what, place, 17, INK, HPos::Left, FontStyle::Bold)
}

/// A dark patch that keeps text readable on top of a busy drawing.
fn backing(canvas: &Canvas<'_>, from: (i32, i32), to: (i32, i32)) -> Result<()> {
    let corners = [scaled(from.0, from.1), scaled(to.0, to.1)];
    Ok(canvas.draw(&Rectangle::new(corners, BACKGROUND.mix(0.72).filled()))?)
}

/// The pixel of image fractions.
fn at(canvas: &Canvas<'_>, x: f64, y: f64) -> (i32, i32) {
    let (width, height) = canvas.dim_in_pixel();
    ((x * f64::from(width)).round() as i32, (y * f64::from(height)).round() as i32)
}

fn depth_colour(depth: f64) -> RGBColor {
    let share = (depth / RADIUS).clamp(0.0, 1.0);
    let above = DEPTH_STOPS.iter().position(|stop| stop.0 >= share).unwrap_or(1).max(1);
    let ((from, low), (to, high)) = (DEPTH_STOPS[above - 1], DEPTH_STOPS[above]);
    let [r, g, b] = mix(low, high, (share - from) / (to - from));
    RGBColor(r as u8, g as u8, b as u8)
}

fn mix(from: [f64; 3], to: [f64; 3], share: f64) -> [f64; 3] {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * share)
}
