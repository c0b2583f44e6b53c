//! Memory that was freed goes back to the system.

/// Has the allocator give back what it keeps in reserve. glibc keeps blocks below 32 MB, and a network is made of such:
/// of a released DiT-XL/2, nearly all would stay with the process.
pub(crate) fn trim() {
    // SAFETY: it takes no pointers, and may be called at any time, by any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}
