#!/usr/bin/env bash
# Runs the bundle: golden tests on CUDA, then the benchmarks with the shipped networks and with random ones of full
# size. Needs python3 with torch (CUDA), huggingface_hub and what diffusers asks for beside them.
# Usage: ./run.sh [RESULTS]   RESULTS: folder for what it finds, default results/: results.json, results.md and logs
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
results=${1:-results}
mkdir -p "$results"

version=$(python3 -c 'import torch; print(torch.__version__)') || { echo "error: python3 has no torch"; exit 1; }
[[ $version == 2.11.* ]] || { echo "error: torch 2.11 is needed, this is $version"; exit 1; }
tar -xJf bin.tar.xz || exit 1
python3 -m pip install --quiet --no-index --no-deps --upgrade --target site wheels/*.whl || exit 1
LD_LIBRARY_PATH=$(python3 - <<'PY'
import glob, os, torch
site = os.path.dirname(os.path.dirname(torch.__file__))
print(":".join([os.path.join(site, "torch", "lib"), *sorted(glob.glob(site + "/nvidia/*/lib"))]))
PY
)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH DIVER_TEST_DATA=$PWD/tests/golden DIVER_TEST_DEVICE=${DIVER_TEST_DEVICE:-cuda}
export PYTHONPATH=$PWD/site${PYTHONPATH:+:$PYTHONPATH}
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | tee "$results/machine.txt"

for test in bin/golden_* bin/checkpoints bin/stable_diffusion bin/refiner; do
    echo "== $test on $DIVER_TEST_DEVICE"
    NVIDIA_TF32_OVERRIDE=0 "$test" 2>&1 || echo "FAILED: $test"
done | tee "$results/tests.log"

# A trial on a CPU is a small one.
if [[ $DIVER_TEST_DEVICE == cpu ]]; then
    batches=1,8 full=(--dtype f32 --layers 1 --batches 1 --runs 1 --steps 4)
else
    batches=1,8,32,128 full=(--dtype bf16 --compile 32)
fi
for set in digits/dm_ipc1 shapes/dm_ipc10; do
    for dtype in f32 bf16; do
        name=bench_${set%%/*}_$dtype
        echo "== $name"
        bin/diver bench "examples/$set" --backbone "examples/${set%%/*}/backbone" --device "$DIVER_TEST_DEVICE" \
            --dtype $dtype --batches $batches --json | tee "$results/$name.json" || echo "FAILED: $name"
    done
done | tee "$results/bench.log"

if [[ $DIVER_TEST_DEVICE != cpu ]]; then
    echo "== inside"
    { python3 benches/inside.py --device "$DIVER_TEST_DEVICE" --json "$results/inside.json" 2>&1 ||
        echo "FAILED: inside"; } | tee "$results/inside.log"
    echo "== pieces"
    { python3 benches/pieces.py --device "$DIVER_TEST_DEVICE" --json "$results/pieces.json" 2>&1 ||
        echo "FAILED: pieces"; } | tee "$results/pieces.log"
fi
echo "== full_size"
{ python3 benches/full_size.py --diver bin/diver --device "$DIVER_TEST_DEVICE" --json "$results/full_size.json" \
    "${full[@]}" 2>&1 || echo "FAILED: full_size"; } | tee "$results/full_size.log"

echo "== summary"
python3 benches/summary.py "$results" || exit 1
! grep -h FAILED "$results"/*.log
