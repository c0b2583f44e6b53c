//! The images of a table: encoded files, or numbers in nested lists.

use super::blocks::{Blocks, Row};
use crate::source::adapters::{self, Encoded};
use crate::source::facts::{Facts, Space};
use crate::source::options::Values;
use crate::source::{Label, Sample, Source, SourceInfo, StoredPixels, ValueSpace};
use crate::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, UInt8Type};
use std::io::{BufRead, Cursor, Seek};
use std::sync::Arc;

/// How many images are looked at to tell what their values are.
const LOOKED_AT: usize = 64;

/// What pixels in [0, 1] stay within, even where a method does not clamp them.
const FAR: f32 = 2.0;

/// Files of images in a column.
#[derive(Debug)]
pub(super) struct Files(pub(super) Blocks);

impl Encoded for Files {
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek> {
        let Row { block, at } = self.0.row(index)?;
        let bytes = match block.data_type() {
            _ if block.is_null(at) => None,
            DataType::Binary => Some(block.as_binary::<i32>().value(at)),
            DataType::LargeBinary => Some(block.as_binary::<i64>().value(at)),
            DataType::BinaryView => Some(block.as_binary_view().value(at)),
            _ => None,
        };
        let missing = "no image bytes, as where only the path of a file is stored: embed the images when the file is \
                       written (`datasets` does in to_parquet and push_to_hub)";
        let bytes = bytes.ok_or_else(|| self.0.refused(index, missing.into()))?;
        Ok(Cursor::new(bytes.to_vec()))
    }

    fn refused(&self, index: usize, reason: String) -> Error {
        self.0.refused(index, reason)
    }
}

/// What the numbers of a column are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Numbers {
    /// Integers from 0 to 255, which floats may be as well.
    Bytes,
    Floats,
}

/// How height, width and channels are nested.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    ChannelsFirst,
    ChannelsLast,
}

/// How the numbers of images are nested, and what they are.
#[derive(Debug)]
pub(super) struct Reader {
    shape: Vec<usize>,
    order: Order,
    numbers: Numbers,
}

impl Reader {
    /// Looks at some images of a column of this name; with their shape as `[C, H, W]`, and their values.
    ///
    /// # Errors
    /// If the shape is not one of images, or the values are neither pixels nor told to be anything else.
    pub(super) fn look(
        blocks: &Blocks,
        samples: usize,
        name: &str,
        shape: Option<Vec<usize>>,
        facts: &mut Facts<'_>,
    ) -> Result<(Self, [usize; 3], Space)> {
        let path = facts.path().to_owned();
        let refused = |reason: String| Error::field(&path, name, reason);
        let first = blocks.row(0)?;
        let (found, values) = flatten(&first).map_err(|reason| blocks.refused(0, reason))?;
        let shape = shape.unwrap_or(found);
        let (order, chw) = order(&shape).map_err(refused)?;
        let bytes = |facts: &mut Facts<'_>| facts.pictures(false).map(|space| (Numbers::Bytes, space));
        let (numbers, space) = if values.data_type().is_floating() {
            let (least, most, are_whole) = range(blocks, samples)?;
            let is_told = facts.told_values().is_some();
            let is_unit = is_told || (least >= 0.0 && most <= 1.0);
            if !is_told && least >= 0.0 && most > 1.0 && most <= 255.0 && are_whole {
                facts.note(format!(
                    "the floats of `{name}` are whole numbers up to {most}, so they are read as pixels from 0 to 255"
                ));
                bytes(facts)?
            } else if !is_unit {
                return Err(refused(format!(
                    "expected pixels in [0, 1] or from 0 to 255, found floats from {least} to {most}: pass `values` as \
                     `normalized` (with `mean` and `std`) or as `unit`"
                )));
            } else {
                (Numbers::Floats, facts.space(Values::Unit, None))
            }
        } else {
            bytes(facts)?
        };
        Ok((Self { shape, order, numbers }, chw, space))
    }
}

/// Images that are numbers in nested lists.
#[derive(Debug)]
pub(super) struct Pixels {
    info: SourceInfo,
    labels: Vec<Label>,
    blocks: Blocks,
    reader: Reader,
}

impl Pixels {
    /// # Errors
    /// If labels do not agree with what `info` says.
    pub(super) fn new(info: SourceInfo, labels: Vec<Label>, blocks: Blocks, reader: Reader) -> Result<Self> {
        adapters::check(&info, &labels)?;
        Ok(Self { info, labels, blocks, reader })
    }

    fn values(&self, index: usize) -> Result<StoredPixels> {
        let refused = |reason| self.blocks.refused(index, reason);
        let (found, values) = flatten(&self.blocks.row(index)?).map_err(refused)?;
        if found != self.reader.shape {
            return Err(refused(format!("expected shape {:?}, found {found:?}", self.reader.shape)));
        }
        let [channels, height, width] = self.info.shape;
        if self.reader.numbers == Numbers::Floats {
            let values = floats(&values).map_err(refused)?;
            if self.info.value_space == ValueSpace::Unit
                && let Some(value) = values.iter().find(|value| value.abs() > FAR)
            {
                return Err(refused(format!("the pixel value {value} is not in [0, 1]")));
            }
            return Ok(StoredPixels::F32(planar(values, self.reader.order, channels, height * width)));
        }
        // What is no whole number from 0 to 255 becomes null, or another number.
        let bytes = cast(&values, &DataType::UInt8).map_err(|e| refused(e.to_string()))?;
        let is_exact = !values.data_type().is_floating()
            || floats(&values).map_err(refused)?.iter().all(|value| value.fract() == 0.0);
        if bytes.null_count() > 0 || !is_exact {
            return Err(refused("a pixel value is not an integer from 0 to 255".into()));
        }
        let bytes = bytes.as_primitive::<UInt8Type>().values().to_vec();
        Ok(StoredPixels::U8(planar(bytes, self.reader.order, channels, height * width)))
    }
}

impl Source for Pixels {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.labels.get(index).cloned().ok_or_else(|| self.info.no_sample(index))
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let label = self.label(index)?;
        let pixels = self.values(index)?;
        adapters::check_pixels(&self.info, index, &pixels)?;
        Ok(Sample { pixels, shape: self.info.shape, label })
    }
}

/// The shape of an image, and its numbers in the order in which they are nested.
fn flatten(row: &Row) -> Result<(Vec<usize>, ArrayRef), String> {
    let mut array = row.block.slice(row.at, 1);
    let mut shape = Vec::new();
    loop {
        if array.null_count() > 0 {
            return Err("a number or a list of the image is missing".into());
        }
        // Lists of every kind alike.
        let list = match array.data_type() {
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                cast(&array, &DataType::LargeList(Arc::clone(field))).map_err(|e| e.to_string())?
            }
            _ => break,
        };
        let list = list.as_list::<i64>();
        let offsets = list.value_offsets();
        let length = offsets[1] - offsets[0];
        if offsets.windows(2).any(|pair| pair[1] - pair[0] != length) {
            return Err("the lists of the image are of several lengths".into());
        }
        shape.push(usize::try_from(length).unwrap_or(0));
        let (start, end) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
        array = list.values().slice(start, end - start);
        if array.is_empty() {
            break;
        }
    }
    // That of the row itself.
    Ok((shape, array))
}

fn order(shape: &[usize]) -> Result<(Order, [usize; 3]), String> {
    let is_channels = |size: usize| size == 1 || size == 3;
    match *shape {
        [height, width] => Ok((Order::ChannelsFirst, [1, height, width])),
        [a, b, c] if is_channels(a) && !is_channels(c) => Ok((Order::ChannelsFirst, [a, b, c])),
        [a, b, c] if is_channels(c) && !is_channels(a) => Ok((Order::ChannelsLast, [c, a, b])),
        [a, b, c] if a == c && b == c => {
            Err(format!("shape {shape:?}: it does not tell which are the channels"))
        }
        [a, _, c] if is_channels(a) && is_channels(c) => {
            Err(format!("shape {shape:?}: it does not tell which are the channels"))
        }
        _ => Err(format!("shape {shape:?}: [H, W], [H, W, C] or [C, H, W] with 1 or 3 channels is expected")),
    }
}

/// The smallest and the largest value of some images, spread over all, and whether all are whole numbers.
fn range(blocks: &Blocks, images: usize) -> Result<(f32, f32, bool)> {
    let (mut least, mut most, mut are_whole) = (f32::INFINITY, f32::NEG_INFINITY, true);
    for index in 0..images.min(LOOKED_AT) {
        let refused = |reason| blocks.refused(index, reason);
        let (_, values) = flatten(&blocks.row(index)?).map_err(refused)?;
        for value in floats(&values).map_err(refused)? {
            (least, most) = (least.min(value), most.max(value));
            are_whole &= value.fract() == 0.0;
        }
    }
    Ok((least, most, are_whole))
}

fn floats(values: &ArrayRef) -> Result<Vec<f32>, String> {
    let values = cast(values, &DataType::Float32).map_err(|e| e.to_string())?;
    Ok(values.as_primitive::<Float32Type>().values().to_vec())
}

/// Channel by channel.
fn planar<T: Copy>(values: Vec<T>, order: Order, channels: usize, area: usize) -> Vec<T> {
    if order == Order::ChannelsFirst || channels == 1 {
        return values;
    }
    (0..channels)
        .flat_map(|channel| (0..area).map(move |at| at * channels + channel))
        .map(|at| values[at])
        .collect()
}
