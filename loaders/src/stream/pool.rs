//! Buffers that are used again.

use crate::{Error, Result};
use crossbeam::queue::ArrayQueue;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Keeps buffers of dropped batches for the next ones: a fresh allocation of this size is mapped and zeroed by
/// the system every time.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<ArrayQueue<Vec<f32>>>);

impl Pool {
    /// A pool that keeps up to `capacity` buffers.
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(ArrayQueue::new(capacity.max(1))))
    }

    /// A buffer of `len` values, which may hold anything.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub(super) fn take(&self, len: usize) -> Result<Buffer> {
        let mut values = self.0.pop().unwrap_or_default();
        values.try_reserve(len.saturating_sub(values.len())).map_err(|_| {
            let reason = format!("there is no memory for the {len} values of a batch: make it smaller");
            Error::config("batch_size", reason)
        })?;
        values.resize(len, 0.0);
        Ok(Buffer { values, pool: Arc::clone(&self.0) })
    }
}

/// A buffer that returns to its pool when dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    values: Vec<f32>,
    pool: Arc<ArrayQueue<Vec<f32>>>,
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A full pool has enough buffers already.
        let _ = self.pool.push(std::mem::take(&mut self.values));
    }
}
