//! Where a batch's images are written.

use crate::{Error, Result};
use std::any::Any;
use std::fmt;

pub mod conformance;

/// Bytes on whose boundary a batch's images begin: a line of the processor's cache, as torch aligns its own.
pub const ALIGNMENT: usize = 64;

/// Gives a loader the memory that it writes images to, as pinned memory, or memory that is shared with another process.
/// A loader without a sink uses a pool of its own.
///
/// A loader asks for one buffer a batch, from several threads at once, and drops the buffer with the
/// [`Batch`](super::Batch): a sink that wants it back implements `Drop` for it. Beside the batches that were taken, at
/// most `prefetch + threads` buffers are in use. [`conformance::check`] is the suite that every implementation passes.
///
/// ```
/// use diver_loaders::stream::sink::{ALIGNMENT, Buffer, Sink, conformance};
/// use diver_loaders::{Loader, MemorySource, Result};
///
/// /// Fresh memory for every batch.
/// #[derive(Debug)]
/// struct Fresh;
///
/// #[derive(Debug)]
/// struct Bytes { room: Vec<u8>, len: usize }
///
/// impl Sink for Fresh {
///     fn take(&self, len: usize) -> Result<Box<dyn Buffer>> {
///         Ok(Box::new(Bytes { room: vec![0; len + ALIGNMENT], len }))
///     }
/// }
///
/// impl Buffer for Bytes {
///     fn bytes(&self) -> &[u8] {
///         let start = self.room.as_ptr().align_offset(ALIGNMENT);
///         &self.room[start..start + self.len]
///     }
///
///     fn bytes_mut(&mut self) -> &mut [u8] {
///         let start = self.room.as_ptr().align_offset(ALIGNMENT);
///         &mut self.room[start..start + self.len]
///     }
/// }
///
/// conformance::check(&Fresh);
/// let set = MemorySource::unit(2, [1, 1, 1], vec![0.5; 2], vec![0, 1])?;
/// let mut loader = Loader::builder(set).sink(Fresh).build()?;
/// assert_eq!(loader.iter().next().unwrap()?.images::<f32>()?.len(), 2);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
pub trait Sink: Send + Sync + fmt::Debug {
    /// Memory of exactly `len` bytes, at least 1, which may hold anything. A loader whose last batch is smaller asks
    /// for less.
    ///
    /// A thread that assembles batches calls this. It may wait, but dropping the loader waits for it.
    ///
    /// # Errors
    /// If there is no memory. The batch that it was for fails with the error.
    fn take(&self, len: usize) -> Result<Box<dyn Buffer>>;
}

/// Memory that a [`Sink`] gives: the same bytes in the same place whenever it is asked for them, from a multiple of
/// [`ALIGNMENT`] on.
pub trait Buffer: Any + Send + Sync + fmt::Debug {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// The same bytes, to be written.
    fn bytes_mut(&mut self) -> &mut [u8];
}

/// A buffer of a sink for a batch of `len` bytes.
///
/// # Errors
/// The sink's; [`Error::Config`] for `sink` if what it gives is not what was asked for.
pub(super) fn take(sink: &dyn Sink, len: usize) -> Result<Box<dyn Buffer>> {
    let buffer = sink.take(len)?;
    fault(&*buffer, len).map_or(Ok(buffer), |fault| Err(Error::config("sink", fault)))
}

/// What is wrong with a buffer of `len` bytes.
fn fault(buffer: &dyn Buffer, len: usize) -> Option<String> {
    let bytes = buffer.bytes();
    if bytes.len() != len {
        return Some(format!("expected a buffer of {len} bytes, found one of {}", bytes.len()));
    }
    let beyond = bytes.as_ptr().addr() % ALIGNMENT;
    (beyond != 0).then(|| {
        format!("a buffer must begin at a multiple of {ALIGNMENT} bytes, found one {beyond} bytes beyond it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    #[derive(Debug)]
    struct Part(Vec<u8>, Range<usize>);

    impl Buffer for Part {
        fn bytes(&self) -> &[u8] {
            &self.0[self.1.clone()]
        }

        fn bytes_mut(&mut self) -> &mut [u8] {
            &mut self.0[self.1.clone()]
        }
    }

    /// Gives buffers that are `longer` than asked for and begin `beyond` a boundary.
    #[derive(Debug)]
    struct Odd {
        longer: usize,
        beyond: usize,
    }

    impl Sink for Odd {
        fn take(&self, len: usize) -> Result<Box<dyn Buffer>> {
            let bytes = vec![0; len + 3 * ALIGNMENT];
            let start = bytes.as_ptr().align_offset(ALIGNMENT) + self.beyond;
            Ok(Box::new(Part(bytes, start..start + len + self.longer)))
        }
    }

    #[test]
    fn a_buffer_of_another_size_or_place_is_refused() {
        let refused = |longer, beyond| match take(&Odd { longer, beyond }, 12) {
            Err(Error::Config { option: "sink", reason }) => Some(reason),
            other => {
                assert_eq!(other.unwrap().bytes().len(), 12);
                None
            }
        };
        assert_eq!(refused(0, 0), None);
        assert!(refused(4, 0).unwrap().contains("12 bytes, found one of 16"));
        assert!(refused(0, 4).unwrap().contains("4 bytes beyond"));
    }

    #[test]
    fn the_suite_refuses_what_breaks_the_rules() {
        assert_eq!(conformance::try_check(&Odd { longer: 0, beyond: 0 }), Ok(()));
        assert!(conformance::try_check(&Odd { longer: 1, beyond: 0 }).unwrap_err().contains("bytes"));
        assert!(conformance::try_check(&Odd { longer: 0, beyond: 8 }).unwrap_err().contains("multiple"));
    }
}
