//! What leaves a loader.

use super::dtype::{Dtype, Element};
use super::layout::{Layout, MemoryFormat};
use super::sink::Buffer;
use crate::{Error, Result};

/// `B` samples, raw and refined mixed. Their images are normalised as the network is trained on them, unless they are
/// bytes ([`Dtype::Uint8`]).
#[derive(Debug)]
pub struct Batch {
    pub(super) buffer: Box<dyn Buffer>,
    pub(super) layout: Layout,
    pub(super) targets: Vec<f32>,
    pub(super) classes: usize,
    pub(super) labels: Vec<usize>,
    pub(super) indices: Vec<usize>,
    pub(super) refined: Vec<bool>,
    pub(super) slots: Vec<usize>,
    pub(super) is_held: bool,
}

impl Batch {
    /// The images, `[B, C, H, W]`, in the order of the loader's [`MemoryFormat`]. `T` is the type of its [`Dtype`]:
    /// `f32` unless the loader was told otherwise.
    ///
    /// ```
    /// use diver_loaders::{Dtype, Loader, MemorySource, f16};
    ///
    /// let set = MemorySource::unit(1, [1, 1, 1], vec![0.5], vec![0])?;
    /// let mut loader = Loader::builder(set).dtype(Dtype::Float16).build()?;
    /// let batch = loader.iter().next().unwrap()?;
    /// let images: &[f16] = batch.images()?;
    /// assert_eq!(images.len(), 1);
    /// assert!(batch.images::<f32>().is_err());
    /// # Ok::<(), diver_loaders::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] for `dtype` if the images have another type, and for `resident` if the batch comes without images
    /// ([`is_held`](Self::is_held)).
    pub fn images<T: Element>(&self) -> Result<&[T]> {
        self.check_type::<T>()?;
        Ok(T::of(self.buffer.bytes()))
    }

    /// The same values, to be changed in place.
    ///
    /// # Errors
    /// As [`images`](Self::images).
    pub fn images_mut<T: Element>(&mut self) -> Result<&mut [T]> {
        self.check_type::<T>()?;
        Ok(T::of_mut(self.buffer.bytes_mut()))
    }

    fn check_type<T: Element>(&self) -> Result<()> {
        let found = self.dtype();
        if self.is_held {
            let reason = "the program keeps the images of this batch itself: look them up by `slots`";
            return Err(Error::config("resident", reason));
        }
        if found == T::DTYPE {
            return Ok(());
        }
        let reason = format!("the images of this batch are {found}, but were asked for as {}", T::DTYPE);
        Err(Error::config("dtype", reason))
    }

    /// The images as bytes in the machine's own order: for programs that hand them on, whatever their type. There are none
    /// in a batch that [comes without images](Self::is_held).
    pub fn image_bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// The same bytes, to be changed in place.
    pub fn image_bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut()
    }

    /// What the loader's [`Sink`](super::sink::Sink) gave for the images. A program that knows the sink can ask for
    /// what is beside the bytes, as `&mut dyn Any`; a buffer that it leaves without bytes leaves the batch without
    /// images.
    pub fn buffer_mut(&mut self) -> &mut dyn Buffer {
        &mut *self.buffer
    }

    /// `[B, C, H, W]`, in every memory format.
    pub fn shape(&self) -> [usize; 4] {
        self.layout.shape
    }

    /// From one image, channel, row and column to the next, in values.
    pub fn strides(&self) -> [usize; 4] {
        self.layout.strides()
    }

    /// What the values of the images are.
    pub fn dtype(&self) -> Dtype {
        self.layout.dtype
    }

    /// The order of the images' values in memory.
    pub fn memory_format(&self) -> MemoryFormat {
        self.layout.memory_format
    }

    /// Number of samples, at least 1.
    #[allow(clippy::len_without_is_empty)] // A batch is never empty.
    pub fn len(&self) -> usize {
        self.layout.shape[0]
    }

    /// Target distributions, `[B, classes]` in row-major order; every row sums to 1. One-hot for hard labels,
    /// the softmax of logits at the loader's temperature otherwise.
    pub fn targets(&self) -> &[f32] {
        &self.targets
    }

    /// The same values, to be changed in place.
    pub fn targets_mut(&mut self) -> &mut [f32] {
        &mut self.targets
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The class of each sample: its hard label, or the position of its largest logit.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The position of each sample in its dataset.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Whether each sample came refined.
    pub fn refined(&self) -> &[bool] {
        &self.refined
    }

    /// A number for the image of each sample: equal slots have equal images in all batches of a loader that neither augments
    /// nor blends. With `V` [variants](super::LoaderBuilder::variants), sample `i` has the slots from `i * (1 + V)` on: the
    /// first for its raw image, and one for each refinement.
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Whether the batch comes without images, because the program keeps all of them itself
    /// ([`Loader::hold`](super::Loader::hold)).
    pub fn is_held(&self) -> bool {
        self.is_held
    }
}
