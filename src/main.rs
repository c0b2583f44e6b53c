//! The `diver` command, with refiners on libtorch.

use diver::{Knobs, Refiner};
use diver_loaders::cli::{RefinerArgs, RefinerFactory};
use diver_loaders::{CancelToken, Error, Refine, Result};
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
    diver_loaders::cli::run(std::env::args_os(), &TchFactory, &cancel)
}

struct TchFactory;

impl RefinerFactory for TchFactory {
    fn build(&self, args: &RefinerArgs) -> Result<Box<dyn Refine>> {
        let mut builder =
            Refiner::builder(&args.backbone).device(&args.device).dtype(&args.dtype).knobs(knobs(args)?);
        if let Some(images) = args.refine_batch {
            builder = builder.batch_size(images);
        }
        Ok(Box::new(builder.build()?))
    }
}

fn knobs(args: &RefinerArgs) -> Result<Knobs> {
    let mut builder = match &args.preset {
        Some(name) => Knobs::preset(name)?,
        None => Knobs::builder(),
    };
    // An option that was given is set; its text is parsed by the type that it has in `Knobs`.
    macro_rules! set {
        ($($knob:ident),*) => { $(if let Some(value) = args.$knob { builder = builder.$knob(value); })* };
    }
    macro_rules! parse {
        ($($knob:ident),*) => { $(if let Some(text) = &args.$knob { builder = builder.$knob(text.parse()?); })* };
    }
    set!(steps, t_f, gamma, cfg_scale, cfg_channels, refine_seed);
    parse!(mode, sigma, chain, start, window_ends, gradient);
    if let Some(window) = &args.window {
        let [high, low] = window[..] else {
            return Err(Error::config("window", "two steps are expected, as in --window 40,25"));
        };
        builder = builder.window(high, low);
    }
    Ok(builder.build()?)
}
