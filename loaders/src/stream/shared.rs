//! What the threads of a loader share.

use super::background::Background;
use super::dtype::Dtype;
use super::held::Held;
use super::layout::MemoryFormat;
use super::options::OnMiss;
use super::pick::Chosen;
use super::plan::Plan;
use super::progress::Watch;
use super::sink::Sink;
use super::skip::Skipping;
use super::stages::{Flying, Labelling, Standing};
use crate::CancelToken;
use crate::cache::Resident;
use crate::planes::Scale;
use crate::refine::{Dataset, Refinement};
use crate::stats::Counters;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What the threads share.
pub(super) struct Shared {
    pub(super) dataset: Arc<Dataset>,
    pub(super) store: Arc<Resident>,
    pub(super) counters: Arc<Counters>,
    pub(super) plan: Plan,
    pub(super) skipping: Skipping,
    pub(super) on_miss: OnMiss,
    pub(super) labelling: Labelling,
    /// Which images the program keeps itself, where it may.
    pub(super) held: Option<Held>,
    pub(super) dtype: Dtype,
    pub(super) memory_format: MemoryFormat,
    pub(super) sink: Box<dyn Sink>,
    pub(super) cancel: CancelToken,
    pub(super) background: Background,
    pub(super) standing: Standing,
    pub(super) flying: Flying,
    pub(super) watch: Watch,
    pub(super) chosen: Chosen,
    /// How much the teacher is to look at.
    pub(super) teaching: AtomicUsize,
    pub(super) scale: Scale,
}

impl Shared {
    /// A number for each refinement, from 0 on.
    pub(super) fn number(&self, Refinement { index, variant }: Refinement) -> usize {
        index * self.plan.variants as usize + variant as usize
    }
}
