//! Images held as a tensor in a file, with their labels: what the formats of DC, MTT, IDC and their kin have in common.

use super::in_memory::{self, MemorySource};
use crate::labels::Labels;
use crate::source::containers::tensor::{DType, TensorFile, TensorRef};
use crate::source::facts::{Facts, Found, Space};
use crate::source::options::Values;
use crate::source::{Label, LabelKind, Sample, Source, SourceInfo, StoredPixels, ValueSpace};
use crate::{Error, Result};
use std::sync::Arc;

/// Sets of at most this many bytes in memory are read when they are opened, so that their checksums are verified; of
/// larger ones each image is read when it is asked for.
const MOST_IN_MEMORY: usize = 1 << 28;

/// Fewer rows than any image has that was distilled.
const SMALL: usize = 8;
/// How far pixels may leave [0, 1].
const SLACK: f32 = 0.05;
/// Images that are looked at to tell what their values are.
const LOOKED_AT: usize = 64;
/// What is beyond this, where nothing is below 0, is not normalised: at a mean of 0.5, black is as far below 0 as white
/// is above.
const OF_NORMALIZED: f32 = 16.0;
/// What pixels stay within, even where a method does not clamp them.
const FAR: f32 = 2.0;

/// The images of a file.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) file: Arc<TensorFile>,
    /// `[N, C, H, W]`.
    pub(crate) tensor: TensorRef,
    /// Its name in errors.
    pub(crate) field: String,
    /// What was assumed of its shape.
    notes: Vec<String>,
}

impl Images {
    /// Takes a tensor `[N, C, H, W]`, `[N, H, W, C]` or `[N, H, W]`, whose channels are one or three.
    ///
    /// # Errors
    /// If it has another shape, or no elements.
    pub(crate) fn new(tensor: &TensorRef, file: Arc<TensorFile>, field: impl Into<String>) -> Result<Self> {
        let field = field.into();
        let shape = tensor.shape().to_vec();
        let refused = |reason: String| Err(Error::field(file.path(), &field, reason));
        if shape.contains(&0) {
            return refused(format!("there are no images: its shape is {shape:?}"));
        }
        let is_channels = |size: usize| size == 1 || size == 3;
        let (tensor, note) = match *shape {
            [_, first, _, last] if is_channels(first) && is_channels(last) => {
                // Of a few pixels, either is as good as the other.
                let is_small = shape[2] < SMALL || first == 1 || last == 1;
                let note = format!(
                    "images of shape {shape:?} are read as [N, C, H, W], although [N, H, W, C] fits, too"
                );
                (tensor.clone(), Some(note).filter(|_| !is_small))
            }
            [_, first, _, _] if is_channels(first) => (tensor.clone(), None),
            [_, _, _, last] if is_channels(last) => (tensor.permuted([0, 3, 1, 2]), None),
            [_, first, _, last] => {
                return refused(format!(
                    "expected images [N, C, H, W] with 1 or 3 channels, found shape {shape:?} (neither {first} nor {last} \
                     channels are read)"
                ));
            }
            [_, _, _] => (tensor.with_dimension(1), None),
            [_, width] => {
                let square = |channels: usize| {
                    let side = (width / channels).isqrt();
                    (channels * side * side == width).then(|| format!("{channels}, {side}, {side}"))
                };
                let image = square(3).or_else(|| square(1)).unwrap_or_else(|| "C, H, W".to_owned());
                return refused(format!(
                    "expected images [N, C, H, W], found flat rows of shape {shape:?}: reshape them, as in \
                     images.reshape(-1, {image}), and save them again"
                ));
            }
            _ => return refused(format!("expected images [N, C, H, W], found shape {shape:?}")),
        };
        Ok(Self { file, tensor, field, notes: note.into_iter().collect() })
    }

    /// # Errors
    /// If the elements are no floats: whatever is normalised or whitened is.
    pub(crate) fn of_floats(self) -> Result<Self> {
        if self.tensor.dtype().is_float() {
            return Ok(self);
        }
        Err(self.refused(format!("expected float elements, found {:?}", self.tensor.dtype())))
    }

    /// What the values are, by the type and the range of them where nothing says it.
    ///
    /// # Errors
    /// If nothing says it and they can be neither pixels nor normalised; if an option contradicts the type.
    pub(crate) fn space(&self, facts: &mut Facts<'_>) -> Result<Space> {
        if self.are_bytes() {
            facts.bytes_are_pixels()?;
            if self.tensor.dtype() != DType::Bool && self.range()?.1 == 1.0 {
                facts.note(
                    "the images are integers that are all 0 or 1, which are nearly black as pixels from 0 to 255; store \
                     them as bools or floats if 1 is white",
                );
            }
            return Ok(facts.pixels());
        }
        let (least, largest) = self.range()?;
        if least >= -SLACK && largest <= 1.0 + SLACK {
            let why = "the images are taken for pixels, because their values lie in [0, 1]";
            return Ok(facts.space(Values::Unit, Some(why.to_owned())));
        }
        if largest == f32::INFINITY {
            return Err(self.refused("the images contain infinity: pixel values must be finite".to_owned()));
        }
        if facts.told_values().is_none() && least >= 0.0 && largest > OF_NORMALIZED {
            return Err(self.refused(format!(
                "the images are floats from {least} to {largest}, like pixels from 0 to 255: divide them by 255, or pass \
                 `values` as `normalized` if they are normalised"
            )));
        }
        let why = "the images are taken to be normalised, because their values leave [0, 1]";
        Ok(facts.space(Values::Normalized, Some(why.to_owned())))
    }

    /// Joins images and labels to a set.
    ///
    /// # Errors
    /// If their numbers differ, or what is said to be pixels is not.
    pub(crate) fn into_source(
        self,
        labels: Labels,
        space: Space,
        (method, learning_rate): (Option<String>, Option<f32>),
        mut facts: Facts<'_>,
    ) -> Result<Box<dyn Source>> {
        // Those of MTT's images_zca_*.pt are pixels by their name alone, and may have left the range by far.
        let is_told = facts.told_values().is_some_and(|(values, _)| values == Values::Unit);
        // A transform for them contradicts it, which is said of the whole set.
        if space.values == ValueSpace::Unit
            && (is_told || facts.are_pixels())
            && facts.options().zca.is_none()
        {
            self.check_unit()?;
        }
        facts.notes(self.notes.iter().cloned());
        facts.notes(labels.notes);
        let classes = facts.classes(labels.classes, labels.kind, labels.names, labels.class_map)?;
        if labels.kind == LabelKind::Hard {
            facts.note_odd_classes(labels.labels.iter().map(Label::class), classes.count);
        }
        let info = facts.info(Found {
            method,
            samples: self.len(),
            shape: [1, 2, 3].map(|dimension| self.tensor.shape()[dimension]),
            labels: labels.kind,
            learning_rate,
            space,
            classes,
        });
        self.join(info, labels.labels)
    }

    fn join(self, info: SourceInfo, labels: Vec<Label>) -> Result<Box<dyn Source>> {
        let each: Option<usize> =
            self.tensor.shape()[1..].iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let size = if self.are_bytes() { 1 } else { size_of::<f32>() };
        let bytes = each.and_then(|each| each.checked_mul(self.len())?.checked_mul(size));
        if bytes.is_some_and(|bytes| bytes <= MOST_IN_MEMORY) {
            let values = self.all()?;
            return Ok(Box::new(MemorySource::of_pixels(info, values, labels)?));
        }
        in_memory::check(&info, &labels)?;
        Ok(Box::new(OnDemand { info, images: self, labels }))
    }

    /// Whether they are stored as integers, which are pixels from 0 to 255.
    pub(crate) fn are_bytes(&self) -> bool {
        !self.tensor.dtype().is_float()
    }

    fn row(&self, index: usize) -> Result<StoredPixels> {
        Ok(match self.tensor.dtype() {
            DType::U8 => StoredPixels::U8(self.file.read_row(&self.tensor, index, &self.field)?),
            dtype if dtype.is_float() => {
                StoredPixels::F32(self.file.read_row(&self.tensor, index, &self.field)?)
            }
            _ => {
                let values = self.file.read_row::<i64>(&self.tensor, index, &self.field)?;
                let bytes: Result<Vec<u8>> =
                    values.into_iter().map(|value| self.byte(index, value)).collect();
                StoredPixels::U8(bytes?)
            }
        })
    }

    /// Reads image `index` to where it is wanted, if it lies in the file as floats are in memory; says whether it does.
    fn read_into(&self, index: usize, out: &mut [f32]) -> Result<bool> {
        self.file.read_row_into(&self.tensor, index, out, &self.field)
    }

    /// All images, read at once so that a checksum over them is compared.
    fn all(&self) -> Result<StoredPixels> {
        Ok(match self.tensor.dtype() {
            DType::U8 => StoredPixels::U8(self.file.read(&self.tensor, &self.field)?),
            dtype if dtype.is_float() => StoredPixels::F32(self.file.read(&self.tensor, &self.field)?),
            _ => {
                let values = self.file.read::<i64>(&self.tensor, &self.field)?;
                let each = (values.len() / self.tensor.shape()[0].max(1)).max(1);
                let byte = |(at, value)| self.byte(at / each, value);
                StoredPixels::U8(values.into_iter().enumerate().map(byte).collect::<Result<_>>()?)
            }
        })
    }

    fn byte(&self, index: usize, value: i64) -> Result<u8> {
        // Of bools, true is white.
        let value = if self.tensor.dtype() == DType::Bool { 255 * value } else { value };
        u8::try_from(value).map_err(|_| {
            let reason =
                format!("`{}` has the integer {value}; integer pixels must be from 0 to 255", self.field);
            Error::sample(self.file.path(), index, reason)
        })
    }

    /// # Errors
    /// If floats lie far outside [0, 1], where a refiner would be given images that are white or black.
    fn check_unit(&self) -> Result<()> {
        if self.are_bytes() {
            return Ok(());
        }
        let (least, largest) = self.range()?;
        if least >= -FAR && largest <= FAR {
            return Ok(());
        }
        let how = if least >= 0.0 && largest > OF_NORMALIZED {
            "divide them by 255 if they are pixels from 0 to 255"
        } else {
            "pass `values` as `normalized` if they are, with their mean and std"
        };
        Err(self.refused(format!("expected pixels in [0, 1], found floats from {least} to {largest}: {how}")))
    }

    /// The smallest and the largest value of some images, spread over all.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn range(&self) -> Result<(f32, f32)> {
        let (mut least, mut largest) = (f32::INFINITY, f32::NEG_INFINITY);
        let images = self.len();
        let looked_at = images.min(LOOKED_AT);
        for place in 0..looked_at {
            // From the first to the last.
            let index = (place as u128 * (images - 1) as u128 / (looked_at - 1).max(1) as u128) as usize;
            for value in self.file.read_row::<f32>(&self.tensor, index, &self.field)? {
                (least, largest) = (least.min(value), largest.max(value));
            }
        }
        Ok((least, largest))
    }

    /// Number of images.
    pub(crate) fn len(&self) -> usize {
        self.tensor.shape()[0]
    }

    pub(crate) fn refused(&self, reason: String) -> Error {
        Error::field(self.file.path(), &self.field, reason)
    }
}

/// A set that is read image by image.
#[derive(Debug)]
struct OnDemand {
    info: SourceInfo,
    images: Images,
    labels: Vec<Label>,
}

impl Source for OnDemand {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.labels.get(index).cloned().ok_or_else(|| self.info.no_sample(index))
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let label = self.label(index)?;
        let pixels = self.images.row(index)?;
        in_memory::check_pixels(&self.info, index, &pixels)?;
        Ok(Sample { pixels, shape: self.info.shape, label })
    }

    fn write_normalized(&self, index: usize, out: &mut [f32]) -> Result<()> {
        let is_stored_so = match self.info.value_space {
            ValueSpace::Normalized(own) => own == self.info.normalize,
            ValueSpace::Whitened => true,
            ValueSpace::Unit | ValueSpace::Mixed => false,
        };
        if is_stored_so && index < self.images.len() && self.images.read_into(index, out)? {
            return in_memory::check_finite(&self.info, index, out);
        }
        in_memory::write(&self.info, &self.info.value_space, index, self.sample(index)?.pixels.borrow(), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::containers::tensor::{Place, StorageRef};
    use crate::source::{Format, OpenOptions, conformance};
    use std::io::Write;

    #[test]
    fn a_set_on_demand_is_the_set_in_memory() {
        let values: Vec<f32> = (0..5 * 12).map(|i| i as f32 / 60.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"head").unwrap();
        file.write_all(&bytes).unwrap();
        let images = || {
            let place = Place::InFile { start: 4, bytes: bytes.len() as u64, crc32: None };
            let opened = std::fs::File::open(file.path()).unwrap();
            let storage = StorageRef { key: "x".into(), dtype: DType::F32, numel: 60 };
            // The same values with their samples in another order of strides.
            let tensor = TensorRef::new(storage, 0, &[5, 3, 2, 2], &[12, 1, 6, 3]).unwrap();
            let file = TensorFile::new(file.path(), opened, [("x".into(), place)].into());
            Images::new(&tensor, Arc::new(file), "images")
        };
        let labels = || Labels::of_classes(file.path(), vec![0, 1, 0, 1, 2], &OpenOptions::new()).unwrap();
        let options = OpenOptions::new().dataset("imagenet");
        let mut facts = Facts::new(Format::Tensors, file.path(), &options).unwrap();
        let space = facts.pixels();
        let in_memory = images().unwrap().into_source(labels(), space, (None, None), facts);
        let in_memory = in_memory.unwrap();
        let on_demand =
            OnDemand { info: in_memory.info().clone(), images: images().unwrap(), labels: labels().labels };
        conformance::check(&on_demand);
        for index in 0..5 {
            assert_eq!(on_demand.sample(index).unwrap(), in_memory.sample(index).unwrap());
        }
        assert_eq!(images().unwrap().range().unwrap(), (0.0, 59.0 / 60.0));

        file.as_file().set_len(150).unwrap();
        let error = on_demand.sample(4).unwrap_err().to_string();
        assert!(error.contains("`images`: damaged"), "{error}");
        assert!(on_demand.sample(0).is_ok(), "what is still there can be read");
    }
}
