//! The `diver` command with backbones from a hub on the loopback: what is fetched, and what is refused before its weights
//! are.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "common/hub.rs"]
mod server;

use common::{backbone_folder, data, stable_diffusion_folder};
use serde_json::{Value, json};
use server::{Files, Hub};
use std::fs;
use std::path::Path;
use std::process::Command;

const SET: &str = "examples/digits/dm_ipc1";

/// What diffusers writes beside networks: their classes.
fn classes(parts: &[&str]) -> Value {
    let mut classes = json!({"_class_name": "Pipeline"});
    for part in parts {
        classes[part] = json!(["diffusers", "Class"]);
    }
    classes
}

/// The files of a folder and its folders, and a `model_index.json`.
fn files(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut parts = Vec::new();
    for part in fs::read_dir(folder).unwrap() {
        let part = part.unwrap();
        parts.push(part.file_name().into_string().unwrap());
        for file in fs::read_dir(part.path()).unwrap() {
            let file = file.unwrap();
            let name = format!("{}/{}", parts[parts.len() - 1], file.file_name().to_str().unwrap());
            files.insert(name, fs::read(file.path()).unwrap());
        }
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    files.insert("model_index.json".to_owned(), classes(&parts).to_string().into());
    files
}

/// A hub, and a home for what comes from it.
struct Place {
    hub: Hub,
    home: tempfile::TempDir,
}

impl Place {
    fn new(files: Files) -> Self {
        Self { hub: Hub::new(files), home: tempfile::tempdir().unwrap() }
    }

    /// What `diver refine` says: its summary, or why there is none.
    fn refine(&self, is_offline: bool, options: &[&str]) -> Result<Value, String> {
        let home = self.home.path();
        let output = Command::new(env!("CARGO_BIN_EXE_diver"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["refine", SET, "--device", "cpu", "--steps", "4", "--json", "--cache"])
            .arg(home.join("refined"))
            .args(options)
            .env("HF_HOME", home)
            .env("HF_ENDPOINT", &self.hub.endpoint)
            .env("HF_HUB_OFFLINE", if is_offline { "1" } else { "0" })
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_TOKEN")
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
            false => Err(stderr.lines().find_map(|line| line.strip_prefix("error: ")).unwrap().to_owned()),
        }
    }

    /// The files of repositories that were asked for since the last call.
    fn asked(&self) -> Vec<String> {
        let log = self.hub.log();
        let paths = log.iter().filter(|asked| asked.method == "HEAD").map(|asked| &asked.path);
        paths.map(|path| path.splitn(6, '/').nth(5).unwrap().to_owned()).collect()
    }

    /// The refusal of `main` with these files, of which no weights may have been asked for.
    fn refused(&self, files: Files, options: &[&str]) -> String {
        self.hub.push("main", files);
        let said = self.refine(false, options).unwrap_err();
        let asked = self.asked();
        assert!(!asked.iter().any(|file| file.ends_with("safetensors")), "{asked:?}");
        said
    }
}

#[test]
fn a_repository_is_a_backbone() {
    let place = Place::new(files(Path::new("examples/digits/backbone")));
    let options = ["--backbone", "owner/name"];
    assert_eq!(place.refine(false, &options).unwrap()["refined"], 10);
    assert_eq!(place.asked().len(), 6);
    assert_eq!(place.refine(true, &options).unwrap()["cached"], 10);
}

#[test]
fn a_folder_that_was_pushed_as_it_is_needs_no_index() {
    let mut as_it_is = files(Path::new("examples/digits/backbone"));
    as_it_is.remove("model_index.json");
    let place = Place::new(as_it_is);
    let options = ["--backbone", "owner/name"];
    assert_eq!(place.refine(false, &options).unwrap()["refined"], 10);
    assert_eq!(place.asked().len(), 5);
    assert_eq!(place.refine(true, &options).unwrap()["cached"], 10);
    let by_commit = format!("owner/name@{}", place.hub.head());
    place.hub.log();
    assert_eq!(place.refine(false, &["--backbone", &by_commit]).unwrap()["cached"], 10);
    assert!(place.hub.log().is_empty());
}

#[test]
fn what_cannot_be_run_is_refused_before_its_weights_come() {
    let folder = stable_diffusion_folder();
    let sound = files(folder.path());
    let place = Place::new(sound.clone());
    let options = ["--backbone", "owner/name"];
    let with = |file: &str, field: &str, value: Value| {
        let mut files = sound.clone();
        let mut fields: Value = serde_json::from_slice(&files[file]).unwrap();
        fields[field] = value;
        files.insert(file.to_owned(), fields.to_string().into());
        place.refused(files, &options)
    };
    let said = with("unet/config.json", "addition_embed_type", "text_time".into());
    assert_eq!(
        said,
        "owner/name: unet/config.json: cannot be understood: addition_embed_type: \"text_time\" is not supported"
    );
    let said = with("model_index.json", "text_encoder_2", json!(["transformers", "CLIPTextModel"]));
    assert_eq!(said, "owner/name: model_index.json: text_encoder_2: a second text encoder is not supported");
    let said = with("scheduler/scheduler_config.json", "prediction_type", "v_prediction".into());
    assert_eq!(
        said,
        "owner/name: scheduler/scheduler_config.json: prediction_type: `v_prediction` is not epsilon"
    );
    let said = with("text_encoder/config.json", "hidden_size", 24.into());
    assert_eq!(said, "owner/name: cross_attention_dim: 16 is not the text encoder's hidden_size 24");
    let said = with("vae/config.json", "act_fn", "relu".into());
    assert_eq!(said, "owner/name: vae/config.json: act_fn `relu` is not silu");
    let mut files = sound.clone();
    files.remove("scheduler/scheduler_config.json");
    let said = place.refused(files, &options);
    assert_eq!(said, "owner/name: scheduler/scheduler_config.json: is not in the repository, and is needed");

    // What the caller asks for is refused as early, and is no fault of the repository.
    let said = place.refused(sound.clone(), &[&options[..], &["--resolution", "24"]].concat());
    assert_eq!(said, "resolution: 24 is not a multiple of 16 up to 4096");
    let said = place.refused(sound.clone(), &[&options[..], &["--prompt", "a photo"]].concat());
    assert!(said.starts_with("prompt: "), "{said}");
    for (option, value) in [("--sigma", "learned"), ("--cfg-channels", "3"), ("--solver", "heun")] {
        let said = place.refused(sound.clone(), &[&options[..], &[option, value]].concat());
        assert!(said.starts_with(&option[2..].replace('-', "_")), "{said}");
    }

    let with_classes = [&options[..], &["--classes", "identity"]].concat();
    assert_eq!(place.refine(false, &with_classes).unwrap()["refined"], 10);
    let asked = place.asked();
    assert!(asked.len() == 3 && asked.iter().all(|file| file.ends_with("safetensors")), "{asked:?}");
}

#[test]
fn a_transformer_that_is_no_dit_is_refused_before_its_weights_come() {
    let folder = backbone_folder();
    let sound = files(folder.path());
    let place = Place::new(sound.clone());
    let with = |config: Value| {
        let mut files = sound.clone();
        files.insert("transformer/config.json".to_owned(), config.to_string().into());
        place.refused(files, &["--backbone", "owner/name"])
    };
    let mut pixart: Value = serde_json::from_slice(&sound["transformer/config.json"]).unwrap();
    pixart["norm_type"] = "ada_norm_single".into();
    let said = with(pixart);
    assert_eq!(said, "owner/name: transformer/config.json: norm_type `ada_norm_single` is not ada_norm_zero");
    let said = with(json!({"_class_name": "FluxTransformer2DModel", "attention_head_dim": 128}));
    let expected = "owner/name: transformer/config.json: cannot be understood: missing field ";
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn an_autoencoder_comes_alone_and_is_looked_at_first() {
    let folder = backbone_folder();
    let sound = files(folder.path());
    let place = Place::new(sound.clone());
    let checkpoint = data().join("dit_tiny_official.pt");
    let checkpoint = checkpoint.to_str().unwrap();
    let options = ["--backbone", checkpoint, "--num-heads", "4", "--vae", "owner/name"];

    let mut small = sound.clone();
    small.insert("vae/config.json".to_owned(), r#"{"latents_mean": [0.0]}"#.into());
    let said = place.refused(small, &options);
    assert_eq!(said, "owner/name: vae/config.json: latents_mean and latents_std are not supported");

    let mut other = sound.clone();
    other.insert("vae/config.json".to_owned(), r#"{"_class_name": "AutoencoderDC"}"#.into());
    let said = place.refused(other, &options);
    assert_eq!(
        said,
        "owner/name: vae/config.json: _class_name is AutoencoderDC, and AutoencoderKL is needed"
    );

    // Beside a folder, its latents are known to be others before it comes.
    let mut wide = sound.clone();
    wide.insert("vae/config.json".to_owned(), r#"{"latent_channels": 16}"#.into());
    let said = place.refused(wide, &["--backbone", folder.path().to_str().unwrap(), "--vae", "owner/name"]);
    assert_eq!(said, "owner/name: vae/config.json: latents have 16 channels, and 4 in the diffusion model");

    place.hub.push("main", sound);
    assert_eq!(place.refine(false, &options).unwrap()["refined"], 10);
    assert_eq!(place.asked(), ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]);
    assert_eq!(place.refine(true, &options).unwrap()["cached"], 10);
    let said = place.refine(true, &["--backbone", "owner/name"]).unwrap_err();
    assert!(said.starts_with("owner/name: is in the cache without model_index.json"), "{said}");
}

#[test]
fn an_autoencoder_that_is_not_used_does_not_come() {
    let folder = backbone_folder();
    let mut without = files(folder.path());
    without.retain(|file, _| !(file.starts_with("vae/") && file.ends_with("safetensors")));
    let place = Place::new(without);
    let vae = folder.path().join("vae");
    let options = ["--backbone", "owner/name", "--vae", vae.to_str().unwrap()];
    assert_eq!(place.refine(false, &options).unwrap()["refined"], 10);
    assert!(!place.asked().iter().any(|file| file.starts_with("vae/")));
    assert_eq!(place.refine(true, &options).unwrap()["cached"], 10);
    let said = place.refine(false, &options[..2]).unwrap_err();
    assert!(said.starts_with("owner/name: has no weights that can be read"), "{said}");
}
