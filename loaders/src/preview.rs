//! A few images of a set, to look at.

use crate::refine::Progress;
use crate::{Cache, CancelToken, Error, Refine, Refinery, Result, RgbImage, Sheet, Source};

/// Images beside one another.
const COLUMNS: usize = 10;
/// Small images are enlarged to about this width.
const VISIBLE: usize = 96;

/// The first images of each class of a set, as its refiner sees them.
///
/// ```
/// use diver_loaders::refine::Silent;
/// use diver_loaders::{CancelToken, Identity, MemorySource, Preview};
///
/// let set = MemorySource::unit(3, [3, 2, 2], vec![0.5; 36], vec![0, 1, 1])?;
/// let preview = Preview::of(set, 1)?;
/// assert_eq!(preview.indices(), [0, 1]);
/// let sheet = preview.refined(Identity, None, Some(4), &CancelToken::new(), &Silent)?;
/// assert_eq!((sheet.width(), sheet.height()), (2 * 8 + 3 * 2, 2 * 8 + 3 * 2));
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Debug)]
pub struct Preview<S> {
    source: S,
    indices: Vec<usize>,
    raw: Vec<RgbImage>,
}

impl<S: Source + 'static> Preview<S> {
    /// The first `per_class` samples of each class, class by class.
    ///
    /// # Errors
    /// [`Error::Config`] for `per_class` if it is 0; if a sample cannot be read, or the set has no pixels.
    pub fn of(source: S, per_class: usize) -> Result<Self> {
        if per_class == 0 {
            return Err(Error::config("per_class", "0 was given, at least 1 is allowed"));
        }
        let info = source.info();
        let [_, height, width] = info.shape;
        let mut classes: Vec<Vec<(usize, RgbImage)>> = vec![Vec::new(); info.num_classes];
        for index in 0..info.num_samples {
            if classes.iter().all(|chosen| chosen.len() >= per_class) {
                break;
            }
            let chosen = &mut classes[source.label(index)?.class()];
            if chosen.len() < per_class {
                let pixels = source.sample(index)?.to_pixels(&source.value_space(index))?;
                chosen.push((index, RgbImage::from_planar(width, height, &pixels)?));
            }
        }
        let (indices, raw) = classes.into_iter().flatten().unzip();
        Ok(Self { source, indices, raw })
    }

    /// The positions of the images in the set.
    #[must_use]
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// A picture of the images, ten beside one another, each `scale` times as large as it is, or such that small ones
    /// become visible.
    ///
    /// # Errors
    /// As [`Sheet::new`] and [`Sheet::to_image`].
    pub fn raw(&self, scale: Option<usize>) -> Result<RgbImage> {
        self.raw
            .chunks(COLUMNS)
            .fold(self.sheet(scale), |sheet, raw| Ok(sheet?.row(raw.to_vec())))?
            .to_image()
    }

    /// As [`raw`](Self::raw), with each image's refinement below it.
    ///
    /// # Errors
    /// As [`raw`](Self::raw) and [`Refinery::images`].
    pub fn refined(
        self,
        refiner: impl Refine + 'static,
        cache: Option<&Cache>,
        scale: Option<usize>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<RgbImage> {
        let mut sheet = self.sheet(scale)?;
        let refined = Refinery::new(self.source, refiner, cache)?.images(&self.indices, cancel, progress)?;
        for (raw, refined) in self.raw.chunks(COLUMNS).zip(refined.chunks(COLUMNS)) {
            sheet = sheet.row(raw.to_vec()).row(refined.iter().map(|image| (**image).clone()).collect());
        }
        sheet.to_image()
    }

    fn sheet(&self, scale: Option<usize>) -> Result<Sheet> {
        let width = self.source.info().shape[2];
        Sheet::new(scale.unwrap_or((VISIBLE / width).max(1)), 2)
    }
}
