//! The first frame of GIF images, as Pillow shows it.

use gif::{ColorOutput, DecodeOptions, DecodingError};
use std::io::ErrorKind;

/// Height and width, from the first bytes; 0 x 0 if there are too few.
pub(super) fn size(bytes: &[u8]) -> [usize; 2] {
    match bytes {
        [_, _, _, _, _, _, w, w_high, h, h_high, ..] => {
            [[*h, *h_high], [*w, *w_high]].map(|side| usize::from(u16::from_le_bytes(side)))
        }
        _ => [0, 0],
    }
}

/// The pixels, `[height, width, 3]`. Transparent ones have the color that stands in their place.
pub(super) fn decode(bytes: &[u8], [height, width]: [usize; 2]) -> Result<Vec<u8>, String> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.check_frame_consistency(true);
    let mut decoder = options.read_info(bytes).map_err(said)?;
    let frame = decoder.read_next_frame().map_err(said)?.ok_or("it has no frame")?.clone();
    let palette = frame.palette.as_deref().or(decoder.global_palette()).ok_or("it has no palette")?;
    let (colors, _) = palette.as_chunks::<3>();
    let color = |index: u8| colors.get(usize::from(index)).ok_or("a color is not in its palette");

    let mut pixels = color(frame.transparent.unwrap_or(0))?.repeat(height * width);
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let row_bytes = width * 3;
    for (row, indices) in frame.buffer.chunks_exact(usize::from(frame.width).max(1)).enumerate() {
        let start = (top + row) * row_bytes + left * 3;
        let row = pixels.get_mut(start..).unwrap_or_default();
        for (pixel, index) in row.as_chunks_mut::<3>().0.iter_mut().zip(indices) {
            *pixel = *color(*index)?;
        }
    }
    // The frame's pixels may be there, and the end of its data cut off. What follows does not matter.
    match decoder.next_frame_info() {
        Err(error) if is_cut(&error) => Err(said(error)),
        _ => Ok(pixels),
    }
}

fn is_cut(error: &DecodingError) -> bool {
    match error {
        DecodingError::UnexpectedEof => true,
        DecodingError::Io(error) => error.kind() == ErrorKind::UnexpectedEof,
        _ => false,
    }
}

fn said(error: DecodingError) -> String {
    if is_cut(&error) { "it ends too early".to_owned() } else { error.to_string() }
}
