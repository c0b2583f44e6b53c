//! The weights of a network in a torch file, read without executing it.

use super::super::tensor::{TensorFile, TensorRef};
use super::{file, words};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Where training scripts put weights beside other things, the averaged ones first: they are what is sampled from.
const NESTED: [&str; 3] = ["ema", "model", "state_dict"];

/// The tensors of a network as `torch.save` wrote them: its `state_dict()`, or a training's checkpoint with that under
/// `ema`, `model` or `state_dict`. None is read before it is asked for.
///
/// ```no_run
/// use diver_loaders::StateDict;
///
/// let weights = StateDict::open("DiT-XL-2-256x256.pt")?;
/// assert_eq!(weights.shape("x_embedder.proj.weight"), Some(&[1152, 4, 2, 2][..]));
/// let bias: Vec<f32> = weights.read("x_embedder.proj.bias")?;
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Debug)]
pub struct StateDict {
    file: TensorFile,
    tensors: BTreeMap<String, TensorRef>,
}

impl StateDict {
    /// Whether a file that begins with `head` may be one of `torch.save` or a pickle; 8 bytes tell.
    #[must_use]
    pub fn is_torch(head: &[u8]) -> bool {
        file::is_torch(head) || file::is_pickle(head)
    }

    /// Opens a file of `torch.save`, or a pickle of numpy arrays. Whatever lies beside the tensors is passed over:
    /// settings, optimizers, objects of any class. No code is run.
    ///
    /// # Errors
    /// If it is no such file, is damaged, or holds no dict with tensors.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, pickle) = file::open(path)?;
        let root = pickle.root();
        let nested = NESTED.into_iter().filter_map(|name| root.get(name));
        let mut found = nested.chain([root]).map(|dict| {
            let entries = dict.entries().into_iter().flatten();
            let tensors =
                entries.filter_map(|(key, value)| Some((key.to_owned(), value.as_tensor()?.clone())));
            tensors.collect::<BTreeMap<_, _>>()
        });
        match found.find(|tensors| !tensors.is_empty()) {
            Some(tensors) => Ok(Self { file, tensors }),
            None => Err(words::unexpected(path, "", root, "the weights of a network, a dict of tensors")),
        }
    }

    /// Names and shapes, in the names' order.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()))
    }

    /// The shape of the tensor of that name.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(TensorRef::shape)
    }

    /// The values of a tensor in row-major order, whatever number they are stored as.
    ///
    /// # Errors
    /// If there is none of that name, or its data is damaged.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::field(self.file.path(), name, "there is no tensor of that name"))?;
        self.file.read(tensor, name)
    }
}
