//! The readers under libFuzzer.

pub mod bounded;
mod readers;

use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

/// libFuzzer's entry to a reader.
#[macro_export]
macro_rules! target {
    ($reader:ident) => {
        #[global_allocator]
        static BOUNDED: $crate::bounded::Bounded = $crate::bounded::Bounded;

        libfuzzer_sys::fuzz_target!(init: $crate::prepare(), |bytes: &[u8]| {
            $crate::read(stringify!($reader), bytes)
        });
    };
}

/// What the last panic was.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Gives the bytes to the reader of a target.
pub fn read(target: &str, bytes: &[u8]) {
    let reader = readers::READERS.iter().find(|(name, _)| *name == target);
    let reader = reader.expect("each target has a reader").1;
    if std::panic::catch_unwind(|| reader(folder(), bytes)).is_err() {
        eprintln!("{}", PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        std::process::abort();
    }
}

/// One folder for a whole process.
fn folder() -> &'static Path {
    static FOLDER: LazyLock<tempfile::TempDir> =
        LazyLock::new(|| tempfile::tempdir().expect("a folder for the inputs can be made"));
    FOLDER.path()
}

/// libFuzzer's own hook ends the process at a panic, before the readers that answer those of a crate with an error can.
pub fn prepare() {
    std::panic::set_hook(Box::new(|panic| {
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
}
