//! What every [`Sink`] must do, as checks that can be run against any of them.

use super::{Buffer, Sink, fault};
use std::panic::{AssertUnwindSafe, catch_unwind};

const THREADS: u8 = 4;
/// The sizes of whole batches and of smaller last ones.
const SIZES: [usize; 5] = [4096, 1, 63, 4095, 4096];

/// Runs every check against `sink`.
///
/// # Panics
/// With a message that names the rule broken.
pub fn check(sink: &dyn Sink) {
    if let Err(broken) = try_check(sink) {
        panic!("{broken}");
    }
}

/// As [`check`].
///
/// # Errors
/// The rule broken.
pub fn try_check(sink: &dyn Sink) -> Result<(), String> {
    fill(sink, 0)?;
    // Again: what was dropped may come back.
    fill(sink, 1)?;
    std::thread::scope(|scope| {
        let fill = |byte| scope.spawn(move || catch_unwind(AssertUnwindSafe(|| fill(sink, byte))));
        let threads: Vec<_> = (0..THREADS).map(|thread| fill(16 * (thread + 1))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(Ok(checked)) => checked,
            _ => Err("buffers can be taken on any thread".into()),
        })
    })
}

/// Takes buffers, fills each with a byte of its own from `first` on, and drops them on another thread.
fn fill(sink: &dyn Sink, first: u8) -> Result<(), String> {
    let mut buffers: Vec<Box<dyn Buffer>> = Vec::new();
    for (byte, len) in (first..).zip(SIZES) {
        let mut buffer =
            sink.take(len).map_err(|error| format!("there is memory for {len} bytes: {error}"))?;
        if let Some(fault) = fault(&*buffer, len) {
            return Err(fault);
        }
        buffer.bytes_mut().fill(byte);
        buffers.push(buffer);
    }
    for ((byte, len), buffer) in (first..).zip(SIZES).zip(&buffers) {
        if let Some(fault) = fault(&**buffer, len) {
            return Err(format!("a buffer stays as it is: {fault}"));
        }
        if buffer.bytes().iter().any(|found| *found != byte) {
            return Err(
                "a buffer belongs to whoever took it: another one was written to the same bytes".into()
            );
        }
    }
    let dropped = std::thread::spawn(move || drop(buffers)).join();
    dropped.map_err(|_| "buffers can be dropped on any thread".into())
}
