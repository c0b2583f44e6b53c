# `make help` lists the targets.

SHELL := /bin/bash
PYTHON ?= python3
CARGO ?= cargo
# The torch that tch 0.24 binds to.
TORCH := 2.11.0
# What builds and checks the Python packages.
# localbucket is a bucket for tests, Lightning is for the tests of its launchers, Pillow for those of images, webdataset for those of archives.
TOOLS := "localbucket==1.2.*" "maturin>=1.9,<2" "mypy==2.4.*" "pillow>=12" "pytest==9.*" "pytorch-lightning==2.6.*" "ruff==0.17.*" \
	"webdataset==1.0.*"
# The binary is built with the features that the extensions need, and so from the same parts.
PACKAGES := -p diver-dataset -p diver-python-engine -p diver-python-refiner
PIP := .venv/bin/pip --quiet --disable-pip-version-check
OUT ?= out
# Networks of other sizes are other files. The memory that small ones take says nothing, and what `make test` built will do.
FULL_SIZE = $(OUT)/full-size$(if $(QUICK),-quick)
FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full test-crash test-peers fuzz bench examples doc gpu-bundle clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/libtorch ## Make .venv with torch, and build the Python packages into it.
	$(PIP) install $(TOOLS)
	VIRTUAL_ENV=.venv .venv/bin/maturin develop --release -m python/engine/Cargo.toml
	VIRTUAL_ENV=.venv .venv/bin/maturin develop --release -m python/refiner/Cargo.toml

# Rust needs no more than this. The link comes last, so that a broken download is tried again.
.venv/libtorch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv .venv
	$(PIP) install torch==$(TORCH) numpy safetensors
	ln -sfn "$$(.venv/bin/python -c 'import os, torch; print(os.path.relpath(os.path.dirname(torch.__file__), ".venv"))')" $@

test: setup ## Format, lint and run every test.
	$(CARGO) fmt --all --check
	$(CARGO) clippy -p diver-loaders --all-targets -- -D warnings
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) test --workspace --all-features
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy --config-file python/mypy.ini -p diver -p diver_refiner
	.venv/bin/stubtest --mypy-config-file python/mypy.ini diver._engine diver_refiner._refiner
	.venv/bin/pytest -c python/pytest.ini

test-full: setup ## Compare networks of the published sizes with diffusers' and transformers' (15 GB on disk, half an hour; QUICK=1: small ones).
	$(PIP) install diffusers transformers
	.venv/bin/python tests/full_size/make.py $(FULL_SIZE) $(if $(QUICK),--quick)
	DIVER_FULL_SIZE=$(abspath $(FULL_SIZE)) $(CARGO) test $(if $(QUICK),--workspace --all-features,--release) --test full_size -- \
		--ignored --nocapture --test-threads 1 $(if $(QUICK),--skip loading_takes)

test-crash: setup ## Kill, damage and starve processes that share caches, in a folder and in a bucket (about an hour on two cores; `make test`: seconds).
	DIVER_CRASH=full $(CARGO) test -p diver-loaders --features cloud --test crash -- --nocapture --test-threads 1

# An environment of its own: what these libraries bring is no part of what the packages are tested with.
test-peers: .venv/libtorch ## Open the cache's parts with pyarrow, pandas, Polars, DuckDB and datasets, and try moto's bucket (1 GB on disk).
	$(PYTHON) -m venv $(OUT)/peers
	$(OUT)/peers/bin/pip --quiet --disable-pip-version-check install datasets duckdb "moto[s3,server]>=5.2" pandas pillow polars pyarrow
	DIVER_PEERS=$(abspath $(OUT)/peers/bin/python) $(CARGO) test --workspace --all-features --test peers -- --ignored --nocapture
	DIVER_BUCKET_SERVER="$(abspath $(OUT)/peers/bin/moto_server) -H 127.0.0.1 -p PORT" \
		$(CARGO) test --workspace --all-features --test object_store

fuzz: ## Try the readers on random damage, FUZZ_SECONDS for each (needs cargo-fuzz and a nightly toolchain).
	tests/fuzz/run.sh $(OUT)/fuzz $(FUZZ_SECONDS)

demo: .venv/libtorch ## Refine distilled sets, train on them, and show what changed (QUICK=1: fewer networks and seeds).
	$(CARGO) build --release $(PACKAGES) --bin diver
	target/release/diver inspect examples/digits/dm_ipc1
	target/release/diver inspect examples/shapes/dm_ipc10
	target/release/diver demo --output $(OUT)/demo $(if $(QUICK),--quick)

bench: setup ## Time the refiner and the loader beside plain torch, and the cache beside pyarrow and datasets (QUICK=1: a few images, to see that it runs).
	$(PIP) install datasets diffusers
	$(CARGO) build --release $(PACKAGES) --bin diver
	.venv/bin/python benches/compare.py $(if $(QUICK),--quick)
	$(CARGO) bench $(PACKAGES) -p diver-loaders --bench cache --bench cold --bench warm --bench sources $(if $(QUICK),-- --quick)
	.venv/bin/python benches/cache.py $(if $(QUICK),--quick) -- $(CARGO) bench $(PACKAGES) -p diver-loaders --bench arms --

examples: setup ## Make the data, backbones and distilled sets of examples/ again (hours; QUICK=1: a few steps of it, in $(OUT)/examples).
	$(PIP) install -r examples/making/requirements.txt
	for set in digits shapes; do \
		out=$(if $(QUICK),$(OUT)/examples/$$set,examples/$$set); \
		.venv/bin/python examples/$$set/make_data.py --out $$out && \
		.venv/bin/python examples/$$set/make.py --out $$out $(if $(QUICK),--quick) || exit; \
	done

doc: .venv/libtorch ## Build the API documentation.
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps

gpu-bundle: .venv/libtorch ## Pack tests and benchmark for a CUDA machine without a compiler: $(OUT)/gpu-bundle.
	benches/gpu_bundle.sh $(OUT)/gpu-bundle

clean: ## Remove everything that the other targets made.
	rm -rf target .venv $(OUT) python/*/*/*.so
