//! The autoencoder against diffusers' own, at two depths.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says how far off it was")]

mod common;

use common::{Golden, Worst, vae};

fn check(name: &str, file: &'static str) {
    let golden = Golden::read(file);
    let vae = vae(name);
    let _no_grad = tch::no_grad_guard();
    let posterior = vae.posterior(&golden.input("x")).unwrap();
    let moments = tch::Tensor::cat(&[&posterior.mean, &posterior.logvar], 1);
    let sample = &posterior.mean + (&posterior.logvar * 0.5).exp() * golden.input("noise");
    let results = [
        // The reference keeps the moments before the clamp.
        ("moments", moments.narrow(1, 0, 4)),
        ("mean", posterior.mean.copy()),
        ("logvar", posterior.logvar.copy()),
        ("z0_mode", vae.encode(&golden.input("x")).unwrap()),
        ("z0_sample", vae.to_latent(&sample).unwrap()),
        ("decoded", vae.decode(&golden.input("z")).unwrap()),
    ];
    let mut worst = Worst::default();
    for (key, found) in results {
        let apart = match key {
            "moments" => {
                let wanted = golden.get("out.moments");
                let clamped = wanted.narrow(1, 4, 4).clamp(-30.0, 20.0);
                let wanted = tch::Tensor::cat(&[wanted.narrow(1, 0, 4), clamped], 1);
                common::relative(&moments, &wanted)
            }
            _ => golden.check(key, &found),
        };
        assert!(apart <= common::tolerance(), "{key} is {apart:.2e} off");
        worst.see(apart, key);
    }
    worst.report(file);
}

#[test]
fn two_levels() {
    check("vae2", "vae2_io");
}

#[test]
fn four_levels_as_stable_diffusion() {
    check("vae4", "vae4_io");
}
