//! WebDataset: tar files in which the entries of a sample follow each other, `<key>.jpg` and `<key>.cls`.

use super::adapters::{Encoded, EncodedSet};
use super::containers::tensor::read_exactly_at;
use super::normalization;
use super::{OpenOptions, Source, SourceInfo};
use crate::labels::{Labels, integers};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tar::Archive;

/// The longest entry with a label that is read, in bytes.
const LONGEST_LABEL: u64 = 1 << 16;

/// Headers and data of a tar file fill whole blocks of this many bytes; an empty one ends it.
const BLOCK: usize = 512;

/// Where a tar file's first header says so.
const MAGIC: Range<usize> = 257..262;

/// How much of a file [`is_tar`] looks at.
pub(super) const HEAD: usize = MAGIC.end;

/// Whether a file that begins with `head` may be a tar file.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.get(MAGIC).is_some_and(|magic| magic == b"ustar")
}

/// Images in tar files, read when they are asked for.
#[derive(Debug)]
struct Shards {
    files: Vec<(PathBuf, File)>,
    images: Vec<Image>,
}

/// Where an encoded image lies.
#[derive(Clone, Copy, Debug)]
struct Image {
    file: usize,
    start: u64,
    bytes: usize,
}

/// Opens the tar files as one set; `path` is what the user named.
///
/// # Errors
/// If one is damaged, a sample lacks its image or its class, or images are of several sizes.
pub(super) fn open(path: &Path, tars: &[PathBuf], options: &OpenOptions) -> Result<Box<dyn Source>> {
    let (mut files, mut images, mut classes) = (Vec::new(), Vec::new(), Vec::new());
    for tar in tars {
        let file = File::open(tar).map_err(Error::io(tar, "cannot open"))?;
        index(tar, &file, |image, class| {
            images.push(Image { file: files.len(), ..image });
            classes.push(class);
        })?;
        files.push((tar.clone(), file));
    }
    if images.is_empty() {
        return Err(Error::format(
            path,
            "no sample: entries <key>.png or <key>.jpg and <key>.cls are expected",
        ));
    }
    let classes = integers(classes.into_iter().map(Ok::<_, i64>)).map_err(|(index, class)| {
        Error::sample(path, index, format!("class {class}: integers from 0 are expected"))
    })?;
    let labels = Labels::of_classes(path, classes, options)?;
    let space = normalization::pixels(path, "webdataset", options)?;
    let info = SourceInfo {
        format: "webdataset".into(),
        method: None,
        path: path.to_owned(),
        samples: images.len(),
        classes: labels.classes,
        class_names: None,
        class_map: options.classes.clone(),
        shape: [3, 0, 0],
        labels: labels.kind,
        value_space: space.values,
        normalize: space.normalize,
        learning_rate: None,
        notes: space.notes,
    };
    Ok(Box::new(EncodedSet::new(info, labels.labels, Shards { files, images })?))
}

/// A sample whose entries are being read.
struct Entries {
    key: PathBuf,
    image: Option<Image>,
    /// From the entry `.cls`.
    class: Option<i64>,
    /// From the entry `.json`, which may hold other things, and counts where there is no `.cls`.
    json: Option<Result<Option<i64>, String>>,
}

/// Finds the image and the class of each sample in a tar file, from its headers and the entries with classes.
fn index(path: &Path, file: &File, mut found: impl FnMut(Image, i64)) -> Result<()> {
    let io = |e| Error::io(path, "cannot read")(e);
    let length = file.metadata().map_err(io)?.len();
    let mut reader = BufReader::new(file.try_clone().map_err(io)?);
    reader.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut archive = Archive::new(reader);
    let damaged = |e: std::io::Error| Error::format(path, format!("damaged tar file: {e}"));
    let mut current: Option<Entries> = None;
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let (start, bytes) = (entry.raw_file_position(), entry.size());
        let after = start.checked_add(bytes).and_then(|after| after.checked_next_multiple_of(BLOCK as u64));
        end = after.unwrap_or(u64::MAX);
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(damaged)?.into_owned();
        let Some((key, extension)) = key_and_extension(&name) else { continue };
        if end > length {
            return Err(Error::field(path, name.display().to_string(), "cut off: the file is damaged"));
        }
        if current.as_ref().is_none_or(|current| current.key != key) {
            if let Some(finished) = current.take() {
                emit(path, finished, &mut found)?;
            }
            current = Some(Entries { key, image: None, class: None, json: None });
        }
        let Some(current) = &mut current else { continue };
        match extension.as_str() {
            "png" | "jpg" | "jpeg" => {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                current.image = Some(Image { file: 0, start, bytes });
            }
            "cls" if bytes <= LONGEST_LABEL => {
                let text = std::io::read_to_string(&mut entry).map_err(damaged)?;
                let class = text.trim().parse().map_err(|_| not_an_index(&text));
                let refused = |reason| Error::field(path, name.display().to_string(), reason);
                current.class = Some(class.map_err(refused)?);
            }
            "json" if bytes <= LONGEST_LABEL => {
                let text = std::io::read_to_string(&mut entry).map_err(damaged)?;
                current.json = Some(label_of(&text));
            }
            _ => {}
        }
    }
    if let Some(finished) = current {
        emit(path, finished, &mut found)?;
    }
    // A file that was cut between two entries lacks it.
    let mut mark = [1; BLOCK];
    if read_exactly_at(file, &mut mark, end).is_err() || mark != [0; BLOCK] {
        return Err(Error::format(path, "ends without tar's end mark: the file is cut off"));
    }
    Ok(())
}

fn emit(path: &Path, mut sample: Entries, found: &mut impl FnMut(Image, i64)) -> Result<()> {
    if let (Some(_), None, Some(json)) = (sample.image, sample.class, sample.json.take()) {
        let name = format!("{}.json", sample.key.display());
        sample.class = json.map_err(|reason| Error::field(path, name, reason))?;
    }
    let missing = |what: &str| Err(Error::field(path, sample.key.display().to_string(), what));
    match (sample.image, sample.class) {
        (Some(image), Some(class)) => {
            found(image, class);
            Ok(())
        }
        (Some(_), None) => {
            missing("an image without a class: an entry .cls, or .json with `label`, is expected")
        }
        (None, Some(_)) => missing("a class without an image: an entry .png or .jpg is expected"),
        // Other data of the archive.
        (None, None) => Ok(()),
    }
}

/// `a/b` and `seg.png`'s last part, of `a/b.seg.png`: WebDataset splits a name at its first dot.
fn key_and_extension(name: &Path) -> Option<(PathBuf, String)> {
    let file = name.file_name()?.to_str()?;
    if file.starts_with('.') {
        return None;
    }
    let (key, extension) = file.split_once('.')?;
    Some((name.with_file_name(key), extension.to_ascii_lowercase()))
}

/// The `label` of a JSON object, if it has one.
fn label_of(text: &str) -> Result<Option<i64>, String> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    match json.get("label") {
        None => Ok(None),
        Some(label) => label.as_i64().map(Some).ok_or_else(|| not_an_index(&label.to_string())),
    }
}

fn not_an_index(text: &str) -> String {
    format!("`{}` is no class index", text.trim().chars().take(40).collect::<String>())
}

impl Encoded for Shards {
    fn reader(&self, index: usize) -> Result<impl BufRead + Seek> {
        let image = self.images[index];
        let (path, file) = &self.files[image.file];
        let mut bytes = vec![0; image.bytes];
        read_exactly_at(file, &mut bytes, image.start).map_err(Error::io(path, "cannot read"))?;
        Ok(Cursor::new(bytes))
    }

    fn refused(&self, index: usize, reason: String) -> Error {
        Error::sample(&self.files[self.images[index].file].0, index, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Label, StoredPixels, conformance, open};
    use super::*;
    use std::io::Write;

    fn png(value: u8, side: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = image::RgbImage::from_pixel(side, side, image::Rgb([value, 0, 0]));
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn tar(path: &Path, entries: &[(&str, &[u8])]) {
        let mut builder = tar::Builder::new(File::create(path).unwrap());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.finish().unwrap();
    }

    #[test]
    fn shards_are_one_set() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("{}/0001.json", "deep/".repeat(40));
        let long_image = long.replace("json", "PNG");
        tar(
            &folder.path().join("train-000000.tar"),
            &[
                ("a/0000.cls", b"2\n"),
                ("a/0000.png", &png(10, 2)),
                ("a/0000.json", br#"{"label": "cat", "id": 7}"#),
                ("a/0000.txt", b"a caption"),
                (&long, br#"{"label": 0, "source": "x"}"#),
                (&long_image, &png(11, 2)),
            ],
        );
        tar(&folder.path().join("train-000001.tar"), &[("0002.png", &png(12, 2)), ("0002.cls", b"1")]);
        let set = open(folder.path()).unwrap();
        conformance::check(&set);
        let info = set.info();
        assert_eq!(
            (info.format.as_str(), info.samples, info.classes, info.shape),
            ("webdataset", 3, 3, [3, 2, 2])
        );
        for (index, (value, class)) in [(10, 2), (11, 0), (12, 1)].into_iter().enumerate() {
            let sample = set.sample(index).unwrap();
            let StoredPixels::U8(pixels) = sample.pixels else { panic!("bytes are expected") };
            assert_eq!((pixels[0], sample.label), (value, Label::Hard(class)));
        }
        let one = open(folder.path().join("train-000001.tar")).unwrap();
        assert_eq!(one.info().samples, 1);
        tar(&folder.path().join("val-000000.tar"), &[("0.png", &png(1, 2)), ("0.cls", b"0")]);
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("several splits (train, val)"), "{error}");
    }

    #[test]
    fn bad_shards_are_refused_with_their_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tar");
        let message = |entries: &[(&str, &[u8])]| {
            tar(&path, entries);
            open(&path).unwrap_err().to_string()
        };
        let image = png(1, 2);
        for (entries, reason) in [
            (&[("0.png", &image[..])][..], "`0`: an image without a class"),
            (&[("0.cls", b"0")], "`0`: a class without an image"),
            (&[("0.cls", b"cat"), ("0.png", &image)], "`0.cls`: `cat` is no class index"),
            (&[("0.json", b"{"), ("0.png", &image)], "`0.json`: not JSON"),
            (&[("0.cls", b"-1"), ("0.png", &image)], "sample 0: class -1"),
            (&[("0.txt", b"text")], "no sample"),
            (&[("0.cls", b"0"), ("0.png", b"text")], "sample 0: not a PNG or JPEG image"),
            (
                &[("0.cls", b"0"), ("0.png", &image), ("1.cls", b"0"), ("1.png", &png(1, 3))],
                "sample 1: 3 x 3 pixels where the first image has 2 x 2",
            ),
        ] {
            let error = message(entries);
            assert!(error.contains(reason) && error.contains("x.tar"), "{error}");
        }
        tar(&path, &[("0.cls", b"0"), ("0.png", &image)]);
        let whole = std::fs::read(&path).unwrap();
        // In the first entry's data, in its padding, between entries, and before the end mark.
        for length in [513, 600, 1024, 1030, 1540, whole.len() - 1024] {
            File::create(&path).unwrap().write_all(&whole[..length]).unwrap();
            assert!(open(&path).is_err(), "the first {length} bytes");
        }
    }
}
