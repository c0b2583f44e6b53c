"""The ``diver`` command: the same as the binary's, with whatever refiner is installed."""

import logging
import sys

from diver import _engine
from diver.refiners import Adapter


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return _engine.run_command(["diver", *sys.argv[1:]], _make_refiner, _demo)


def _make_refiner(options: str) -> Adapter:
    from diver._torch import refiner_class

    return Adapter(refiner_class()._from_args(options))


def _demo(options: str, cancel: _engine.CancelToken) -> str:
    from diver._torch import demo

    return demo(options, cancel)


if __name__ == "__main__":
    sys.exit(main())
