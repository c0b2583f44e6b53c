"""The ``diver`` command: the same as the binary's, with whatever refiner is installed."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

from diver import _engine, _ranks, teachers
from diver.errors import FileError, OptionError
from diver.refiners import Adapter, Fleet

if TYPE_CHECKING:
    from diver_refiner import Refiner


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return _engine.run_command(["diver", *sys.argv[1:]], _make_refiner, _make_teacher, _demo)


def _make_refiner(options: str, cancel: _engine.CancelToken) -> Adapter:
    from diver._torch import refiner_class

    kind = refiner_class()

    def make(options: str) -> Refiner:
        return kind._from_args(options, cancel)

    given = json.loads(options)
    devices = _devices(given["device"])
    if len(devices) == 1:
        return Adapter(make(json.dumps(given | {"device": devices[0]})))
    return Adapter(Fleet(make(json.dumps(given | {"device": device})) for device in devices))


def _make_teacher(options: str) -> teachers.Adapter:
    import torch

    given = json.loads(options)
    path, device, batch = given["teacher"], given["teacher_device"], given["teacher_batch"]
    if given["network"] is not None:
        raise OptionError(
            f"network: give {given['network']} as a TorchScript file, without --network: "
            "torch.jit.script(model.eval()).save(path); weights alone are read by the `diver` that cargo builds"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{_ranks.own_card(torch)}"
    try:
        model = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise FileError(
            f"{path}: cannot be read as a TorchScript file: {str(error).splitlines()[0]}"
        ) from error
    return teachers.Adapter(model.eval(), batch_size=batch or (128 if device.startswith("cuda") else 32))


def _devices(names: str) -> list[str]:
    if names != "cuda:all":
        return [name.strip() for name in names.split(",")]
    import torch

    return [f"cuda:{index}" for index in _engine.all_cards(torch.cuda.device_count())] or ["cuda"]


def _demo(options: str, cancel: _engine.CancelToken) -> str:
    from diver._torch import demo

    return demo(options, cancel)


if __name__ == "__main__":
    sys.exit(main())
