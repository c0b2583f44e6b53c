//! `images` and `labels` in one safetensors file, written from front to back.

use super::{LabelBytes, Writer, files};
use crate::source::{ClassList, VALUES};
use crate::{Error, LabelKind, Result, Sample, SourceInfo, StoredPixels, ValueSpace, Values};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

pub(super) struct Safetensors {
    path: PathBuf,
    /// Absent before the first sample, which tells whether images are bytes or floats.
    file: Option<BufWriter<File>>,
    info: SourceInfo,
    labels: LabelBytes,
}

impl Safetensors {
    pub(super) fn new(info: &SourceInfo, folder: &Path) -> Result<Self> {
        let labels = LabelBytes::new(info.labels != LabelKind::Hard);
        Ok(Self { path: folder.join("data.safetensors"), file: None, info: info.clone(), labels })
    }

    /// Creates the file and writes its header.
    fn begin(&self, bytes: bool) -> Result<BufWriter<File>> {
        let info = &self.info;
        let [channels, height, width] = info.shape;
        let size = if bytes { 1 } else { 4 };
        let images = info.num_samples * channels * height * width * size;
        let (dtype, shape, each) = match self.labels.are_soft {
            true => ("F32", vec![info.num_samples, info.num_classes], 4 * info.num_classes),
            false => ("I64", vec![info.num_samples], 8),
        };
        let values = match info.value_space {
            ValueSpace::Normalized(_) => Values::Normalized,
            // An export of mixed values is refused before.
            ValueSpace::Unit | ValueSpace::Mixed => Values::Unit,
            ValueSpace::Whitened => Values::Whitened,
        };
        let mut header = serde_json::json!({
            "__metadata__": { VALUES: values.as_str(), ClassList::KEY: ClassList::of(info).to_json() },
            "images": {
                "dtype": if bytes { "U8" } else { "F32" },
                "shape": [info.num_samples, channels, height, width],
                "data_offsets": [0, images],
            },
            "labels": {
                "dtype": dtype,
                "shape": shape,
                "data_offsets": [images, images + info.num_samples * each],
            },
        })
        .to_string();
        // So that tensors begin at multiples of eight, as other writers have them.
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let mut file = files::create(&self.path)?;
        let written = file.write_all(&(header.len() as u64).to_le_bytes());
        written
            .and_then(|()| file.write_all(header.as_bytes()))
            .map_err(Error::io(&self.path, "cannot write"))?;
        Ok(file)
    }
}

impl Writer for Safetensors {
    fn add(&mut self, _index: usize, sample: Sample) -> Result<()> {
        if self.file.is_none() {
            self.file = Some(self.begin(matches!(sample.pixels, StoredPixels::U8(_)))?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        self.labels.add(&sample.label);
        let bytes = match sample.pixels {
            StoredPixels::U8(bytes) => bytes,
            StoredPixels::F32(values) => values.into_iter().flat_map(f32::to_le_bytes).collect(),
        };
        file.write_all(&bytes).map_err(Error::io(&self.path, "cannot write"))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Some(mut file) = self.file else { return Ok(()) };
        file.write_all(&self.labels.bytes).map_err(Error::io(&self.path, "cannot write"))?;
        files::close(&self.path, file)
    }
}
