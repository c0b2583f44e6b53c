//! Buffers that are used again.

use super::sink::{ALIGNMENT, Buffer, Sink};
use crate::{Error, Result};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Keeps buffers of dropped batches for the next ones: a fresh allocation of this size is mapped and zeroed by
/// the system every time.
#[derive(Debug)]
pub(super) struct Pool(Arc<ArrayQueue<Vec<u8>>>);

impl Pool {
    /// A pool that keeps up to `capacity` buffers.
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(ArrayQueue::new(capacity.max(1))))
    }
}

impl Sink for Pool {
    fn take(&self, len: usize) -> Result<Box<dyn Buffer>> {
        let mut room = self.0.pop().unwrap_or_default();
        // Wherever it begins, there is a boundary within the first bytes.
        let needed = len.saturating_add(ALIGNMENT - 1);
        if room.len() < needed {
            room.try_reserve_exact(needed - room.len()).map_err(|_| {
                let reason = format!("there is no memory for the {len} bytes of a batch: make it smaller");
                Error::config("batch_size", reason)
            })?;
            room.resize(needed, 0);
        }
        let start = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1);
        Ok(Box::new(Pooled { room, start, len, pool: Arc::clone(&self.0) }))
    }
}

/// A buffer that returns to its pool when dropped.
#[derive(Debug)]
struct Pooled {
    /// Not moved in memory as long as it does not grow.
    room: Vec<u8>,
    /// Where the buffer begins in it.
    start: usize,
    len: usize,
    pool: Arc<ArrayQueue<Vec<u8>>>,
}

impl Buffer for Pooled {
    fn bytes(&self) -> &[u8] {
        &self.room[self.start..][..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..][..self.len]
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // A full pool has enough buffers already.
        let _ = self.pool.push(std::mem::take(&mut self.room));
    }
}

#[cfg(test)]
mod tests {
    use super::super::sink::conformance;
    use super::*;

    #[test]
    fn it_is_a_sink() {
        conformance::check(&Pool::new(3));
    }

    #[test]
    fn what_was_dropped_is_used_again() {
        let pool = Pool::new(1);
        let first = pool.take(1000).unwrap();
        let place = first.bytes().as_ptr();
        let second = pool.take(1000).unwrap();
        assert_ne!(second.bytes().as_ptr(), place);
        drop(first);
        // Beyond its capacity.
        drop(second);
        for len in [1000, 10, 1000] {
            assert_eq!(pool.take(len).unwrap().bytes().as_ptr(), place, "{len} bytes");
        }
    }

    #[test]
    fn too_much_is_an_error() {
        for len in [usize::MAX, usize::MAX / 2] {
            assert!(matches!(Pool::new(1).take(len), Err(Error::Config { option: "batch_size", .. })));
        }
    }
}
