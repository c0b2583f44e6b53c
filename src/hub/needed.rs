//! Which files of a repository are needed, and which of them a folder lacks.

use super::Part;
use std::collections::BTreeSet;
use std::path::Path;

/// Folders that hold a network: a configuration and weights.
const NETWORKS: [&str; 4] = ["transformer", "unet", AUTOENCODER, "text_encoder"];

/// Those of them without one of which there is no backbone.
const DIFFUSION: [&str; 2] = ["transformer", "unet"];

const AUTOENCODER: &str = "vae";

/// What diffusers and transformers call weights.
const STEMS: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];

const INDEX: &str = "model_index.json";
const CONFIG: &str = "config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// What a tokenizer is read from.
const TOKENIZER: [&str; 5] = [
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
];

/// How weights are stored, the format that is preferred first.
const FORMATS: [&str; 2] = ["safetensors", "bin"];

/// The files of a part.
pub(super) struct Needed {
    /// Configurations and the tokenizer: a few megabytes.
    pub(super) small: Vec<String>,
    /// Weights: gigabytes.
    pub(super) weights: Vec<String>,
}

/// The files of `listing` that `part` needs; or what is missing in it, in words.
pub(super) fn needed(listing: &[String], part: Part) -> Result<Needed, String> {
    let all: BTreeSet<&str> = listing.iter().map(String::as_str).filter(|file| is_inside(file)).collect();
    let has = |file: &str| all.contains(file);
    let (networks, others) = match part {
        Part::Backbone | Part::DiffusionModel => {
            let mut networks = diffusion_model(has)?;
            networks.retain(|network| is_of(network, part));
            (networks, [&[INDEX, SCHEDULER], &TOKENIZER[..]].concat())
        }
        Part::Autoencoder => (vec![autoencoder(has)?], Vec::new()),
    };
    let small = others.into_iter().filter(|file| has(file)).map(str::to_owned).collect();
    let mut needed = Needed { small, weights: Vec::new() };
    for folder in networks {
        needed.small.push(join(folder, CONFIG));
        let names: BTreeSet<&str> = all.iter().filter_map(|file| within(file, folder)).collect();
        let weights = weights(&names);
        if weights.is_empty() {
            let place = if folder.is_empty() { "it" } else { folder };
            let (first, format) = (STEMS[0], FORMATS[0]);
            return Err(format!(
                "has no weights that can be read: no {first}.{format} or the like in {place}"
            ));
        }
        needed.weights.extend(weights.into_iter().map(|name| join(folder, name)));
    }
    Ok(needed)
}

/// Whether the network of a diffusion model's folder is wanted with `part`.
fn is_of(network: &str, part: Part) -> bool {
    part != Part::DiffusionModel || network != AUTOENCODER
}

/// The folders of a backbone's networks, by the files that there are.
fn diffusion_model(has: impl Fn(&str) -> bool) -> Result<Vec<&'static str>, String> {
    let mut networks = NETWORKS.to_vec();
    networks.retain(|folder| has(&join(folder, CONFIG)));
    if networks.iter().any(|folder| DIFFUSION.contains(folder)) {
        return Ok(networks);
    }
    let [transformer, unet] = DIFFUSION.map(|folder| join(folder, CONFIG));
    let hint = if autoencoder(has).is_ok() { "; an autoencoder is named as `vae`" } else { "" };
    Err(format!("is no diffusion model of diffusers: there is neither {transformer} nor {unet}{hint}"))
}

/// The folder of the autoencoder, by the files that there are; the root if the repository is one network.
fn autoencoder(has: impl Fn(&str) -> bool) -> Result<&'static str, String> {
    let config = join(AUTOENCODER, CONFIG);
    if has(&config) {
        return Ok(AUTOENCODER);
    }
    if has(CONFIG) && !has(INDEX) {
        return Ok("");
    }
    Err(format!("has no autoencoder: there is neither {config}, nor the {CONFIG} of one network"))
}

/// The weights among the file names of one folder: whole, in parts (after their index), or under a name of their own.
pub(crate) fn weights<'a>(names: &BTreeSet<&'a str>) -> Vec<&'a str> {
    for format in FORMATS {
        for stem in STEMS {
            if let Some(whole) = names.get(&*format!("{stem}.{format}")) {
                return vec![whole];
            }
            if let Some(index) = names.get(&*format!("{stem}.{format}.index.json")) {
                let is_part = |name: &&str| {
                    let part = name.strip_prefix(stem).and_then(|n| n.strip_suffix(format));
                    part.is_some_and(|p| {
                        p.starts_with('-') && p.ends_with('.') && p.matches('.').count() == 1
                    })
                };
                return [*index].into_iter().chain(names.iter().copied().filter(is_part)).collect();
            }
        }
        if format == FORMATS[0] {
            // `model.fp16.safetensors` is a variant of other weights; a file with a name of its own is none.
            let is_own = |name: &&str| {
                let stem = name.strip_suffix(format).and_then(|n| n.strip_suffix('.'));
                stem.is_some_and(|stem| !STEMS.contains(&stem.split(['.', '-']).next().unwrap_or_default()))
            };
            let own: Vec<&str> = names.iter().copied().filter(is_own).collect();
            if own.len() == 1 {
                return own;
            }
        }
    }
    Vec::new()
}

/// The first file that a folder lacks for `part`, if it lacks one; told from the folder alone. With `strict`, weights that
/// are pickles do not do: the hub may have better ones.
pub(super) fn missing(folder: &Path, part: Part, strict: bool) -> Option<String> {
    let has = |file: &str| folder.join(file).is_file();
    match part {
        Part::Backbone | Part::DiffusionModel => missing_of_model(folder, part, strict),
        Part::Autoencoder => match autoencoder(has) {
            Ok(network) => missing_of_network(folder, network, strict),
            Err(_) => Some(join(AUTOENCODER, CONFIG)),
        },
    }
}

fn missing_of_model(folder: &Path, part: Part, strict: bool) -> Option<String> {
    let has = |network: &str| folder.join(network).join(CONFIG).is_file();
    let parts = match read_json(&folder.join(INDEX)) {
        Some(serde_json::Value::Object(parts)) => Some(parts),
        // A repository may have none, and is what its folders say. Without a network it is rather the index that lacks.
        None if !folder.join(INDEX).exists() && DIFFUSION.into_iter().any(has) => None,
        _ => return Some(INDEX.to_owned()),
    };
    let is_part = |name: &str| match &parts {
        Some(parts) => parts.get(name).is_some_and(|class| class[0].is_string()),
        // What no network can be run without is wanted even so: Python may have fetched single folders.
        None => match name {
            AUTOENCODER | "scheduler" => true,
            "text_encoder" | "tokenizer" => has(name) || has("unet"),
            _ => has(name),
        },
    };
    if !DIFFUSION.into_iter().any(is_part) {
        return Some(join(DIFFUSION[0], CONFIG));
    }
    let mut networks = NETWORKS.into_iter().filter(|network| is_part(network) && is_of(network, part));
    if let Some(file) = networks.find_map(|network| missing_of_network(folder, network, strict)) {
        return Some(file);
    }
    let lacks = |file: &&str| !folder.join(file).is_file();
    let mut others = Vec::new();
    if is_part("scheduler") {
        others.push(SCHEDULER);
    }
    if is_part("tokenizer") && lacks(&"tokenizer/tokenizer.json") {
        others.extend(["tokenizer/vocab.json", "tokenizer/merges.txt"]);
    }
    others.into_iter().find(lacks).map(str::to_owned)
}

fn missing_of_network(folder: &Path, network: &str, strict: bool) -> Option<String> {
    let config = join(network, CONFIG);
    if !folder.join(&config).is_file() {
        return Some(config);
    }
    let names = file_names(&folder.join(network));
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let weights = weights(&names);
    let Some(first) = weights.first().filter(|first| !strict || !first.contains(".bin")) else {
        return Some(join(network, &format!("{}.{}", STEMS[0], FORMATS[0])));
    };
    if !first.ends_with(".index.json") {
        return None;
    }
    let index = read_json(&folder.join(network).join(first));
    let map = index.as_ref().and_then(|index| index["weight_map"].as_object());
    let Some(map) = map else { return Some(join(network, first)) };
    let lost = map.values().filter_map(|part| part.as_str()).find(|part| !names.contains(part));
    lost.map(|part| join(network, part))
}

/// Whether a name that a hub gives stays in the folder where it is put.
fn is_inside(file: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != "..";
    file.split('/').all(is_name) && !file.contains(['\\', '\0', ':'])
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The name of a file that lies in the folder itself.
fn within<'a>(file: &'a str, folder: &str) -> Option<&'a str> {
    let name = if folder.is_empty() { file } else { file.strip_prefix(folder)?.strip_prefix('/')? };
    (!name.contains('/')).then_some(name)
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // A link whose blob is gone is no file.
    entries.filter(|e| e.path().is_file()).filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn read_json(file: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(part: Part, files: &[&str]) -> Result<Vec<String>, String> {
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        needed(&files, part).map(|needed| [needed.small, needed.weights].concat())
    }

    #[test]
    fn of_stable_diffusion_only_what_is_read_is_fetched() {
        let files = [
            ".gitattributes",
            "README.md",
            "feature_extractor/preprocessor_config.json",
            "model_index.json",
            "safety_checker/config.json",
            "safety_checker/model.safetensors",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.fp16.safetensors",
            "text_encoder/model.safetensors",
            "text_encoder/pytorch_model.bin",
            "tokenizer/merges.txt",
            "tokenizer/special/more.json",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "unet/diffusion_pytorch_model.non_ema.safetensors",
            "unet/diffusion_pytorch_model.safetensors",
            "v1-5-pruned.ckpt",
            "v1-5-pruned.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        let expected = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/merges.txt",
            "tokenizer/vocab.json",
            "unet/config.json",
            "vae/config.json",
            "text_encoder/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
            "text_encoder/model.safetensors",
        ];
        assert_eq!(of(Part::Backbone, &files).unwrap(), expected);
        let expected = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"];
        assert_eq!(of(Part::Autoencoder, &files).unwrap(), expected);
    }

    #[test]
    fn weights_come_whole_in_parts_or_as_pickles() {
        let weights = |names: &[&'static str]| weights(&names.iter().copied().collect());
        let parts = [
            "diffusion_pytorch_model.safetensors.index.json",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model-00002-of-00002.safetensors",
        ];
        assert_eq!(
            weights(&[&parts[..], &["diffusion_pytorch_model.fp16-00001-of-00001.safetensors"]].concat()),
            parts
        );
        assert_eq!(weights(&["diffusion_pytorch_model.bin", "config.json"]), ["diffusion_pytorch_model.bin"]);
        assert_eq!(weights(&["dit.safetensors", "diffusion_pytorch_model.bin"]), ["dit.safetensors"]);
        let bin = ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"];
        assert_eq!(weights(&bin), bin);
        for names in
            [&["model.fp16.safetensors"][..], &["a.safetensors", "b.safetensors"], &["config.json"], &[]]
        {
            assert!(weights(names).is_empty(), "{names:?}");
        }
    }

    #[test]
    fn one_network_is_an_autoencoder_and_no_backbone() {
        let files = [
            "README.md",
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.safetensors",
        ];
        let expected = ["config.json", "diffusion_pytorch_model.safetensors"];
        assert_eq!(of(Part::Autoencoder, &files).unwrap(), expected);
        let reason = "is no diffusion model of diffusers: there is neither transformer/config.json nor unet/config.json";
        let hint = "; an autoencoder is named as `vae`";
        assert_eq!(of(Part::Backbone, &files).unwrap_err(), format!("{reason}{hint}"));
        assert_eq!(of(Part::Backbone, &["vae/config.json"]).unwrap_err(), format!("{reason}{hint}"));
        assert_eq!(of(Part::Backbone, &["README.md"]).unwrap_err(), reason);
        let fault =
            of(Part::Autoencoder, &["model_index.json", "config.json", "unet/config.json"]).unwrap_err();
        assert_eq!(
            fault,
            "has no autoencoder: there is neither vae/config.json, nor the config.json of one network"
        );
        let fault = of(Part::Autoencoder, &["vae/config.json", "vae/model.fp16.safetensors"]).unwrap_err();
        assert!(fault.starts_with("has no weights that can be read") && fault.ends_with("in vae"), "{fault}");
    }

    #[test]
    fn a_listing_cannot_lead_out_of_the_cache() {
        let files = [
            "tokenizer/../../x",
            "tokenizer//x",
            "tokenizer/..",
            "tokenizer/a\\..\\b",
            "/tokenizer/x",
            "tokenizer/c:x",
            "unet/config.json",
            "unet/model.safetensors",
            "unet/../model.safetensors",
        ];
        let expected = ["unet/config.json", "unet/model.safetensors"];
        assert_eq!(of(Part::Backbone, &files).unwrap(), expected);
    }

    #[test]
    fn a_folder_tells_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let lacks = |part, strict| missing(folder.path(), part, strict).unwrap_or_default();
        let classes = r#"{"_class_name": "P", "vae": ["diffusers", "V"], "scheduler": ["diffusers", "S"],
                          "unet": ["diffusers", "U"], "transformer": [null, null], "tokenizer": ["transformers", "T"]}"#;
        assert_eq!(lacks(Part::Backbone, true), "model_index.json");
        for file in ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"] {
            assert_eq!(lacks(Part::Autoencoder, true), file);
            write(file, "{}");
        }
        assert_eq!(lacks(Part::Autoencoder, true), "");
        write("config.json", "{}");
        for (file, text) in [
            ("model_index.json", classes),
            ("unet/config.json", "{}"),
            ("unet/diffusion_pytorch_model.safetensors", ""),
            ("scheduler/scheduler_config.json", "{}"),
            ("tokenizer/vocab.json", "{}"),
            ("tokenizer/merges.txt", ""),
        ] {
            assert_eq!(lacks(Part::Backbone, true), file);
            write(file, text);
        }
        assert_eq!(lacks(Part::Backbone, true), "");

        let weights = folder.path().join("unet/diffusion_pytorch_model.safetensors");
        std::fs::rename(&weights, weights.with_extension("bin")).unwrap();
        assert_eq!(lacks(Part::Backbone, true), "unet/diffusion_pytorch_model.safetensors");
        assert_eq!(lacks(Part::Backbone, false), "");
        let index = r#"{"weight_map": {"a": "p1.safetensors", "b": "p2.safetensors"}}"#;
        write("unet/diffusion_pytorch_model.safetensors.index.json", index);
        write("unet/p1.safetensors", "");
        assert_eq!(lacks(Part::Backbone, true), "unet/p2.safetensors");
        write("unet/diffusion_pytorch_model.safetensors.index.json", "[]");
        assert_eq!(lacks(Part::Backbone, true), "unet/diffusion_pytorch_model.safetensors.index.json");
        write("model_index.json", r#"{"vae": ["diffusers", "V"]}"#);
        assert_eq!(lacks(Part::Backbone, true), "transformer/config.json");
        write("model_index.json", "no JSON");
        assert_eq!(lacks(Part::Backbone, true), "model_index.json");
        assert_eq!(lacks(Part::Autoencoder, true), "");
    }

    #[test]
    fn without_an_index_the_folders_tell() {
        let text = [
            "text_encoder/config.json",
            "text_encoder/diffusion_pytorch_model.safetensors",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            "tokenizer/merges.txt",
        ];
        for (network, others) in [("transformer", &text[2..3]), ("unet", &text[..])] {
            let folder = tempfile::tempdir().unwrap();
            let write = |file: &str| {
                let path = folder.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "{}").unwrap();
            };
            let lacks = |part| missing(folder.path(), part, true).unwrap_or_default();
            assert_eq!(lacks(Part::Backbone), "model_index.json");
            write(&format!("{network}/config.json"));
            // A network alone is no backbone: Python may have fetched only that of a larger model.
            let weights = format!("{network}/diffusion_pytorch_model.safetensors");
            let vae = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"];
            for file in [&[&*weights][..], &vae, others].concat() {
                assert_eq!(lacks(Part::Backbone), file);
                write(file);
            }
            assert_eq!(lacks(Part::Backbone), "");
            std::fs::remove_dir_all(folder.path().join("vae")).unwrap();
            assert_eq!(lacks(Part::DiffusionModel), "");
            // An index that is there has its say.
            write("model_index.json");
            assert_eq!(lacks(Part::DiffusionModel), "transformer/config.json");
        }
    }

    #[test]
    fn one_network_is_whole_without_folders() {
        let folder = tempfile::tempdir().unwrap();
        let lacks = |part| missing(folder.path(), part, true).unwrap_or_default();
        assert_eq!(lacks(Part::Autoencoder), "vae/config.json");
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert_eq!(lacks(Part::Autoencoder), "diffusion_pytorch_model.safetensors");
        std::fs::write(folder.path().join("diffusion_pytorch_model.safetensors"), "").unwrap();
        assert_eq!(lacks(Part::Autoencoder), "");
        assert_eq!(lacks(Part::Backbone), "model_index.json");
    }
}
