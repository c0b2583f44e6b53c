//! Image folders: a folder for each class, a PNG or JPEG file for each sample.

use super::adapters::{Encoded, EncodedSet};
use super::folder_names::Named;
use super::normalization;
use super::sidecar::Sidecar;
use super::{Label, LabelKind, OpenOptions, Source, SourceInfo, inner};
use crate::imagenet::is_wnid;
use crate::labels::MAX_CLASSES;
use crate::{Error, Normalize, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};

/// The files of a folder of class folders.
#[derive(Debug)]
struct Folder(Vec<PathBuf>);

/// Opens a folder of class folders, or gives `None` if no folder in it holds images.
///
/// The folders' names decide the classes ([`Named`]).
pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Option<Box<dyn Source>>> {
    let mut folders = Vec::new();
    for name in names(path)? {
        let folder = path.join(&name);
        if folder.is_dir() {
            folders.push((images(&folder)?, name));
        }
    }
    if folders.iter().all(|(images, _)| images.is_empty()) {
        return Ok(None);
    }
    if let Some((_, empty)) = folders.iter().find(|(images, _)| images.is_empty()) {
        // Images may lie in other folders than those of classes, as beside datasets.
        return Err(inner::error(path).unwrap_or_else(|| {
            let reason = "a class folder without PNG or JPEG images: remove it, or fill it";
            Error::format(&path.join(empty), reason)
        }));
    }

    let folder_names: Vec<&str> = folders.iter().map(|(_, name)| name.as_str()).collect();
    let has_wnids = folder_names.iter().all(|name| is_wnid(name));
    let listed = Sidecar::read(path)?.and_then(|sidecar| Some((sidecar.file, sidecar.classes?)));
    let filled = match &listed {
        Some((file, list)) => {
            // A list that is given labels folders by their ids anew, but none by their numbers.
            if options.classes.as_indices().is_none() || !has_wnids {
                list.check_given(file, options)?;
            }
            list.fill(options)
        }
        None => options.clone(),
    };
    let told_by_file = |e: Error| match &listed {
        Some((file, _)) if options.class_count().is_none() => Error::field(file, "classes", e.to_string()),
        _ => e,
    };
    let options = &filled;
    let named = Named::new(path, &folder_names, options).map_err(told_by_file)?;
    let mut classes = BTreeMap::new();
    for ((images, name), class) in folders.into_iter().zip(named.labels) {
        if class >= MAX_CLASSES {
            let reason = format!("class {class}, by its name: numbers below {MAX_CLASSES} are expected");
            return Err(Error::format(&path.join(name), reason));
        }
        if let Some((_, other)) = classes.insert(class, (images, name.clone())) {
            let reason = format!("class {class}, by its name, as is `{other}`");
            return Err(Error::format(&path.join(name), reason));
        }
    }
    let found = classes.last_key_value().map_or(0, |(last, _)| last + 1);
    let count = options.class_count().unwrap_or(found);
    if count < found {
        let reason = format!("{count}, where {} has {found}", path.display());
        return Err(told_by_file(Error::config(options.class_count_option(), reason)));
    }
    // Classes without a folder are called by their number.
    let class_names = (0..count).map(|i| classes.get(&i).map_or(i.to_string(), |(_, name)| name.clone()));
    let class_names = class_names.collect();
    let (files, labels): (Vec<PathBuf>, Vec<Label>) = classes
        .into_iter()
        .flat_map(|(class, (images, _))| images.into_iter().map(move |image| (image, Label::Hard(class))))
        .unzip();

    let mut space = normalization::pixels(path, "image-folder", options)?;
    if has_wnids && space.normalize == Normalize::IMAGENET {
        // The ids say as much: nothing was assumed.
        space.notes.clear();
    }
    let info = SourceInfo {
        format: "image-folder".into(),
        method: named.method.map(str::to_owned),
        path: path.to_owned(),
        samples: files.len(),
        classes: count,
        class_names: Some(class_names),
        class_map: named.class_map,
        shape: [3, 0, 0],
        labels: LabelKind::Hard,
        value_space: space.values,
        normalize: space.normalize,
        learning_rate: None,
        notes: [space.notes, named.notes].concat(),
    };
    Ok(Some(Box::new(EncodedSet::new(info, labels, Folder(files))?)))
}

impl Encoded for Folder {
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek> {
        let file = &self.0[index];
        File::open(file).map(BufReader::new).map_err(Error::io(file, "cannot open"))
    }

    fn refused(&self, index: usize, reason: String) -> Error {
        Error::sample(&self.0[index], index, reason)
    }
}

/// The names in a folder, sorted, without hidden ones and those that are not Unicode.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let io = |e| Error::io(folder, "cannot list")(e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        if let Ok(name) = entry.map_err(io)?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The PNG and JPEG files in a folder, by their extension.
pub(super) fn images(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_image = |name: &String| {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
        matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg"))
    };
    Ok(names(folder)?.into_iter().filter(is_image).map(|name| folder.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::StoredPixels;
    use super::*;
    use crate::ClassMap;

    fn class_folders(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (i, name) in names.iter().enumerate() {
            let class = folder.path().join(name);
            std::fs::create_dir(&class).unwrap();
            image::RgbImage::from_pixel(2, 1, image::Rgb([i as u8, 7, 9])).save(class.join("a.png")).unwrap();
        }
        folder
    }

    fn labels(names: &[&str]) -> Vec<usize> {
        let folder = class_folders(names);
        let source = open(folder.path(), &OpenOptions::new()).unwrap().unwrap();
        let mut labels = vec![0; names.len()];
        for index in 0..names.len() {
            let sample = source.sample(index).unwrap();
            let StoredPixels::U8(pixels) = sample.pixels else { panic!("bytes are expected") };
            labels[usize::from(pixels[0])] = sample.label.class();
        }
        labels
    }

    #[test]
    fn numbered_folders_are_their_class() {
        assert_eq!(labels(&["0", "1", "10", "2"]), [0, 1, 10, 2]);
        assert_eq!(labels(&["new000", "new012", "new003"]), [0, 12, 3]);
        assert_eq!(labels(&["00003", "00000"]), [3, 0]);
        assert_eq!(labels(&["n02102040", "n01440764", "ten"]), [1, 0, 2]);
    }

    #[test]
    fn wordnet_ids_follow_the_class_list() {
        let folder = class_folders(&["n02086240", "n02093754", "n02096294"]);
        let open = |options: OpenOptions| open(folder.path(), &options).map(|source| source.unwrap());
        let sorted = open(OpenOptions::new()).unwrap();
        assert_eq!(sorted.info().class_map.as_indices(), Some(&[155, 182, 193][..]));
        assert!(sorted.info().notes[0].contains("WordNet ids"), "{:?}", sorted.info().notes);
        let labels =
            |source: &dyn Source| (0..3).map(|i| source.label(i).unwrap().class()).collect::<Vec<_>>();
        assert_eq!(labels(&*sorted), [0, 1, 2]);

        let woof = open(OpenOptions::new().classes(ClassMap::named("imagewoof").unwrap())).unwrap();
        let info = woof.info();
        assert_eq!((info.classes, info.notes.len()), (10, 0));
        assert_eq!(info.class_map, ClassMap::named("imagewoof").unwrap());
        // n02096294 is the list's first class, n02093754 its second, n02086240 its fifth.
        for (index, wnid) in [(0, "n02096294"), (1, "n02093754"), (4, "n02086240")] {
            assert_eq!(info.class_names.as_ref().unwrap()[index], wnid);
        }
        assert_eq!(labels(&*woof), [0, 1, 4]);
        let StoredPixels::U8(pixels) = woof.sample(0).unwrap().pixels else { panic!("bytes are expected") };
        assert_eq!(pixels[0], 2, "the first sample is of the third folder");

        let error = open(OpenOptions::new().classes(ClassMap::named("imagenette").unwrap())).unwrap_err();
        assert!(error.to_string().starts_with("classes: lacks class 155 (n02086240)"), "{error}");
        let three = OpenOptions::new().classes(ClassMap::named("imagewoof").unwrap()).num_classes(3);
        assert!(three.open(folder.path()).unwrap_err().to_string().starts_with("num_classes: 3, where"));
    }

    #[test]
    fn names_of_classes_follow_the_class_list() {
        let folder = class_folders(&["English springer", "cassette player", "tench"]);
        // The list in a file, in another order than the names.
        let file = folder.path().join("classes.txt");
        std::fs::write(&file, "tench\nEnglish springer\ncassette player\n").unwrap();
        let options = OpenOptions::new().classes(ClassMap::from_file(&file).unwrap());
        let source = open(folder.path(), &options).unwrap().unwrap();
        let info = source.info();
        assert_eq!(info.class_map.as_indices(), Some(&[0, 217, 482][..]));
        assert_eq!(info.class_names.as_ref().unwrap(), &["tench", "English springer", "cassette player"]);
        let StoredPixels::U8(pixels) = source.sample(1).unwrap().pixels else { panic!("bytes are expected") };
        assert_eq!((pixels[0], source.label(1).unwrap()), (0, Label::Hard(1)), "springers are springers");
    }

    #[test]
    fn class_names_follow_their_numbers() {
        let folder = class_folders(&["new001", "new003"]);
        let info = |options: OpenOptions| open(folder.path(), &options).map(|s| s.unwrap().info().clone());
        let names = ["0", "new001", "2", "new003"].map(String::from).to_vec();
        assert_eq!(info(OpenOptions::new()).unwrap().class_names, Some(names));
        assert_eq!(info(OpenOptions::new().num_classes(5)).unwrap().classes, 5);
        assert!(
            info(OpenOptions::new().num_classes(3)).unwrap_err().to_string().starts_with("num_classes: 3")
        );
    }

    #[test]
    fn ambiguous_and_absurd_numbers_are_refused() {
        for names in [&["1", "01"][..], &["20250101", "1"], &["99999999999999999999999", "0"]] {
            let folder = class_folders(names);
            let error = open(folder.path(), &OpenOptions::new()).unwrap_err().to_string();
            assert!(error.contains("by its name"), "{error}");
        }
    }
}
