//! A source as a stream sees it: with its class map, its sample identities, and the size that images leave at.

use super::{Conditioning, NoiseKey};
use crate::cache::RowKey;
use crate::pixels::resize_planar;
use crate::said::warn_once;
use crate::source::Portion;
use crate::wording::counted;
use crate::{
    CancelToken, ClassMap, Error, Label, Normalize, Refine, Result, Sample, Source, SourceInfo, ValueSpace,
};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// One of the refinements of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Refinement {
    /// The sample's position in its dataset.
    pub(crate) index: usize,
    /// Below the number of refinements that each sample has.
    pub(crate) variant: u32,
}

/// Two identities of a refinement: what its noise hangs on, and what its image is filed under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) noise: NoiseKey,
    pub(crate) row: RowKey,
}

#[derive(Debug)]
pub(crate) struct Dataset {
    source: Box<dyn Source>,
    class_map: ClassMap,
    conditioning: Vec<Conditioning>,
    variants: u32,
    /// Those of a sample's refinements follow each other.
    identities: Vec<OnceLock<Identity>>,
    height: usize,
    width: usize,
}

impl Dataset {
    /// The classes and `size`, `(height, width)`, are the source's own unless given.
    pub(crate) fn new(
        source: Box<dyn Source>,
        classes: Option<ClassMap>,
        size: Option<(usize, usize)>,
        refiner: Option<&dyn Refine>,
    ) -> Result<Self> {
        let info = source.info();
        let (height, width) = size.unwrap_or((info.shape[1], info.shape[2]));
        if height == 0 || width == 0 {
            return Err(Error::config("image_size", format!("{height} x {width} has no pixels")));
        }
        if let Some(given) = &classes {
            check_agrees(info, given)?;
        }
        let is_given = classes.is_some();
        let classes = classes.unwrap_or_else(|| info.class_map.clone());
        let conditioning =
            (0..info.num_classes).map(|label| classes.conditioning(label)).collect::<Result<Vec<_>>>()?;
        if let Some(refiner) = refiner {
            info.value_space
                .check_pixels()
                .map_err(|e| Error::field(&info.path, "images", format!("cannot be refined: {e}")))?;
            for (label, conditioning) in conditioning.iter().enumerate() {
                refiner.check_conditioning(conditioning).map_err(|e| {
                    Error::field(&info.path, "labels", format!("label {label} cannot be refined: {e}"))
                })?;
            }
        }
        if let Some(known) = refiner.and_then(Refine::num_classes)
            && classes == ClassMap::identity()
            && !is_given
            && known != info.num_classes
        {
            return Err(no_class_map(info, known));
        }
        let identities = std::iter::repeat_with(OnceLock::new).take(info.num_samples).collect();
        Ok(Self { source, class_map: classes, conditioning, variants: 1, identities, height, width })
    }

    /// The same samples, with so many refinements of each, at least 1.
    pub(crate) fn with_variants(self, variants: u32) -> Self {
        let count = self.info().num_samples.saturating_mul(variants as usize);
        let identities = std::iter::repeat_with(OnceLock::new).take(count).collect();
        Self { variants, identities, ..self }
    }

    /// The refinements of a sample.
    pub(crate) fn refinements(&self, index: usize) -> impl Iterator<Item = Refinement> + use<> {
        (0..self.variants).map(move |variant| Refinement { index, variant })
    }

    /// Says what was assumed of the source: whoever streams or refines relies on it.
    pub(crate) fn say_notes(&self) {
        for note in &self.info().notes {
            warn_once(&format!("{}: {note}", self.info().path.display()));
        }
    }

    pub(crate) fn info(&self) -> &SourceInfo {
        self.source.info()
    }

    /// The refiner's class for each label, as it is used here.
    pub(crate) fn class_map(&self) -> Result<ClassMap> {
        match self.class_map.as_indices() {
            // A list may go on beyond the classes of the set.
            Some(indices) => {
                ClassMap::indices(indices.iter().copied().take(self.conditioning.len()).collect())
            }
            None => Ok(ClassMap::identity()),
        }
    }

    /// `(height, width)` of images in batches.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    pub(crate) fn normalize(&self) -> &Normalize {
        &self.info().normalize
    }

    pub(crate) fn value_space(&self, index: usize) -> ValueSpace {
        self.source.value_space(index)
    }

    /// How many places of an epoch each run of samples takes; empty if each sample comes once.
    pub(crate) fn portions(&self) -> &[Portion] {
        self.source.portions()
    }

    pub(crate) fn sample(&self, index: usize) -> Result<Sample> {
        self.source.sample(index)
    }

    pub(crate) fn label(&self, index: usize) -> Result<Label> {
        self.source.label(index)
    }

    pub(crate) fn conditioning(&self, sample: &Sample) -> &Conditioning {
        &self.conditioning[sample.label.class()]
    }

    /// The identity of a refinement, hashed when first asked for.
    pub(crate) fn identity(&self, refinement: Refinement) -> Result<Identity> {
        if let Some(identity) = self.slot(refinement).get() {
            return Ok(*identity);
        }
        self.identify(refinement, &self.sample(refinement.index)?)
    }

    fn slot(&self, Refinement { index, variant }: Refinement) -> &OnceLock<Identity> {
        &self.identities[index * self.variants as usize + variant as usize]
    }

    /// What all refined images are filed under. Samples with equal content and class share their keys.
    pub(crate) fn keys(&self, cancel: &CancelToken) -> Result<BTreeSet<RowKey>> {
        let key = |refinement| {
            cancel.check()?;
            Ok(self.identity(refinement)?.row)
        };
        (0..self.info().num_samples).flat_map(|index| self.refinements(index)).map(key).collect()
    }

    /// The identity of a refinement of `sample`, which is hashed as it is at hand: an image refined from it is filed
    /// under what it was refined from.
    ///
    /// # Errors
    /// If the sample is not what it was when its identity was first asked for.
    pub(crate) fn identify(&self, refinement: Refinement, sample: &Sample) -> Result<Identity> {
        let noise = NoiseKey { content: sample.digest(), variant: refinement.variant };
        let row = RowKey::new(&noise, &self.value_space(refinement.index), self.conditioning(sample));
        let first = self.slot(refinement).get_or_init(|| Identity { noise, row });
        if first.row != row {
            let reason =
                "its file has changed since it was first read: start again, on files that stay as they are";
            return Err(Error::sample(&self.info().path, refinement.index, reason));
        }
        Ok(*first)
    }

    /// Writes sample `index` as it leaves in a batch when it comes raw: normalised, `[C, height, width]`.
    pub(crate) fn write_raw(&self, index: usize, out: &mut [f32]) -> Result<()> {
        let [channels, height, width] = self.info().shape;
        if (height, width) == self.size() {
            return self.source.write_normalized(index, out);
        }
        let mut values = vec![0.0; channels * height * width];
        self.source.write_normalized(index, &mut values)?;
        out.copy_from_slice(&resize_planar(&values, channels, (height, width), self.size())?);
        Ok(())
    }
}

/// Refuses a list that takes a label for another class than the set itself does, where it says: samples would be refined
/// as what they are not. Where the set is opened with the list, it is labelled by it.
fn check_agrees(info: &SourceInfo, given: &ClassMap) -> Result<()> {
    let (Some(given), Some(own)) = (given.as_indices(), info.class_map.as_indices()) else { return Ok(()) };
    let Some(label) = own.iter().zip(given).take(info.num_classes).position(|(own, given)| own != given)
    else {
        return Ok(());
    };
    let (path, class) = (info.path.display(), own[label]);
    let reason = if own.iter().all(|class| given.contains(class)) {
        format!("{path} is labelled by another order of these classes: give the list when it is opened")
    } else {
        let name = info.classes.as_ref().and_then(|names| names.get(label));
        let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
        let fault = match given.contains(&class) {
            true => format!("has class {} at {label}, where class {class}{name}", given[label]),
            false => format!("lacks class {class}{name}, which"),
        };
        format!(
            "{fault} is label {label} of {path}: leave `classes` out, or give it when the set is opened if its labels \
             are of other classes"
        )
    };
    Err(Error::config("classes", reason))
}

/// The error for a set whose labels are not the refiner's classes, and do not say which they are.
fn no_class_map(info: &SourceInfo, known: usize) -> Error {
    let reason = format!(
        "{} has {}, but the refiner knows {known}, so label 0 need not be the refiner's class 0. Pass the class list of \
         the set: its name (as in \"imagefruit\"), a file with an index, a WordNet id or a name on each line, or the \
         indices; \"identity\" if the labels are the refiner's classes",
        info.path.display(),
        counted(info.num_classes, "class"),
    );
    Error::config("classes", reason)
}
