//! The autoencoder against diffusers' own, at two depths.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, Worst, vae};

fn check(name: &str, file: &'static str) {
    let golden = Golden::read(file);
    let vae = vae(name);
    let _no_grad = tch::no_grad_guard();
    let mut worst = Worst::default();
    let mut check = |key: &str, found: &tch::Tensor| worst.see(golden.check(key, found), key);

    let posterior = vae.posterior(&golden.input("x")).unwrap();
    check("mean", &posterior.mean);
    check("logvar", &posterior.logvar);
    check("z0_mode", &vae.encode(&golden.input("x")).unwrap());
    let sample = &posterior.mean + (&posterior.logvar * 0.5).exp() * golden.input("noise");
    check("z0_sample", &vae.to_latent(&sample).unwrap());
    check("decoded", &vae.decode(&golden.input("z")).unwrap());

    // The reference keeps its moments from before the clamp.
    let moments = golden.get("out.moments");
    let clamped = [moments.narrow(1, 0, 4), moments.narrow(1, 4, 4).clamp(-30.0, 20.0)];
    for (found, wanted) in [&posterior.mean, &posterior.logvar].into_iter().zip(&clamped) {
        assert!(common::relative(found, wanted) <= common::tolerance());
    }
    assert!(moments.min().double_value(&[]) < -30.0, "the files show the clamp");
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
