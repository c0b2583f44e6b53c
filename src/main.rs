//! The `diver` command, with refiners on libtorch.

use diver::{CancelToken, TchFactory};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let interrupt = ctrlc::set_handler(move || {
        // The first Ctrl-C lets the current step end and the cache close; a second one does not wait.
        if token.is_cancelled() {
            std::process::exit(130);
        }
        token.cancel();
    });
    if let Err(error) = interrupt {
        tracing::warn!("Ctrl-C ends the program at once: {error}");
    }
    diver_loaders::cli::run(std::env::args_os(), &TchFactory, &cancel).into()
}
