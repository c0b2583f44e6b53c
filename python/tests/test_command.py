"""The command `diver`, as the package installs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import DIGITS, ROOT, run, stored

import diver

BACKBONE = ROOT / "examples" / "digits" / "backbone"
SCRIPT = Path(sysconfig.get_path("scripts")) / "diver"
COMMANDS = {"script": [str(SCRIPT)], "module": [sys.executable, "-m", "diver._command"]}


def command(*arguments: str | Path, how: str = "script", timeout: float = 60) -> tuple[int, str, str]:
    ended = subprocess.run(
        [*COMMANDS[how], *map(str, arguments)], capture_output=True, text=True, timeout=timeout, cwd=ROOT
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("how", COMMANDS)
def test_inspect_says_what_a_set_is(how: str) -> None:
    code, out, err = command("inspect", DIGITS, how=how)
    assert (code, err) == (0, "")
    for said in ("mtt", "10, 3 x 32 x 32", "class indices", "normalised"):
        assert said in out


def test_inspect_gives_one_json_object() -> None:
    code, out, err = command("inspect", DIGITS, "--json")
    assert (code, err) == (0, "") and out.count("\n") == 1
    info = json.loads(out)
    assert {
        "format",
        "num_samples",
        "num_classes",
        "classes",
        "facts",
        "shape",
        "labels",
        "value_space",
    } <= set(info)
    source = diver.open(DIGITS)
    assert (info["format"], info["num_samples"], info["num_classes"]) == (
        source.format,
        len(source),
        source.num_classes,
    )
    assert (info["labels"], info["value_space"]) == (source.labels, source.value_space)
    assert tuple(info["shape"]) == source.shape


def test_inspect_takes_what_open_takes() -> None:
    code, out, _ = command("inspect", DIGITS, "--mean", "0.5", "--std", "0.25", "--json")
    assert code == 0
    assert json.loads(out)["normalize"] == {"mean": [0.5] * 3, "std": [0.25] * 3}


def test_inspect_counts_the_windows_of_canvases() -> None:
    code, out, _ = command("inspect", ROOT / "tests/fixtures/torch/texture", "--canvas", "2", "--json")
    assert code == 0 and (json.loads(out)["num_samples"], json.loads(out)["shape"]) == (8, [3, 3, 4])


def test_a_preview_is_not_written_under_the_name_of_another_kind(tmp_path: Path) -> None:
    output = tmp_path / "sheet.jpg"
    code, _, err = command("preview", DIGITS, "--backbone", tmp_path, "-o", output)
    assert code == 1 and f"output: the sheet is a PNG file: name it {tmp_path / 'sheet.png'}" in err
    assert not output.exists()


def test_a_failure_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    for path in ("/no/such/set", tmp_path, tmp_path / "notes.txt"):
        code, out, err = command("inspect", path)
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {path}") and err.count("\n") == 1
        code, out, err = command("inspect", path, "--json")
        assert code == 1 and json.loads(out)["error"] in err


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("inspect",), ("inspect", "--nonsense", "x")], ids=str
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "") and "Usage: diver" in err and "Traceback" not in err


def test_help_and_version_go_to_standard_output() -> None:
    for arguments, said in [
        (("--help",), "Usage: diver"),
        (("refine", "--help"), "--backbone"),
        (("--version",), "diver "),
    ]:
        code, out, err = command(*arguments)
        assert (code, err) == (0, "") and said in out
    assert command("--version")[1] == f"diver {diver.__version__}\n"


def test_warnings_go_to_standard_error(tmp_path: Path) -> None:
    """What was assumed of a set is said where it is relied on; without a refiner, that is in a loader."""
    for name in ("images_best.pt", "labels_best.pt"):
        shutil.copy(DIGITS / name, tmp_path)
    program = """
        import logging, sys
        logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
        import diver
        diver.DataLoader(sys.argv[1], format="numpy").close()
    """
    code, out, err = run(program, str(tmp_path))
    assert (code, out) == (0, "")
    assert err.startswith("WARNING diver") and "ImageNet" in err and err.count("\n") == 2


def test_without_the_refiner_it_says_what_to_install(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["diver_refiner"] = None  # As if it were not installed.
        from diver import _command
        sys.exit(_command.main())
    """
    code, out, err = run(
        program, "refine", str(DIGITS), "--backbone", str(BACKBONE), "--cache", str(tmp_path)
    )
    assert (code, out) == (1, "")
    assert (
        err.startswith("error: ") and "pip install 'diver-dataset[refine]'" in err and "Traceback" not in err
    )
    code, out, err = run(program, "demo", "--output", str(tmp_path))
    assert (code, out) == (1, "") and "pip install 'diver-dataset[refine]'" in err and "Traceback" not in err


def test_a_full_disk_is_a_failure() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [str(SCRIPT), "inspect", str(DIGITS)], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 1
    assert ended.stderr == "error: stdout: cannot write: No space left on device (os error 28)\n"


def test_a_name_that_is_not_text_is_a_failure_like_others() -> None:
    ended = subprocess.run([str(SCRIPT), "inspect", b"/no/such/caf\xe9"], capture_output=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"error: /no/such/caf") and b"Traceback" not in ended.stderr


# With a teacher.


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_label_fills_a_cache_that_loaders_use(tmp_path: Path) -> None:
    teacher, cache = tmp_path / "teacher.pt", tmp_path / "cache"
    torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))).save(teacher)
    for labelled in (10, 0):
        code, out, err = command(
            "label", DIGITS, "--raw", "--teacher", teacher, "--teacher-device", "cpu", "--cache", cache, "--json",
            timeout=100,
        )  # fmt: skip
        assert (code, err) == (0, "")
        assert json.loads(out)["labelled"] == labelled
    labels = diver.labels.teacher(torch.jit.load(teacher).eval(), temperature=20)
    with diver.DataLoader(DIGITS, cache=cache, labels=labels) as loader:
        for images, targets in loader:
            expected = torch.softmax(torch.jit.load(teacher)(images) / 20, 1)
            assert torch.allclose(targets, expected, atol=1e-5)
        assert loader.stats()["taught"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--teacher", str(DIGITS)], "cannot be read as a TorchScript file"),
        (["--teacher", "nowhere.pt"], "cannot be read as a TorchScript file"),
        (["--teacher", "nowhere.pt", "--network", "resnet18"], "give resnet18 as a TorchScript file"),
    ],
    ids=["folder", "missing", "network"],
)
def test_what_is_no_teacher_is_said(tmp_path: Path, options: list[str], said: str) -> None:
    code, _, err = command("label", DIGITS, "--raw", "--cache", tmp_path, *options)
    assert code == 1 and said in err and "Traceback" not in err


# With the refiner on torch.


def refine(cache: Path, *more: str) -> tuple[int, str, str]:
    return command("refine", DIGITS, "--backbone", BACKBONE, "--cache", cache, *more, timeout=100)


def test_refine_fills_the_cache_once(tmp_path: Path) -> None:
    code, out, err = refine(tmp_path, "--steps", "4", "--json")
    assert (code, err) == (0, "")
    first = json.loads(out)
    assert (first["samples"], first["refined"], first["cached"]) == (10, 10, 0)
    code, out, err = refine(tmp_path, "--steps", "4", "--json")
    second = json.loads(out)
    assert (second["refined"], second["cached"]) == (0, 10)
    assert first["folder"] == second["folder"] and first["fingerprint"] == second["fingerprint"]
    assert diver.open(first["folder"]).num_samples == 10


def test_a_bad_setting_is_refused_by_name(tmp_path: Path) -> None:
    code, out, err = refine(tmp_path, "--steps", "1")
    assert (code, out) == (1, "") and err.startswith("error: steps") and err.count("\n") == 1
    code, out, err = command("refine", DIGITS, "--backbone", "/no/such", "--cache", tmp_path)
    assert (code, out) == (1, "") and err.startswith("error: /no/such") and err.count("\n") == 1


def interrupted(arguments: list[str], begun: Callable[[], object]) -> float:
    """Interrupts a command soon after it has begun, and returns how many seconds it takes to end as it should."""
    child = subprocess.Popen(
        [str(SCRIPT), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 60
        while not begun():
            assert child.poll() is None and time.monotonic() < deadline, child.communicate()
            time.sleep(0.02)
        time.sleep(0.5)
        assert child.poll() is None
        began = time.monotonic()
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=30)
        seconds = time.monotonic() - began
    finally:
        child.kill()
        child.communicate()
    assert (child.returncode, out) == (130, "")
    assert "error: interrupted" in err.splitlines()[-1] and "Traceback" not in err
    return seconds


def test_an_interrupted_refine_ends_soon_with_130(tmp_path: Path) -> None:
    # A thousand steps: minutes of work.
    arguments = ["refine", DIGITS, "--backbone", BACKBONE, "--cache", tmp_path, "--steps", "1000"]
    # Its folder is made once the weights are read; then the first step begins.
    assert interrupted([*map(str, arguments)], lambda: list(tmp_path.glob("*/fingerprint.json"))) < 2


def test_the_demo_compares_refined_with_every_baseline(tmp_path: Path) -> None:
    arguments = ("demo", "--set", "digits", "--quick", "--output", tmp_path, "--json")
    code, out, err = command(*arguments, timeout=300)
    assert (code, err) == (0, "")
    report = json.loads(out)
    (digits,) = report["sets"]
    # Ten images of five rows; the autoencoder is no other under another seed.
    assert (digits["refined"], digits["cached"], digits["test_images"]) == (50, 0, 359)
    rows = {row["label"]: row for row in digits["rows"]}
    assert len(rows) == 8
    for row in rows.values():
        assert set(row["accuracy"]) == {"ConvNet", "ResNet"}
        assert row["unseen"] == {"mean": row["accuracy"]["ResNet"][0], "std": 0.0}
    assert rows["DIVER, small_latents"]["unseen"]["mean"] > rows["distilled, raw"]["unseen"]["mean"] + 10
    page = (tmp_path / "index.html").read_text()
    assert Path(report["page"]) == tmp_path / "index.html"
    assert page.count("data:image/png;base64,") == 8 and "http" not in page
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_ends_soon_after_an_interrupt(tmp_path: Path) -> None:
    arguments = ["demo", "--set", "shapes", "--output", str(tmp_path)]
    assert interrupted(arguments, lambda: list(tmp_path.glob("cache/*/fingerprint.json"))) < 5


def test_exported_files_are_what_the_methods_save(tmp_path: Path) -> None:
    source = diver.open(DIGITS)
    values = torch.stack([torch.from_numpy(sample.values) for sample in stored(source)])
    labels = torch.tensor([sample.label for sample in stored(source)])
    for kind in ("mtt", "dc", "safetensors", "webdataset", "parquet"):
        code, out, err = command("export", DIGITS, "--raw", "--to", kind, "-o", tmp_path / kind, "--json")
        assert (code, json.loads(out)["samples"]) == (0, 10), err
    for name, expected in ("images", values), ("labels", labels):
        tensor = torch.load(tmp_path / "mtt" / f"{name}_best.pt", weights_only=True)
        assert tensor.dtype == expected.dtype and torch.equal(tensor, expected)
    ((images, classes),) = torch.load(tmp_path / "dc" / "res_DIVER.pt", weights_only=True)["data"]
    assert torch.equal(images, values) and torch.equal(classes, labels)
    tensors = load_file(tmp_path / "safetensors" / "data.safetensors")
    assert torch.equal(tensors["images"], values) and torch.equal(tensors["labels"], labels)
    with tarfile.open(tmp_path / "webdataset" / "data-000000.tar") as tar:
        assert tar.getnames()[:3] == ["00000000.png", "00000000.cls", "00000001.png"]
    for opened in ("mtt", "dc", "safetensors", "webdataset", "parquet"):
        again = diver.open(tmp_path / opened)
        assert [sample.label for sample in stored(again)] == labels.tolist() and again.mean == source.mean


def test_refined_images_are_exported_at_the_sets_size(tmp_path: Path) -> None:
    refining = ["--backbone", BACKBONE, "--cache", tmp_path / "cache", "--steps", "4"]
    arguments = ["export", DIGITS, *refining, "--to", "image-folder"]
    code, _, err = command(*arguments, "-o", tmp_path / "images")
    assert code == 0, err
    images = diver.open(tmp_path / "images")
    assert (images.method or "").startswith("RDED") and images.shape == (3, 32, 32)
    code, _, err = command("refine", DIGITS, *refining)
    assert code == 0, err
    with diver.DataLoader(
        DIGITS,
        refiner=diver.Refiner.from_pretrained(BACKBONE, steps=4, device="cpu"),
        cache=tmp_path / "cache",
        batch_size=10,
    ) as loader:
        batch = next(iter(loader))
        assert loader.stats()["misses"] == 0
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (images.mean, images.std))
    for image, label, sample in zip(batch.images, batch.labels.tolist(), stored(images), strict=True):
        assert label == sample.label
        assert torch.equal(
            ((image * std + mean) * 255).round().to(torch.uint8), torch.from_numpy(sample.values)
        )

    code, _, err = command(*arguments, "-o", tmp_path / "images")
    assert code == 1 and "is not empty" in err
    code, _, err = command("export", DIGITS, "--to", "mtt", "-o", tmp_path / "mtt")
    assert code == 2 and "--backbone" in err and "--raw" in err
    code, _, err = command("export", DIGITS, "--raw", *refining, "--to", "mtt", "-o", tmp_path / "mtt")
    assert code == 2 and "--backbone" in err and "--raw" in err
