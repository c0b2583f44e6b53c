"""`.ci/readme.py`, which runs every command of the README, finds all of them and knows how to run each."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from support import ROOT


@pytest.fixture
def readme(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_readme", ROOT / ".ci/readme.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_every_command_of_the_readme_has_a_rule(readme: ModuleType) -> None:
    commands = readme.commands((ROOT / "README.md").read_text())
    assert {"make demo", "make bench", "diver inspect SET --classes LIST"} <= set(commands)
    for command in commands:
        rule = readme.rule(command)
        if isinstance(rule, readme.Small):
            assert readme.line(command, rule)
    used = {
        name for name in readme.RULES if any(f"{command} ".startswith(f"{name} ") for command in commands)
    }
    assert used == set(readme.RULES), "a rule of no command is dead"


def test_commands_are_found_wherever_they_are_written(readme: ModuleType) -> None:
    text = """Text with `make bench` and `make`.

```sh
make setup   # a comment
diver refine SET \\
    --cache DIR
```

```python
make = "diver nothing"
```

`diver refine` is a mention, `diver inspect x` is a command.
"""
    expected = ["make setup", "diver refine SET --cache DIR", "make bench", "diver inspect x"]
    assert readme.commands(text) == expected


@pytest.mark.parametrize("command", ["make coffee", "diver brew SET", "cargo publish", "make demo FULL=1"])
def test_a_command_without_a_rule_is_an_error(readme: ModuleType, command: str) -> None:
    with pytest.raises(SystemExit, match=command):
        readme.rule(command)


def test_paths_are_filled_in(readme: ModuleType) -> None:
    command = "diver export SET --cache DIR -o DIR"
    words = readme.line(command, readme.Small("--steps 4"))
    digits = str(ROOT / "examples/digits/dm_ipc1")
    assert words == ["diver", "export", digits, "--cache", "export-cache", "-o", "export-o", "--steps", "4"]
    with pytest.raises(SystemExit, match="TEACHER"):
        readme.line("diver label SET --teacher TEACHER", readme.Small())
