//! Contact sheets.

use crate::{Error, Result, RgbImage};

const WHITE: u8 = 255;
/// Larger sheets are refused: 3 bytes a pixel would be 300 MB.
const MAX_PIXELS: usize = 100_000_000;

/// Rows of images side by side, enlarged without smoothing, on white.
///
/// ```
/// use diver_loaders::{RgbImage, Sheet};
///
/// let tile = RgbImage::new(4, 4, vec![0; 48])?;
/// let sheet = Sheet::new(3, 2)?.row(vec![tile.clone(), tile.clone()]).row(vec![tile]).to_image()?;
/// assert_eq!((sheet.width(), sheet.height()), (2 * 12 + 3 * 2, 2 * 12 + 3 * 2));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sheet {
    scale: usize,
    gap: usize,
    rows: Vec<Vec<RgbImage>>,
}

impl Sheet {
    /// An empty sheet: tiles `scale` times as large as their images, `gap` white pixels between and around
    /// them.
    ///
    /// # Errors
    /// If `scale` is 0.
    pub fn new(scale: usize, gap: usize) -> Result<Self> {
        if scale == 0 {
            return Err(Error::config("scale", "0 was given, at least 1 is allowed"));
        }
        Ok(Self { scale, gap, rows: Vec::new() })
    }

    /// Appends a row.
    pub fn row(mut self, images: Vec<RgbImage>) -> Self {
        self.rows.push(images);
        self
    }

    /// The picture. Every cell has the size of the largest tile; a smaller one lies at its top left.
    ///
    /// # Errors
    /// If there are no images, or the sheet would have more than 100 million pixels.
    pub fn to_image(&self) -> Result<RgbImage> {
        let images = || self.rows.iter().flatten();
        let largest = |side: fn(&RgbImage) -> usize| images().map(side).max().unwrap_or(0);
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns == 0 {
            return Err(Error::config("sheet", "there are no images"));
        }
        let length = |side: usize, count: usize| {
            let cell = side.checked_mul(self.scale)?.checked_add(self.gap)?;
            cell.checked_mul(count)?.checked_add(self.gap)
        };
        let width = length(largest(RgbImage::width), columns);
        let height = length(largest(RgbImage::height), self.rows.len());
        let (Some(width), Some(height), Some(1..=MAX_PIXELS)) =
            (width, height, width.zip(height).and_then(|(w, h)| w.checked_mul(h)))
        else {
            let reason = format!("{columns} x {} images do not make a sheet", self.rows.len());
            return Err(Error::config("sheet", reason));
        };

        let mut sheet = vec![WHITE; width * height * 3];
        let cell_width = largest(RgbImage::width) * self.scale + self.gap;
        let cell_height = largest(RgbImage::height) * self.scale + self.gap;
        for (row, images) in self.rows.iter().enumerate() {
            for (column, image) in images.iter().enumerate() {
                let left = self.gap + column * cell_width;
                for y in 0..image.height() * self.scale {
                    let top = self.gap + row * cell_height + y;
                    self.draw_line(image, y / self.scale, &mut sheet[(top * width + left) * 3..]);
                }
            }
        }
        RgbImage::new(width, height, sheet)
    }

    /// Writes one row of `image`, enlarged, to the start of `line`.
    fn draw_line(&self, image: &RgbImage, row: usize, line: &mut [u8]) {
        let stride = image.width() * 3;
        let pixels = image.as_bytes()[row * stride..][..stride].chunks_exact(3);
        for (pixel, enlarged) in pixels.zip(line.chunks_mut(self.scale * 3)) {
            for copy in enlarged.chunks_exact_mut(3) {
                copy.copy_from_slice(pixel);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(width: usize, height: usize, value: u8) -> RgbImage {
        RgbImage::new(width, height, vec![value; width * height * 3]).unwrap()
    }

    #[test]
    fn tiles_are_enlarged_by_whole_pixels() {
        let image = RgbImage::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let sheet = Sheet::new(2, 1).unwrap().row(vec![image]).to_image().unwrap();
        assert_eq!((sheet.width(), sheet.height()), (6, 4));
        let line = [255, 255, 255, 1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6, 255, 255, 255];
        assert_eq!(sheet.as_bytes(), [[255; 18], line, line, [255; 18]].concat());
    }

    #[test]
    fn smaller_tiles_and_shorter_rows_leave_white() {
        let sheet =
            Sheet::new(1, 0).unwrap().row(vec![tile(2, 2, 0), tile(1, 1, 7)]).row(vec![tile(1, 2, 9)]);
        let sheet = sheet.to_image().unwrap();
        let grey: Vec<u8> = sheet.as_bytes().chunks_exact(3).map(|pixel| pixel[0]).collect();
        assert_eq!(grey, [0, 0, 7, 255, 0, 0, 255, 255, 9, 255, 255, 255, 9, 255, 255, 255]);
    }

    #[test]
    fn empty_and_vast_sheets_are_refused() {
        assert!(Sheet::new(0, 1).is_err());
        assert!(Sheet::new(1, 0).unwrap().to_image().is_err());
        assert!(Sheet::new(1, 2).unwrap().row(Vec::new()).to_image().is_err());
        assert!(Sheet::new(usize::MAX, 2).unwrap().row(vec![tile(2, 2, 0)]).to_image().is_err());
        assert!(Sheet::new(100_000, 0).unwrap().row(vec![tile(2, 2, 0)]).to_image().is_err());
    }
}
