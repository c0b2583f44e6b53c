//! The refiner on the tiny Stable Diffusion: classes as texts, its own settings, any size.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, backbone_folder, relative, stable_diffusion_folder};
use diver::{
    CancelToken, ChainKind, Conditioning, Digest, Family, Knobs, Mode, Refine, Refiner, RefinerBuilder,
};
use diver_loaders::refine::{NoiseKey, RawBatch, Silent};
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

fn builder(folder: &Path) -> RefinerBuilder {
    let device = std::env::var("DIVER_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    tch::set_num_threads(1);
    Refiner::builder(folder).device(device).dtype("f32")
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
