"""Joins what `run.sh` of a GPU bundle has found in a folder: `results.json` with all figures, `results.md` to read."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import full_size
import inside
import pieces


def tests(log: str) -> dict[str, int]:
    """How many tests passed and failed, from what they printed."""
    counts = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed", log, re.MULTILINE)
    return {
        "passed": sum(int(passed) for passed, _ in counts),
        "failed": sum(int(failed) for _, failed in counts),
        # A program that ended without a result.
        "programs_failed": len(re.findall(r"^FAILED", log, re.MULTILINE)),
    }


def read(file: Path) -> Any:
    """A JSON file, or None where a step left none."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def tiny(benches: dict[str, Any]) -> str:
    """`diver bench` with the shipped backbones, milliseconds an image, as Markdown."""
    batches = sorted({row["batch"] for found in benches.values() for row in found["refine"]})
    lines = [f"| backbone, dtype | {' | '.join(f'batch {batch}' for batch in batches)} |"]
    lines.append("|:--|" + "--:|" * len(batches))
    for name, found in benches.items():
        seconds = {row["batch"]: row["seconds_per_image"] for row in found["refine"]}
        cells = [f"{1e3 * seconds[batch]:.3g}" if batch in seconds else "" for batch in batches]
        lines.append(f"| {name.replace('_', ', ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1])
    benches = {file.stem.removeprefix("bench_"): read(file) for file in sorted(folder.glob("bench_*.json"))}
    found: dict[str, Any] = {
        "machine": (folder / "machine.txt").read_text().strip(),
        "tests": tests((folder / "tests.log").read_text()),
        "tiny": {name: bench for name, bench in benches.items() if bench},
        "full_size": read(folder / "full_size.json"),
        "inside": read(folder / "inside.json"),
        "pieces": read(folder / "pieces.json"),
    }
    (folder / "results.json").write_text(json.dumps(found, indent=1))
    passed = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in found["tests"].items())
    parts = [f"{found['machine'] or 'no GPU'}\n\nTests: {passed}"]
    if found["tiny"]:
        parts.append(f"## Tiny backbones, ms an image\n\n{tiny(found['tiny'])}")
    if found["full_size"]:
        parts.append(f"## Full size\n\n{full_size.table(found['full_size'])}")
    if found["inside"]:
        parts.append(f"## Memory and kernels\n\n{inside.table(found['inside'])}")
    if found["pieces"]:
        parts.append(f"## Between the products\n\n{pieces.table(found['pieces'])}")
    text = "\n\n".join(parts)
    (folder / "results.md").write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
