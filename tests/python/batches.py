"""Streams batches from Python for `tests/python.rs`: their bytes go to standard output, where the loader then stands
and what it has done to standard error.

Standard input: {"source": path, "options": {...}, "state": state or null, "batches": n}.
"""

import json
import sys

import diver

request = json.load(sys.stdin)
options = request["options"]
if "refiner" in options:
    options["refiner"] = diver.Refiner.from_pretrained(options["refiner"], device="cpu", steps=4)
if "mix" in options:
    start, end, epochs = options["mix"]
    options["mix"] = diver.mix.linear(start, end, epochs=epochs)
with diver.DataLoader(request["source"], **options) as loader:
    if request["state"] is not None:
        loader.load_state_dict(request["state"])
    left = request["batches"]
    while left:
        for images, targets in loader:
            sys.stdout.buffer.write(images.numpy().tobytes())
            sys.stdout.buffer.write(targets.numpy().tobytes())
            left -= 1
            if not left:
                break
    json.dump({"state": loader.state_dict(), "stats": loader.stats()}, sys.stderr)
