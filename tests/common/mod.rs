//! What the golden tests share: the files, the tiny networks in them, and how far results may lie apart.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says how far off it was")]

use diver::backbone::{Dit, Place, Vae, Weights};
use diver::{DeviceChoice, NoiseSchedule};
use std::collections::HashMap;
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

/// The folder of golden files: `tests/golden`, or `$DIVER_TEST_DATA` where the tests run elsewhere.
pub fn data() -> PathBuf {
    match std::env::var_os("DIVER_TEST_DATA") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

/// Where the networks run: the CPU, or `$DIVER_TEST_DEVICE` (with `NVIDIA_TF32_OVERRIDE=0`).
pub fn device() -> Device {
    device_choice().resolve().unwrap()
}

pub fn device_choice() -> DeviceChoice {
    tch::set_num_threads(1);
    std::env::var("DIVER_TEST_DEVICE").map_or(DeviceChoice::Cpu, |name| name.parse().unwrap())
}

/// The largest accepted difference, as a share of the largest reference value.
pub fn tolerance() -> f64 {
    if device() == Device::Cpu { 2e-5 } else { 1e-4 }
}

/// The tensors of one golden file.
pub struct Golden {
    name: &'static str,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    pub fn read(name: &'static str) -> Self {
        let path = data().join(format!("{name}.safetensors"));
        let tensors = Tensor::read_safetensors(path).unwrap().into_iter().collect();
        Self { name, tensors }
    }

    /// A tensor by its full name, on the CPU.
    pub fn get(&self, key: &str) -> &Tensor {
        self.tensors.get(key).unwrap_or_else(|| panic!("{} has no tensor {key}", self.name))
    }

    /// An input, on the tests' device.
    pub fn input(&self, key: &str) -> Tensor {
        self.get(&format!("in.{key}")).to_device(device())
    }

    /// The integers of an input.
    pub fn integers(&self, key: &str) -> Vec<usize> {
        let values = Vec::<i64>::try_from(self.get(&format!("in.{key}"))).unwrap();
        values.into_iter().map(|v| usize::try_from(v).unwrap()).collect()
    }

    /// Names of the outputs that start with `prefix`.
    pub fn outputs(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .tensors
            .keys()
            .filter_map(|k| k.strip_prefix("out."))
            .filter(|k| k.starts_with(prefix))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    }

    /// Compares a result with an output; returns how far they lie apart.
    pub fn check(&self, key: &str, found: &Tensor) -> f64 {
        self.check_within(key, found, tolerance())
    }

    pub fn check_within(&self, key: &str, found: &Tensor, tolerance: f64) -> f64 {
        let apart = relative(found, self.get(&format!("out.{key}")));
        assert!(apart <= tolerance, "{}: {key} is {apart:.2e} off", self.name);
        apart
    }
}

/// `max |found - reference| / max |reference|`.
pub fn relative(found: &Tensor, reference: &Tensor) -> f64 {
    let to_f64 = |t: &Tensor| t.to_device(Device::Cpu).to_kind(Kind::Double);
    let (found, reference) = (to_f64(found), to_f64(reference));
    assert_eq!(found.size(), reference.size());
    let apart = (&found - &reference).abs().max().double_value(&[]);
    assert!(!apart.is_nan(), "a value is not a number");
    apart / reference.abs().max().double_value(&[]).max(1e-30)
}

/// The worst of several comparisons, with its name.
#[derive(Default)]
pub struct Worst(f64, String);

impl Worst {
    pub fn see(&mut self, apart: f64, name: &str) {
        if apart >= self.0 {
            *self = Self(apart, name.to_owned());
        }
    }

    pub fn report(&self, file: &str) {
        println!("{file}: worst {:.2e} ({})", self.0, self.1);
    }
}

/// The `config` that a golden weight file carries in its header.
pub fn config<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let bytes = std::fs::read(data().join(format!("{name}.safetensors"))).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()["config"]).unwrap()
}

/// Where the networks of a test are.
pub fn place() -> Place {
    Place { device: device(), kind: Kind::Float }
}

pub fn weights(name: &str) -> Weights {
    Weights::read(&data().join(format!("{name}.safetensors"))).unwrap()
}

/// The tiny DiT, from its official layout.
pub fn dit() -> Dit {
    Dit::new(config("dit_tiny_diffusers"), weights("dit_tiny_official"), place()).unwrap()
}

/// A tiny autoencoder: `vae2` or `vae4`.
pub fn vae(name: &str) -> Vae {
    let name = format!("{name}_tiny");
    Vae::new(config(&name), weights(&name), place()).unwrap()
}

/// The noise levels on which the tiny DiT was trained.
pub fn schedule() -> NoiseSchedule {
    NoiseSchedule::linear(1e-4, 0.02, 1000).unwrap()
}

/// The tiny networks as a diffusers folder in a temporary place.
pub fn backbone_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |part: &str, name: &str, mut config: serde_json::Value| {
        let part = folder.path().join(part);
        std::fs::create_dir(&part).unwrap();
        std::fs::copy(data().join(name), part.join("diffusion_pytorch_model.safetensors")).unwrap();
        // Of the transformer it is not looked at.
        config["_class_name"] = "AutoencoderKL".into();
        std::fs::write(part.join("config.json"), config.to_string()).unwrap();
    };
    write("transformer", "dit_tiny_diffusers.safetensors", config("dit_tiny_diffusers"));
    write("vae", "vae2_tiny.safetensors", config("vae2_tiny"));
    let scheduler = folder.path().join("scheduler");
    std::fs::create_dir(&scheduler).unwrap();
    let text =
        r#"{"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000}"#;
    std::fs::write(scheduler.join("scheduler_config.json"), text).unwrap();
    folder
}

/// A vocabulary in which the reference's made-up ids spell a prompt: "a photo of a d" is class 3, "... h" class 7.
pub fn vocabulary() -> (serde_json::Value, Vec<&'static str>) {
    let vocabulary = serde_json::json!({
        "a</w>": 5, "photo</w>": 6, "of</w>": 7, "d</w>": 13, "h</w>": 17, "p": 0, "h": 1, "o": 2, "t": 3,
        "f</w>": 4, "o</w>": 8, "ph": 9, "pho": 10, "phot": 11, "<|startoftext|>": 62, "<|endoftext|>": 63,
    });
    (vocabulary, vec!["p h", "ph o", "pho t", "phot o</w>", "o f</w>"])
}

/// The tiny networks of Stable Diffusion as a diffusers folder in a temporary place, with the autoencoder of the tiny DiT.
pub fn stable_diffusion_folder() -> tempfile::TempDir {
    use std::fs;
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str| {
        let part = folder.path().join(name);
        fs::create_dir(&part).unwrap();
        part
    };
    let (unet, text, tokenizer) = (part("unet"), part("text_encoder"), part("tokenizer"));
    let (vae, scheduler) = (part("vae"), part("scheduler"));
    let copy = |name: &str, to: &std::path::Path| {
        fs::copy(data().join(format!("{name}.safetensors")), to).unwrap();
    };
    copy("unet_tiny", &unet.join("diffusion_pytorch_model.safetensors"));
    copy("clip_tiny", &text.join("model.safetensors"));
    copy("vae2_tiny", &vae.join("diffusion_pytorch_model.safetensors"));
    fs::write(vae.join("config.json"), config::<serde_json::Value>("vae2_tiny").to_string()).unwrap();
    let betas = r#"{"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": false}"#;
    fs::write(scheduler.join("scheduler_config.json"), betas).unwrap();
    fs::write(unet.join("config.json"), config::<serde_json::Value>("unet_tiny").to_string()).unwrap();
    fs::write(text.join("config.json"), config::<serde_json::Value>("clip_tiny").to_string()).unwrap();
    let (vocabulary, merges) = vocabulary();
    fs::write(tokenizer.join("vocab.json"), vocabulary.to_string()).unwrap();
    fs::write(tokenizer.join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    folder
}
