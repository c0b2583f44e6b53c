//! CLIP's tokenizer: a prompt as the ids that the text encoder knows.

use super::config::read_json;
use crate::{Error, Result};
use diver_loaders::Digest;
use diver_loaders::cache::Fingerprint;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, NormalizerWrapper, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

/// Tokens of a prompt, where no file says otherwise.
const LENGTH: usize = 77;
/// A length beyond this is transformers' way to say that there is none.
const LONGEST: f64 = 65536.0;

/// What ends the last token of a word.
const WORD_END: &str = "</w>";

/// Words as CLIP sees them: special tokens, English endings, letters, single digits, anything else but space.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP's byte-level tokenizer, as transformers' `CLIPTokenizer` does it: Unicode NFC, one space for many, lower
/// case, words, bytes, merges; a token that starts the prompt, one that ends it, and padding up to
/// [`length`](Self::length).
///
/// ```no_run
/// use diver::backbone::ClipTokenizer;
///
/// let tokenizer = ClipTokenizer::from_folder("stable-diffusion-v1-5/tokenizer".as_ref())?;
/// let ids = tokenizer.ids("a photo of a tench")?;
/// assert_eq!((ids.len(), ids[0], ids[76]), (77, 49406, 49407));
/// # Ok::<(), diver::Error>(())
/// ```
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    length: usize,
    first: u32,
    last: u32,
    padding: u32,
    largest: u32,
    digest: Digest,
}

/// A special token, as `special_tokens_map.json` and `tokenizer_config.json` describe it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Special {
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
}

/// Every special token by its field, with CLIP's own. transformers adds them in this order, and the last one of a
/// name decides how it is matched.
const SPECIALS: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
];

impl ClipTokenizer {
    /// Reads the folder `tokenizer` of a diffusers model: `vocab.json` and `merges.txt`, or `tokenizer.json` with
    /// both in it; special tokens and the length from `special_tokens_map.json` and `tokenizer_config.json` if they
    /// are there. Tokens that were added to CLIP's vocabulary later are not known.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] names the file that is missing or damaged.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let (source, vocab, merges) = read_model(folder)?;
        let read = |name: &str| -> Result<Map<String, Value>> {
            let path = folder.join(name);
            if path.is_file() { read_json(&path) } else { Ok(Map::new()) }
        };
        let (config, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        let specials = specials(&config, &map).map_err(|reason| Error::file(folder, reason))?;
        let length = match config.get("model_max_length").and_then(Value::as_f64) {
            Some(length) if length < 2.0 => {
                return Err(Error::file(
                    folder,
                    format!("model_max_length {length} has no room for a prompt"),
                ));
            }
            Some(length) if length <= LONGEST => length as usize,
            _ => LENGTH,
        };
        Self::new(&source, vocab, merges, &specials, length)
    }

    fn new(
        source: &Path,
        vocab: BTreeMap<String, u32>,
        merges: Merges,
        specials: &[Special; 4],
        length: usize,
    ) -> Result<Self> {
        let refuse = |reason: String| Error::file(source, reason);
        let id = |special: &Special| {
            vocab.get(&special.content).copied().ok_or_else(|| {
                refuse(format!("`{}`, a special token, is not in the vocabulary", special.content))
            })
        };
        let [first, last, _, padding] =
            [id(&specials[0])?, id(&specials[1])?, id(&specials[2])?, id(&specials[3])?];
        // The library takes it for granted that a merge makes a token.
        for (left, right) in &merges {
            let whole = format!("{left}{right}");
            if let Some(token) = [left, right, &whole].into_iter().find(|token| !vocab.contains_key(*token)) {
                return Err(refuse(format!(
                    "`{token}`, of merge `{left} {right}`, is not in the vocabulary"
                )));
            }
        }
        let parts = serde_json::json!({
            "vocab": &vocab, "merges": &merges, "length": length,
            "special": specials.iter().map(|token| (&token.content, token.flags())).collect::<Vec<_>>(),
        });
        let digest = Fingerprint::new(&parts).digest();
        let largest = vocab.values().copied().max().unwrap_or(0);
        let tokenizer = pipeline(vocab.into_iter().collect(), merges, specials)
            .map_err(|e| refuse(format!("makes no tokenizer ({e})")))?;
        Ok(Self { tokenizer, length, first, last, padding, largest, digest })
    }

    /// Ids of a prompt, [`length`](Self::length) of them: what does not fit is cut off, what is missing is padding.
    ///
    /// # Errors
    /// If the library fails.
    pub fn ids(&self, prompt: &str) -> Result<Vec<i64>> {
        let (ids, _) = self.ids_and_rest(prompt)?;
        Ok(ids)
    }

    /// The ids, and how many of the prompt's tokens were cut off.
    pub(super) fn ids_and_rest(&self, prompt: &str) -> Result<(Vec<i64>, usize)> {
        let encoding = self.tokenizer.encode_fast(prompt, false).map_err(|e| Error::Conditioning {
            conditioning: format!("`{prompt}`"),
            reason: format!("the tokenizer fails ({e})"),
        })?;
        let words = encoding.get_ids();
        let room = self.length.saturating_sub(2);
        let kept = &words[..words.len().min(room)];
        let mut ids = Vec::with_capacity(self.length);
        ids.push(i64::from(self.first));
        ids.extend(kept.iter().map(|id| i64::from(*id)));
        ids.push(i64::from(self.last));
        ids.resize(self.length, i64::from(self.padding));
        Ok((ids, words.len() - kept.len()))
    }

    /// Ids of a prompt, padding included.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The largest id that it gives.
    #[must_use]
    pub fn largest_id(&self) -> u32 {
        self.largest
    }

    /// Hash of all that decides which ids a prompt has.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Special {
    fn flags(&self) -> [bool; 4] {
        [self.single_word, self.lstrip, self.rstrip, self.normalized]
    }
}

/// A prompt's way to ids, special tokens at its ends apart.
fn pipeline(vocab: Vocab, merges: Merges, specials: &[Special; 4]) -> tokenizers::Result<Tokenizer> {
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(WORD_END.to_owned())
        .unk_token(specials[2].content.clone())
        .build()?;
    let normalizer = Normalizers::new(vec![
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::Replace(Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?),
        NormalizerWrapper::Lowercase(Lowercase),
    ]);
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::default().add_prefix_space(false);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(words),
        PreTokenizerWrapper::ByteLevel(bytes),
    ])));
    tokenizer.add_special_tokens(specials.iter().map(|special| {
        AddedToken::from(special.content.clone(), true)
            .single_word(special.single_word)
            .lstrip(special.lstrip)
            .rstrip(special.rstrip)
            .normalized(special.normalized)
    }))?;
    Ok(tokenizer)
}

/// The special tokens in the order of [`SPECIALS`]. Where the configuration lists what was added to the vocabulary,
/// the map is a leftover of older versions; else it goes before the configuration.
fn specials(config: &Map<String, Value>, map: &Map<String, Value>) -> Result<[Special; 4], String> {
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object);
    let read = |value: &Value, field: &str| {
        Special::deserialize(value).map_err(|e| format!("{field}: {value} is not understood ({e})"))
    };
    let special = |(field, of_clip): (&str, &str)| -> Result<Special, String> {
        let given = [map.get(field).filter(|_| listed.is_none()), config.get(field)];
        let special = match given.into_iter().flatten().find(|value| !value.is_null()) {
            None => Special { content: of_clip.to_owned(), ..Special::default() },
            Some(Value::String(content)) => Special { content: content.clone(), ..Special::default() },
            Some(value) => read(value, field)?,
        };
        for value in listed.iter().flat_map(|listed| listed.values()) {
            let added = read(value, "added_tokens_decoder")?;
            if added.content == special.content {
                return Ok(added);
            }
        }
        Ok(special)
    };
    let [bos, eos, unk, pad] = SPECIALS;
    Ok([special(bos)?, special(eos)?, special(unk)?, special(pad)?])
}

/// Vocabulary and merges of a folder, and the file that is at fault if they do not fit.
fn read_model(folder: &Path) -> Result<(PathBuf, BTreeMap<String, u32>, Merges)> {
    let (vocab, merges, whole) =
        (folder.join("vocab.json"), folder.join("merges.txt"), folder.join("tokenizer.json"));
    if whole.is_file() {
        let file: Whole = read_json(&whole)?;
        if let Some(other) = file.model.kind.filter(|kind| kind != "BPE") {
            return Err(Error::file(&whole, format!("model.type `{other}` is not BPE")));
        }
        let merges: Result<Merges> = file
            .model
            .merges
            .into_iter()
            .map(|merge| match merge {
                Merge::Pair(left, right) => Ok((left, right)),
                Merge::Line(line) => pair(&line)
                    .ok_or_else(|| Error::file(&whole, format!("model.merges: `{line}` is not two tokens"))),
            })
            .collect();
        return Ok((whole.clone(), file.model.vocab, merges?));
    }
    let known = read_json(&vocab)?;
    let text = fs::read_to_string(&merges).map_err(Error::io(&merges, "cannot read"))?;
    // The first line is the format's version.
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
    let pairs: Result<Merges> = lines
        .map(|(i, line)| {
            pair(line)
                .ok_or_else(|| Error::file(&merges, format!("line {}: `{line}` is not two tokens", i + 1)))
        })
        .collect();
    Ok((merges.clone(), known, pairs?))
}

/// What is read of `tokenizer.json`: the rest is CLIP's, whatever the file says.
#[derive(Deserialize)]
struct Whole {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

fn pair(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    let is_pair = !left.is_empty() && !right.is_empty() && !right.contains(' ');
    is_pair.then(|| (left.to_owned(), right.to_owned()))
}
