//! The `diver` command, with refiners on libtorch.

use diver::{CancelToken, TchHost};
use std::process::ExitCode;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let filter = std::env::var("RUST_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time().with_target(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN)))
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
    diver_loaders::cli::run(std::env::args_os(), &TchHost, &cancel).into()
}
