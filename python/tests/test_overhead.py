"""What a batch costs the training loop's thread beyond the batch itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

import diver

#: Of a build with optimisation, as `make setup` makes it.
MICROSECONDS = 20.0


@pytest.mark.parametrize("format", ["torch", "numpy"])
def test_a_batch_that_is_ready_costs_little(
    format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CPU time of this thread, so that other work of the machine and the loader's own threads do not count; the
    least of several rounds, for what is left of them."""
    count = 512
    torch.save(torch.zeros(count, 1, 2, 2), tmp_path / "images_best.pt")
    torch.save(torch.zeros(count, dtype=torch.int64), tmp_path / "labels_best.pt")
    rounds = []
    with diver.DataLoader(tmp_path, batch_size=1, threads=1, prefetch=count, format=format) as loader:
        for _ in range(20):
            batches = iter(loader)
            next(batches)
            time.sleep(0.03)  # The others are made meanwhile.
            began = time.thread_time_ns()
            for _images, _targets in batches:
                pass
            rounds.append((time.thread_time_ns() - began) / (count - 1) / 1000)
    best = min(rounds)
    with capsys.disabled():
        print(f"\n{format}: {best:.1f} us of overhead a batch (median {sorted(rounds)[10]:.1f})")
    assert best <= MICROSECONDS
