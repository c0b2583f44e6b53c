#!/usr/bin/env bash
# Runs every fuzz target, or those that are named, for some seconds each, and says how many inputs each tried, in this
# run and in all. What a target learns stays in FOLDER for the next time; an input that fails is there, too: keep it in
# corpus/. Needs a nightly toolchain of Rust and cargo-fuzz. Usage: tests/fuzz/run.sh FOLDER SECONDS [TARGET ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$1 seconds=$2
shift 2
# Without a sanitizer: the readers have no unsafe code of their own, and try more inputs.
cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none
known=$(cargo +nightly fuzz list --fuzz-dir tests/fuzz)
mapfile -t targets < <(printf '%s\n' "${@:-$known}")
# Every input is written to a file: in memory, where the system has such a place.
TMPDIR=$(if [[ -d /dev/shm ]]; then mktemp -d -p /dev/shm; else mktemp -d; fi)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
for target in "${targets[@]}"; do
    if ! grep -qx "$target" <<<"$known"; then
        echo "no target $target; there are" $known >&2
        exit 2
    fi
    mkdir -p "$folder/$target"
    log=$folder/$target.log totals=$folder/$target.totals
    seeds=(tests/fixtures)
    if [[ -d tests/fuzz/corpus/$target ]]; then seeds+=("tests/fuzz/corpus/$target"); fi
    TIMEFORMAT='%U %S'
    { time target/fuzz/*/release/"$target" "$folder/$target" "${seeds[@]}" \
        -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="$folder/$target-" >"$log" 2>&1; } 2>"$folder/$target.time" || {
        tail -n 20 "$log"
        echo "FAILED: $target"
        exit 1
    }
    # A line for each run: inputs, and seconds of processor time.
    echo "$(awk '/number_of_executed_units/ { print $2 }' "$log")" \
        "$(awk '{ print $1 + $2 }' "$folder/$target.time")" >>"$totals"
    awk -v target="$target" '{ inputs += $1; cpu += $2 }
        END { printf "%s: %d inputs; in all %d, in %d s of processor time\n", target, $1, inputs, cpu }' "$totals"
done
