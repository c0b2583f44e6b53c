"""Writes losses.safetensors: the losses that distilled datasets are trained with, by torch's own formulas, with the
gradients of the student's logits.

Run with torch 2.11; every run writes the same bytes.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

TEMPERATURE, WEIGHT, SMOOTHING = 20.0, 0.1, 0.1
BATCH, CLASSES = 6, 11

torch.manual_seed(0)
student = 4 * torch.randn(BATCH, CLASSES)
teacher = 4 * torch.randn(BATCH, CLASSES)
stored = 4 * torch.randn(BATCH, CLASSES)
labels = torch.randint(CLASSES, (BATCH,))


def soft_targets(z):
    """EDF and DATM: the stored logits at temperature 1."""
    return -(F.softmax(stored, dim=1) * F.log_softmax(z, dim=1)).sum(dim=1).mean()


def distillation(z):
    """SRe2L and RDED: no factor temperature^2."""
    divergence = torch.nn.KLDivLoss(reduction="batchmean")
    return divergence(F.log_softmax(z / TEMPERATURE, dim=1), F.softmax(teacher / TEMPERATURE, dim=1))


def mse_gt(z):
    """G_VBSM."""
    return F.mse_loss(z, teacher) + WEIGHT * F.cross_entropy(z, labels)


def smoothed(z):
    """Hard labels with label smoothing."""
    return F.cross_entropy(z, labels, label_smoothing=SMOOTHING)


tensors = {"in.student": student, "in.teacher": teacher, "in.stored": stored, "in.labels": labels}
for loss in (soft_targets, distillation, mse_gt, smoothed):
    z = student.clone().requires_grad_()
    value = loss(z)
    value.backward()
    tensors |= {f"out.{loss.__name__}": value.detach(), f"out.{loss.__name__}_gradient": z.grad}
save_file(tensors, Path(__file__).with_name("losses.safetensors"))
