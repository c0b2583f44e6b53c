//! The refiner on the tiny Stable Diffusion: classes as texts, its own settings, any size.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, backbone_folder, device_choice, relative, stable_diffusion_folder};
use diver::{
    CancelToken, ChainKind, Conditioning, Digest, Family, Knobs, Mode, Precision, Refine, Refiner,
    RefinerBuilder,
};
use diver_loaders::refine::{NoiseKey, RawBatch, Silent};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

fn builder(folder: &Path) -> RefinerBuilder {
    Refiner::builder(folder).device(device_choice()).dtype(Precision::F32)
}

fn refused(builder: RefinerBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn classes_and_texts_lead_to_the_reference() {
    let golden = Golden::read("diver_sd");
    let folder = stable_diffusion_folder();
    let refiner = builder(folder.path()).class_names(NAMES).build().unwrap();
    assert_eq!(refiner.backbone().unwrap().network().family(), Family::StableDiffusion);
    assert_eq!((refiner.knobs().cfg_scale(), refiner.knobs().cfg_channels()), (7.5, 4));
    assert_eq!(refiner.knobs().chain(), ChainKind::SdLeading1);
    assert_eq!((refiner.num_classes(), refiner.backbone().unwrap().resolution()), (Some(10), 16));

    let (z0, noise, y) = (golden.input("z0"), golden.input("noise"), golden.integers("y"));
    let wanted = golden.get("out.traj.full").get(50);
    let of_classes = refiner.sample_latents(&z0, &y, &noise, &CancelToken::new(), &Silent).unwrap();
    let texts = ["a photo of a d", "a photo of a h"];
    let of_texts = refiner.sample_latents(&z0, &texts, &noise, &CancelToken::new(), &Silent).unwrap();
    for found in [of_classes, of_texts] {
        let apart = relative(&found, &wanted);
        assert!(apart <= common::tolerance(), "{apart:.2e}");
    }
}

#[test]
fn settings_of_its_own_stay_its_own() {
    let folder = stable_diffusion_folder();
    let mut refiner = builder(folder.path()).knobs(Knobs::builder().steps(20).gamma(0.2)).build().unwrap();
    assert_eq!((refiner.knobs().steps(), refiner.knobs().cfg_scale()), (20, 7.5));
    refiner.set_knobs(Knobs::builder().mode(Mode::Si)).unwrap();
    assert_eq!((refiner.knobs().steps(), refiner.knobs().chain()), (50, ChainKind::SdLeading1));
    let error = refiner.set_knobs(Knobs::builder().cfg_channels(3)).unwrap_err().to_string();
    assert_eq!(error, "cfg_channels: 3 is not the 4 that Stable Diffusion is guided on");
}

#[test]
fn the_engine_gets_images_of_the_size_asked_for() {
    let folder = stable_diffusion_folder();
    let knobs = Knobs::builder().steps(2);
    let mut refiner = builder(folder.path()).knobs(knobs).resolution(32).build().unwrap();
    let keys = [NoiseKey { content: Digest::of(b"x"), variant: 0 }; 2];
    let shown = [Conditioning::Class(217), Conditioning::Prompt("a photo of a d".to_owned())];
    let pixels = vec![0.5; 2 * 3 * 64];
    let batch = RawBatch::new(&pixels, 8, 8, &shown, &keys).unwrap();
    let images = refiner.refine(&batch, &CancelToken::new(), &Silent).unwrap();
    assert!(images.iter().all(|image| (image.width(), image.height()) == (32, 32)));
    let beyond = refiner.check_conditioning(&Conditioning::Class(1000)).unwrap_err().to_string();
    assert!(beyond.contains("names for the classes 0 to 999"), "{beyond}");
    let z0 = Tensor::zeros([1, 4, 16, 16], (Kind::Float, Device::Cpu));
    let none = refiner.sample_latents(&z0, &[1000], &z0, &CancelToken::new(), &Silent).unwrap_err();
    assert!(none.to_string().contains("names for the classes"), "{none}");
}

#[test]
fn whatever_changes_the_images_changes_the_fingerprint() {
    let folder = stable_diffusion_folder();
    let of = |change: fn(RefinerBuilder) -> RefinerBuilder| {
        change(builder(folder.path())).build().unwrap().fingerprint().unwrap().to_string()
    };
    let all = [
        of(|b| b),
        of(|b| b.class_names(NAMES)),
        of(|b| b.prompt("a drawing of a {}")),
        of(|b| b.resolution(32)),
    ];
    for (i, one) in all.iter().enumerate() {
        assert_eq!(all.iter().filter(|other| *other == one).count(), 1, "{i}");
    }
    assert_eq!(of(|b| b), of(|b| b.prompt("a photo of a {}").resolution(16)));
}

#[test]
fn what_does_not_suit_is_said() {
    let folder = stable_diffusion_folder();
    let b = || builder(folder.path());
    assert_eq!(refused(b().resolution(24)), "resolution: 24 is not a multiple of 16 up to 4096");
    assert!(refused(b().prompt("a photo")).starts_with("prompt: `a photo` does not have one {}"));
    assert!(refused(b().model(Family::Sit)).starts_with("model: `sit` was given, but the folder "));
    assert_eq!(refused(b().num_heads(2)), "num_heads: a folder's config.json tells them");
    let knobs = Knobs::builder().sigma(diver::Sigma::Learned);
    assert!(refused(b().knobs(knobs)).starts_with("sigma: `learned` needs a network with a variance head"));
    fs::remove_file(folder.path().join("text_encoder/model.safetensors")).unwrap();
    assert!(refused(b()).contains("text_encoder: has no "), "{}", refused(b()));
    fs::remove_dir_all(folder.path().join("tokenizer")).unwrap();
    assert!(refused(b()).contains("tokenizer"), "{}", refused(b()));

    let dit = backbone_folder();
    let of_classes = "is for Stable Diffusion; this backbone is conditioned on classes";
    assert_eq!(refused(builder(dit.path()).prompt("{}")), format!("prompt: {of_classes}"));
    assert_eq!(refused(builder(dit.path()).class_names(["a"])), format!("class_names: {of_classes}"));
    assert!(refused(builder(dit.path()).resolution(32)).starts_with("resolution: a transformer works"));
}

/// Removes every file of weights.
fn without_weights(folder: &Path) {
    let mut gone = 0;
    for part in fs::read_dir(folder).unwrap() {
        for file in fs::read_dir(part.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|e| e == "safetensors") {
                fs::remove_file(file).unwrap();
                gone += 1;
            }
        }
    }
    assert!(gone > 1);
}

/// What is said with another value in a configuration, which is put back after.
fn refused_with(folder: &Path, part: &str, field: &str, value: Value) -> String {
    let path = folder.join(part).join("config.json");
    let before = fs::read_to_string(&path).unwrap();
    let mut fields: Value = serde_json::from_str(&before).unwrap();
    fields[field] = value;
    fs::write(&path, fields.to_string()).unwrap();
    let said = refused(builder(folder));
    fs::write(&path, before).unwrap();
    said
}

#[test]
fn what_configurations_tell_is_said_before_weights_are_read() {
    let folder = stable_diffusion_folder();
    let folder = folder.path();
    without_weights(folder);
    assert_eq!(refused(builder(folder).resolution(24)), "resolution: 24 is not a multiple of 16 up to 4096");
    for (part, field, value, expected) in [
        ("unet", "addition_embed_type", json!("text_time"), "\"text_time\" is not supported"),
        ("unet", "norm_num_groups", json!(3), "unet/config.json: norm_num_groups 3 does not divide 8"),
        ("unet", "cross_attention_dim", json!(24), "24 is not the text encoder's hidden_size 16"),
        ("unet", "sample_size", json!(null), "unet/config.json: says no sample_size: set `resolution`"),
        ("text_encoder", "hidden_act", json!("relu"), "hidden_act `relu` is neither quick_gelu nor gelu"),
        ("text_encoder", "vocab_size", json!(60), "vocab_size: the text encoder's 60 has no token 63"),
        ("vae", "act_fn", json!("gelu"), "vae/config.json: act_fn `gelu` is not silu"),
        ("vae", "latent_channels", json!(8), "latents have 8 channels, and 4 in the diffusion model"),
    ] {
        let said = refused_with(folder, part, field, value);
        assert!(said.contains(expected), "{part}: {field}: {said}");
    }
    assert!(refused(builder(folder)).contains("has no weights"), "{}", refused(builder(folder)));

    let dit = backbone_folder();
    without_weights(dit.path());
    let said = refused_with(dit.path(), "transformer", "norm_type", "ada_norm_single".into());
    assert!(
        said.ends_with("transformer/config.json: norm_type `ada_norm_single` is not ada_norm_zero"),
        "{said}"
    );
    let said = refused_with(dit.path(), "vae", "scaling_factor", json!(0.0));
    assert!(said.ends_with("vae/config.json: scaling_factor 0 is not above 0"), "{said}");
}
