"""Times the cache beside pyarrow and `datasets`, in turn on the same machine, and prints the ratios.

- Opening: a cache of many rows, beside pyarrow reading the same footers and the column of keys.
- Reading: decoded images in random order, beside `datasets`, and in order, beside the PNG decoder alone.
- Writing: a refiner that takes 20 ms an image on another device, with a cache and without; then what a part is made of.

The cache's side is `loaders/benches/arms`, run by the command after `--`. Needs datasets (`make bench` installs it, and
pyarrow with it). Run from the repository root. `--quick` takes a few rows, to see that all of it runs: its ratios mean
little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Read by `datasets` when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import pyarrow.dataset
import pyarrow.parquet

ROWS_A_PART = (1000, 10)
REFINER_SECONDS = 0.02


class Arms:
    """The cache's side, which waits for its turns."""

    def __init__(self, command: list[str], folder: Path, rows: int, images: int):
        self.process = subprocess.Popen(
            [*command, str(folder), str(rows), str(images)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, arm: str) -> Any:
        assert self.process.stdin and self.process.stdout
        print(arm, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the arm `{arm}` failed")
        return json.loads(answer)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def in_turn(rounds: int, **arms: Callable[[], float]) -> dict[str, list[float]]:
    """The times of every arm, a round at a time."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            times[name].append(arm())
    return times


def ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def parts_in(folder: str) -> list[str]:
    return sorted(map(str, Path(folder).glob("*.parquet")))


def opening(arms: Arms, rows: int, rounds: int) -> None:
    def one_by_one(parts: list[str]) -> None:
        for part in parts:
            pyarrow.parquet.ParquetFile(part).read(columns=["key"])

    def as_dataset(parts: list[str]) -> None:
        assert pyarrow.dataset.dataset(parts).to_table(columns=["key"]).num_rows == rows

    for each in ROWS_A_PART:
        parts = parts_in(arms(f"fill index {each}"))
        times = in_turn(
            rounds,
            ours=lambda each=each: arms(f"index {each}"),
            one_by_one=lambda parts=parts: seconds(lambda: one_by_one(parts)),
            as_dataset=lambda parts=parts: seconds(lambda: as_dataset(parts)),
        )
        print(
            f"opening {rows} rows, {each} a part: {statistics.median(times['ours']):.3f} s,"
            f" {ratio(times, 'ours', 'one_by_one'):.2f}x the time of pyarrow.parquet (asked: at most 1.0x),"
            f" {ratio(times, 'ours', 'as_dataset'):.2f}x of pyarrow.dataset on all cores"
        )


def reading(arms: Arms, images: int, rounds: int, folder: Path) -> None:
    parts = parts_in(arms("fill images"))
    opened = datasets.load_dataset("parquet", data_files=parts, split="train", cache_dir=str(folder / "hf"))
    column = opened.select_columns(["image"])
    order = [n * 7919 % images for n in range(images)]

    def at_random() -> None:
        for n in order:
            assert column[n]["image"].size == (224, 224)

    times = in_turn(
        rounds,
        random=lambda: arms("random"),
        datasets=lambda: seconds(at_random),
        sequential=lambda: arms("sequential"),
        loader=lambda: arms("loader"),
        decoder=lambda: arms("decoder"),
    )
    rates = {name: images / statistics.median(times[name]) for name in times}
    print(f"{images} images of 224 x 224, images a second:")
    print(f"  at random {rates['random']:.0f}, `datasets` {rates['datasets']:.0f}")
    print(f"    {ratio(times, 'datasets', 'random'):.2f}x the rate of `datasets` (asked: at least 3x)")
    print(
        f"  in order {rates['sequential']:.0f}, by the loader {rates['loader']:.0f} on {os.cpu_count()} cores,"
        f" the PNG decoder alone {rates['decoder']:.0f}"
    )
    print(
        f"    {ratio(times, 'decoder', 'sequential'):.2f}x the decoder's rate, by the loader"
        f" {ratio(times, 'decoder', 'loader'):.2f}x (asked: at least 1.0x)"
    )


def writing(arms: Arms, rounds: int) -> None:
    times = in_turn(rounds, alone=lambda: arms("refiner"), writing=lambda: arms("refiner writing"))
    added = 100 * (ratio(times, "writing", "alone") - 1)
    print(
        f"a refiner of {1e3 * REFINER_SECONDS:.0f} ms an image: its cache adds {added:.1f} % (asked: at most 2 %)"
    )
    parts = [arms("write") for _ in range(max(3, rounds))]

    def milliseconds(take: Callable[[dict[str, Any]], float]) -> str:
        return f"{1e3 * statistics.median(take(part) / part['rows'] for part in parts):.3f} ms"

    print(f"  a part of {parts[0]['rows']} rows, {parts[0]['bytes'] / 1e6:.1f} MB; each image takes:")
    for name in parts[0]:
        if name == "store":
            for call in parts[0]["store"]:
                print(
                    f"    store, {call}: {milliseconds(lambda part, call=call: part['store'].get(call, 0))}"
                )
        elif name not in ("rows", "bytes"):
            print(f"    {name}: {milliseconds(lambda part, name=name: part[name])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="how often the arms take turns (default: 5; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="a few rows, to see that it runs")
    parser.add_argument("command", nargs="+", help="the command that runs the cache's side")
    arguments = parser.parse_args()
    quick = arguments.quick
    rounds = arguments.rounds or (1 if quick else 5)
    rows, images = (2000, 32) if quick else (50_000, 512)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        arms = Arms(arguments.command, Path(folder), rows, images)
        opening(arms, rows, rounds)
        reading(arms, images, rounds, Path(folder))
        writing(arms, rounds)


if __name__ == "__main__":
    main()
