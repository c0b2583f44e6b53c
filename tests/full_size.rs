//! Networks as large as the published ones, with random weights, beside diffusers and transformers: `make test-full`
//! makes the files (tests/full_size/make.py) and runs this.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says how far off it was")]

use diver::backbone::{Backbone, ClipText, Dit, Network, Place, Unet, Vae, Weights};
use diver::method::Sampler;
use diver::{Chain, DeviceChoice, Knobs, Precision, Refiner};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Device, Kind, Tensor};

/// Accepted differences, as shares of the largest reference value.
const F32: f64 = 1e-4;
const BF16: f64 = 3e-2;

fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("DIVER_FULL_SIZE").map_or_else(|| root.join("out/full-size"), PathBuf::from)
}

struct Reference(HashMap<String, Tensor>);

impl Reference {
    fn read(part: &str) -> Self {
        let path = folder().join(part).join("io.safetensors");
        Self(Tensor::read_safetensors(path).unwrap().into_iter().collect())
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.0[name]
    }

    fn check(&self, what: &str, name: &str, found: &Tensor, tolerance: f64) {
        let apart = relative(found, self.get(name));
        println!("{what}: {apart:.2e} off, {tolerance:.0e} allowed");
        assert!(apart <= tolerance, "{what}");
    }
}

fn relative(found: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(found.size(), wanted.size());
    let (found, wanted) = (found.to_kind(Kind::Double), wanted.to_kind(Kind::Double));
    let apart = (found - &wanted).abs().max().double_value(&[]);
    assert!(!apart.is_nan());
    apart / wanted.abs().max().double_value(&[])
}

fn backbone(name: &str, kind: Kind) -> Backbone {
    let path = folder().join(name);
    let builder = Backbone::builder(&path).vae(folder().join("vae/whole"));
    builder.build(Device::Cpu, kind).unwrap()
}

fn dit(backbone: &Backbone) -> &Dit {
    match backbone.network() {
        Network::Dit(dit) | Network::Sit(dit) => dit,
        _ => panic!("not a transformer"),
    }
}

#[test]
#[ignore = "made by `make test-full`"]
fn forward_passes_of_dit_and_sit() {
    let reference = Reference::read("dit");
    let [x, t, s, y] = ["x", "t", "s", "y"].map(|name| reference.get(name));
    for (name, kind, tolerance) in [
        ("dit", Kind::Float, F32),
        ("dit", Kind::BFloat16, BF16),
        ("dit/DiT-XL-2-256x256.pt", Kind::Float, F32),
    ] {
        let backbone = backbone(name, kind);
        let out = dit(&backbone).forward(x, t, y).unwrap();
        reference.check(&format!("{name} in {kind:?}"), "forward", &out, tolerance);
    }
    for (kind, tolerance) in [(Kind::Float, F32), (Kind::BFloat16, BF16)] {
        let backbone = backbone("dit/SiT-XL-2-256x256.pt", kind);
        let out = dit(&backbone).forward(x, s, y).unwrap();
        reference.check(&format!("SiT in {kind:?}"), "forward_sit", &out, tolerance);
    }
    let backbone = backbone("dit-512", Kind::Float);
    assert_eq!(backbone.resolution(), 512);
    let out = dit(&backbone).forward(reference.get("x_512"), &t.narrow(0, 0, 1), &y.narrow(0, 0, 1)).unwrap();
    reference.check("dit-512", "forward_512", &out, F32);
}

#[test]
#[ignore = "made by `make test-full`"]
fn fifty_steps_beside_diffusers() {
    let reference = Reference::read("dit");
    let backbone = backbone("dit", Kind::Float);
    let knobs = Knobs::default();
    let chain = Chain::new(knobs.chain(), knobs.steps(), backbone.schedule()).unwrap();
    let (z0, noise) = (reference.get("z0"), reference.get("noise"));
    let net = dit(&backbone).guided(&[388], knobs.cfg_scale(), knobs.cfg_channels()).unwrap();
    let mut sampler = Sampler::new(&chain, &knobs, z0, noise).unwrap();
    let (latents, eps) = (reference.get("trajectory"), reference.get("eps"));
    let (mut worst_eps, mut worst) = (0.0_f64, relative(sampler.latent(), &latents.get(0)));
    for j in 0..50 {
        let prediction = sampler.step(&net).unwrap().unwrap();
        worst_eps = worst_eps.max(relative(&prediction.eps, &eps.get(j)));
        worst = worst.max(relative(sampler.latent(), &latents.get(j + 1)));
    }
    println!("50 steps: noise {worst_eps:.2e} and latents {worst:.2e} off at most");
    assert!(worst_eps <= F32 && worst <= F32);
}

#[test]
#[ignore = "made by `make test-full`"]
fn the_autoencoder_under_both_namings() {
    let reference = Reference::read("vae");
    for name in ["whole", "old"] {
        let folder = folder().join("vae").join(name);
        let config = std::fs::read(folder.join("config.json")).unwrap();
        let place = Place { device: Device::Cpu, kind: Kind::Float };
        let weights = Weights::read_folder(&folder).unwrap();
        let vae = Vae::new(serde_json::from_slice(&config).unwrap(), weights, place).unwrap();
        let posterior = tch::no_grad(|| vae.posterior(reference.get("images"))).unwrap();
        reference.check(&format!("vae/{name}, mean"), "mean", &posterior.mean, F32);
        reference.check(&format!("vae/{name}, logvar"), "logvar", &posterior.logvar, F32);
        let decoded = tch::no_grad(|| vae.decode(reference.get("latents"))).unwrap();
        reference.check(&format!("vae/{name}, decoded"), "decoded", &decoded, F32);
    }
}

/// A part of the diffusers folder of Stable Diffusion: its configuration and its weights.
fn part<T: serde::de::DeserializeOwned>(name: &str) -> (T, Weights) {
    let part = folder().join("sd").join(name);
    let config = std::fs::read(part.join("config.json")).unwrap();
    (serde_json::from_slice(&config).unwrap(), Weights::read_folder(&part).unwrap())
}

#[test]
#[ignore = "made by `make test-full`"]
fn forward_passes_of_stable_diffusion() {
    let _no_grad = tch::no_grad_guard();
    let reference = Reference::read("sd");
    let [ids, embeddings, x, t] = ["ids", "embeddings", "x", "t"].map(|name| reference.get(name));
    let place = Place { device: Device::Cpu, kind: Kind::Float };
    let (config, weights) = part("text_encoder");
    let text = ClipText::new(config, weights, place).unwrap();
    reference.check("text encoder", "embeddings", &text.forward(ids).unwrap(), F32);

    let x_256 = x.narrow(2, 0, 32).narrow(3, 0, 32);
    for (kind, tolerance) in [(Kind::Float, F32), (Kind::BFloat16, BF16)] {
        let (config, weights) = part("unet");
        let unet = Unet::new(config, weights, Place { kind, ..place }).unwrap();
        let out = unet.forward(&x_256, t, embeddings).unwrap();
        reference.check(&format!("UNet, 256 pixels, in {kind:?}"), "forward_256", &out, tolerance);
        if kind == Kind::Float {
            let out = unet.forward(x, t, embeddings).unwrap();
            reference.check("UNet, 512 pixels", "forward", &out, tolerance);
        }
    }
}

/// Bytes of a line of `/proc/self/status`.
#[cfg(target_os = "linux")]
fn status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024.0
}

/// In a process of its own, whose peak is that of loading.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "made by `make test-full`"]
fn loading_takes_little_more_than_the_weights() {
    const CHILD: &str = "DIVER_LOADS";
    if let Some(name) = std::env::var_os(CHILD) {
        let path = folder().join(&name);
        // What libtorch itself takes.
        let before = {
            Tensor::zeros([1], (Kind::Float, Device::Cpu)).size();
            status("VmRSS")
        };
        let builder = Refiner::builder(&path).vae(folder().join("vae/whole"));
        let mut loaded = builder.device(DeviceChoice::Cpu).dtype(Precision::F32).build().unwrap();
        let taken = status("VmHWM") - before;
        let size = |path: PathBuf| std::fs::metadata(path).unwrap().len() as f64;
        let weights = "diffusion_pytorch_model.safetensors";
        let transformer = if path.is_file() { path } else { path.join("transformer").join(weights) };
        let on_disk = size(transformer) + size(folder().join("vae/whole").join(weights));
        println!("{:.2} GB for {:.2} GB on disk: {:.2}x", taken / 1e9, on_disk / 1e9, taken / on_disk);
        assert!(taken <= 1.2 * on_disk);
        loaded.release();
        let left = status("VmRSS") - before;
        println!("{:.2} GB are left after a release", left / 1e9);
        assert!(left <= 0.1 * on_disk);
        return;
    }
    for name in ["dit", "dit/DiT-XL-2-256x256.pt"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["loading_takes_little_more_than_the_weights", "--exact", "--ignored", "--nocapture"]);
        let status = child.env(CHILD, name).status().unwrap();
        assert!(status.success(), "{name}");
    }
}
