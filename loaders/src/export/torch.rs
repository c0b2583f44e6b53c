//! Files of `torch.save`, written without torch: DC's and MTT's.

use super::{LabelBytes, Writer, files};
use crate::{Error, LabelKind, Normalize, Result, Sample, SourceInfo, ValueSpace};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// torch maps storages into memory at multiples of this many bytes.
const ALIGNMENT: u16 = 64;

/// `{'data': [[images, labels]], 'accs_all_exps': {}}` in one file.
pub(super) struct Dc {
    file: Saved,
    labels: LabelBytes,
    space: Space,
}

impl Dc {
    pub(super) fn new(info: &SourceInfo, folder: &Path) -> Result<Self> {
        let mut pickle = Pickle::new();
        pickle.op(b"}(").text("data").op(b"](](");
        let images = Tensor::images(info);
        pickle.tensor("0", &images).tensor("1", &Tensor::labels(info, false)).op(b"ee");
        pickle.text("accs_all_exps").op(b"}u");
        let mut file = Saved::create(&folder.join("res_DIVER.pt"), pickle.finish())?;
        file.begin_storage("0")?;
        Ok(Self { file, labels: LabelBytes::new(false), space: Space::of(info) })
    }
}

impl Writer for Dc {
    fn add(&mut self, _index: usize, sample: Sample) -> Result<()> {
        self.labels.add(&sample.label);
        self.file.write(&self.space.bytes(sample))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.file.begin_storage("1")?;
        self.file.write(&self.labels.bytes)?;
        self.file.finish()
    }
}

/// A bare tensor in each of two files.
pub(super) struct Mtt {
    images: Saved,
    labels: LabelBytes,
    labels_file: Saved,
    space: Space,
}

impl Mtt {
    pub(super) fn new(info: &SourceInfo, folder: &Path) -> Result<Self> {
        let logits = info.labels != LabelKind::Hard;
        let bare = |name: &str, tensor: &Tensor| -> Result<Saved> {
            let mut pickle = Pickle::new();
            pickle.tensor("0", tensor);
            let mut file = Saved::create(&folder.join(name), pickle.finish())?;
            file.begin_storage("0")?;
            Ok(file)
        };
        if let Some(rate) = info.learning_rate {
            let mut file = bare("lr_best.pt", &Tensor { storage_class: "FloatStorage", shape: Vec::new() })?;
            file.write(&rate.to_le_bytes())?;
            file.finish()?;
        }
        Ok(Self {
            images: bare("images_best.pt", &Tensor::images(info))?,
            labels_file: bare("labels_best.pt", &Tensor::labels(info, logits))?,
            labels: LabelBytes::new(logits),
            space: Space::of(info),
        })
    }
}

impl Writer for Mtt {
    fn add(&mut self, _index: usize, sample: Sample) -> Result<()> {
        self.labels.add(&sample.label);
        self.images.write(&self.space.bytes(sample))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.labels_file.write(&self.labels.bytes)?;
        self.labels_file.finish()?;
        self.images.finish()
    }
}

/// Brings samples into the space that they are trained in.
struct Space {
    stored: ValueSpace,
    normalize: Normalize,
}

impl Space {
    fn of(info: &SourceInfo) -> Self {
        Self { stored: info.value_space, normalize: info.normalize }
    }

    fn bytes(&self, sample: Sample) -> Vec<u8> {
        let values = sample.into_normalized(&self.stored, &self.normalize);
        values.into_iter().flat_map(f32::to_le_bytes).collect()
    }
}

/// What a pickle says of a tensor.
struct Tensor {
    storage_class: &'static str,
    shape: Vec<usize>,
}

impl Tensor {
    fn images(info: &SourceInfo) -> Self {
        let [channels, height, width] = info.shape;
        Self { storage_class: "FloatStorage", shape: vec![info.num_samples, channels, height, width] }
    }

    fn labels(info: &SourceInfo, logits: bool) -> Self {
        if logits {
            Self { storage_class: "FloatStorage", shape: vec![info.num_samples, info.num_classes] }
        } else {
            Self { storage_class: "LongStorage", shape: vec![info.num_samples] }
        }
    }
}

/// A pickle of protocol 2, as `torch.save` writes it.
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    fn op(&mut self, opcodes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(opcodes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    /// LONG1, of eight bytes.
    fn integer(&mut self, value: usize) -> &mut Self {
        self.op(b"\x8a\x08").op(&(value as i64).to_le_bytes())
    }

    fn integers(&mut self, values: &[usize]) -> &mut Self {
        self.op(b"(");
        for value in values {
            self.integer(*value);
        }
        self.op(b"t")
    }

    /// `_rebuild_tensor_v2(storage, 0, shape, stride, False, OrderedDict())`.
    fn tensor(&mut self, key: &str, tensor: &Tensor) -> &mut Self {
        let mut stride = vec![1; tensor.shape.len()];
        for dimension in (1..tensor.shape.len()).rev() {
            stride[dimension - 1] = stride[dimension] * tensor.shape[dimension];
        }
        self.global("torch._utils", "_rebuild_tensor_v2").op(b"((");
        self.text("storage").global("torch", tensor.storage_class).text(key).text("cpu");
        self.integer(tensor.shape.iter().product()).op(b"tQK\0");
        self.integers(&tensor.shape)
            .integers(&stride)
            .op(b"\x89")
            .global("collections", "OrderedDict")
            .op(b")RtR")
    }

    fn finish(mut self) -> Vec<u8> {
        self.op(b".");
        self.0
    }
}

/// A zip container of `torch.save`, written from front to back.
struct Saved {
    path: PathBuf,
    zip: ZipWriter<BufWriter<File>>,
}

impl Saved {
    fn create(path: &Path, pickle: Vec<u8>) -> Result<Self> {
        let mut saved = Self { path: path.to_owned(), zip: ZipWriter::new(files::create(path)?) };
        saved.begin("data.pkl")?;
        saved.write(&pickle)?;
        saved.begin("byteorder")?;
        saved.write(b"little")?;
        Ok(saved)
    }

    fn begin(&mut self, name: &str) -> Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(true);
        let started = self.zip.start_file(format!("archive/{name}"), options);
        started.map_err(|e| Error::io(&self.path, "cannot write")(e.into()))
    }

    fn begin_storage(&mut self, key: &str) -> Result<()> {
        self.begin(&format!("data/{key}"))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.zip.write_all(bytes).map_err(Error::io(&self.path, "cannot write"))
    }

    fn finish(mut self) -> Result<()> {
        self.begin("version")?;
        self.write(b"3\n")?;
        let file = self.zip.finish().map_err(|e| Error::io(&self.path, "cannot write")(e.into()))?;
        files::close(&self.path, file)
    }
}
