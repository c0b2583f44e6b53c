//! The way back from ZCA-whitened values to pixels, where the user has the transform.

use super::super::containers::tensor::{TensorFile, Tensors};
use super::super::containers::{npz, safetensors, torch};
use super::super::info::Format;
use super::super::{Label, Sample, Source, SourceInfo, StoredPixels, ValueSpace};
use crate::{Error, Result};
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

/// Names of the tensors: those of kornia's `ZCAWhitening`, with which methods whiten, and plain ones.
const MEANS: [&str; 2] = ["mean_vector", "mean"];
const INVERSES: [&str; 2] = ["transform_inv", "inverse"];

/// The inverse of a transform that whitens images of `D` values: `pixels = values @ inverse + mean`, as kornia's
/// `ZCAWhitening.inverse_transform` computes it.
#[derive(Debug)]
struct Inverse {
    /// `[D]`.
    mean: Vec<f32>,
    /// `[D, D]`.
    matrix: Vec<f32>,
}

impl Inverse {
    fn read(path: &Path, values: usize) -> Result<Self> {
        let (file, tensors) = named(path, &[MEANS, INVERSES].concat())?;
        let mean = read(&file, &tensors, MEANS, &[&[values], &[1, values]])?;
        let matrix = read(&file, &tensors, INVERSES, &[&[values, values]])?;
        Ok(Self { mean, matrix })
    }

    fn pixels(&self, values: &[f32]) -> Vec<f32> {
        let mut pixels = self.mean.clone();
        for (value, row) in values.iter().zip(self.matrix.chunks_exact(self.mean.len())) {
            for (pixel, weight) in pixels.iter_mut().zip(row) {
                *pixel += value * weight;
            }
        }
        pixels
    }
}

/// The tensors by these names in a torch file's dict, or in an npz or safetensors file; the last may have others.
fn named(path: &Path, names: &[&str]) -> Result<(TensorFile, Tensors)> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    file.take(16).read_to_end(&mut head).map_err(Error::io(path, "cannot read"))?;
    if safetensors::is_safetensors(&head) {
        return safetensors::open(path).map(|(file, tensors, _)| (file, tensors));
    }
    if !torch::is_torch(&head)
        || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
    {
        return npz::open(path, names);
    }
    let (file, pickle) = torch::open(path)?;
    let tensor = |name: &&str| Some(((*name).to_owned(), pickle.root().get(name)?.as_tensor()?.clone()));
    let tensors = names.iter().filter_map(tensor).collect();
    Ok((file, tensors))
}

/// The tensor that goes by one of `names`, of one of `shapes`.
fn read(file: &TensorFile, tensors: &Tensors, names: [&str; 2], shapes: &[&[usize]]) -> Result<Vec<f32>> {
    let found = names.into_iter().find_map(|name| Some((name, tensors.get(name)?)));
    let Some((name, tensor)) = found else {
        let reason = format!("the file has no such tensor, and no `{}`: it is not a ZCA transform", names[1]);
        return Err(Error::field(file.path(), names[0], reason));
    };
    if !shapes.contains(&tensor.shape()) || !tensor.dtype().is_float() {
        let reason = format!(
            "expected floats of shape {:?} (an image's number of values), found {:?} of shape {:?}",
            shapes[0],
            tensor.dtype(),
            tensor.shape()
        );
        return Err(Error::field(file.path(), name, reason));
    }
    let values = file.read(tensor, name)?;
    if values.iter().all(|value: &f32| value.is_finite()) {
        return Ok(values);
    }
    Err(Error::field(file.path(), name, "it contains NaN or infinity"))
}

/// The most bytes of pixels that are kept, since an image takes `D * D` multiplications; whitened sets are of small
/// images, and few.
const KEPT: usize = 1 << 30;

/// A whitened source as pixels.
#[derive(Debug)]
pub(crate) struct Unwhitened {
    whole: Box<dyn Source>,
    info: SourceInfo,
    inverse: Inverse,
    /// The images that were asked for, by index; empty where the set is too large to keep them.
    pixels: Box<[OnceLock<Vec<f32>>]>,
}

impl Unwhitened {
    /// Applies the transform in the file at `zca`.
    ///
    /// # Errors
    /// If `whole` is not whitened, or whitened as KIP does, or the transform is not one of its images.
    pub(crate) fn new(whole: Box<dyn Source>, zca: &Path) -> Result<Self> {
        let info = whole.info();
        if info.format == Format::Kip {
            let reason =
                "KIP also whitens each image by its own norm, so no single transform leads back to pixels";
            return Err(Error::config("zca", reason));
        }
        if info.value_space != ValueSpace::Whitened {
            let reason = format!(
                "the values of {} are {}, not whitened: leave the option out",
                info.path.display(),
                if info.value_space == ValueSpace::Unit { "pixels" } else { "normalised" }
            );
            return Err(Error::config("zca", reason));
        }
        let inverse = Inverse::read(zca, info.shape.iter().product())?;
        let info = SourceInfo { value_space: ValueSpace::Unit, ..info.clone() };
        let bytes = info.shape.iter().product::<usize>().saturating_mul(4).saturating_mul(info.num_samples);
        let kept = if bytes <= KEPT { info.num_samples } else { 0 };
        let pixels = (0..kept).map(|_| OnceLock::new()).collect();
        Ok(Self { whole, info, inverse, pixels })
    }
}

impl Source for Unwhitened {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn label(&self, index: usize) -> Result<Label> {
        self.whole.label(index)
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let sample = self.whole.sample(index)?;
        let StoredPixels::F32(values) = &sample.pixels else {
            return Err(Error::sample(&self.info.path, index, "bytes, which are not whitened values"));
        };
        let pixels = match self.pixels.get(index) {
            Some(kept) => kept_or_made(kept, || self.inverse.pixels(values)),
            None => self.inverse.pixels(values),
        };
        Ok(Sample { pixels: StoredPixels::F32(pixels), ..sample })
    }

    fn name(&self, index: usize) -> Option<Cow<'_, str>> {
        self.whole.name(index)
    }
}

/// What is kept, or else is made and kept.
fn kept_or_made(kept: &OnceLock<Vec<f32>>, make: impl FnOnce() -> Vec<f32>) -> Vec<f32> {
    if let Some(pixels) = kept.get() {
        return pixels.clone();
    }
    // Not locked meanwhile: two threads may make the same, but none waits, and no forked child for good.
    let made = make();
    let _ = kept.set(made.clone());
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    #[test]
    fn nobody_waits_for_another_ones_product() {
        let kept = Arc::new(OnceLock::new());
        let pixels = kept_or_made(&kept, || {
            // A forked child is left with the lock as it was in the middle of this.
            let (sender, receiver) = mpsc::channel();
            let other = Arc::clone(&kept);
            std::thread::spawn(move || sender.send(kept_or_made(&other, || vec![0.5])));
            receiver.recv_timeout(Duration::from_secs(20)).expect("another thread waits for this one")
        });
        assert_eq!((pixels, kept.get()), (vec![0.5], Some(&vec![0.5])));
        assert_eq!(kept_or_made(&kept, || panic!("it is kept")), [0.5]);
    }
}
