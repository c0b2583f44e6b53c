//! What is said once in a process, however many loaders have reason to say it.

use crate::Digest;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

static SAID: Mutex<Option<HashSet<Digest>>> = Mutex::new(None);

/// Warns of `message`, unless this process has done so before: a program may make a loader for every setting it tries,
/// or for every rank.
pub(crate) fn warn_once(message: &str) {
    // A panic while it was locked has left a set, with this message or without.
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let is_new = said.get_or_insert_default().insert(Digest::of(message.as_bytes()));
    // Whoever hears of it may make a loader.
    drop(said);
    if is_new {
        tracing::warn!("{message}");
    }
}
