//! Memory from Python as where batches are written.

use crate::adapter::ThreadState;
use crossbeam::queue::SegQueue;
use diver_loaders::stream::sink::{Buffer, Sink};
use diver_loaders::{Error, Result};
use diver_python::errors::Class;
use pyo3::prelude::*;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory that a Python function gives: `allocate(size)` returns an object, the address of its first byte, and the
/// number of its bytes.
///
/// A consumer that takes a batch gets the object that its images were written to. The sink never writes to such an object
/// again, so the consumer may keep it, or drop it while a device still copies from it. The memory of batches that no
/// consumer took is used again.
///
/// An assembling thread calls Python only if no memory is at hand, which is so for the first batches. From then on,
/// [`refill`](Self::refill) replaces the memory of each batch that is taken, on the consumer's thread, which holds the
/// interpreter already. There is no deadlock: a consumer lets the interpreter go while it waits for a batch.
#[derive(Clone)]
pub struct PySink(Arc<Shared>);

struct Shared {
    allocate: Py<PyAny>,
    /// The memory at hand.
    rooms: SegQueue<Room>,
    /// The most bytes that a batch has had so far.
    largest: AtomicUsize,
}

/// A Python object with memory.
struct Room {
    object: Py<PyAny>,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to `object`, which may be dropped on any thread, and nothing but this refers to it.
unsafe impl Send for Room {}
// SAFETY: a shared room is only read.
unsafe impl Sync for Room {}

impl PySink {
    /// A sink of `allocate`.
    pub fn new(allocate: Py<PyAny>) -> Self {
        Self(Arc::new(Shared { allocate, rooms: SegQueue::new(), largest: AtomicUsize::new(0) }))
    }

    /// Allocates memory for one batch, in place of that of a batch that was taken.
    pub fn refill(&self, py: Python<'_>) {
        // An error is not lost: the thread that needs the memory tries again, and reports it.
        if let Ok(room) = self.0.allocate(py, self.0.largest.load(Ordering::Relaxed)) {
            self.0.rooms.push(room);
        }
    }

    /// Drops the memory at hand.
    pub fn release(&self) {
        while self.0.rooms.pop().is_some() {}
    }
}

impl Shared {
    fn allocate(&self, py: Python<'_>, len: usize) -> PyResult<Room> {
        let (object, address, found): (Py<PyAny>, usize, usize) =
            self.allocate.bind(py).call1((len,))?.extract()?;
        let start = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(address));
        match start {
            Some(start) if found >= len => Ok(Room { object, start, len: found }),
            _ => Err(Class::Internal.error(py, format!("{len} bytes were asked for, and {found} given"))),
        }
    }
}

impl Sink for PySink {
    fn take(&self, len: usize) -> Result<Box<dyn Buffer>> {
        let largest = self.0.largest.fetch_max(len, Ordering::Relaxed).max(len);
        let fitting = std::iter::from_fn(|| self.0.rooms.pop()).find(|room| room.len >= len);
        let room = match fitting {
            Some(room) => room,
            None => Python::try_attach(|py| {
                ThreadState::keep(py);
                self.0.allocate(py, largest).map_err(|error| {
                    Error::config("pin_memory", format!("there is no memory for {largest} bytes: {error}"))
                })
            })
            // No interpreter any more: the process ends.
            .unwrap_or(Err(Error::Cancelled))?,
        };
        Ok(Box::new(PyBuffer { room: Some(room), len, shared: Arc::clone(&self.0) }))
    }
}

impl fmt::Debug for PySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PySink").field("at_hand", &self.0.rooms.len()).finish_non_exhaustive()
    }
}

/// The memory of a batch. It has no bytes any more once its object was handed over.
pub struct PyBuffer {
    room: Option<Room>,
    len: usize,
    shared: Arc<Shared>,
}

impl PyBuffer {
    /// The object with the memory, once.
    pub fn hand_over(&mut self) -> Option<Py<PyAny>> {
        self.room.take().map(|room| room.object)
    }
}

impl Buffer for PyBuffer {
    fn bytes(&self) -> &[u8] {
        match &self.room {
            // SAFETY: the object, which is alive, has at least `len` bytes there, and was handed to nobody.
            Some(room) => unsafe { std::slice::from_raw_parts(room.start.as_ptr(), self.len) },
            None => &[],
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.room {
            // SAFETY: as above, and nothing else refers to the bytes.
            Some(room) => unsafe { std::slice::from_raw_parts_mut(room.start.as_ptr(), self.len) },
            None => &mut [],
        }
    }
}

impl Drop for PyBuffer {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            self.shared.rooms.push(room);
        }
    }
}

impl fmt::Debug for PyBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PyBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}
