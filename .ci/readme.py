#!/usr/bin/env python3
"""Runs every command of the README, the long ones in a small form, after `make setup`.

Commands are the lines of its `sh` blocks and, in the text, code that begins with a program of `PROGRAMS`. A command
without a rule is an error: whoever writes it into the README adds a rule here that says how to try it. Run from
anywhere, with any Python from 3.11 on; `--list` prints what would be run.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("make", "diver", "cargo", "pip", "python")
# A command that takes longer than this, in seconds, has no small form.
LONGEST = 900

# What the README writes for a user's own paths. A folder to write is a new one for each command and option.
PATHS = {
    "SET": ROOT / "examples/digits/dm_ipc1",
    "FOLDER": ROOT / "examples/digits/backbone",
    # The shipped backbone's own ten classes.
    "LIST": "0,1,2,3,4,5,6,7,8,9",
}
TO_WRITE = "DIR"


@dataclass(frozen=True)
class Small:
    """The small form of a command: `options` to add, the folders that it finds where it runs, and what it must leave
    there."""

    options: str = ""
    leaves: tuple[str, ...] = ()
    finds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Elsewhere:
    """A command that is run already: by the line `line` of the repository's file `file`."""

    file: str
    line: str


# The steps of a refinement decide how long it takes.
FEW_STEPS = "--steps 4 --device cpu"
RULES: dict[str, Small | Elsewhere] = {
    "make setup": Small(),
    "make demo": Small("QUICK=1"),
    "make bench": Small("QUICK=1"),
    "make test": Elsewhere(".ci/run", "make test"),
    "make test-full": Small("QUICK=1"),
    "make examples": Small("QUICK=1"),
    # With the features that `make demo` and `make bench` build it with, nothing is compiled twice.
    "cargo build --release": Small(
        "-p diver-dataset -p diver-python-engine -p diver-python-refiner --bin diver"
    ),
    "pip install": Elsewhere("Makefile", "maturin develop --release -m python/refiner/Cargo.toml"),
    "diver inspect": Small(),
    "diver refine": Small(FEW_STEPS, ("refine-cache",)),
    "diver label": Elsewhere("tests/cli.rs", 'let teacher = root().join("tests/golden/teacher_tiny.pt");'),
    "diver preview": Small(FEW_STEPS, ("preview.png",)),
    "diver export": Small(FEW_STEPS, ("export-o/images_best.pt", "export-o/labels_best.pt")),
    "diver bench": Small(f"{FEW_STEPS} --batches 1 --runs 1"),
    "diver cache": Small(finds=("cache-cache",)),
    "diver demo": Elsewhere("Makefile", "target/release/diver demo"),
}


def commands(readme: str) -> list[str]:
    """Every command of a README, once, in its order."""
    found = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", readme, re.DOTALL | re.MULTILINE):
        if language in ("sh", "bash", "shell", "console"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [
                shlex.join(words) for words in (shlex.split(line, comments=True) for line in lines) if words
            ]
    text = re.sub(r"^```.*?^```", "", readme, flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`\n]+)`", text):
        words = code.split()
        if len(words) > 1 and words[0] in PROGRAMS:
            found.append(shlex.join(words))
    # The text also mentions commands by their beginnings.
    mentions = {command for command in found for other in found if other.startswith(f"{command} ")}
    return [command for command in dict.fromkeys(found) if command not in mentions]


def rule(command: str) -> Small | Elsewhere:
    """The rule of the longest beginning of `command` that has one; exits if there is none, or if it points to a line
    that is not there."""
    words = shlex.split(command)
    for end in range(len(words), 0, -1):
        found = RULES.get(" ".join(words[:end]))
        if isinstance(found, Elsewhere) and found.line not in (ROOT / found.file).read_text():
            raise SystemExit(
                f"{found.file}: no `{found.line}`, which .ci/readme.py relies on for `{command}`"
            )
        # Another target of make is another command.
        if found and (words[0] != "make" or end == len(words)):
            return found
    raise SystemExit(f"README.md: no rule tries `{command}`: add one to RULES in .ci/readme.py")


def line(command: str, small: Small) -> list[str]:
    """The words of a command in its small form, with paths that exist; exits if a word stands for an unknown path."""
    words = shlex.split(command)
    program, *rest = words
    filled = [program]
    for index, word in enumerate(rest):
        if word == TO_WRITE:
            filled.append(f"{rest[0]}-{rest[index - 1].strip('-')}")
        elif program == "diver" and re.fullmatch(r"[A-Z]{2,}", word):
            if word not in PATHS:
                raise SystemExit(
                    f"README.md: `{command}`: add what {word} stands for to PATHS in .ci/readme.py"
                )
            filled.append(str(PATHS[word]))
        else:
            filled.append(word)
    return filled + shlex.split(small.options)


def run(command: str, small: Small, folder: Path) -> None:
    """Runs the small form: `diver` in the empty `folder`, which is its home, too, and all else in the repository."""
    words = line(command, small)
    path = os.pathsep.join([str(ROOT / ".venv/bin"), os.environ["PATH"]])
    of_user = words[0] == "diver"
    environment = os.environ | {"PATH": path} | ({"HOME": str(folder)} if of_user else {})
    where = folder if of_user else ROOT
    print(f"README.md: `{command}`, as: {shlex.join(words)}", flush=True)
    for name in small.finds:
        (where / name).mkdir()
    started = time.monotonic()
    ended = subprocess.run(words, cwd=where, env=environment, timeout=LONGEST, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"README.md: `{command}` ended with code {ended.returncode}")
    for name in small.leaves:
        if not (where / name).exists():
            raise SystemExit(f"README.md: `{command}` left no {name}")
    print(f"README.md: `{command}` took {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="print the commands and what is run for each")
    arguments = parser.parse_args()
    found = [(command, rule(command)) for command in commands((ROOT / "README.md").read_text())]
    if not found:
        raise SystemExit("README.md: no commands were found")
    for command, how in found:
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(how, Elsewhere):
                print(f"README.md: `{command}` is run by {how.file}: `{how.line}`", flush=True)
            elif arguments.list:
                print(f"README.md: `{command}`, as: {shlex.join(line(command, how))}", flush=True)
            else:
                run(command, how, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
