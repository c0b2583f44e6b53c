//! Images held as a tensor in a file, with their labels: what the formats of DC, MTT, IDC and their kin have in common.

use super::adapters::{self, MemorySource};
use super::containers::tensor::{DType, TensorFile, TensorRef};
use super::normalization::{self, Space};
use super::{Label, OpenOptions, Sample, Source, SourceInfo, StoredPixels, ValueSpace, Values};
use crate::labels::Labels;
use crate::{Error, Result};

/// Sets of at most this many bytes in memory are read when they are opened, so that their checksums are verified; of
/// larger ones each image is read when it is asked for.
pub(super) const MOST_IN_MEMORY: usize = 1 << 28;

/// Images that are looked at to tell what their values are.
const LOOKED_AT: usize = 64;
/// What is beyond this, where nothing is below 0, is not normalised: at a mean of 0.5, black is as far below 0 as white
/// is above.
pub(super) const OF_NORMALIZED: f32 = 16.0;
/// What pixels stay within, even where a method does not clamp them.
const FAR: f32 = 2.0;

/// What is known of a set beside its images and labels.
#[derive(Debug)]
pub(super) struct About {
    pub(super) format: &'static str,
    pub(super) method: Option<String>,
    pub(super) space: Space,
    pub(super) learning_rate: Option<f32>,
}

/// The images of a file.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) file: TensorFile,
    /// `[N, C, H, W]`.
    pub(super) tensor: TensorRef,
    /// Its name in errors.
    pub(super) field: String,
}

impl Images {
    /// # Errors
    /// If the tensor has another shape than `[N, C, H, W]`, or no elements.
    pub(super) fn new(tensor: TensorRef, file: TensorFile, field: impl Into<String>) -> Result<Self> {
        let images = Self { file, tensor, field: field.into() };
        if images.tensor.shape().len() != 4 || images.tensor.shape().contains(&0) {
            let reason = format!("shape {:?}: images [N, C, H, W] are expected", images.tensor.shape());
            return Err(images.refused(reason));
        }
        Ok(images)
    }

    /// # Errors
    /// If the elements are no floats: whatever is normalised or whitened is.
    pub(super) fn of_floats(self) -> Result<Self> {
        if self.tensor.dtype().is_float() {
            return Ok(self);
        }
        Err(self.refused(format!("{:?} elements: floats are expected", self.tensor.dtype())))
    }

    /// Joins images and labels to a set.
    ///
    /// # Errors
    /// If their numbers differ, images have neither one channel nor three, or what is said to be pixels is not.
    pub(super) fn into_source(
        self,
        labels: Labels,
        about: About,
        options: &OpenOptions,
    ) -> Result<Box<dyn Source>> {
        // Those of MTT's images_zca_*.pt are pixels by their name alone, and may have left the range by far.
        let is_told = normalization::told(self.file.path(), options)? == Some(Values::Unit);
        // A transform for them contradicts it, which is said of the whole set.
        if about.space.values == ValueSpace::Unit
            && (is_told || about.format == "idc")
            && options.zca.is_none()
        {
            self.check_unit()?;
        }
        let shape = [1, 2, 3].map(|dimension| self.tensor.shape()[dimension]);
        let space = about.space;
        let mut notes = space.notes;
        notes.extend(labels.notes);
        let info = SourceInfo {
            format: about.format.into(),
            method: about.method,
            path: self.file.path().to_owned(),
            samples: self.tensor.shape()[0],
            classes: labels.classes,
            class_names: None,
            class_map: options.classes.clone(),
            shape,
            labels: labels.kind,
            value_space: space.values,
            normalize: space.normalize,
            learning_rate: about.learning_rate,
            notes,
        };
        self.join(info, labels.labels)
    }

    fn join(self, info: SourceInfo, labels: Vec<Label>) -> Result<Box<dyn Source>> {
        let values = self.tensor.shape().iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let size = if self.is_bytes() { 1 } else { size_of::<f32>() };
        if values.and_then(|values| values.checked_mul(size)).is_some_and(|bytes| bytes <= MOST_IN_MEMORY) {
            let values = if self.is_bytes() {
                StoredPixels::U8(self.file.read(&self.tensor, &self.field)?)
            } else {
                StoredPixels::F32(self.file.read(&self.tensor, &self.field)?)
            };
            return Ok(Box::new(MemorySource::of_pixels(info, values, labels)?));
        }
        adapters::check(&info, &labels)?;
        Ok(Box::new(OnDemand { info, images: self, labels }))
    }

    fn is_bytes(&self) -> bool {
        self.tensor.dtype() == DType::U8
    }

    fn row(&self, row: usize) -> Result<StoredPixels> {
        Ok(if self.is_bytes() {
            StoredPixels::U8(self.file.read_row(&self.tensor, row, &self.field)?)
        } else {
            StoredPixels::F32(self.file.read_row(&self.tensor, row, &self.field)?)
        })
    }

    /// # Errors
    /// If floats lie far outside [0, 1], where a refiner would be given images that are white or black.
    fn check_unit(&self) -> Result<()> {
        if self.is_bytes() {
            return Ok(());
        }
        let (least, largest) = self.range()?;
        if least >= -FAR && largest <= FAR {
            return Ok(());
        }
        let how = if least >= 0.0 && largest > OF_NORMALIZED {
            "divide them by 255 if they are pixels from 0 to 255"
        } else {
            "say that `values` are `normalized` if they are, with their mean and std"
        };
        Err(self
            .refused(format!("floats from {least} to {largest}, where pixels in [0, 1] are expected: {how}")))
    }

    /// The smallest and the largest value of some images, spread over all.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(super) fn range(&self) -> Result<(f32, f32)> {
        let (mut least, mut largest) = (f32::INFINITY, f32::NEG_INFINITY);
        let images = self.len();
        let looked_at = images.min(LOOKED_AT);
        for place in 0..looked_at {
            // From the first to the last.
            let row = (place as u128 * (images - 1) as u128 / (looked_at - 1).max(1) as u128) as usize;
            for value in self.file.read_row::<f32>(&self.tensor, row, &self.field)? {
                (least, largest) = (least.min(value), largest.max(value));
            }
        }
        Ok((least, largest))
    }

    /// Number of images.
    pub(super) fn len(&self) -> usize {
        self.tensor.shape()[0]
    }

    fn refused(&self, reason: String) -> Error {
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
        adapters::check_finite(&self.info, index, &pixels)?;
        Ok(Sample { pixels, shape: self.info.shape, label })
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::super::containers::tensor::{Place, StorageRef};
    use super::super::normalization::Space;
    use super::*;
    use crate::Normalize;
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
            Images::new(tensor, file, "images")
        };
        let labels = || Labels::of_classes(file.path(), vec![0, 1, 0, 1, 2], &OpenOptions::new()).unwrap();
        let space = Space { values: ValueSpace::Unit, normalize: Normalize::IMAGENET, notes: vec![] };
        let about = About { format: "x", method: None, space, learning_rate: None };
        let in_memory = images().unwrap().into_source(labels(), about, &OpenOptions::new());
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
