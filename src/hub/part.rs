//! What is wanted of a repository.

/// The part of a repository that is wanted; nothing else is fetched, and nothing else has to be in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A diffusion model with everything beside it: autoencoder, scheduler, text encoder and tokenizer.
    Backbone,
    /// The same without the autoencoder, where another is used.
    DiffusionModel,
    /// An autoencoder: `vae/` of a diffusion model, or the one network of a repository that has no folders.
    Autoencoder,
}
