//! Named tensors from a file, handed out one by one against what the network's configuration asks for.

use crate::{Error, Result};
use diver_loaders::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Keys named in one message; more are only counted.
const NAMED: usize = 10;

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
    tensors: BTreeMap<String, Tensor>,
    digest: Option<Digest>,
    missing: Vec<String>,
    wrong: Vec<String>,
}

impl Weights {
    /// Tensors that are in memory already. `path` is named in messages.
    pub fn from_tensors(
        path: impl Into<PathBuf>,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Self {
        let tensors = tensors.into_iter().collect();
        Self { path: path.into(), tensors, digest: None, missing: Vec::new(), wrong: Vec::new() }
    }

    /// A safetensors file, read once from front to back.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let mut weights = Self::from_tensors(path, []);
        let mut hasher = blake3::Hasher::new();
        weights.append(path, &mut hasher)?;
        weights.digest = Some(hasher.finalize().into());
        Ok(weights)
    }

    /// The weights in a folder of a diffusers model: `diffusion_pytorch_model.safetensors`, the parts that
    /// `diffusion_pytorch_model.safetensors.index.json` lists, the same with transformers' name `model.safetensors`, or
    /// the only `*.safetensors` file there.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn read_folder(folder: &Path) -> Result<Self> {
        let files = weight_files(folder)?;
        if let [file] = files.as_slice() {
            return Self::read(file);
        }
        let mut weights = Self::from_tensors(folder, []);
        let mut hasher = blake3::Hasher::new();
        for file in &files {
            weights.append(file, &mut hasher)?;
        }
        weights.digest = Some(hasher.finalize().into());
        Ok(weights)
    }

    /// Reads a safetensors file tensor by tensor, so that no more than one is held twice.
    fn append(&mut self, path: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
        let file = File::open(path).map_err(Error::io(path, "cannot open"))?;
        let length = file.metadata().map_err(Error::io(path, "cannot read"))?.len();
        let mut reader = BufReader::new(file);
        let mut next = |bytes: u64| -> Result<Vec<u8>> {
            if bytes > length {
                return Err(Error::file(path, "is not a safetensors file, or was cut short"));
            }
            let mut buffer = vec![0; bytes as usize];
            reader.read_exact(&mut buffer).map_err(Error::io(path, "cannot read"))?;
            hasher.update(&buffer);
            Ok(buffer)
        };

        let mut prefix = [0; 8];
        prefix.copy_from_slice(&next(8)?);
        let header_length = u64::from_le_bytes(prefix);
        let header: safetensors::tensor::Metadata = serde_json::from_slice(&next(header_length)?)
            .map_err(|e| Error::file(path, format!("is not a safetensors file ({e})")))?;
        if 8 + header_length + header.data_len() as u64 != length {
            return Err(Error::file(path, "was cut short, or has bytes after its tensors"));
        }
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            let shape: Vec<i64> = info.shape.iter().map(|&side| side as i64).collect();
            let data = next((info.data_offsets.1 - info.data_offsets.0) as u64)?;
            match kind_of(info.dtype) {
                Some(kind) => {
                    // The header's own check has made sure that shape and dtype give this many bytes.
                    let tensor = Tensor::f_from_data_size(&data, &shape, kind)?;
                    self.tensors.insert(name, tensor);
                }
                None => self.wrong.push(format!("{name} has dtype {:?}", info.dtype)),
            }
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

    /// The shape of a tensor that is left.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.tensors.get(name).map(Tensor::size)
    }

    /// Takes a tensor of a known shape. If it is missing or has another shape, that is noted for
    /// [`finish`](Self::finish), and zeros come back so that one pass finds every fault.
    ///
    /// # Errors
    /// If libtorch cannot place the tensor.
    pub fn take(&mut self, name: &str, shape: &[i64], place: Place) -> Result<Tensor> {
        match self.tensors.remove(name) {
            Some(tensor) if tensor.size() == shape => {
                let placed = tensor.f_to_device(place.device)?.f_to_kind(place.kind)?;
                return Ok(placed.f_set_requires_grad(false)?);
            }
            Some(tensor) => {
                self.wrong.push(format!("{name} is {:?} instead of {shape:?}", tensor.size()));
            }
            None => self.missing.push(name.to_owned()),
        }
        let zero = Tensor::f_zeros([1], (place.kind, place.device))?;
        Ok(zero.f_expand(shape, false)?)
    }

    /// Takes the further copies of a tensor that the file repeats, after checking that they are copies.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn drop_copies(&mut self, first: &str, copies: impl Iterator<Item = String>) -> Result<()> {
        let Some(original) = self.tensors.get(first).map(Tensor::shallow_clone) else { return Ok(()) };
        for copy in copies {
            match self.tensors.remove(&copy) {
                Some(tensor) if tensor.size() == original.size() && tensor.f_equal(&original)? => {}
                Some(_) => self.wrong.push(format!("{copy} differs from {first}")),
                None => self.missing.push(copy),
            }
        }
        Ok(())
    }

    /// Whether every tensor asked for so far was there, in its shape: none that was taken stands for another.
    pub(super) fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.wrong.is_empty()
    }

    /// Drops a tensor that the network computes for itself.
    pub fn ignore(&mut self, name: &str) {
        self.tensors.remove(name);
        // Positions and the like are integers, which are no weights.
        self.wrong.retain(|fault| fault.split(' ').next() != Some(name));
    }

    /// Gives a tensor another name, for files that spell it the old way, and the shape `shape` if it has as many
    /// values.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn rename(&mut self, old: &str, new: &str, shape: &[i64]) -> Result<()> {
        if let Some(tensor) = self.tensors.remove(old) {
            let fits = tensor.numel() as i64 == shape.iter().product::<i64>();
            let tensor = if fits { tensor.f_reshape(shape)? } else { tensor };
            self.tensors.insert(new.to_owned(), tensor);
        }
        Ok(())
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

/// The safetensors files of a diffusers model, in order.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    const WHOLE: &str = "diffusion_pytorch_model.safetensors";
    const PICKLE: &str = "diffusion_pytorch_model.bin";
    for name in [WHOLE, "model.safetensors"] {
        let whole = folder.join(name);
        if whole.is_file() {
            return Ok(vec![whole]);
        }
        let index = folder.join(format!("{name}.index.json"));
        if index.is_file() {
            return indexed_files(folder, &index);
        }
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "cannot list"))? {
        let path = entry.map_err(Error::io(folder, "cannot list"))?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(path);
        }
    }
    match found.len() {
        1 => Ok(found),
        0 if folder.join(PICKLE).is_file() => {
            Err(Error::file(folder, format!("has {PICKLE} alone; only safetensors are read ({WHOLE})")))
        }
        0 => Err(Error::file(folder, format!("has no {WHOLE}"))),
        count => Err(Error::file(folder, format!("has {count} safetensors files, none of them {WHOLE}"))),
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
        assert!(weights.is_sound());
        let _ = weights.take("b", &[4], CPU).unwrap();
        assert!(!weights.is_sound());
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
        assert!(text.ends_with("has no diffusion_pytorch_model.safetensors"), "{text}");
        fs::write(folder.path().join("diffusion_pytorch_model.bin"), "").unwrap();
        let text = Weights::read_folder(folder.path()).unwrap_err().to_string();
        assert!(text.contains("has diffusion_pytorch_model.bin alone; only safetensors are read"), "{text}");
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
