//! Schedules, chains and windows against the reference, in f64.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Golden;
use diver::{Chain, ChainKind, NoiseSchedule, Sigma, WindowEnds};

/// One scalar of a chain at step `k`.
type Column<'a> = (&'a str, &'a dyn Fn(&Chain, usize) -> f64);

/// Compares value by value, relative to each value.
fn check(golden: &Golden, key: &str, found: &[f64]) {
    let wanted = Vec::<f64>::try_from(golden.get(&format!("out.{key}"))).unwrap();
    assert_eq!(found.len(), wanted.len(), "{key}");
    for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        let apart = (found - wanted).abs();
        assert!(apart <= 1e-12 * wanted.abs(), "{key}[{i}]: {found:e} instead of {wanted:e}");
    }
}

#[test]
fn noise_schedules() {
    let golden = Golden::read("schedules");
    let linear = NoiseSchedule::linear(1e-4, 0.02, 1000).unwrap();
    let scaled = NoiseSchedule::scaled_linear(0.00085, 0.012, 1000).unwrap();
    check(&golden, "base.betas_linear", linear.betas());
    check(&golden, "base.abar_linear", linear.abar());
    check(&golden, "base.betas_scaled_linear", scaled.betas());
    check(&golden, "base.abar_scaled_linear", scaled.abar());
}

#[test]
fn chains() {
    let golden = Golden::read("schedules");
    let linear = NoiseSchedule::linear(1e-4, 0.02, 1000).unwrap();
    let scaled = NoiseSchedule::scaled_linear(0.00085, 0.012, 1000).unwrap();
    let mut seen = 0;
    for kind in ChainKind::ALL {
        let schedule = if *kind == ChainKind::SdLeading1 { &scaled } else { &linear };
        let chain = Chain::new(*kind, 50, schedule).unwrap();
        let tau: Vec<i64> = (1..=50).map(|k| chain.tau(k)).collect();
        let wanted = Vec::<i64>::try_from(golden.get(&format!("out.chain.{kind}.tau"))).unwrap();
        assert_eq!(tau, wanted, "{kind}");

        let sigma = |sigma| move |chain: &Chain, k: usize| chain.sigma(sigma, k).unwrap();
        let columns: [Column<'_>; 13] = [
            ("abar", &Chain::abar),
            ("abar_prev", &Chain::abar_prev),
            ("r", &Chain::r),
            ("m", &Chain::m),
            ("a", &Chain::a),
            ("b", &Chain::b),
            ("beta", &Chain::beta),
            ("beta_tilde", &Chain::beta_tilde),
            ("sigma_posterior", &sigma(Sigma::Posterior)),
            ("sigma_marginal", &sigma(Sigma::Marginal)),
            ("sigma_beta", &sigma(Sigma::Beta)),
            ("log_beta", &|chain, k| chain.beta(k).ln()),
            ("log_beta_tilde_clipped", &|chain, k| chain.beta_tilde_clipped(k).ln()),
        ];
        for (name, column) in columns {
            let found: Vec<f64> = (1..=50).map(|k| column(&chain, k)).collect();
            check(&golden, &format!("chain.{kind}.{name}"), &found);
        }
        seen += columns.len() + 1;
    }
    assert_eq!(golden.outputs("chain.").len(), seen, "every chain tensor is compared");
}

#[test]
fn windows() {
    let golden = Golden::read("schedules");
    for ends in WindowEnds::ALL {
        let found: Vec<u8> = (1..=50).map(|k| u8::from(ends.contains((40, 25), k))).collect();
        let wanted = Vec::<u8>::try_from(golden.get(&format!("out.window.{ends}"))).unwrap();
        assert_eq!(found, wanted, "{ends}");
    }
    assert_eq!(golden.outputs("window.").len(), WindowEnds::ALL.len());
}
