//! Exports of whole sets, raw or refined.

use super::{ExportFormat, Exported, FileNames, check, export_named};
use crate::pixels::planar;
use crate::refine::{Progress, Silent};
use crate::{
    Cache, CancelToken, Error, Refine, Refinery, Result, RgbImage, Sample, Source, SourceInfo, StoredPixels,
    ValueSpace,
};
use std::path::Path;

/// Images that are in memory at a time.
const CHUNK: usize = 64;

/// Exports a set as it is stored; its images keep their names, as with [`export_named`].
///
/// # Errors
/// As [`export`](super::export).
pub fn export_raw(
    source: &dyn Source,
    format: ExportFormat,
    folder: &Path,
    cancel: &CancelToken,
) -> Result<Exported> {
    let samples = (0..source.info().num_samples).map(|index| source.sample(index));
    export_named(source.info(), &FileNames::of(source)?, samples, format, folder, cancel)
}

/// What the refined images of a set are, for [`check`]: pixels, whatever the set holds.
#[must_use]
pub fn refined_info(info: &SourceInfo) -> SourceInfo {
    SourceInfo { value_space: ValueSpace::Unit, ..info.clone() }
}

/// Exports a set refined: what the cache lacks is refined first, and without a cache everything is. Images leave at the
/// size of the set, and grey where it is; they keep their names.
///
/// ```
/// use diver_loaders::export::{ExportFormat, export_refined};
/// use diver_loaders::refine::Silent;
/// use diver_loaders::{CancelToken, Identity, MemorySource, open};
///
/// let set = MemorySource::unit(1, [3, 1, 1], vec![0.0, 0.5, 1.0], vec![0])?;
/// let folder = tempfile::tempdir()?.path().join("set");
/// export_refined(set, Identity, None, ExportFormat::ImageFolder, &folder, &CancelToken::new(), &Silent)?;
/// assert_eq!(open(&folder)?.info().num_samples, 1);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`export`](super::export), before anything is refined where that can be; as [`Refinery::run`].
pub fn export_refined(
    source: impl Source + 'static,
    refiner: impl Refine + 'static,
    cache: Option<&Cache>,
    format: ExportFormat,
    folder: &Path,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Exported> {
    let info = refined_info(source.info());
    check(&info, format, folder)?;
    let names = FileNames::of(&source)?;
    let mut labels =
        (0..info.num_samples).map(|index| source.label(index)).collect::<Result<Vec<_>>>()?.into_iter();
    let mut refinery = Refinery::new(source, refiner, cache)?;
    refinery.run(0..info.num_samples, cancel, progress)?;
    let indices: Vec<usize> = (0..info.num_samples).collect();
    let samples = indices.chunks(CHUNK).flat_map(|chunk| {
        let images = match refinery.images(chunk, cancel, &Silent) {
            Ok(images) => images.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        let mut joined = Vec::with_capacity(images.len());
        for image in images {
            let label = labels.next().ok_or_else(|| Error::format(&info.path, "more images than labels"));
            joined.push(image.and_then(|image| {
                Ok(Sample { pixels: pixels(&image, info.shape[0]), shape: info.shape, label: label? })
            }));
        }
        joined
    });
    export_named(&info, &names, samples, format, folder, cancel)
}

/// A refined image for a set of so many channels; for one, the mean of the three, as batches have it: between bytes.
fn pixels(image: &RgbImage, channels: usize) -> StoredPixels {
    if channels != 1 {
        return StoredPixels::U8(planar(image.as_bytes()));
    }
    let (pixels, _) = image.as_bytes().as_chunks::<3>();
    let mean = |pixel: &[u8; 3]| pixel.iter().map(|byte| f32::from(*byte)).sum::<f32>() / (3.0 * 255.0);
    StoredPixels::F32(pixels.iter().map(mean).collect())
}
