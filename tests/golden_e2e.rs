//! From image to image against the reference: resize, encode, inherit, sample, decode.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, Worst, dit, schedule, vae};
use diver::method::{Interpolation, Sampler, from_network, to_network};
use diver::{Chain, Knobs};

#[test]
fn image_to_image() {
    let golden = Golden::read("diver_e2e");
    let (vae, dit) = (vae("vae2"), dit());
    let _no_grad = tch::no_grad_guard();
    let mut worst = Worst::default();
    let mut check = |key: &str, found: &tch::Tensor| worst.see(golden.check(key, found), key);

    let images = golden.input("img");
    let fed = to_network(&images, 16, Interpolation::Bicubic).unwrap();
    check("pre_bicubic", &fed);
    check("pre_bilinear", &to_network(&images, 16, Interpolation::Bilinear).unwrap());
    let z0 = vae.encode(&fed).unwrap();
    check("z0", &z0);

    let knobs = Knobs::default();
    let chain = Chain::new(knobs.chain(), knobs.steps(), &schedule()).unwrap();
    let net = dit.guided(&golden.integers("y"), knobs.cfg_scale(), knobs.cfg_channels()).unwrap();
    let noise = golden.input("noise");
    let mut sampler = Sampler::new(&chain, &knobs, &z0, &noise).unwrap();
    check("start", sampler.latent());
    while sampler.remaining() > 0 {
        sampler.step(&net).unwrap();
    }
    check("z_hat0", sampler.latent());
    check("image01", &from_network(&vae.decode(sampler.latent()).unwrap()).unwrap());
    worst.report("diver_e2e");
}
