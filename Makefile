# `make help` lists the targets.

SHELL := /bin/bash
PYTHON ?= python3
CARGO ?= cargo
# The torch that tch 0.24 binds to.
TORCH := 2.11.0
OUT ?= out

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench doc gpu-bundle clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/libtorch ## Make .venv with torch, which everything else links to.

# The link comes last, so that a broken download is tried again.
.venv/libtorch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check torch==$(TORCH) numpy safetensors
	ln -sfn "$$(.venv/bin/python -c 'import os, torch; print(os.path.relpath(os.path.dirname(torch.__file__), ".venv"))')" $@

test: setup ## Format, lint and run every test.
	$(CARGO) fmt --all --check
	$(CARGO) clippy -p diver-loaders --all-targets -- -D warnings
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) test --workspace --all-features

demo: setup ## Refine a distilled set, train on it, and show what changed (QUICK=1: fewer networks and seeds).
	$(CARGO) build --release --bin diver --example demo
	target/release/diver inspect examples/digits/dm_ipc1
	target/release/examples/demo --out $(OUT)/demo $(if $(QUICK),--quick)

bench: setup ## Time the refiner and the loader beside plain torch.
	.venv/bin/pip install --quiet --disable-pip-version-check diffusers
	$(CARGO) build --release --bin diver
	.venv/bin/python benches/compare.py

doc: setup ## Build the API documentation.
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps

gpu-bundle: setup ## Pack tests and benchmark for a CUDA machine without a compiler: $(OUT)/gpu-bundle.
	benches/gpu_bundle.sh $(OUT)/gpu-bundle

clean: ## Remove everything that the other targets made.
	rm -rf target .venv $(OUT)
