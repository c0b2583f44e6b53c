//! The losses, and the targets that the engine makes for them, beside torch's own formulas.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Golden, Worst, device};
use diver::loss::{distillation, distillation_to, mse_and_cross_entropy, soft_cross_entropy};
use diver::{Label, Targets};
use tch::{Device, Kind, Tensor};

/// The targets of a golden file's samples, `[B, C]`: the engine makes them of stored labels and a teacher's logits.
fn targets(golden: &Golden, targets: Targets, hard: bool) -> Tensor {
    let rows = |key: &str| -> Vec<Vec<f32>> { golden.get(key).try_into().unwrap() };
    let (stored, teacher, labels) = (rows("in.stored"), rows("in.teacher"), golden.integers("labels"));
    let made = stored.into_iter().zip(&teacher).zip(labels).map(|((stored, teacher), class)| {
        let label = if hard { Label::Hard(class) } else { Label::Logits(stored) };
        let mut target = vec![0.0; teacher.len()];
        targets.write(&label, Some(teacher), &mut target).unwrap();
        Tensor::from_slice(&target)
    });
    Tensor::stack(&made.collect::<Vec<_>>(), 0).to_device(device())
}

#[test]
fn losses_and_gradients_are_torchs() {
    let golden = Golden::read("losses");
    let (teacher, labels) = (golden.input("teacher"), golden.input("labels"));
    let stored = targets(&golden, Targets::stored(1.0).unwrap(), false);
    let at_20 = targets(&golden, Targets::teacher(20.0).unwrap(), false);
    let smoothed = targets(&golden, Targets::hard(0.1).unwrap(), true);
    let mut worst = Worst::default();
    let mut check = |name: &str, loss: &dyn Fn(&Tensor) -> diver::Result<Tensor>| {
        let student = golden.input("student").copy().set_requires_grad(true);
        let value = loss(&student).unwrap();
        value.backward();
        worst.see(golden.check(name, &value), name);
        worst.see(golden.check(&format!("{name}_gradient"), &student.grad()), name);
    };
    check("soft_targets", &|student| soft_cross_entropy(student, &stored));
    check("distillation", &|student| distillation(student, &teacher, 20.0));
    check("distillation", &|student| distillation_to(student, &at_20, 20.0));
    check("mse_gt", &|student| mse_and_cross_entropy(student, &teacher, &labels, 0.1));
    check("smoothed", &|student| soft_cross_entropy(student, &smoothed));
    worst.report("losses");
}

#[test]
fn the_loss_is_of_no_less_than_single_precision() {
    let golden = Golden::read("losses");
    let [student, teacher] = ["student", "teacher"].map(|key| golden.input(key).to_device(Device::Cpu));
    let loss = |kind| distillation(&student.to_kind(kind), &teacher.to_kind(kind), 20.0).unwrap();
    assert_eq!(loss(Kind::BFloat16).kind(), Kind::Float);
    golden.check_within("distillation", &loss(Kind::BFloat16), 2e-2);
    assert_eq!(loss(Kind::Double).kind(), Kind::Double);
    golden.check("distillation", &loss(Kind::Double));
}
