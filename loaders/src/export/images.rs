//! Images as PNG files: in class folders, or in tar files.

use super::names::{FileNames, digits};
use super::{Writer, files};
use crate::classes::imagenet;
use crate::source::ClassList;
use crate::{ClassMap, Error, Result, RgbImage, Sample, SourceInfo, ValueSpace};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// Samples of a tar file.
const SHARD: usize = 1000;

/// The fewest digits of numbers: as RDED has classes and images, and as is usual for keys and tar files.
const CLASS_DIGITS: usize = 5;
const IMAGE_DIGITS: usize = 5;
const KEY_DIGITS: usize = 8;
const SHARD_DIGITS: usize = 6;

/// The image of a sample, as a PNG file.
pub(super) fn png(sample: &Sample, space: &ValueSpace) -> Result<Vec<u8>> {
    let [_, height, width] = sample.shape;
    RgbImage::from_planar(width, height, &sample.to_pixels(space)?)?.to_png()
}

/// ImageNet's class of each class, where folders can be named by their WordNet ids: where these are the classes' names,
/// and no other refiner's classes are meant.
fn wordnet(info: &SourceInfo) -> Option<Vec<usize>> {
    let names = info.classes.as_ref()?;
    let indices = names.iter().map(|name| imagenet::index(name)).collect::<Option<Vec<usize>>>()?;
    info.class_map.as_indices().is_none_or(|own| own == indices).then_some(indices)
}

/// A folder's name where it says a class's number, of `classes`.
fn numbered(class: usize, classes: usize) -> String {
    let digits = digits(classes).max(CLASS_DIGITS);
    format!("{class:0digits$}")
}

/// Whether the folders tell the classes' names, if there are any.
pub(super) fn keeps_names(info: &SourceInfo) -> bool {
    let is_number = |(class, name): (usize, &String)| {
        *name == numbered(class, info.num_classes) || *name == class.to_string()
    };
    wordnet(info).is_some()
        || info.classes.as_ref().is_none_or(|names| names.iter().enumerate().all(is_number))
}

/// The classes of the folders. Their names are the folders', whose order FKD's soft labels follow.
pub(super) fn class_list(info: &SourceInfo) -> ClassList {
    // Ids are ordered by their text where nothing else is said.
    let class_map = wordnet(info).and_then(|indices| ClassMap::indices(indices).ok());
    let class_map = class_map.unwrap_or_else(|| info.class_map.clone());
    ClassList::of(&SourceInfo { class_map, ..info.clone() }).without_names()
}

/// A folder for each class.
pub(super) struct Folder {
    folder: PathBuf,
    space: ValueSpace,
    /// The WordNet id of each class, where these are its name.
    wnids: Option<Vec<String>>,
    /// How many images each class has so far.
    counts: Vec<usize>,
    names: FileNames,
    /// Of numbers of images.
    digits: usize,
}

impl Folder {
    pub(super) fn new(info: &SourceInfo, names: FileNames, folder: &Path) -> Self {
        let wnids = info.classes.clone().filter(|_| wordnet(info).is_some());
        Self {
            folder: folder.to_owned(),
            space: info.value_space,
            wnids,
            counts: vec![0; info.num_classes],
            digits: names.digits(info.num_samples),
            names,
        }
    }
}

impl Writer for Folder {
    fn add(&mut self, index: usize, sample: Sample) -> Result<()> {
        let class = sample.label.class();
        let count = self.counts[class];
        let number = numbered(class, self.counts.len());
        let folder = self.folder.join(self.wnids.as_ref().map_or(&number, |wnids| &wnids[class]));
        if count == 0 {
            fs::create_dir_all(&folder).map_err(Error::io(&folder, "cannot create"))?;
        }
        let digits = self.digits;
        let name = match (self.names.stem(index), &self.wnids) {
            (Some(stem), _) => format!("{stem}.png"),
            (None, Some(_)) => format!("{count:0digits$}.png"),
            (None, None) => {
                let digits = digits.max(IMAGE_DIGITS);
                format!("class{number}_id{count:0digits$}.png")
            }
        };
        self.counts[class] += 1;
        let path = folder.join(name);
        let png = png(&sample, &self.space)?;
        // An image must not take another one's place.
        let write = |mut file: File| file.write_all(&png);
        File::create_new(&path).and_then(write).map_err(Error::io(&path, "cannot write"))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Tar files of WebDataset.
pub(super) struct WebDataset {
    folder: PathBuf,
    space: ValueSpace,
    shard: Option<(PathBuf, tar::Builder<BufWriter<File>>)>,
    names: FileNames,
    samples: usize,
}

impl WebDataset {
    pub(super) fn new(info: &SourceInfo, names: FileNames, folder: &Path) -> Self {
        let (folder, space) = (folder.to_owned(), info.value_space);
        Self { folder, space, shard: None, names, samples: info.num_samples }
    }

    fn close(&mut self) -> Result<()> {
        let Some((path, builder)) = self.shard.take() else { return Ok(()) };
        let file = builder.into_inner().map_err(Error::io(&path, "cannot write"))?;
        files::close(&path, file)
    }
}

impl Writer for WebDataset {
    fn add(&mut self, index: usize, sample: Sample) -> Result<()> {
        if index.is_multiple_of(SHARD) {
            self.close()?;
            let digits = digits(self.samples.div_ceil(SHARD)).max(SHARD_DIGITS);
            let path = self.folder.join(format!("data-{:0digits$}.tar", index / SHARD));
            let builder = tar::Builder::new(files::create(&path)?);
            self.shard = Some((path, builder));
        }
        let Some((path, builder)) = &mut self.shard else { return Ok(()) };
        let digits = digits(self.samples).max(KEY_DIGITS);
        let key = self.names.stem(index).map_or_else(|| format!("{index:0digits$}"), str::to_owned);
        let entries =
            [("png", png(&sample, &self.space)?), ("cls", sample.label.class().to_string().into_bytes())];
        for (extension, content) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, format!("{key}.{extension}"), content.as_slice())
                .map_err(Error::io(path, "cannot write"))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.close()
    }
}
