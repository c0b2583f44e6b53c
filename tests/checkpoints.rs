//! Refiners from single files of weights: those of the DiT and SiT repositories.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, backbone_folder, data, device_choice, relative};
use diver::backbone::Network;
use diver::method::{FlowSampler, normals};
use diver::{
    CancelToken, Chain, DeviceChoice, Digest, Family, Flow, Knobs, Mode, Noise, Precision, Refiner,
    RefinerBuilder, Solver,
};
use diver_loaders::Refine;
use diver_loaders::refine::{NoiseKey, Silent};
use std::fs;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A refiner of a golden file, with the autoencoder of the tiny backbone.
fn checkpoint(name: &str, folder: &Path) -> RefinerBuilder {
    of(&data().join(name), folder)
}

fn of(file: &Path, folder: &Path) -> RefinerBuilder {
    Refiner::builder(file).vae(folder).num_heads(4).device(device_choice()).dtype(Precision::F32)
}

fn sample(refiner: &Refiner, golden: &Golden) -> Tensor {
    let (z0, y, noise) = (golden.input("z0"), golden.integers("y"), golden.input("noise"));
    refiner.sample_latents(&z0, &y, &noise, &CancelToken::new(), &Silent).unwrap()
}

fn refused(builder: RefinerBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn a_dit_is_the_same_network_in_every_file() {
    let golden = Golden::read("diver_dit");
    let folder = backbone_folder();
    let wanted = golden.get("out.traj.full").get(50);
    for name in ["dit_tiny_official.pt", "dit_tiny_official.safetensors"] {
        let refiner = checkpoint(name, folder.path()).build().unwrap();
        let apart = relative(&sample(&refiner, &golden), &wanted);
        assert!(apart <= common::tolerance(), "{name} is {apart:.2e} off");
        assert_eq!(refiner.num_classes(), Some(10));
    }
    // Its averaged weights in f16.
    let refiner = checkpoint("dit_tiny_checkpoint.pt", folder.path()).build().unwrap();
    let apart = relative(&sample(&refiner, &golden), &wanted);
    assert!(apart > 0.0 && apart < 0.02, "{apart:.2e}");
}

#[test]
fn a_pickled_file_serves_in_a_diffusers_folder() {
    let folder = backbone_folder();
    let transformer = folder.path().join("transformer");
    fs::remove_file(transformer.join("diffusion_pytorch_model.safetensors")).unwrap();
    fs::copy(data().join("dit_tiny_official.pt"), transformer.join("diffusion_pytorch_model.bin")).unwrap();
    let refiner = Refiner::builder(folder.path()).device(DeviceChoice::Cpu).build().unwrap();
    let golden = Golden::read("diver_dit");
    let apart = relative(&sample(&refiner, &golden), &golden.get("out.traj.full").get(50));
    assert!(apart <= common::tolerance(), "{apart:.2e}");
}

#[test]
fn a_sit_is_told_by_its_name_or_by_the_caller() {
    let golden = Golden::read("diver_sit");
    let folder = backbone_folder();
    let renamed = folder.path().join("0050000.safetensors");
    fs::copy(data().join("sit_tiny_official.safetensors"), &renamed).unwrap();
    let by_name = checkpoint("sit_tiny_official.safetensors", folder.path()).build().unwrap();
    let by_caller = of(&renamed, folder.path()).model(Family::Sit).build().unwrap();
    for refiner in [&by_name, &by_caller] {
        assert_eq!(refiner.backbone().unwrap().network().family(), Family::Sit);
        let apart = relative(&sample(refiner, &golden), &golden.get("out.traj.full").get(50));
        assert!(apart <= common::tolerance(), "{apart:.2e}");
    }
    assert_eq!(by_name.fingerprint(), by_caller.fingerprint());
    let text = refused(of(&renamed, folder.path()));
    assert!(text.contains("0050000.safetensors: the weights of a DiT and a SiT look the same"), "{text}");

    // The same weights as a DiT make other images, which no cache may mix up.
    let as_dit = of(&renamed, folder.path()).model(Family::Dit).build().unwrap();
    assert_ne!(as_dit.fingerprint(), by_name.fingerprint());
}

#[test]
fn a_solver_that_draws_noise_draws_it_from_the_keys() {
    let golden = Golden::read("diver_sit");
    let folder = backbone_folder();
    let knobs = Knobs::builder().solver(Solver::Sde).steps(6);
    let refiner = checkpoint("sit_tiny_official.safetensors", folder.path()).knobs(knobs).build().unwrap();
    let (z0, noise) = (golden.input("z0"), golden.input("noise"));
    let keys = [b"one", b"two"].map(|name| NoiseKey { content: Digest::of(name), variant: 0 });
    let run = |z0: &Tensor, y: &[usize], noise: Noise<'_>| {
        refiner.sample_latents(z0, y, noise, &CancelToken::new(), &Silent)
    };
    let both = run(&z0, &[3, 7], Noise::Keyed(&keys)).unwrap();
    let second = run(&z0.narrow(0, 1, 1), &[7], Noise::Keyed(&keys[1..])).unwrap();
    assert!(relative(&second, &both.narrow(0, 1, 1)) <= common::tolerance());
    let other = run(&z0, &[3, 7], Noise::Keyed(&[keys[1], keys[0]])).unwrap();
    assert!(relative(&other, &both) > 0.01);
    let text = run(&z0, &[3, 7], Noise::Given(&noise)).unwrap_err().to_string();
    assert_eq!(text, "solver: `sde` draws noise at every step: give keys instead of noise");

    // Draw `d` of a sample is its normals from `256 d` on, and step `k` of 6 draws for the `7 - k`th time.
    let knobs = refiner.knobs();
    let chain = Chain::new(knobs.chain(), 6, refiner.backbone().unwrap().schedule()).unwrap();
    let flow = Flow::new(knobs, &chain).unwrap();
    let drawn = |draw: usize| {
        let of = |key: &NoiseKey| {
            let all = normals(0, &key.content, 0, 7 * 256);
            Tensor::from_slice(&all[draw * 256..][..256]).view([4, 8, 8])
        };
        Tensor::stack(&keys.each_ref().map(of), 0).to_device(common::device())
    };
    let start = drawn(0);
    let draw = |k: usize| Ok(drawn(7 - k));
    let mut sampler = FlowSampler::new(&flow, &z0, &start, &draw).unwrap();
    let Network::Sit(sit) = refiner.backbone().unwrap().network() else { panic!("a SiT") };
    let net = sit.guided(&[3, 7], knobs.cfg_scale(), knobs.cfg_channels()).unwrap();
    while sampler.remaining() > 0 {
        sampler.step(&net).unwrap();
    }
    assert!(relative(&both, sampler.latent()) <= common::tolerance());
}

#[test]
fn what_is_missing_is_said() {
    let folder = backbone_folder();
    let bare = || Refiner::builder(data().join("dit_tiny_official.pt")).device(DeviceChoice::Cpu);
    let text = refused(bare());
    assert!(
        text.ends_with(
            "name the folder or repository of one as `vae`, stabilityai/sd-vae-ft-mse for the published models"
        ),
        "{text}"
    );
    let text = refused(bare().vae(folder.path()));
    assert!(
        text.contains("tokens are 32 wide, as in none of the published sizes: set `num_heads`"),
        "{text}"
    );
    let text = refused(bare().vae(folder.path().join("transformer")).num_heads(4));
    assert!(text.contains("not those of RGB images"), "{text}");
    let text = refused(bare().vae("no/such/folder").num_heads(4));
    assert!(text.starts_with("no/such/folder: there is no such folder, and a repository"), "{text}");
    let text = refused(of(&data().join("vae2_tiny.safetensors"), folder.path()).model(Family::Dit));
    assert!(text.contains("there is no `x_embedder.proj.weight`: not the weights of a DiT or SiT"), "{text}");
    let text = refused(of(&data().join("manifest.json"), folder.path()).model(Family::Dit));
    assert!(text.contains("manifest.json: "), "{text}");
    let text = refused(bare().vae(folder.path()).num_heads(3));
    assert_eq!(text, "num_heads: 3 do not divide a width of 32");
    let text = refused(Refiner::builder(folder.path()).device(DeviceChoice::Cpu).model(Family::Sit));
    assert!(text.starts_with("model: `sit` was given, but the folder "), "{text}");
    let text = refused(Refiner::builder(folder.path()).device(DeviceChoice::Cpu).num_heads(4));
    assert_eq!(text, "num_heads: a folder's config.json tells them");
    let knobs = Knobs::builder().mode(Mode::Si).start(diver::Start::Tf);
    let text = refused(checkpoint("sit_tiny_official.safetensors", folder.path()).knobs(knobs));
    assert!(text.starts_with("start: `t_f` is for diffusion chains"), "{text}");
}

#[test]
fn an_autoencoder_is_found_by_itself_or_in_a_folder() {
    let folder = backbone_folder();
    let digest = |vae: PathBuf| {
        let refiner = checkpoint("dit_tiny_official.pt", folder.path()).vae(vae).build().unwrap();
        refiner.backbone().unwrap().digest()
    };
    assert_eq!(digest(folder.path().to_owned()), digest(folder.path().join("vae")));
}

#[test]
fn a_wrong_path_leads_to_the_right_one() {
    let whole = backbone_folder();
    let at = |path: PathBuf| refused(Refiner::builder(path).device(DeviceChoice::Cpu));
    let hint = format!("is a part of the diffusers folder {}: name that", whole.path().display());
    for part in ["transformer", "transformer/diffusion_pytorch_model.safetensors", "vae"] {
        assert!(at(whole.path().join(part)).ends_with(&hint), "{part}");
    }
    let other = tempfile::tempdir().unwrap();
    let text = at(other.path().to_owned());
    assert!(
        text.ends_with(
            "is no diffusers folder: transformer/ or unet/ is expected in it, beside vae/ and scheduler/"
        ),
        "{text}"
    );
    for bytes in [&b""[..], b"# diver", b"A streaming data loader for distilled datasets"] {
        fs::write(other.path().join("README.md"), bytes).unwrap();
        let text = at(other.path().join("README.md"));
        assert!(text.contains("README.md: holds no weights"), "{text}");
    }
}
