//! Stable Diffusion: a UNet, and the text encoder and tokenizer whose prompts it denoises to.

use super::clip::{ClipConfig, ClipText};
use super::config::read_json;
use super::tokenizer::ClipTokenizer;
use super::unet::{Unet, UnetConfig, UnetContext};
use super::weights::{Place, Weights};
use crate::method::{Denoiser, Prediction, classifier_free};
use crate::{Error, Result};
use diver_loaders::Digest;
use diver_loaders::cache::Fingerprint;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Prompts whose embeddings are kept: 30 MB in bf16 for Stable Diffusion v1.5.
const KEPT: usize = 256;

/// Prompts that go through the text encoder at a time.
const AT_ONCE: usize = 64;

/// The networks of Stable Diffusion v1.5 (or v1.x, or v2 if it predicts the noise), without the autoencoder.
///
/// ```no_run
/// use diver::backbone::StableDiffusion;
/// use diver::method::Denoiser;
/// use tch::{Device, Kind, Tensor};
///
/// let folder = "stable-diffusion-v1-5".as_ref();
/// let networks = StableDiffusion::from_folder(folder, Device::Cpu, Kind::Float)?;
/// let net = networks.guided(&["a photo of a tench"], 7.5)?;
/// let z = Tensor::randn([1, 4, 64, 64], (Kind::Float, Device::Cpu));
/// assert_eq!(net.predict(&z, 981)?.eps.size(), [1, 4, 64, 64]);
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct StableDiffusion {
    unet: Unet,
    text: ClipText,
    tokenizer: ClipTokenizer,
    digest: Option<Digest>,
    embeddings: RefCell<Embeddings>,
}

impl StableDiffusion {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`Error::Knob`] if they are not made for each other; it names the field of a configuration.
    pub fn new(unet: Unet, text: ClipText, tokenizer: ClipTokenizer) -> Result<Self> {
        check_made_for_each_other(unet.config(), text.config(), &tokenizer)?;
        let embeddings = RefCell::new(Embeddings::new(KEPT));
        Ok(Self { unet, text, tokenizer, digest: None, embeddings })
    }

    /// Reads `unet/`, `text_encoder/` and `tokenizer/` of a diffusers folder, weights once all else was found to fit. The
    /// UNet computes in `kind`, the text encoder in f32.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] names the file that is missing or damaged and, for weights, the keys that
    /// are missing, unknown or of another shape.
    pub fn from_folder(folder: &Path, device: Device, kind: Kind) -> Result<Self> {
        Unread::open(folder)?.read(device, kind)
    }

    /// The UNet.
    #[must_use]
    pub fn unet(&self) -> &Unet {
        &self.unet
    }

    /// The text encoder.
    #[must_use]
    pub fn text(&self) -> &ClipText {
        &self.text
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &ClipTokenizer {
        &self.tokenizer
    }

    /// Hash of the weight files, of what is read from the configurations, and of the tokenizer; `None` for parts
    /// that came from memory.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// A denoiser for these prompts, one a latent, with classifier-free guidance on all channels away from the empty
    /// prompt; a scale of 1 leaves the unconditional half out.
    ///
    /// # Errors
    /// [`Error::Conditioning`] if there is no prompt, or a prompt cannot be tokenized.
    pub fn guided(&self, prompts: &[&str], scale: f64) -> Result<GuidedPrompts<'_>> {
        if prompts.is_empty() {
            let (conditioning, reason) = ("no prompt".to_owned(), "one is needed for each image".to_owned());
            return Err(Error::Conditioning { conditioning, reason });
        }
        let _no_grad = tch::no_grad_guard();
        let is_guided = scale != 1.0;
        let mut rows = prompts.to_vec();
        if is_guided {
            rows.resize(2 * prompts.len(), "");
        }
        // Most batches show few classes: what depends on the prompt alone is computed once for each.
        let mut distinct = rows.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let of_row: Vec<usize> =
            rows.iter().map(|prompt| distinct.binary_search(prompt).unwrap_or(0)).collect();
        let context = self.unet.context(&self.embeddings(&distinct)?, Some(&of_row))?;
        let batch = prompts.len() as i64;
        Ok(GuidedPrompts { unet: &self.unet, context, batch, scale: is_guided.then_some(scale) })
    }

    /// Embeddings of distinct prompts, `[U, tokens, width]`, in the UNet's dtype.
    fn embeddings(&self, prompts: &[&str]) -> Result<Tensor> {
        let mut kept = self.embeddings.borrow_mut();
        let new: Vec<&str> = prompts.iter().copied().filter(|prompt| !kept.contains(prompt)).collect();
        for prompts in new.chunks(AT_ONCE) {
            let embedded = self.text.forward(&self.ids(prompts)?)?.f_to_kind(self.unet.kind())?;
            for (i, prompt) in prompts.iter().enumerate() {
                // A copy: a view would keep all others of its batch alive.
                kept.insert(prompt, embedded.f_select_copy(0, i as i64)?);
            }
        }
        let found: Vec<Tensor> = prompts.iter().filter_map(|prompt| kept.get(prompt)).collect();
        kept.trim();
        Ok(Tensor::f_stack(&found, 0)?)
    }

    fn ids(&self, prompts: &[&str]) -> Result<Tensor> {
        let mut ids = Vec::with_capacity(prompts.len() * self.tokenizer.length());
        for prompt in prompts {
            let (of_prompt, rest) = self.tokenizer.ids_and_rest(prompt)?;
            if rest > 0 {
                tracing::warn!("the prompt `{prompt}` is too long: its last {rest} tokens are not seen");
            }
            ids.extend(of_prompt);
        }
        Ok(Tensor::f_from_slice(&ids)?.f_view([prompts.len() as i64, -1])?)
    }
}

/// A folder of Stable Diffusion whose configurations and tokenizer are read and fit; its weights are not read yet.
#[derive(Debug)]
pub(crate) struct Unread {
    folder: PathBuf,
    unet: UnetConfig,
    text: ClipConfig,
    tokenizer: ClipTokenizer,
}

impl Unread {
    /// Reads all but the weights of `unet/`, `text_encoder/` and `tokenizer/`.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::file(folder, "there is no such folder"));
        }
        check_one_text_encoder(folder)?;
        let (unet, text) = (folder.join("unet/config.json"), folder.join("text_encoder/config.json"));
        let unet_config: UnetConfig = read_json(&unet)?;
        unet_config.check(&unet)?;
        let text_config: ClipConfig = read_json(&text)?;
        text_config.check(&text)?;
        let tokenizer = ClipTokenizer::from_folder(&folder.join("tokenizer"))?;
        check_made_for_each_other(&unet_config, &text_config, &tokenizer)
            .map_err(|error| Error::file(folder, error.to_string()))?;
        Ok(Self { folder: folder.to_owned(), unet: unet_config, text: text_config, tokenizer })
    }

    /// The sizes of the UNet.
    pub(super) fn unet(&self) -> &UnetConfig {
        &self.unet
    }

    /// Reads the weights. The UNet computes in `kind`, the text encoder in f32.
    pub(super) fn read(self, device: Device, kind: Kind) -> Result<StableDiffusion> {
        let _no_grad = tch::no_grad_guard();
        let Self { folder, unet, text, tokenizer } = self;
        let text_weights = Weights::read_folder(&folder.join("text_encoder"))?;
        let unet_weights = Weights::read_folder(&folder.join("unet"))?;
        let digest =
            digest_of((&unet, unet_weights.digest()), (&text, text_weights.digest()), tokenizer.digest());
        let text = ClipText::new(text, text_weights, Place { device, kind: Kind::Float })?;
        let unet = Unet::new(unet, unet_weights, Place { device, kind })?;
        Ok(StableDiffusion { digest: Some(digest), ..StableDiffusion::new(unet, text, tokenizer)? })
    }
}

/// Refuses the folder of a model with a further text encoder, as SDXL is one.
fn check_one_text_encoder(folder: &Path) -> Result<()> {
    let path = folder.join("model_index.json");
    if !path.is_file() {
        return Ok(());
    }
    let parts: Map<String, Value> = read_json(&path)?;
    // What a model does without is listed as [null, null].
    if parts.get("text_encoder_2").is_some_and(|class| class[0].is_string()) {
        return Err(Error::file(&path, "text_encoder_2: a second text encoder is not supported"));
    }
    Ok(())
}

/// Refuses parts of different models; the field of a configuration is named.
fn check_made_for_each_other(unet: &UnetConfig, text: &ClipConfig, tokenizer: &ClipTokenizer) -> Result<()> {
    let refuse = |field, reason: String| Err(Error::knob(field, reason));
    if unet.in_channels != unet.out_channels {
        let (inputs, outputs) = (unet.in_channels, unet.out_channels);
        return refuse("in_channels", format!("{inputs} are not the {outputs} of the noise that comes out"));
    }
    if unet.cross_attention_dim != text.hidden_size {
        let (width, theirs) = (unet.cross_attention_dim, text.hidden_size);
        return refuse(
            "cross_attention_dim",
            format!("{width} is not the text encoder's hidden_size {theirs}"),
        );
    }
    let (length, positions) = (tokenizer.length(), text.max_position_embeddings);
    if length as i64 > positions {
        return refuse("model_max_length", format!("{length} exceeds max_position_embeddings {positions}"));
    }
    let (largest, known) = (tokenizer.largest_id(), text.vocab_size);
    if i64::from(largest) >= known {
        return refuse("vocab_size", format!("the text encoder's {known} has no token {largest}"));
    }
    Ok(())
}

/// Hash of the canonical JSON of the parts; caches are found by it, so it must never change.
fn digest_of(
    (unet, unet_weights): (&UnetConfig, Option<Digest>),
    (text, text_weights): (&ClipConfig, Option<Digest>),
    tokenizer: Digest,
) -> Digest {
    let parts = serde_json::json!({
        "unet": {"config": unet, "weights": unet_weights},
        "text_encoder": {"config": text, "weights": text_weights},
        "tokenizer": tokenizer,
    });
    Fingerprint::new(&parts).digest()
}

/// Embeddings of the prompts of this batch and earlier ones, the longest unused first.
#[derive(Debug)]
struct Embeddings {
    entries: Vec<(String, Tensor)>,
    most: usize,
}

impl Embeddings {
    fn new(most: usize) -> Self {
        Self { entries: Vec::new(), most }
    }

    fn contains(&self, prompt: &str) -> bool {
        self.entries.iter().any(|(known, _)| known == prompt)
    }

    fn insert(&mut self, prompt: &str, embedding: Tensor) {
        self.entries.push((prompt.to_owned(), embedding));
    }

    fn get(&mut self, prompt: &str) -> Option<Tensor> {
        let position = self.entries.iter().position(|(known, _)| known == prompt)?;
        let entry = self.entries.remove(position);
        let found = entry.1.shallow_clone();
        self.entries.push(entry);
        Some(found)
    }

    /// Forgets what is too much.
    fn trim(&mut self) {
        let surplus = self.entries.len().saturating_sub(self.most);
        self.entries.drain(..surplus);
    }
}

/// A [`StableDiffusion`] with the prompts of a batch and classifier-free guidance ([`StableDiffusion::guided`]).
#[derive(Debug)]
pub struct GuidedPrompts<'a> {
    unet: &'a Unet,
    /// The batch's prompts, then the empty ones of its unconditional half if there is one.
    context: UnetContext,
    batch: i64,
    scale: Option<f64>,
}

impl Denoiser for GuidedPrompts<'_> {
    fn predict(&self, z: &Tensor, tau: i64) -> Result<Prediction> {
        let (batch, channels) = (self.batch, self.unet.config().in_channels);
        if z.size().first() != Some(&batch) {
            let expected = format!("[{batch}, {channels}, h, w]");
            return Err(Error::tensor("latents", expected, format!("{:?}", z.size())));
        }
        let t = Tensor::f_full([1], tau, (Kind::Float, self.unet.device()))?;
        let eps = match self.scale {
            None => self.unet.forward_in(z, &t, &self.context)?.f_to_kind(Kind::Float)?,
            Some(scale) => {
                let out = self.unet.forward_in(&Tensor::f_cat(&[z, z], 0)?, &t, &self.context)?;
                let out = out.f_to_kind(Kind::Float)?;
                let (cond, uncond) = (out.f_narrow(0, 0, batch)?, out.f_narrow(0, batch, batch)?);
                classifier_free(&cond, &uncond, scale, usize::try_from(channels).unwrap_or(0))?
            }
        };
        Ok(Prediction { eps, variance: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_the_networks_stays() {
        let of = |weights: &[u8], unet: &UnetConfig| {
            let weights = Some(Digest::of(weights));
            digest_of((unet, weights), (&ClipConfig::default(), weights), Digest::of(b"tokenizer"))
        };
        let digest = of(b"weights", &UnetConfig::default());
        assert_eq!(digest.to_string(), "f7f4d000bc4e81f17fbb271eea6b6bdbe1abacc0265790ff5c767de522ca0949");
        assert_ne!(digest, of(b"others", &UnetConfig::default()));
        let other = UnetConfig { cross_attention_dim: 768, ..UnetConfig::default() };
        assert_ne!(digest, of(b"weights", &other));
    }

    #[test]
    fn the_longest_unused_prompts_are_forgotten() {
        let mut kept = Embeddings::new(2);
        for prompt in ["a", "b", "c"] {
            kept.insert(prompt, Tensor::new());
        }
        assert!(kept.get("a").is_some() && kept.get("d").is_none());
        kept.trim();
        assert_eq!(["a", "b", "c"].map(|prompt| kept.contains(prompt)), [true, false, true]);
    }
}
