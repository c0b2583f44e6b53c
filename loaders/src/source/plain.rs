//! Tensors of one's own by name, `images` and `labels`, in safetensors, npz or torch files; and KIP's npz.

use super::class_list::ClassList;
use super::containers::npz;
use super::containers::tensor::{DType, Place, StorageRef, TensorFile, TensorRef};
use super::containers::torch::{self, Pickle, Value};
use super::tensors::{About, Images, OF_NORMALIZED};
use super::{OpenOptions, Source, Values, normalization, open};
use crate::export::VALUES;
use crate::labels::Labels;
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Names that images and labels go by, the first in order of preference.
const IMAGES: [&str; 5] = ["images", "image", "x", "data", "X"];
const LABELS: [&str; 6] = ["labels", "label", "y", "targets", "target", "Y"];

/// How far pixels may leave [0, 1].
const SLACK: f32 = 0.05;

/// The longest header of a safetensors file that is read, in bytes: sets have a handful of tensors, and at most a list of
/// classes, quoted.
const LONGEST_HEADER: u64 = 2 * ClassList::LONGEST as u64;

pub(super) type Tensors = BTreeMap<String, TensorRef>;

/// Whether a file that begins with `head` may be one of safetensors: a length, and JSON.
pub(super) fn is_safetensors(head: &[u8]) -> bool {
    head.len() > 8 && head[8] == b'{'
}

/// Whether a file is taken for one of npz: by its name, as both it and torch's are zip archives.
pub(super) fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npz"))
}

/// Whether an npz file has images and labels by their names.
pub(super) fn is_pair(path: &Path) -> bool {
    let Ok(arrays) = npz::names(path) else { return false };
    let has = |names: &[&str]| names.iter().any(|name| arrays.iter().any(|array| array == name));
    has(&IMAGES) && has(&LABELS)
}

/// Opens a safetensors file.
pub(super) fn open_safetensors(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>> {
    listed(path, read_safetensors(path)?, options)
}

/// Opens what would be in a safetensors file; `path` stands for it in messages.
pub(super) fn open_bytes(path: &Path, bytes: &[u8], options: &OpenOptions) -> Result<Box<dyn Source>> {
    let header = Header::read(path, bytes, bytes.len() as u64)?;
    let place = |start: u64, length: u64| {
        let start = usize::try_from(start).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(length).ok()?));
        // The header was checked against the length.
        let tensor = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
        Place::InMemory(tensor.unwrap_or_default().to_vec())
    };
    let (places, tensors) = header.tensors(path, place)?;
    listed(path, (TensorFile::in_memory(path, places), tensors, header.metadata()), options)
}

/// The tensors with what the metadata says of values and classes.
fn listed(
    path: &Path,
    (file, tensors, metadata): Safetensors,
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    let values = options.values.or(metadata.get(VALUES).and_then(|values| values.parse().ok()));
    let source = open_tensors(file, &tensors, "tensors", &OpenOptions { values, ..options.clone() })?;
    match metadata.get(ClassList::KEY) {
        Some(list) => ClassList::from_json(path, list)?.apply(path, source, options),
        None => Ok(source),
    }
}

/// Opens an npz file: KIP's, as DC-BENCH has them, or one of one's own.
pub(super) fn open_npz(path: &Path, options: &OpenOptions) -> Result<Box<dyn Source>> {
    let names: Vec<&str> = IMAGES.into_iter().chain(LABELS).collect();
    let (file, tensors) = npz::open(path, &names)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_kip = name.starts_with("kip_");
    open_tensors(file, &tensors, if is_kip { "kip" } else { "tensors" }, options)
}

/// The images and labels of a torch file's dict, if there are images in it by one of their names.
///
/// # Errors
/// If there are no labels, or one or the other are nothing that can be read.
pub(super) fn in_dict<'a>(path: &Path, root: Value<'a>) -> Result<Option<Pair<'a>>> {
    // A tensor by a later name is more likely meant than something else by an earlier one.
    let named = |names: &[&'static str]| {
        let mut found = names.iter().filter_map(|name| Some((*name, root.get(name)?)));
        found.clone().find(|(_, value)| value.as_tensor().is_some()).or_else(|| found.next())
    };
    let Some((images_field, images)) = named(&IMAGES) else { return Ok(None) };
    // Experiments of DC.
    if images_field == "data" && images.as_tensor().is_none() {
        return Ok(None);
    }
    let images = images_of(path, images_field, images)?;
    let keys = || root.keys().into_iter().flatten().collect();
    let (labels_field, labels) = named(&LABELS).ok_or_else(|| missing(path, "labels", &LABELS, keys()))?;
    let labels = Labelled::of(path, labels_field, labels)?;
    Ok(Some(Pair { images: (images_field, images), labels: (labels_field, labels) }))
}

/// The images and labels of a list or a tuple of two.
///
/// # Errors
/// If one or the other are nothing that can be read.
pub(super) fn in_list<'a>(path: &Path, [images, labels]: [Value<'a>; 2]) -> Result<Pair<'a>> {
    let images = images_of(path, "[0]", images)?;
    Ok(Pair { images: ("[0]", images), labels: ("[1]", Labelled::of(path, "[1]", labels)?) })
}

/// The tensor of images under this name.
fn images_of<'a>(path: &Path, field: &str, images: Value<'a>) -> Result<&'a TensorRef> {
    images.as_tensor().ok_or_else(|| {
        let are_tensors =
            images.items().is_some_and(|mut items| items.all(|item| item.as_tensor().is_some()));
        let how = if are_tensors { ", as torch.stack(images) is" } else { "" };
        let reason = format!("{}, where a tensor [N, C, H, W] is expected{how}", images.kind());
        Error::field(path, field, reason)
    })
}

fn of_dict<'a>(pickle: &Pickle, names: impl IntoIterator<Item = &'a &'a str>) -> Tensors {
    let tensor = |name: &&str| Some(((*name).to_owned(), pickle.root().get(name)?.as_tensor()?.clone()));
    names.into_iter().filter_map(tensor).collect()
}

/// The tensors by these names in a torch file's dict, or in an npz or safetensors file; the last may have others.
///
/// # Errors
/// If it is none of these, or damaged.
pub(super) fn named(path: &Path, names: &[&str]) -> Result<(TensorFile, Tensors)> {
    if is_npz(path) {
        return npz::open(path, names);
    }
    if is_safetensors(&open::head(path)?) {
        return read_safetensors(path).map(|(file, tensors, _)| (file, tensors));
    }
    let (file, pickle) = torch::open(path)?;
    let tensors = of_dict(&pickle, names);
    Ok((file, tensors))
}

fn find<'a>(tensors: &'a Tensors, names: &[&'static str]) -> Option<(&'static str, &'a TensorRef)> {
    names.iter().find_map(|name| Some((*name, tensors.get(*name)?)))
}

/// Labels as a file holds them.
enum Labelled<'a> {
    Tensor(&'a TensorRef),
    /// A list of Python's integers.
    Listed(Vec<i64>),
}

impl<'a> Labelled<'a> {
    fn of(path: &Path, field: &str, labels: Value<'a>) -> Result<Self> {
        let listed = || labels.items()?.map(Value::as_int).collect::<Option<Vec<i64>>>();
        let found = labels.as_tensor().map(Self::Tensor).or_else(|| listed().map(Self::Listed));
        found.ok_or_else(|| {
            let how = if labels.items().is_some() { ", as torch.tensor(labels) is" } else { "" };
            let reason = format!("{}, where a tensor or a list of integers is expected{how}", labels.kind());
            Error::field(path, field, reason)
        })
    }

    fn read(self, file: &TensorFile, field: &str, samples: usize, options: &OpenOptions) -> Result<Labels> {
        match self {
            Self::Tensor(tensor) => Labels::read(file, tensor, field, samples, options),
            Self::Listed(labels) => Labels::listed(file.path(), labels, field, samples, options),
        }
    }
}

/// Images and labels, each with its name in the file.
pub(super) struct Pair<'a> {
    images: (&'a str, &'a TensorRef),
    labels: (&'a str, Labelled<'a>),
}

/// The error for a file that has other names.
fn missing(path: &Path, what: &str, names: &[&str], have: Vec<&str>) -> Error {
    let have: Vec<&str> = have.into_iter().take(16).collect();
    let reason = format!("no {what} by the name of {}; there are {}", names.join(", "), have.join(", "));
    Error::format(path, reason)
}

/// Joins the images and labels among `tensors`.
pub(super) fn open_tensors(
    file: TensorFile,
    tensors: &Tensors,
    format: &'static str,
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    let keys = || tensors.keys().map(String::as_str).collect();
    let no = |what, names: &[&str]| missing(file.path(), what, names, keys());
    let images = find(tensors, &IMAGES).ok_or_else(|| no("images", &IMAGES))?;
    let (labels_field, labels) = find(tensors, &LABELS).ok_or_else(|| no("labels", &LABELS))?;
    let pair = Pair { images, labels: (labels_field, Labelled::Tensor(labels)) };
    open_pair(file, pair, format, None, options)
}

/// Joins images and labels; `about` is what was assumed of them.
pub(super) fn open_pair(
    file: TensorFile,
    pair: Pair<'_>,
    format: &'static str,
    about: Option<String>,
    options: &OpenOptions,
) -> Result<Box<dyn Source>> {
    let path = file.path().to_owned();
    let ((images_field, images), (labels_field, labels)) = (pair.images, pair.labels);
    let mut images = Images::new(planar(images), file, images_field)?;
    let mut labels = labels.read(&images.file, labels_field, images.len(), options)?;
    let told = normalization::told(&path, options)?;
    let (usual, note) = if format == "kip" {
        labels = labels.hardened(&path)?;
        images = images.of_floats()?;
        let note = "KIP's images are in its own ZCA space, to be trained on as they are; its labels are taken by \
                    their largest entry, as DC-BENCH does";
        (Values::Whitened, Some(note))
    } else {
        match images.tensor.dtype() {
            DType::U8 => (Values::Unit, None),
            dtype if dtype.is_float() => {
                let (least, largest) = images.range()?;
                if least >= -SLACK && largest <= 1.0 + SLACK {
                    (Values::Unit, Some("the images are taken for pixels, as their values lie in [0, 1]"))
                } else if told.is_none() && least >= 0.0 && largest > OF_NORMALIZED {
                    let reason = format!(
                        "floats from {least} to {largest}, as pixels from 0 to 255 have: divide them by 255, or say \
                         that `values` are `normalized` if they are"
                    );
                    return Err(Error::field(&path, images_field, reason));
                } else {
                    (
                        Values::Normalized,
                        Some("the images are taken to be normalised, as values leave [0, 1]"),
                    )
                }
            }
            other => {
                let reason = format!("{other:?} elements: bytes, 0 to 255, or floats are expected");
                return Err(Error::field(&path, images_field, reason));
            }
        }
    };
    if images.tensor.dtype() == DType::U8
        && options.given_values().is_some_and(|values| values != Values::Unit)
    {
        let option = if options.values.is_some() { "values" } else { "zca" };
        return Err(Error::config(option, "bytes are pixels, 0 to 255"));
    }
    let mut space = if images.tensor.dtype() == DType::U8 {
        normalization::pixels(&path, format, options)?
    } else {
        let mut space = normalization::space(&path, format, usual, options)?;
        space.notes.extend(note.filter(|_| told.is_none()).map(str::to_owned));
        space
    };
    space.notes.extend(about);
    let method = (format == "kip").then(|| "KIP, by the file's name".to_owned());
    images.into_source(labels, About { format, method, space, learning_rate: None }, options)
}

/// Images `[N, H, W, C]` with their channels first; others as they are.
fn planar(images: &TensorRef) -> TensorRef {
    let is_channels = |size: usize| size == 1 || size == 3;
    match *images.shape() {
        [_, first, _, last] if is_channels(last) && !is_channels(first) => images.permuted([0, 3, 1, 2]),
        _ => images.clone(),
    }
}

/// Its tensors, and the metadata, in which diver writes what it knows of them.
type Safetensors = (TensorFile, Tensors, HashMap<String, String>);

fn read_safetensors(path: &Path) -> Result<Safetensors> {
    let mut file = File::open(path).map_err(Error::io(path, "cannot open"))?;
    let length = file.metadata().map_err(Error::io(path, "cannot read"))?.len();
    let header = Header::read(path, &mut file, length)?;
    let place = |start, bytes| Place::InFile { start, bytes, crc32: None };
    let (places, tensors) = header.tensors(path, place)?;
    Ok((TensorFile::new(path, file, places), tensors, header.metadata()))
}

/// The header of safetensors.
struct Header {
    read: safetensors::tensor::Metadata,
    /// Where the tensors begin, and how many bytes they have.
    start: u64,
    bytes: u64,
}

impl Header {
    /// Reads the front of a file of `length` bytes.
    fn read(path: &Path, mut file: impl Read, length: u64) -> Result<Self> {
        let damaged = |reason: String| {
            Error::format(path, format!("not a safetensors file that can be read: {reason}"))
        };
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(Error::io(path, "cannot read"))?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER.min(length.saturating_sub(8)) {
            return Err(damaged(format!("a header of {size} bytes in a file of {length}")));
        }
        let mut header = vec![0; usize::try_from(size).unwrap_or_default()];
        file.read_exact(&mut header).map_err(Error::io(path, "cannot read"))?;
        let read = serde_json::from_slice(&header).map_err(|e| damaged(e.to_string()))?;
        Ok(Self { read, start: 8 + size, bytes: length - 8 - size })
    }

    fn metadata(&self) -> HashMap<String, String> {
        self.read.metadata().clone().unwrap_or_default()
    }

    /// The tensors that are read, and where each lies: `place` makes it from its first byte and their number.
    fn tensors(
        &self,
        path: &Path,
        place: impl Fn(u64, u64) -> Place,
    ) -> Result<(HashMap<String, Place>, Tensors)> {
        let (mut places, mut tensors) = (HashMap::new(), Tensors::new());
        for (name, info) in self.read.tensors() {
            // Tensors of other kinds may lie beside images and labels.
            let Some(dtype) = dtype(info.dtype) else { continue };
            let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            let bytes = end.checked_sub(start).filter(|_| end <= self.bytes);
            let shape: Vec<u64> = info.shape.iter().map(|size| *size as u64).collect();
            let tensor = bytes.and_then(|bytes| {
                let storage = StorageRef { key: name.clone(), dtype, numel: bytes / dtype.size() };
                TensorRef::contiguous(storage, &shape)
            });
            let (Some(bytes), Some(tensor)) = (bytes, tensor) else {
                let reason = format!("{dtype:?} {shape:?} at bytes {start} to {end} of {}", self.bytes);
                return Err(Error::field(path, name, format!("{reason}: the file is damaged")));
            };
            places.insert(name.clone(), place(self.start + start, bytes));
            tensors.insert(name, tensor);
        }
        Ok((places, tensors))
    }
}

fn dtype(dtype: safetensors::Dtype) -> Option<DType> {
    use safetensors::Dtype;
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}
