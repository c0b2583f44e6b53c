//! Archives that the tests make, and what is read of them.

use diver_loaders::source::{Format, StoredPixels, conformance};
use diver_loaders::{Error, Label, Source, open};
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

pub(crate) type Entries = Vec<(String, Vec<u8>)>;

/// The picture of class `class`.
pub(crate) fn picture(class: u8) -> RgbImage {
    RgbImage::from_pixel(4, 4, image::Rgb([20 * class, 40, 200]))
}

pub(crate) fn encoded(class: u8, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture(class).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) fn png(class: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = picture(class);
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.write_image(&image, 4, 4, ExtendedColorType::Rgb8).unwrap();
    bytes
}

pub(crate) fn npy(dtype: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes.extend(values);
    bytes
}

pub(crate) fn row(values: &[f32]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy("<f4", &format!("({},)", values.len()), &bytes)
}

/// Logits that are largest at a class.
pub(crate) fn logits(class: u8) -> Vec<f32> {
    (0..6).map(|at| if at == class { 9.0 } else { 0.5 }).collect()
}

/// The entries of each of six samples, one after the other.
pub(crate) fn six(of: impl Fn(u8) -> Entries) -> Entries {
    (0..6).flat_map(of).collect()
}

pub(crate) fn entry(name: impl Into<String>, content: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.into(), content.into())
}

pub(crate) fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header
}

pub(crate) fn tar_bytes(entries: &Entries) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        builder.append_data(&mut header(EntryType::Regular, content.len()), name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A block of a header with this name, without what the crate makes of names.
pub(crate) fn raw(kind: EntryType, name: &[u8], size: usize) -> Vec<u8> {
    let mut header = header(kind, size);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_cksum();
    header.as_bytes().to_vec()
}

pub(crate) fn padded(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(content.len().next_multiple_of(512), 0);
    padded
}

pub(crate) fn zip_file(path: &Path, entries: &Entries, options: SimpleFileOptions) {
    let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, content) in entries {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
}

pub(crate) fn deflated() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)
}

pub(crate) fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Stored)
}

pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn tar(&self, name: &str, entries: &Entries) -> PathBuf {
        self.write(name, &tar_bytes(entries))
    }

    pub(crate) fn zip(&self, name: &str, entries: &Entries, options: SimpleFileOptions) -> PathBuf {
        let path = self.0.path().join(name);
        zip_file(&path, entries, options);
        path
    }
}

/// The class of each sample's picture, by its colour, and the label.
pub(crate) fn read(source: &dyn Source) -> Vec<(u8, Label)> {
    let of = |index| {
        let sample = source.sample(index).unwrap();
        let StoredPixels::U8(pixels) = sample.pixels else { panic!("bytes are expected") };
        // JPEG and WebP change values a little.
        ((pixels[0] + 10) / 20, sample.label)
    };
    (0..source.info().num_samples).map(of).collect()
}

pub(crate) fn notes(source: &dyn Source) -> String {
    source.info().notes.join("\n")
}

/// Checks that there are six samples, in order, with their own labels.
pub(crate) fn check_six(path: &Path) -> Box<dyn Source> {
    let source = open(path).unwrap_or_else(|error| panic!("{error}"));
    let read = read(&*source);
    let right: Vec<(u8, Label)> = (0..6).map(|class| (class, Label::Hard(class.into()))).collect();
    assert_eq!(read, right, "{}", path.display());
    assert_eq!(source.info().format, Format::WebDataset);
    conformance::check(&source);
    source
}

pub(crate) fn refused(path: &Path) -> Error {
    open(path).map(|source| panic!("{}", source.info().path.display())).unwrap_err()
}

/// Two pictures of each of three classes.
pub(crate) fn class_folders(before: &str, names: [&str; 3]) -> Entries {
    let of = |class: usize, name: &str| {
        [0, 1].map(|image| entry(format!("{before}{name}/{image}.png"), png(class as u8)))
    };
    names.iter().enumerate().flat_map(|(class, name)| of(class, name)).collect()
}
