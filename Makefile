# Each target does its own set-up on a fresh Debian 12 machine; see tools/setup.
#   make run [INPUT=clip.mov] [OUT=dir]   transcode a clip end to end, locked, and say where the result is
#   make test                             every test that needs no cluster node
#   make bench [ONLY=audit] [RUNS=3]      the comparison tables, side by side with the peers; ONLY: these subjects
#   make lint                             rustfmt, clippy, cargo-deny
#   make fmt                              format the code
#   make fuzz [SECONDS=30]                each parser's fuzz target for that long
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
OUT ?= out
SECONDS ?= 30
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mpegflow/tools

.PHONY: run test bench lint fmt fuzz build

build:
	@tools/setup run
	@cargo build --quiet --release --workspace --bins

run: build
	@tools/run "$(INPUT)" "$(OUT)"

test:
	@tools/setup test
	@tools/test

bench:
	@tools/setup bench
	@cargo build --quiet --release --workspace --bins
	@tests/bench/run $(ONLY)

lint:
	@tools/setup lint
	@tools/lint

fmt:
	@tools/setup run
	@cargo fmt --all

fuzz:
	@tools/setup fuzz
	@tools/fuzz $(SECONDS)
