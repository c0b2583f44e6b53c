//! What a batch passes through, in this order.

mod ahead;
mod choose;
mod fetch;
mod flying;
mod label;
mod refine;
mod replies;
mod teach;

pub(super) use ahead::{Request, Standing};
pub(super) use choose::Chooser;
pub(super) use fetch::{Came, Fetch};
pub(super) use flying::Flying;
pub use label::Per;
pub(super) use label::{Draft, Labeller, Labelling, Taught};
pub(super) use refine::{LookAhead, Order, Refining, Signs};
pub(super) use teach::{Lesson, Teaching};
