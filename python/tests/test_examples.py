"""The Python that users read first: the README's training loop, and examples/train.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DIGITS = "examples/digits"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that sees the examples and has an `out` of its own."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def run(project: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_loop_of_the_readme_runs(project: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    loop = re.search(r"```python\n(import torch\n.*?)```", readme, re.DOTALL)
    assert loop, "the README has a training loop"
    program = loop[1] + "\nprint(loss.item(), loader.stats())\n"
    told, last = run(project, "-c", program).splitlines()
    right = re.fullmatch(r"(.+)% of 359 real digits", told)
    assert right and float(right[1]) > 50, "chance is 10 %"
    loss, stats = last.split(" ", 1)
    assert float(loss) < 1.0, last
    assert eval(stats)["misses"] == 10, "each digit is refined once"
    assert (project / "out/checkpoint.pt").exists()
    cached = re.search(r'data_files="(.+?)"', readme)
    assert cached and list(project.glob(cached[1])), "the README names the folder of that cache"
    again = run(project, "-c", program).splitlines()[-1]
    assert eval(again.split(" ", 1)[1])["misses"] == 0, "and never again"


def test_the_soft_labels_of_the_readme_train(project: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    loop = next(block for block in blocks if block.startswith("import torch\n"))
    soft = next(block for block in blocks if "diver.labels.teacher" in block)
    kept = soft.replace("    optimizer.step()", "    optimizer.step(); losses.append(loss.item())")
    told = "print(sum(losses[:3]), sum(losses[-3:]), loader.stats())"
    program = f"{loop}\ntorch.manual_seed(0)\nlosses = []\n{kept}\n{told}"
    before, after, stats = run(project, "-c", program).splitlines()[-1].split(" ", 2)
    assert float(after) < 0.8 * float(before)
    assert eval(stats)["taught"] >= 100, "every view of ten epochs"
    assert eval(stats)["misses"] == 0, "the images are those of the first loop"


def train(project: Path, *options: str) -> str:
    fixed = ("examples/train.py", f"{DIGITS}/dm_ipc1", "--test", f"{DIGITS}/test.parquet", "--batch", "4")
    return run(project, *fixed, *options)


@pytest.mark.parametrize("mode", ["raw", "mixed"])
def test_a_training_stopped_in_an_epoch_goes_on_as_if_it_had_not_been(project: Path, mode: str) -> None:
    options = ["--epochs", "4", "--mode", mode, "--backbone", f"{DIGITS}/backbone"]
    whole = train(project, *options)
    checkpoint = ["--checkpoint", "out/checkpoint.pt"]
    (project / "out").mkdir(exist_ok=True)
    assert "stopped in epoch 1 after 5 batches" in train(project, *options, *checkpoint, "--stop-after", "5")
    resumed = train(project, *options, *checkpoint)
    # The first line tells what was refined, which differs; then come loss and accuracy.
    assert resumed.splitlines()[1:] == whole.splitlines()[1:]
    assert len(whole.splitlines()) == 3
    assert train(project, *options, *checkpoint).splitlines()[-1] == whole.splitlines()[-1], (
        "there is no more to do"
    )


def test_errors_are_one_line(project: Path) -> None:
    command = [sys.executable, "examples/train.py", "nowhere", "--test", f"{DIGITS}/test.parquet"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: nowhere: cannot open")
