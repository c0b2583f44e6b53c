//! Named tensors from a file, handed out one by one against what the network's configuration asks for.

use crate::hub::needed::weights;
use crate::{Error, Result};
use diver_loaders::{Digest, StateDict};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Keys named in one message; more are only counted.
const NAMED: usize = 10;

/// Bytes at the start of a file that tell its format.
const HEAD: u64 = 8;

/// The longest header that safetensors itself takes.
const LONGEST_HEADER: u64 = 100_000_000;

/// Where tensors go when a network takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// The dtype, whatever the file holds.
    pub kind: Kind,
}

/// The tensors of one network. It is taken apart by [`take`](Self::take); [`finish`](Self::finish) then tells
/// whether all keys were there, none was left, and every shape was right.
///
/// A tensor of a file is read when it is taken, and placed at once: no more than one is held twice. Files are read and
/// not mapped, as what is mapped ends the process with a signal if the file is shortened meanwhile.
///
/// ```
/// use diver::backbone::{Place, Weights};
/// use tch::{Device, Kind, Tensor};
///
/// let bias = ("bias".to_owned(), Tensor::zeros([3], (Kind::Half, Device::Cpu)));
/// let mut weights = Weights::from_tensors("net.safetensors", [bias]);
/// let place = Place { device: Device::Cpu, kind: Kind::Float };
/// assert_eq!(weights.take("bias", &[3], place)?.kind(), Kind::Float);
/// weights.take("weight", &[3, 3], place)?;
/// assert_eq!(weights.finish().unwrap_err().to_string(), "net.safetensors: 1 key is missing (weight)");
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
    digest: Option<Digest>,
    missing: Vec<String>,
    wrong: Vec<String>,
}

/// A tensor that was not taken yet.
#[derive(Debug)]
struct Stored {
    shape: Vec<i64>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Held(Tensor),
    Safetensors { file: Arc<(PathBuf, File)>, start: u64, bytes: usize, kind: Kind },
    Torch { file: Arc<StateDict>, name: String },
}

impl Stored {
    /// The tensor on the CPU (or where it is), in the file's dtype or f32.
    fn read(&self) -> Result<Tensor> {
        let flat = match &self.data {
            Data::Held(tensor) => tensor.shallow_clone(),
            Data::Safetensors { file, start, bytes, kind } => {
                let (path, mut file) = (&file.0, &file.1);
                let mut data = vec![0; *bytes];
                file.seek(SeekFrom::Start(*start))
                    .and_then(|_| file.read_exact(&mut data))
                    .map_err(Error::io(path, "cannot read"))?;
                Tensor::f_from_data_size(&data, &self.shape, *kind)?
            }
            Data::Torch { file, name } => {
                let values = file.read(name)?;
                Tensor::f_from_slice(&values)?
            }
        };
        Ok(flat.f_reshape(&self.shape)?)
    }
}

impl Weights {
    /// Tensors that are in memory already. `path` is named in messages.
    pub fn from_tensors(
        path: impl Into<PathBuf>,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Self {
        let held = |(name, tensor): (String, Tensor)| {
            (name, Stored { shape: tensor.size(), data: Data::Held(tensor) })
        };
        let tensors = tensors.into_iter().map(held).collect();
        Self { path: path.into(), tensors, digest: None, missing: Vec::new(), wrong: Vec::new() }
    }

    /// A safetensors file, or one of `torch.save` (which is not executed).
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_parts(path, &[path.to_owned()])
    }

    /// Refuses a file that neither torch nor safetensors wrote, by its start.
    pub(super) fn check_format(path: &Path) -> Result<()> {
        let mut head = Vec::new();
        let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
        file.take(HEAD).read_to_end(&mut head).map_err(Error::io(path, "cannot read"))?;
        // A safetensors file starts with the length of its header, which it has in memory.
        let length = <[u8; HEAD as usize]>::try_from(&head[..]).map(u64::from_le_bytes);
        if StateDict::is_torch(&head) || length.is_ok_and(|length| length <= LONGEST_HEADER) {
            return Ok(());
        }
        Err(Error::file(
            path,
            "holds no weights: a file of torch.save or safetensors, or a diffusers folder, is expected",
        ))
    }

    /// The weights in a folder of a diffusers model: `diffusion_pytorch_model.safetensors`, the parts that
    /// `diffusion_pytorch_model.safetensors.index.json` lists, the same with transformers' name `model.safetensors`, the
    /// only `*.safetensors` file with a name of its own, or a `.bin` of these names. Variants, as in
    /// `diffusion_pytorch_model.fp16.safetensors`, are passed over.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn read_folder(folder: &Path) -> Result<Self> {
        let files = weight_files(folder)?;
        let path = if let [file] = files.as_slice() { file } else { folder };
        Self::read_parts(path, &files)
    }

    fn read_parts(path: &Path, files: &[PathBuf]) -> Result<Self> {
        let mut weights = Self::from_tensors(path, []);
        let mut hasher = blake3::Hasher::new();
        for path in files {
            let mut file = File::open(path).map_err(Error::io(path, "cannot open"))?;
            let mut head = Vec::new();
            let cannot_read = Error::io(path, "cannot read");
            file.by_ref().take(HEAD).read_to_end(&mut head).map_err(cannot_read)?;
            hasher.update(&head);
            hasher.update_reader(&mut file).map_err(Error::io(path, "cannot read"))?;
            if StateDict::is_torch(&head) {
                weights.add_torch(path)?;
            } else {
                weights.add_safetensors(path, file)?;
            }
        }
        weights.digest = Some(hasher.finalize().into());
        Ok(weights)
    }

    fn add_torch(&mut self, path: &Path) -> Result<()> {
        let file = Arc::new(StateDict::open(path)?);
        for (name, shape) in file.shapes() {
            let shape = shape.iter().map(|&side| side as i64).collect();
            let data = Data::Torch { file: Arc::clone(&file), name: name.to_owned() };
            self.tensors.insert(name.to_owned(), Stored { shape, data });
        }
        Ok(())
    }

    fn add_safetensors(&mut self, path: &Path, mut file: File) -> Result<()> {
        let length = file.metadata().map_err(Error::io(path, "cannot read"))?.len();
        file.rewind().map_err(Error::io(path, "cannot read"))?;
        let mut read = |bytes: u64| -> Result<Vec<u8>> {
            if bytes > length {
                return Err(Error::file(path, "is not a safetensors file, or was cut short"));
            }
            let mut buffer = vec![0; bytes as usize];
            file.read_exact(&mut buffer).map_err(Error::io(path, "cannot read"))?;
            Ok(buffer)
        };
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&read(8)?);
        let header_length = u64::from_le_bytes(prefix);
        let header: safetensors::tensor::Metadata = serde_json::from_slice(&read(header_length)?)
            .map_err(|e| Error::file(path, format!("is not a safetensors file ({e})")))?;
        let data = 8 + header_length;
        if data + header.data_len() as u64 != length {
            return Err(Error::file(path, "was cut short, or has bytes after its tensors"));
        }
        let file = Arc::new((path.to_owned(), file));
        for (name, info) in header.tensors() {
            let Some(kind) = kind_of(info.dtype) else {
                self.wrong.push(format!("{name} has dtype {:?}", info.dtype));
                continue;
            };
            // The header's own check has made sure that shape and dtype give this many bytes.
            let (start, end) = info.data_offsets;
            let shape = info.shape.iter().map(|&side| side as i64).collect();
            let data = Data::Safetensors {
                file: Arc::clone(&file),
                start: data + start as u64,
                bytes: end - start,
                kind,
            };
            self.tensors.insert(name, Stored { shape, data });
        }
        Ok(())
    }

    /// The file (or folder of parts) that is named in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// BLAKE3 of the file, or of its parts one after the other; `None` for tensors that came from memory.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether a tensor of that name is left.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// How many of the tensors that are left have names of this form.
    pub(super) fn count(&self, prefix: &str, suffix: &str) -> usize {
        self.tensors.keys().filter(|name| name.starts_with(prefix) && name.ends_with(suffix)).count()
    }

    /// The shape of a tensor that is left.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.tensors.get(name).map(|stored| stored.shape.clone())
    }

    /// Takes a tensor of a known shape. If it is missing or has another shape, that is noted for
    /// [`finish`](Self::finish), and zeros come back so that one pass finds every fault.
    ///
    /// # Errors
    /// If libtorch cannot place the tensor.
    pub fn take(&mut self, name: &str, shape: &[i64], place: Place) -> Result<Tensor> {
        match self.tensors.remove(name) {
            Some(stored) if stored.shape == shape => {
                let placed = stored.read()?.f_to_device(place.device)?.f_to_kind(place.kind)?;
                return Ok(placed.f_set_requires_grad(false)?);
            }
            Some(stored) => {
                self.wrong.push(format!("{name} is {:?} instead of {shape:?}", stored.shape));
            }
            None => self.missing.push(name.to_owned()),
        }
        let zero = Tensor::f_zeros([1], (place.kind, place.device))?;
        Ok(zero.f_expand(shape, false)?)
    }

    /// Takes tensors `[rows, ...]` that differ in `rows` alone, one below the other in one tensor; none is held twice. If
    /// one is missing or has another shape, that is noted for [`finish`](Self::finish), and nothing comes back.
    ///
    /// # Errors
    /// If libtorch cannot place the tensor.
    pub(super) fn take_stacked(
        &mut self,
        parts: &[(String, i64)],
        rest: &[i64],
        place: Place,
    ) -> Result<Tensor> {
        let shape = |rows: i64| [&[rows], rest].concat();
        let fits = |(name, rows): &(String, i64)| {
            self.tensors.get(name).is_some_and(|stored| stored.shape == shape(*rows))
        };
        // Memory is taken only for what the file is known to hold.
        if !parts.iter().all(fits) {
            for (name, rows) in parts {
                let _ = self.take(name, &shape(*rows), place)?;
            }
            return Ok(Tensor::new());
        }
        let whole = shape(parts.iter().map(|(_, rows)| rows).sum());
        let whole = Tensor::f_empty(whole, (place.kind, place.device))?;
        let mut at = 0;
        for (name, rows) in parts {
            if let Some(stored) = self.tensors.remove(name) {
                whole.f_narrow(0, at, *rows)?.f_copy_(&stored.read()?)?;
            }
            at += rows;
        }
        Ok(whole)
    }

    /// Takes the further copies of a tensor that the file repeats, after checking that they are copies.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn drop_copies(&mut self, first: &str, copies: impl Iterator<Item = String>) -> Result<()> {
        let Some(original) = self.tensors.get(first).map(Stored::read).transpose()? else { return Ok(()) };
        for copy in copies {
            match self.tensors.remove(&copy) {
                Some(stored) if stored.shape == original.size() && stored.read()?.f_equal(&original)? => {}
                Some(_) => self.wrong.push(format!("{copy} differs from {first}")),
                None => self.missing.push(copy),
            }
        }
        Ok(())
    }

    /// Drops a tensor that the network computes for itself.
    pub fn ignore(&mut self, name: &str) {
        self.tensors.remove(name);
        // Positions and the like are integers, which are no weights.
        self.wrong.retain(|fault| fault.split(' ').next() != Some(name));
    }

    /// Gives a tensor another name, for files that spell it the old way, and the shape `shape` if it has as many
    /// values.
    pub fn rename(&mut self, old: &str, new: &str, shape: &[i64]) {
        if let Some(mut stored) = self.tensors.remove(old) {
            if stored.shape.iter().product::<i64>() == shape.iter().product::<i64>() {
                stored.shape = shape.to_vec();
            }
            self.tensors.insert(new.to_owned(), stored);
        }
    }

    /// Whether everything asked for was there, and nothing else.
    ///
    /// # Errors
    /// [`Error::File`] counts the keys that are missing, of another shape, or unknown, and names ten.
    pub fn finish(self) -> Result<()> {
        let unknown: Vec<String> = self.tensors.into_keys().collect();
        let mut room = NAMED;
        let mut faults = Vec::new();
        for (keys, one, many) in [
            (self.missing, "key is missing", "keys are missing"),
            (self.wrong, "key does not fit", "keys do not fit"),
            (unknown, "key is unknown", "keys are unknown"),
        ] {
            if keys.is_empty() {
                continue;
            }
            let named = keys.len().min(room);
            room -= named;
            let list = keys[..named].join(", ");
            let rest = match (named, keys.len() - named) {
                (0, _) => String::new(),
                (_, 0) => format!(" ({list})"),
                (_, rest) => format!(" ({list}, and {rest} more)"),
            };
            faults.push(format!("{} {}{rest}", keys.len(), if keys.len() == 1 { one } else { many }));
        }
        if faults.is_empty() { Ok(()) } else { Err(Error::file(&self.path, faults.join("; "))) }
    }
}

/// The files of a network's weights, in order: by the rule of what is downloaded.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "cannot list"))? {
        let entry = entry.map_err(Error::io(folder, "cannot list"))?;
        names.insert(entry.file_name().to_string_lossy().into_owned());
    }
    let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    match weights(&known)[..] {
        [] => {
            let reason =
                "has no weights: no diffusion_pytorch_model.safetensors, model.safetensors or the like";
            Err(Error::file(folder, reason))
        }
        [index, ..] if index.ends_with(".index.json") => indexed_files(folder, &folder.join(index)),
        [file, ..] => Ok(vec![folder.join(file)]),
    }
}

fn indexed_files(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs::read(index).map_err(Error::io(index, "cannot read"))?;
    let parsed: Index =
        serde_json::from_slice(&text).map_err(|e| Error::file(index, format!("is not an index ({e})")))?;
    let mut names: Vec<String> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(Error::file(index, format!("names `{name}`, which lies outside its folder")));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The torch dtype of a weight; only floating-point weights occur.
fn kind_of(dtype: safetensors::Dtype) -> Option<Kind> {
    match dtype {
        safetensors::Dtype::F16 => Some(Kind::Half),
        safetensors::Dtype::BF16 => Some(Kind::BFloat16),
        safetensors::Dtype::F32 => Some(Kind::Float),
        safetensors::Dtype::F64 => Some(Kind::Double),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Place = Place { device: Device::Cpu, kind: Kind::Float };

    fn zeros(name: &str, shape: &[i64]) -> (String, Tensor) {
        (name.to_owned(), Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
    }

    #[test]
    fn one_message_holds_every_fault() {
        let mut weights = Weights::from_tensors("w", [zeros("a", &[2]), zeros("b", &[3]), zeros("c", &[1])]);
        let _ = weights.take("a", &[2], CPU).unwrap();
        let _ = weights.take("b", &[4], CPU).unwrap();
        let _ = weights.take("d", &[1], CPU).unwrap();
        let text = weights.finish().unwrap_err().to_string();
        assert_eq!(
            text,
            "w: 1 key is missing (d); 1 key does not fit (b is [3] instead of [4]); 1 key is unknown (c)"
        );
    }

    #[test]
    fn ten_keys_are_named_and_the_rest_counted() {
        let mut weights = Weights::from_tensors("w", [zeros("z", &[1])]);
        for i in 0..12 {
            let _ = weights.take(&format!("k{i}"), &[1], CPU).unwrap();
        }
        let text = weights.finish().unwrap_err().to_string();
        assert!(text.contains("12 keys are missing (k0, ") && text.contains("k9, and 2 more)"), "{text}");
        assert!(text.ends_with("1 key is unknown"), "{text}");
    }

    #[test]
    fn damaged_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        for bytes in
            [&b""[..], b"12345678", b"\x02\0\0\0\0\0\0\0{}trailing", b"\xff\xff\xff\xff\xff\xff\xff\x7f"]
        {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(Weights::read(&path), Err(Error::File { .. })), "{bytes:?}");
        }
        let text = Weights::read_folder(&folder.path().join("none")).unwrap_err().to_string();
        assert!(text.contains("none: cannot list"), "{text}");
        fs::remove_file(&path).unwrap();
        let text = Weights::read_folder(folder.path()).unwrap_err().to_string();
        assert!(text.contains("has no weights: no diffusion_pytorch_model.safetensors"), "{text}");
        fs::write(folder.path().join("diffusion_pytorch_model.bin"), "PK\x03\x04").unwrap();
        let text = Weights::read_folder(folder.path()).unwrap_err().to_string();
        assert!(text.contains("diffusion_pytorch_model.bin: "), "{text}");
    }

    #[test]
    fn a_file_in_parts_is_one_network() {
        let folder = tempfile::tempdir().unwrap();
        for (part, key) in [("p1.safetensors", "a"), ("p2.safetensors", "b")] {
            Tensor::write_safetensors(&[zeros(key, &[2])], folder.path().join(part)).unwrap();
        }
        let index = r#"{"weight_map": {"a": "p1.safetensors", "b": "p2.safetensors"}}"#;
        fs::write(folder.path().join("diffusion_pytorch_model.safetensors.index.json"), index).unwrap();
        let mut weights = Weights::read_folder(folder.path()).unwrap();
        let _ = weights.take("a", &[2], CPU).unwrap();
        let _ = weights.take("b", &[2], CPU).unwrap();
        assert!(weights.digest().is_some());
        weights.finish().unwrap();
    }
}
