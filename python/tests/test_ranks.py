"""Ranks and cards: who decides them, and that processes of every launcher share an epoch out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support import DIGITS

import diver
from diver import _ranks
from diver.errors import OptionError

#: Makes a loader as a training script does, with samples that are known by their class.
PROGRAM = """
import json, logging, os, sys
from pathlib import Path
import numpy as np
import diver

logging.basicConfig(level=logging.WARNING)
FOLDER = Path(sys.argv[1])

def loader(**options):
    images = np.zeros((11, 3, 4, 4), np.float32)
    source = diver.from_tensors(images, list(range(11)), mean=(0.5,) * 3, std=(0.5,) * 3, values="normalized")
    return diver.DataLoader(source, batch_size=2, shuffle=True, seed=5, uneven="partial", threads=1, **options)

def classes(batches):
    return [sample for _, targets in batches for sample in targets.argmax(1).tolist()]

def tell(name, made, batches=None):
    seen = classes(made if batches is None else batches)
    told = {"name": name, "seen": seen, "repr": repr(made), "length": len(made)}
    (FOLDER / f"{name}-{os.getpid()}.json").write_text(json.dumps(told))
"""

SPAWN = (
    PROGRAM
    + """
def run(rank):
    import torch.distributed as dist

    early, begun = loader(), loader()
    whole = (len(early), len(classes(begun)))
    dist.init_process_group("gloo", init_method=f"file://{FOLDER}/meeting", rank=rank, world_size=2)
    tell("late", loader())
    tell("early", early)
    try:
        list(begun)
    except diver.errors.OptionError as error:
        assert "torch.distributed" in str(error), error
    else:
        raise AssertionError("each process would train on everything")
    assert whole == (6, 11) and len(classes(loader(rank=0, world_size=1))) == 11
    dist.destroy_process_group()

if __name__ == "__main__":
    import torch.multiprocessing as mp

    mp.spawn(run, nprocs=2)
"""
)

#: Without torch, which takes seconds to import.
ALONE = PROGRAM + """tell("all", loader(format="numpy"))\n"""

LIGHTNING = (
    PROGRAM
    + """
import pytorch_lightning as lightning
import torch

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(48, 11)
        self.loaders, self.seen = {}, {"training": [], "validation": []}

    def training_step(self, batch):
        self.seen["training"].append(batch)
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch):
        self.seen["validation"].append(batch)

    def make(self, name):
        return self.loaders.setdefault(name, loader())

    def train_dataloader(self):
        return self.make("training")

    def val_dataloader(self):
        return self.make("validation")

    def on_fit_end(self):
        for name, batches in self.seen.items():
            tell(name, self.loaders[name], batches)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

if __name__ == "__main__":
    model, strategy = Model(), sys.argv[2]
    # With "ddp" the script runs in every process, and makes this before there is a process group.
    given = {"train_dataloaders": model.make("training")} if strategy == "ddp" else {}
    lightning.Trainer(
        accelerator="cpu", devices=2, strategy=strategy, max_epochs=1, num_sanity_val_steps=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(model, **given)
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path


def start(
    folder: Path, program: str, *arguments: str, launcher: tuple[str, ...] = (), **variables: str
) -> Any:
    script = folder / "train.py"
    script.write_text(program)
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), str(folder / "out"), *arguments],
        env=os.environ | variables | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: Any) -> str:
    output: str = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return output


def check_shares(folder: Path, name: str, origin: str) -> None:
    """Two processes have told what they saw: disjoint shares of equal batches, which together are the set."""
    told = [json.loads(file.read_text()) for file in (folder / "out").glob(f"{name}-*.json")]
    assert len(told) == 2
    assert sorted(sample for share in told for sample in share["seen"]) == list(range(11))
    assert sorted(len(share["seen"]) for share in told) == [5, 6] and {share["length"] for share in told} == {
        3
    }
    for rank in range(2):
        assert any(f"rank {rank} of 2 ({origin})" in share["repr"] for share in told)


def check_said(output: str, origin: str) -> None:
    for rank in range(2):
        assert output.count(f"rank {rank} of 2 ({origin})") == 1, output


# Launchers.


def test_spawned_processes_with_a_process_group(folder: Path) -> None:
    output = ended(start(folder, SPAWN))
    check_said(output, "torch.distributed")
    check_shares(folder, "late", "torch.distributed")
    check_shares(folder, "early", "torch.distributed")


def test_torchrun(folder: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    check_said(ended(start(folder, ALONE, launcher=launcher)), "RANK and WORLD_SIZE")
    check_shares(folder, "all", "RANK and WORLD_SIZE")


@pytest.mark.parametrize(
    ("rank", "size", "others"),
    [
        ("SLURM_PROCID", "SLURM_NTASKS", {"SLURM_JOB_ID": "1"}),
        (
            "SLURM_PROCID",
            "SLURM_STEP_NUM_TASKS",
            {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "ENVIRONMENT": "BATCH", "SLURM_JOB_NAME": "bash"},
        ),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}),
        ("PMI_RANK", "PMI_SIZE", {}),
    ],
)
def test_tasks_by_their_variables(folder: Path, rank: str, size: str, others: dict[str, str]) -> None:
    """There is no Slurm and no MPI here: the variables are those that srun and mpirun set."""
    tasks = [start(folder, ALONE, **{rank: str(task), size: "2"}, **others) for task in range(2)]
    check_said("".join(ended(task) for task in tasks), f"{rank} and {size}")
    check_shares(folder, "all", f"{rank} and {size}")


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_lightning(folder: Path, strategy: str) -> None:
    ended(start(folder, LIGHTNING, strategy))
    check_shares(folder, "validation", "torch.distributed")
    if strategy == "ddp_spawn":
        check_shares(folder, "training", "torch.distributed")
        return
    # The launched process has known its rank from the start, the first one has learnt it.
    told = [json.loads(file.read_text()) for file in (folder / "out").glob("training-*.json")]
    assert sorted(sample for share in told for sample in share["seen"]) == list(range(11))
    texts = " ".join(share["repr"] for share in told)
    assert "rank 0 of 2 (torch.distributed)" in texts and "rank 1 of 2 (LOCAL_RANK and WORLD_SIZE)" in texts


# Who decides.


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """This process is in a process group, alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def ranks_of(**options: Any) -> tuple[int, int, str | None]:
    with diver.DataLoader(DIGITS, batch_size=1, **options) as loader:
        assert len(loader) == -(-10 // loader._ranks.world_size), "the engine's are the same"
        return tuple(loader._ranks)


def test_arguments_come_first_then_the_process_group(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks_of() == (0, 1, "torch.distributed")
    assert ranks_of(rank=2, world_size=3) == (2, 3, "arguments")
    dist.destroy_process_group()
    assert ranks_of() == (1, 2, "RANK and WORLD_SIZE")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)


def test_one_process_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with diver.DataLoader(DIGITS) as loader:
        assert "rank 0" not in repr(loader)
    with diver.DataLoader(DIGITS, rank=1, world_size=2) as loader:
        assert "rank 1 of 2 (arguments)" in repr(loader)
    assert "rank 1" not in caplog.text


def test_a_torch_without_distributed_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = types.ModuleType("torch.distributed")
    bare.is_available = lambda: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.distributed", bare)
    assert ranks_of() == (0, 1, None)


def test_torch_is_not_imported_to_ask_it() -> None:
    program = (
        f"import diver, sys; loader = diver.DataLoader({str(DIGITS)!r}, format='numpy'); list(loader); len(loader); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "2"},
        {"SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"WORLD_SIZE": "2", "LOCAL_RANK": "0"},
    ],
    ids=str,
)
def test_half_a_pair_is_refused(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=r"^rank: .*" + next(iter(variables))):
        diver.DataLoader(DIGITS)
    assert ranks_of(rank=0, world_size=1)[:2] == (0, 1)


@pytest.mark.parametrize(
    "variables",
    [
        {"ENVIRONMENT": "BATCH", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
        {"SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
        {"SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "4"},
    ],
    ids=["batch script", "salloc on a node", "salloc"],
)
def test_slurm_without_srun_is_one_process(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ranks_of() == (0, 1, None)


# Cards.


class Cuda:
    """A torch with cards, of which the program may have chosen one."""

    def __init__(self, count: int, current: int | None = None) -> None:
        self.cuda = self
        self._count, self._current = count, current

    def is_initialized(self) -> bool:
        return self._current is not None

    def current_device(self) -> int:
        assert self._current is not None, "to ask would start CUDA"
        return self._current

    def device_count(self) -> int:
        return self._count


@pytest.mark.parametrize(
    ("count", "current", "local", "own"),
    [
        (4, None, None, 0),
        (4, None, "2", 2),
        # The program has set it.
        (4, 3, None, 3),
        (4, 3, "2", 3),
        # The program has used CUDA, and left torch's current device as it was.
        (4, 0, "2", 2),
        # The launcher shows each process its own one alone.
        (1, None, "2", 0),
        (1, 0, "2", 0),
    ],
)
def test_a_process_has_its_own_card(
    count: int, current: int | None, local: str | None, own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LOCAL_RANK", "SLURM_LOCALID"):
        with monkeypatch.context() as patch:
            if local is not None:
                patch.setenv(variable, local)
            assert _ranks.own_card(Cuda(count, current)) == own


def test_a_process_without_a_card_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(OptionError, match="LOCAL_RANK is 2"):
        _ranks.own_card(Cuda(2))


@pytest.fixture
def four_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says that there are four, and a local rank of 2 is set."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "2")


def test_batches_go_to_the_own_card(four_cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    empty = torch.empty

    def ask(*shape: int, device: torch.device, **options: Any) -> torch.Tensor:
        asked.append(str(device))
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", ask)
    for device in ("cuda", torch.device("cuda"), "cuda:1", "cpu"):
        diver.DataLoader(DIGITS, device=device).close()
    assert asked == ["cuda:2", "cuda:2", "cuda:1", "cpu"]


def test_the_command_gives_all_cards_to_one_process_alone(
    four_cards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diver._command import _devices

    assert _devices("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    with pytest.raises(OptionError, match="cuda:all"):
        _devices("cuda:all")
    monkeypatch.delenv("LOCAL_RANK")
    assert _devices("cuda:all") == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]


def test_a_refiner_is_on_the_own_card(four_cards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from diver_refiner import Refiner, _refiner

    class Asked(Exception):
        pass

    def load(args: str, _cancel: object) -> None:
        raise Asked(json.loads(args)["device"])

    monkeypatch.setattr(_refiner, "Refiner", types.SimpleNamespace(load=load))

    def device(given: Any) -> str:
        with pytest.raises(Asked) as caught:
            Refiner.from_pretrained("nowhere", device=given)
        return str(caught.value)

    assert [device("cuda"), device(torch.device("cuda"))] == ["cuda:2"] * 2
    assert [device("cuda:1"), device("cpu"), device(torch.device("cuda", 3))] == ["cuda:1", "cpu", "cuda:3"]
    assert device("auto") == "auto", "CUDA is not started to find out; the extension has the local rank"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [device("cuda"), device("auto")] == ["cuda:1"] * 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device("cuda") == "cuda", "the extension says what is missing"
