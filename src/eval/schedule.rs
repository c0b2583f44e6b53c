//! The learning rate over a training.

use std::f64::consts::PI;

/// The one-cycle schedule of `torch.optim.lr_scheduler.OneCycleLR` with its defaults (cosine, two phases): the
/// learning rate rises from 1/25 of its maximum and falls to 1/250,000 of it, while momentum (AdamW's beta 1) falls
/// from 0.95 to 0.85 and rises again.
///
/// ```
/// use diver::eval::OneCycle;
///
/// let cycle = OneCycle { steps: 100, max_lr: 2e-3, warmup: 0.2 };
/// assert!((cycle.learning_rate(0) - 8e-5).abs() < 1e-12);
/// assert!((cycle.learning_rate(19) - 2e-3).abs() < 1e-12);
/// assert!((cycle.learning_rate(99) - 8e-9).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    /// Steps of the whole cycle.
    pub steps: usize,
    /// The maximum.
    pub max_lr: f64,
    /// Share of the steps in which the learning rate rises, 0 to 1.
    pub warmup: f64,
}

impl OneCycle {
    /// Learning rate of step `step`, from 0; steps past the last count as the last.
    pub fn learning_rate(&self, step: usize) -> f64 {
        let first = self.max_lr / 25.0;
        self.anneal(step, first, self.max_lr, first / 1e4)
    }

    /// Momentum of step `step`, from 0; steps past the last count as the last.
    pub fn momentum(&self, step: usize) -> f64 {
        self.anneal(step, 0.95, 0.85, 0.95)
    }

    /// From `first` to `peak` in the first phase, on to `last` in the second.
    fn anneal(&self, step: usize, first: f64, peak: f64, last: f64) -> f64 {
        let end = self.steps.saturating_sub(1);
        let (step, end) = (step.min(end) as f64, end as f64);
        let turn = self.warmup * self.steps as f64 - 1.0;
        // A phase of no length, where torch divides by zero, is left out.
        let (from, to, share) = if step <= turn && turn > 0.0 {
            (first, peak, step / turn)
        } else if end > turn {
            (peak, last, (step - turn) / (end - turn))
        } else {
            (peak, peak, 0.0)
        };
        to + (from - to) / 2.0 * (1.0 + (PI * share).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learning rate and beta 1 of `OneCycleLR(AdamW, max_lr=2e-3, total_steps=.., pct_start=.2)`, torch 2.11.
    #[test]
    fn one_cycle_is_that_of_torch() {
        let hundred = [
            (0, 8e-5, 0.95),
            (1, 9.309314873338654e-5, 0.9493180651701361),
            (5, 0.00038980969123928854, 0.9338640785812871),
            (10, 0.001119276171653439, 0.8958710327263834),
            (18, 0.0019869068512666133, 0.8506819348298639),
            (19, 0.002, 0.85),
            (20, 0.0019992290393245783, 0.8500385481879639),
            (50, 0.0013461196726092645, 0.8826941471461254),
            (99, 8e-9, 0.95),
        ];
        let twenty = [
            (1, 0.00056, 0.925),
            (5, 0.0019238798369931565, 0.8538060233744357),
            (10, 0.0011950935416548403, 0.8902454838991936),
            (18, 1.9222642737891183e-05, 0.9490392640201615),
        ];
        for (steps, expected) in [(100, &hundred[..]), (20, &twenty)] {
            let cycle = OneCycle { steps, max_lr: 2e-3, warmup: 0.2 };
            for &(step, lr, momentum) in expected {
                assert!((cycle.learning_rate(step) - lr).abs() < 1e-15, "learning rate of {step} of {steps}");
                assert!((cycle.momentum(step) - momentum).abs() < 1e-15, "momentum of {step} of {steps}");
            }
        }
    }

    #[test]
    fn one_cycle_is_finite_at_its_edges() {
        for (steps, warmup) in [(0, 0.2), (1, 0.2), (5, 0.2), (5, 0.0), (5, 1.0), (1, 1.0)] {
            let cycle = OneCycle { steps, max_lr: 1.0, warmup };
            for step in 0..6 {
                assert!((0.0..=1.0).contains(&cycle.learning_rate(step)), "{cycle:?} at {step}");
            }
        }
    }
}
