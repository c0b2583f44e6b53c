"""What `import diver` brings, and what it does not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT, run

import diver
from diver.errors import DiverError, VersionError

#: Beyond the interpreter's own start.
MILLISECONDS = 80.0


def test_neither_torch_nor_numpy_is_imported() -> None:
    code, out, err = run("""
        import sys
        import diver
        from diver import augment, cache, errors, labels, loader, mix, refiners, source, teachers
        dir(diver), diver.__version__, diver.open("examples/digits/dm_ipc1").num_samples
        print([name for name in sys.modules if name.split(".")[0] in ("torch", "numpy", "diver_refiner")])
    """)
    assert (code, out, err) == (0, "[]\n", "")


def test_it_is_imported_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    def seconds(program: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
        return time.perf_counter() - began

    bare, whole = [], []
    for _ in range(8):
        bare.append(seconds("pass"))
        whole.append(seconds("import diver"))
    milliseconds = 1000 * (min(whole) - min(bare))
    with capsys.disabled():
        print(
            f"\nimport diver: {milliseconds:.0f} ms beyond {1000 * min(bare):.0f} ms of the interpreter's start"
        )
    assert milliseconds <= MILLISECONDS


def test_the_names_of_the_package_are_there() -> None:
    assert dir(diver) == sorted(diver.__all__)
    for name in diver.__all__:
        if name != "Refiner":
            assert getattr(diver, name) is not None
    assert diver.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="'diver' has no attribute 'Loader'"):
        diver.Loader  # type: ignore[attr-defined] # noqa: B018
    assert not hasattr(diver, "np")
    with pytest.raises(ImportError):
        from diver import nothing  # type: ignore[attr-defined] # noqa: F401


def test_submodules_are_reached_from_the_package() -> None:
    code, out, err = run(
        "import diver; print(diver.errors.FileError.__name__, diver.refiners.check, diver.mix.linear)"
    )
    assert (code, err) == (0, "") and out.startswith("FileError")


def test_every_exception_is_also_a_built_in_one() -> None:
    for name, builtin in {
        "FileError": OSError, "DataError": ValueError, "OptionError": ValueError, "OptionTypeError": TypeError,
        "StateError": ValueError, "RefineError": RuntimeError, "TeachError": RuntimeError, "ClosedError": RuntimeError,
        "VersionError": ImportError, "InternalError": RuntimeError,
    }.items():  # fmt: skip
        kind = getattr(diver.errors, name)
        assert issubclass(kind, builtin) and issubclass(kind, diver.DiverError) and kind.__doc__


MISSING = """
    import sys

    sys.modules["diver_refiner"] = None  # As if it were not installed.
    import diver

    for use in (
        lambda: diver.Refiner,
        lambda: diver.DataLoader("examples/digits/dm_ipc1", refiner="examples/digits/backbone", format="numpy"),
    ):
        try:
            use()
        except diver.errors.VersionError as error:
            print(error)
    print(hasattr(diver, "DataLoader"), "Refiner" in dir(diver))
"""


def test_without_the_refiner_it_says_what_to_install() -> None:
    code, out, err = run(MISSING)
    assert (code, err) == (0, "")
    *messages, last = out.splitlines()
    assert len(messages) == 2 and all(
        "pip install 'diver-dataset[refine]'" in message for message in messages
    )
    assert last == "True True"
    assert issubclass(VersionError, DiverError)


def test_the_package_is_typed() -> None:
    spec = importlib.util.find_spec("diver")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    assert (folder / "py.typed").is_file() and (folder / "_engine.pyi").is_file()
