//! The whole method on the tiny DiT against the reference, latent by latent.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says how far off it was")]

mod common;

use common::{Golden, Worst, dit, relative, schedule};
use diver::backbone::{Convention, Dit};
use diver::method::{Denoiser, Prediction, Sampler};
use diver::{Chain, ChainKind, Gradient, Knobs, Mode, Sigma, Start, WindowEnds};
use std::cell::Cell;
use tch::Tensor;

/// Every latent of a run, `[steps + 1, B, C, h, w]`, and the noise predicted at each step.
fn trajectory(golden: &Golden, knobs: &Knobs, net: &dyn Denoiser) -> (Tensor, Vec<Tensor>) {
    let chain = Chain::new(knobs.chain(), knobs.steps(), &schedule()).unwrap();
    let (z0, noise) = (golden.input("z0"), golden.input("noise"));
    let mut sampler = Sampler::new(&chain, knobs, &z0, &noise).unwrap();
    let mut latents = vec![sampler.latent().copy()];
    let mut eps = Vec::new();
    while let Some(prediction) = sampler.step(net).unwrap() {
        latents.push(sampler.latent().copy());
        eps.push(prediction.eps);
    }
    (Tensor::stack(&latents, 0), eps)
}

fn run(golden: &Golden, knobs: &Knobs) -> Tensor {
    let dit = dit();
    let net = dit.guided(&golden.integers("y"), knobs.cfg_scale(), knobs.cfg_channels()).unwrap();
    trajectory(golden, knobs, &net).0
}

#[test]
fn trajectories_of_all_modes() {
    let golden = Golden::read("diver_dit");
    let mut worst = Worst::default();
    let mut seen = Vec::new();
    for mode in Mode::ALL.iter().filter(|mode| **mode != Mode::Vae) {
        let key = format!("traj.{mode}");
        let found = run(&golden, &Knobs::builder().mode(*mode).build().unwrap());
        assert_eq!(found.size()[0], 51);
        for j in 0..51 {
            // Each latent by its own measure: the later ones are small beside the first.
            let apart = relative(&found.get(j), &golden.get(&format!("out.{key}")).get(j));
            assert!(apart <= common::tolerance(), "{key}[{j}] is {apart:.2e} off");
            worst.see(apart, &format!("{key}[{j}]"));
        }
        golden.check(&key, &found);
        seen.push(key);
    }
    seen.sort();
    assert_eq!(seen, golden.outputs("traj."));
    worst.report("diver_dit, trajectories");
}

/// A network that says what it is told, so that the sampler is tested alone.
struct Recorded {
    eps: Tensor,
    next: Cell<i64>,
}

impl Denoiser for Recorded {
    fn predict(&self, _z: &Tensor, _tau: i64) -> diver::Result<Prediction> {
        let step = self.next.replace(self.next.get() + 1);
        Ok(Prediction { eps: self.eps.get(step), variance: None })
    }
}

#[test]
fn the_sampler_without_a_network() {
    let golden = Golden::read("diver_dit");
    let eps = golden.get("out.eps_full").to_device(common::device());
    let net = Recorded { eps, next: Cell::new(0) };
    let (found, _) = trajectory(&golden, &Knobs::default(), &net);
    println!("diver_dit, recorded noise: {:.2e}", golden.check("traj.full", &found));
}

#[test]
fn learned_sigma_needs_a_variance_head() {
    let golden = Golden::read("diver_dit");
    let knobs = Knobs::builder().mode(Mode::Sg).sigma(Sigma::Learned).build().unwrap();
    let chain = Chain::new(knobs.chain(), knobs.steps(), &schedule()).unwrap();
    let (z0, noise) = (golden.input("z0"), golden.input("noise"));
    let net = Recorded { eps: noise.unsqueeze(0), next: Cell::new(0) };
    let error = Sampler::new(&chain, &knobs, &z0, &noise).unwrap().step(&net).unwrap_err().to_string();
    assert!(error.starts_with("sigma: `learned` needs a network with a variance head"), "{error}");
}

#[test]
fn predicted_noise_of_the_full_method() {
    let golden = Golden::read("diver_dit");
    let dit = dit();
    let net = dit.guided(&golden.integers("y"), 4.0, 3).unwrap();
    let (_, eps) = trajectory(&golden, &Knobs::default(), &net);
    golden.check("eps_full", &Tensor::stack(&eps, 0));
}

#[test]
fn every_variant() {
    let golden = Golden::read("diver_dit");
    let full = Knobs::builder;
    let variants = [
        ("sigma_marginal", full().sigma(Sigma::Marginal)),
        ("sigma_beta", full().sigma(Sigma::Beta)),
        ("sigma_learned", full().sigma(Sigma::Learned)),
        ("sigma_ddim_eta0", full().sigma(Sigma::DdimEta0)),
        ("gamma0.02", full().gamma(0.02)),
        ("window_high", full().window_ends(WindowEnds::High)),
        ("window_zero_based", full().window_ends(WindowEnds::ZeroBased)),
        ("grad_after", full().gradient(Gradient::After)),
        ("start_tf", full().start(Start::Tf)),
        ("t_f10", full().t_f(10)),
        ("chain_ddim", full().chain(ChainKind::Ddim)),
        ("chain_leading0", full().chain(ChainKind::Leading0)),
        ("chain_leading1", full().chain(ChainKind::Leading1)),
        ("chain_trailing", full().chain(ChainKind::Trailing)),
        ("chain_linspace_diffusers", full().chain(ChainKind::LinspaceDiffusers)),
        ("cfg_all4", full().cfg_channels(4)),
        ("cfg_scale1.5", full().cfg_scale(1.5)),
    ];
    let mut worst = Worst::default();
    let mut seen = vec!["final.conv_diffusers".to_owned()];
    for (name, knobs) in variants {
        let key = format!("final.{name}");
        let found = run(&golden, &knobs.build().unwrap());
        worst.see(golden.check(&key, &found.get(-1)), &key);
        seen.push(key);
    }
    seen.sort();
    assert_eq!(seen, golden.outputs("final."));

    let dit = Dit::with_convention(
        common::config("dit_tiny_diffusers"),
        common::weights("dit_tiny_diffusers"),
        common::place(),
        Convention::DIFFUSERS,
    )
    .unwrap();
    let net = dit.guided(&golden.integers("y"), 4.0, 3).unwrap();
    let (found, _) = trajectory(&golden, &Knobs::default(), &net);
    worst.see(golden.check("final.conv_diffusers", &found.get(-1)), "conv_diffusers");
    worst.report("diver_dit, finals");
}

/// `gradient = x0` has no golden file: its run is replayed from the noise that the network predicted in it, with
/// the step written out in one line of textbook DDIM and `abar` taken from the betas directly.
#[test]
fn guidance_along_the_predicted_clean_latent() {
    let golden = Golden::read("diver_dit");
    let knobs = Knobs::builder().gradient(Gradient::X0).build().unwrap();
    let dit = dit();
    let net = dit.guided(&golden.integers("y"), 4.0, 3).unwrap();
    let (found, eps) = trajectory(&golden, &knobs, &net);

    let level = |t: i64| (0..=t).map(|s| 1.0 - (1e-4 + s as f64 * (0.02 - 1e-4) / 999.0)).product::<f64>();
    let timestep = |k: usize| ((k - 1) as f64 * 999.0 / 49.0).round() as i64;
    let z0 = golden.input("z0");
    let mut z = found.get(0);
    for (j, eps) in eps.iter().enumerate() {
        let k = 50 - j;
        let abar = level(timestep(k));
        let before = if k > 1 { level(timestep(k - 1)) } else { 1.0 };
        let x0 = (&z - eps * (1.0 - abar).sqrt()) / abar.sqrt();
        z = &x0 * before.sqrt() + eps * (1.0 - before).sqrt();
        if (25..=40).contains(&k) {
            let variance = (1.0 - before) / (1.0 - abar) * (1.0 - abar / before);
            z -= (x0 - &z0) * (0.1 * variance.sqrt());
        }
        let apart = relative(&found.get(j as i64 + 1), &z);
        assert!(apart <= common::tolerance(), "latent {} is {apart:.2e} off", j + 1);
    }
    let printed = run(&golden, &Knobs::default());
    assert!(relative(&found.get(-1), &printed.get(-1)) > 1e-3, "the choice makes a difference");
}
