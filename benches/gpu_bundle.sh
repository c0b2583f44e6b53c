#!/usr/bin/env bash
# Packs the golden tests, the benchmarks, their data, diver's wheels and that of diffusers into one folder that runs on an
# x86-64 Linux machine with a CUDA build of the same torch, and without a compiler: copy it there and start run.sh.
# Usage: benches/gpu_bundle.sh FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$1
rm -rf "$out"
mkdir -p "$out/bin" "$out/wheels" "$out/benches" "$out/tests" "$out/examples/digits" "$out/examples/shapes"

cargo build --release --bin diver
cargo test --release --no-run --message-format=json --test 'golden_*' --test checkpoints --test stable_diffusion --test refiner |
    python3 -c '
import json, shutil, sys
for line in sys.stdin:
    message = json.loads(line)
    if message["reason"] == "compiler-artifact" and message["executable"] and "test" in message["target"]["kind"]:
        shutil.copy(message["executable"], sys.argv[1] + "/" + message["target"]["name"])
' "$out/bin"
cp target/release/diver "$out/bin/"
strip "$out"/bin/*
tar -cJf "$out/bin.tar.xz" -C "$out" bin
rm -r "$out/bin"
# For a machine that is like this one, with a torch of its own: nothing else is packed in.
for wheel in refiner engine; do
    .venv/bin/maturin build --release --strip --auditwheel skip -m python/$wheel/Cargo.toml --out "$out/wheels"
done
# diffusers for the full-size benchmark, and what machines with torch and transformers may lack of its needs.
.venv/bin/python -m pip download --quiet --no-deps --dest "$out/wheels" 'diffusers==0.42.*' importlib_metadata zipp
cp -r tests/golden "$out/tests/"
cp benches/{backbone,full_size,inside,pieces,summary}.py "$out/benches/"
for set in digits shapes; do cp -r examples/$set/backbone examples/$set/dm_* "$out/examples/$set/"; done
cp benches/run_bundle.sh "$out/run.sh"
du -sm "$out" | awk '{ print $2 ": " $1 " MiB"; exit $1 >= 60 }'
