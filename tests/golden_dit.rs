//! One forward pass of the tiny DiT against the reference: both key layouts, both conventions, guidance.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, Worst, config, dit, place, schedule, weights};
use diver::backbone::{Convention, Dit, Weights};
use diver::method::{Denoiser, learned_sigma};
use diver::{Chain, ChainKind};
use tch::Tensor;

fn tiny(file: &str, convention: Convention) -> Dit {
    Dit::with_convention(config("dit_tiny_diffusers"), weights(file), place(), convention).unwrap()
}

fn forward(golden: &Golden, dit: &Dit) -> Tensor {
    dit.forward(&golden.input("x"), &golden.input("t"), &golden.input("y")).unwrap()
}

/// The tiny DiT with weights so small that the epsilons of its normalisations show.
fn small(convention: Convention) -> Dit {
    let path = common::data().join("dit_tiny_official.safetensors");
    let tensors = Tensor::read_safetensors(&path).unwrap().into_iter().map(|(name, tensor)| {
        let shrinks = name.starts_with("x_embedder.proj")
            || name == "pos_embed"
            || name.contains(".attn.proj.")
            || name.contains(".mlp.fc2.");
        let tensor = if shrinks { tensor * 0.003 } else { tensor };
        (name, tensor)
    });
    let weights = Weights::from_tensors(&path, tensors);
    Dit::with_convention(config("dit_tiny_diffusers"), weights, place(), convention).unwrap()
}

#[test]
fn forward_passes() {
    let golden = Golden::read("dit_forward");
    let mut worst = Worst::default();
    let cases = [
        ("official", tiny("dit_tiny_official", Convention::OFFICIAL)),
        ("official", tiny("dit_tiny_diffusers", Convention::OFFICIAL)),
        ("diffusers", tiny("dit_tiny_official", Convention::DIFFUSERS)),
        ("diffusers", tiny("dit_tiny_diffusers", Convention::DIFFUSERS)),
        ("official_smallscale", small(Convention::OFFICIAL)),
        ("diffusers_smallscale", small(Convention::DIFFUSERS)),
    ];
    for (key, dit) in cases {
        worst.see(golden.check(key, &forward(&golden, &dit)), key);
    }
    worst.report("dit_forward");
}

/// One ulp of a frequency (vector units differ in `exp`) is 6e-5 rad at timestep 999.
const TIME_TOLERANCE: f64 = 1e-4;

#[test]
fn what_lies_between() {
    let golden = Golden::read("dit_forward");
    let (x, t, y) = (golden.input("x"), golden.input("t"), golden.input("y"));
    let mut seen = Vec::new();
    let mut see = |name: &str, found: &Tensor| {
        let key = format!("official.{name}");
        let tolerance = if name == "time_features" { TIME_TOLERANCE } else { common::tolerance() };
        golden.check_within(&key, found, tolerance);
        seen.push(key);
    };
    let _ = dit().forward_tapped(&x, &t, &y, &mut see).unwrap();
    seen.sort();
    assert_eq!(seen, golden.outputs("official."));

    let mut see = |name: &str, found: &Tensor| {
        if name == "time_features" {
            golden.check_within("time_features_diffusers", found, TIME_TOLERANCE);
        }
    };
    let other = tiny("dit_tiny_official", Convention::DIFFUSERS);
    let _ = other.forward_tapped(&x, &t, &y, &mut see).unwrap();
}

#[test]
fn guided_passes() {
    let golden = Golden::read("dit_forward");
    let dit = dit();
    let (z, labels) = (golden.input("pair_z"), golden.integers("pair_y"));
    let tau = golden.integers("pair_tau")[0] as i64;
    let mut worst = Worst::default();
    for channels in [3, 4] {
        let found = dit.guided(&labels, 4.0, channels).unwrap().predict(&z, tau).unwrap();
        let variance = found.variance.unwrap();
        worst.see(golden.check(&format!("cfg{channels}.eps"), &found.eps), "eps");
        worst.see(golden.check(&format!("cfg{channels}.v"), &variance), "v");
        if channels == 3 {
            let chain = Chain::new(ChainKind::Dit, 50, &schedule()).unwrap();
            let sigma = learned_sigma(&chain, 40, &variance).unwrap();
            worst.see(golden.check("learned_sigma_k40", &sigma), "learned sigma");
        }
    }
    worst.report("dit_forward, guided");
}

#[test]
fn a_scale_of_one_is_the_conditional_branch() {
    let golden = Golden::read("dit_forward");
    let dit = dit();
    let (z, labels) = (golden.input("pair_z"), golden.integers("pair_y"));
    let alone = dit.guided(&labels, 1.0, 3).unwrap().predict(&z, 795).unwrap().eps;
    let t = Tensor::from_slice(&[795_i64, 795]).to_device(place().device);
    let y = Tensor::from_slice(&[labels[0] as i64, labels[1] as i64]).to_device(place().device);
    let full = dit.forward(&z, &t, &y).unwrap().narrow(1, 0, 4);
    assert!(common::relative(&alone, &full) <= common::tolerance());
}

#[test]
fn classes_and_shapes_are_checked() {
    let dit = dit();
    let refused = dit.guided(&[3, 10], 4.0, 3).unwrap_err().to_string();
    assert_eq!(refused, "class 10: this backbone knows the classes 0 to 9");
    let guided = dit.guided(&[3], 4.0, 3).unwrap();
    let wrong = Tensor::zeros([1, 4, 8, 6], (tch::Kind::Float, place().device));
    let refused = guided.predict(&wrong, 0).unwrap_err().to_string();
    assert_eq!(refused, "latents: [1, 4, 8, 6] was given, [B, 4, 8, 8] is expected");
}
