//! The whole method on the tiny SiT against the reference: grids, windows, solvers, latent by latent.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says how far off it was")]

mod common;

use common::{Golden, Worst, config, place, relative, schedule, weights};
use diver::backbone::Dit;
use diver::method::FlowSampler;
use diver::{Chain, Flow, FlowStart, Grid, Knobs, KnobsBuilder, Mapping, Mode, Sigma, Solver, WindowEnds};
use tch::Tensor;

fn sit() -> Dit {
    Dit::new(config("dit_tiny_diffusers"), weights("sit_tiny_official"), place()).unwrap()
}

fn flow(knobs: &Knobs) -> Flow {
    let chain = Chain::new(knobs.chain(), knobs.steps(), &schedule()).unwrap();
    Flow::new(knobs, &chain).unwrap()
}

/// Every latent of a run, `[steps + 1, B, C, h, w]`.
fn trajectory(golden: &Golden, knobs: KnobsBuilder) -> Tensor {
    let knobs = knobs.build().unwrap();
    let sit = sit();
    let net = sit.guided(&golden.integers("y"), knobs.cfg_scale(), knobs.cfg_channels()).unwrap();
    let (z0, noise, drawn) = (golden.input("z0"), golden.input("noise"), golden.input("step_noise"));
    let flow = flow(&knobs);
    let draw = |k: usize| Ok(drawn.get(50 - k as i64));
    let mut sampler = FlowSampler::new(&flow, &z0, &noise, &draw).unwrap();
    let mut latents = vec![sampler.latent().copy()];
    while sampler.remaining() > 0 {
        sampler.step(&net).unwrap();
        latents.push(sampler.latent().copy());
    }
    Tensor::stack(&latents, 0)
}

fn full() -> KnobsBuilder {
    Knobs::builder()
}

#[test]
fn one_forward_pass() {
    let golden = Golden::read("diver_sit");
    let (x, s, y) = (golden.input("fwd_x"), golden.input("fwd_s"), golden.input("fwd_y"));
    println!("diver_sit, forward: {:.2e}", golden.check("forward8", &sit().forward(&x, &s, &y).unwrap()));
}

#[test]
fn trajectories() {
    let golden = Golden::read("diver_sit");
    let mut worst = Worst::default();
    let mut seen = Vec::new();
    for (name, knobs) in
        [("raw", full().mode(Mode::Raw)), ("full", full()), ("full_em", full().solver(Solver::Sde))]
    {
        let key = format!("traj.{name}");
        let (found, wanted) = (trajectory(&golden, knobs), golden.get(&format!("out.{key}")));
        assert_eq!(found.size(), wanted.size());
        for j in 0..51 {
            let apart = relative(&found.get(j), &wanted.get(j));
            assert!(apart <= common::tolerance(), "{key}[{j}] is {apart:.2e} off");
            worst.see(apart, &format!("{key}[{j}]"));
        }
        seen.push(key);
    }
    assert_eq!(seen, ["traj.raw", "traj.full", "traj.full_em"]);
    assert_eq!(golden.outputs("traj.").len(), seen.len());
    worst.report("diver_sit, trajectories");
}

#[test]
fn every_variant() {
    let golden = Golden::read("diver_sit");
    let variants = [
        ("si", full().mode(Mode::Si)),
        ("sg", full().mode(Mode::Sg)),
        ("si_sg", full().mode(Mode::SiSg)),
        ("full_heun", full().solver(Solver::Heun)),
        ("full_counter", full().mapping(Mapping::Counter)),
        ("full_counter_path", full().mapping(Mapping::Counter).flow_start(FlowStart::Path)),
        ("full_snrgrid", full().grid(Grid::Snr).mapping(Mapping::Counter)),
        ("full_sigma_marginal", full().sigma(Sigma::Marginal)),
        ("full_sigma_kernel", full().sigma(Sigma::Beta)),
    ];
    let mut worst = Worst::default();
    let mut seen: Vec<String> = variants.iter().map(|(name, _)| format!("final.{name}")).collect();
    for (name, knobs) in variants {
        let found = trajectory(&golden, knobs).get(50);
        worst.see(golden.check(&format!("final.{name}"), &found), name);
    }
    seen.sort();
    assert_eq!(seen, golden.outputs("final."));
    worst.report("diver_sit, variants");
}

#[test]
fn grids_sigmas_and_windows() {
    let golden = Golden::read("schedules");
    let numbers = |key: &str| Vec::<f64>::try_from(golden.get(&format!("out.{key}"))).unwrap();
    let check = |key: &str, found: Vec<f64>| {
        let wanted = numbers(key);
        assert_eq!(found.len(), wanted.len(), "{key}");
        for (k, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert!(
                (found - wanted).abs() <= 1e-12 * wanted.abs().max(1e-3),
                "{key}[{k}]: {found} not {wanted}"
            );
        }
    };
    for grid in Grid::ALL {
        let by = |mapping| flow(&full().grid(*grid).mapping(mapping).build().unwrap());
        let flow = by(Mapping::Snr);
        check(&format!("sit.{grid}.s"), (0..=50).map(|k| flow.time(k)).collect());
        for (name, sigma) in
            [("posterior", Sigma::Posterior), ("marginal", Sigma::Marginal), ("kernel", Sigma::Beta)]
        {
            let found = (1..=50).map(|k| flow.sigma(sigma, k)).collect();
            check(&format!("sit.{grid}.sigma_{name}"), found);
        }
        for mapping in Mapping::ALL {
            let found: Vec<bool> = (1..=50).map(|k| by(*mapping).is_in_window(k)).collect();
            let wanted = golden.get(&format!("out.sit.{grid}.window_{mapping}"));
            let wanted: Vec<bool> =
                Vec::<u8>::try_from(wanted).unwrap().iter().map(|set| *set == 1).collect();
            assert_eq!(found, wanted, "{grid}, {mapping}");
        }
    }
}

#[test]
fn window_ends_move_the_matched_window_too() {
    let guided = |ends| {
        let flow = flow(&full().grid(Grid::Snr).window_ends(ends).build().unwrap());
        (1..=50).filter(|k| flow.is_in_window(*k)).collect::<Vec<usize>>()
    };
    assert_eq!(guided(WindowEnds::Closed), (25..=40).collect::<Vec<_>>());
    assert_eq!(guided(WindowEnds::High), (26..=40).collect::<Vec<_>>());
    assert_eq!(guided(WindowEnds::ZeroBased), (26..=41).collect::<Vec<_>>());
}

#[test]
fn a_window_that_guides_nothing_is_refused() {
    let of = |knobs: KnobsBuilder| {
        let knobs = knobs.build().unwrap();
        Flow::new(&knobs, &Chain::new(knobs.chain(), knobs.steps(), &schedule()).unwrap())
    };
    let error = of(full().steps(3)).unwrap_err().to_string();
    assert!(
        error.starts_with("window: none of the 3 steps has the noise of the chain's steps 2..2"),
        "{error}"
    );
    assert!(of(full().steps(3).mapping(Mapping::Counter)).is_ok());
    assert!(of(full().steps(3).mode(Mode::Si)).is_ok());
    // The noisiest step of the chain stands for the flow's start.
    let first = of(full().window(50, 50)).unwrap();
    assert_eq!((1..=50).filter(|k| first.is_in_window(*k)).collect::<Vec<_>>(), [50]);
    assert!(of(full().window(50, 25)).unwrap().is_in_window(50));
}

#[test]
fn what_a_flow_model_does_not_know_is_refused() {
    let refused = |knobs: KnobsBuilder| {
        let knobs = knobs.build().unwrap();
        let chain = Chain::new(knobs.chain(), knobs.steps(), &schedule()).unwrap();
        Flow::new(&knobs, &chain).unwrap_err().to_string()
    };
    assert!(refused(full().start(diver::Start::Tf)).starts_with("start: `t_f` is for diffusion chains"));
    assert!(refused(full().sigma(Sigma::Learned)).starts_with("sigma: `learned` is for diffusion models"));
}
