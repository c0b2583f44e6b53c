//! Answers to what a batch asked other threads for.

use crate::{Error, Result};
use crossbeam::channel::{Receiver, Sender, unbounded};

/// The answers that a batch waits for, each for one of its slots.
pub(super) struct Replies<T> {
    sender: Sender<(usize, T)>,
    receiver: Receiver<(usize, T)>,
    asked: usize,
}

/// Who waits for an answer.
pub(super) struct Reply<T> {
    slot: usize,
    sender: Sender<(usize, T)>,
}

impl<T> Replies<T> {
    pub(super) fn new() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver, asked: 0 }
    }

    /// To be answered once.
    pub(super) fn ask(&mut self, slot: usize) -> Reply<T> {
        self.asked += 1;
        Reply { slot, sender: self.sender.clone() }
    }

    /// How many were asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Waits for the answers, in the order in which they come.
    ///
    /// # Errors
    /// The first of `each`; [`Error::Cancelled`] if one will never come: the loader is being dropped.
    pub(super) fn wait(self, mut each: impl FnMut(usize, T) -> Result<()>) -> Result<()> {
        let Self { sender, receiver, asked } = self;
        drop(sender);
        for _ in 0..asked {
            let (slot, answer) = receiver.recv().map_err(|_| Error::Cancelled)?;
            each(slot, answer)?;
        }
        Ok(())
    }
}

impl<T> Reply<T> {
    pub(super) fn answer(&self, answer: T) {
        // A worker that gave up on its batch listens no more.
        let _ = self.sender.send((self.slot, answer));
    }
}
