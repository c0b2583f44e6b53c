//! The memory that a reader may ask for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;

/// The most bytes that a reader may ask for at once, for a file of 64 KiB or less. A compressed image is by far
/// the largest thing that so small a file can hold.
const LARGEST_ALLOCATION: usize = 256 << 20;

/// The system's allocator, which ends the process at a request that is too large.
#[allow(
    unreachable_pub,
    reason = "the crate of the targets gives it out, and a test uses this file by its path"
)]
pub struct Bounded;

fn check(size: usize) {
    if size > LARGEST_ALLOCATION {
        // Not by a macro: the output of tests is held back until they end.
        let _ = writeln!(std::io::stderr(), "an allocation of {size} bytes");
        std::process::abort();
    }
}

// SAFETY: everything is passed on.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}
