//! The cache's promises under kills, crowds, damage and failing stores.
//!
//! A process that is killed, or that lives on a full disk, is this test binary once more: see [`child`]. Sizes are small
//! by default and full with `DIVER_CRASH=full` (`make test-crash`): see [`sizes`]. Random choices come from a seed that
//! is printed; `DIVER_CRASH_SEED` repeats it.
#![cfg(unix)]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[cfg(feature = "cloud")]
mod bucket;
mod child;
mod clocks;
mod crowd;
mod damage;
mod disk;
mod heard;
mod kills;
mod outage;
mod place;
#[cfg(feature = "cloud")]
mod proxy;
mod serving;
mod sizes;
mod stub;
mod switched;
