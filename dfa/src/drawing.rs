//! What all pictures are drawn with: colours, text, an image of twice the final size.
//!
//! Everything is drawn at twice its size and scaled down, which smooths lines and dots alike. Fonts are
//! part of the program, so that a picture is the same on every machine.

use std::sync::Once;

use anyhow::{Result, anyhow};
use image::RgbImage;
use image::imageops::{self, FilterType};
use plotters::backend::BitMapBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::Text;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, IntoFont, RGBColor, TextStyle};

/// Drawing scale before the final reduction.
pub(crate) const SCALE: i32 = 2;

/// Behind everything.
pub(crate) const BACKGROUND: RGBColor = RGBColor(15, 19, 27);
/// Behind a group of things.
pub(crate) const CARD: RGBColor = RGBColor(24, 30, 41);
/// Text.
pub(crate) const INK: RGBColor = RGBColor(234, 238, 245);
/// Text of less weight.
pub(crate) const DIM: RGBColor = RGBColor(150, 161, 178);
/// Rules and grids.
pub(crate) const LINE: RGBColor = RGBColor(58, 68, 86);

/// What is drawn on.
pub(crate) type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Writes text; `place` is its left end, middle or right end, half way up.
pub(crate) fn text(
    canvas: &Canvas<'_>,
    what: &str,
    place: (i32, i32),
    size: i32,
    colour: RGBColor,
    align: HPos,
    weight: FontStyle,
) -> Result<()> {
    let style = TextStyle::from(("sans-serif", size * SCALE, weight).into_font())
        .color(&colour)
        .pos(Pos::new(align, VPos::Center));
    Ok(canvas.draw(&Text::new(what, scaled(place.0, place.1), style))?)
}

/// A place in a picture, on its image.
pub(crate) fn scaled(x: i32, y: i32) -> (i32, i32) {
    (x * SCALE, y * SCALE)
}

/// An empty image of the drawing scale for a picture of this size.
pub(crate) fn blank(width: i32, height: i32) -> RgbImage {
    let RGBColor(r, g, b) = BACKGROUND;
    RgbImage::from_pixel((width * SCALE) as u32, (height * SCALE) as u32, image::Rgb([r, g, b]))
}

/// Puts a part of a picture in its place.
pub(crate) fn paste(onto: &mut RgbImage, part: &RgbImage, left: i32, top: i32) {
    imageops::replace(onto, part, i64::from(left * SCALE), i64::from(top * SCALE));
}

/// Draws on an image with the drawing library.
///
/// # Errors
///
/// When the drawing library refuses (text that has no glyphs, say).
pub(crate) fn draw_on(
    image: &mut RgbImage,
    draw: impl FnOnce(&Canvas<'_>) -> Result<()>,
) -> Result<()> {
    let size = image.dimensions();
    let canvas = BitMapBackend::with_buffer(image, size).into_drawing_area();
    register_fonts();
    draw(&canvas)?;
    canvas.present().map_err(|error| anyhow!("drawing the picture: {error}"))
}

/// The picture at its final size.
pub(crate) fn finished(picture: &RgbImage) -> RgbImage {
    let size = [picture.width(), picture.height()].map(|side| side / SCALE as u32);
    imageops::resize(picture, size[0], size[1], FilterType::Triangle)
}

/// Makes the fonts that come with the program known to the drawing library.
fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, bytes) in
            [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())]
        {
            // A font that cannot be read shows up as an error of the first text drawn with it.
            let _ = plotters::style::register_font("sans-serif", style, bytes);
        }
    });
}
