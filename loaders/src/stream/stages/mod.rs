//! What a batch passes through, in this order.

mod ahead;
mod fetch;
mod flying;
mod refine;

pub(super) use ahead::{Request, Standing};
pub(super) use fetch::Fetch;
pub(super) use flying::Flying;
pub(super) use refine::{LookAhead, Order, Refining, Signs};
