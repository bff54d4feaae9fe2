# `make` prepares .venv and leaves it alone while pyproject.toml stays as it is; every target runs inside it.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS ?=
# Of the test suite; one of them has the tests that need Ray.
TEST_PROCESSES ?= 2
# The first interpreter that is new enough; `make PYTHON=/path/to/python3` chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

.DEFAULT_GOAL := install
.PHONY: install demo test bench check-gpu lint docs release clean help

install: $(VENV)/.raysr  ## prepare .venv with raysr

demo: $(VENV)/.raysr  ## label, train and serve over the built-in corpus, end to end
	$(BIN)/raysr demo

test: lint  ## lint, check types and run every test
	$(BIN)/pytest -n $(TEST_PROCESSES) --durations=25

lint: $(VENV)/.raysr-test  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.raysr-test  ## measure most of what docs/results.md quotes (hours; resumes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e '.[bench,onnx]'
	$(BIN)/python -m benchmarks.ipl --json runs/benchmarks/ipl.json
	$(BIN)/python -m benchmarks.conditions --json runs/benchmarks/conditions.json
	$(BIN)/python -m benchmarks.code_switching --json runs/benchmarks/code_switching.json
	$(BIN)/python -m benchmarks.augment --json runs/benchmarks/augment.json
	$(BIN)/python -m benchmarks.decode --json runs/benchmarks/decode.json
	$(BIN)/python -m benchmarks.confidence --json runs/benchmarks/confidence.json
	$(BIN)/python -m benchmarks.models --json runs/benchmarks/models.json
	$(BIN)/python -m benchmarks.long_stream --json runs/benchmarks/long_stream.json
	$(BIN)/python -m benchmarks.onnx_step --json runs/benchmarks/onnx_step.json
	$(BIN)/python -m benchmarks.label --json runs/benchmarks/label.json --stream-gb 20
	$(BIN)/python -m benchmarks.hostile --json runs/benchmarks/hostile.json
	$(BIN)/python -m benchmarks.comm --json runs/benchmarks/comm.json
	$(BIN)/python -m benchmarks.comm_accuracy --json runs/benchmarks/comm_accuracy.json
	$(BIN)/python -m benchmarks.train --json runs/benchmarks/train.json
	$(BIN)/python -m benchmarks.resume --json runs/benchmarks/resume.json
	$(BIN)/python -m benchmarks.serve_model --pool runs/benchmarks/serve/pool
	$(BIN)/python -m benchmarks.serve --pool runs/benchmarks/serve/pool --json runs/benchmarks/serve.json
	$(BIN)/python -m benchmarks.serve_swaps --pool runs/benchmarks/serve/pool --json runs/benchmarks/serve_swaps.json
	$(BIN)/python -m benchmarks.serve_hostile --pool runs/benchmarks/serve/pool --json runs/benchmarks/serve_hostile.json
	$(BIN)/python -m benchmarks.serve_soak --pool runs/benchmarks/serve/pool --found runs/benchmarks/serve.json \
		--json runs/benchmarks/serve_soak.json
	$(BIN)/python -m benchmarks.two_hosts --json runs/benchmarks/two_hosts.json
	$(BIN)/python -m benchmarks.launcher --json runs/benchmarks/launcher.json
	$(BIN)/python -m benchmarks.report --json runs/benchmarks/report.json
	$(BIN)/python -m benchmarks.newcomer --json runs/benchmarks/newcomer.json

check-gpu: $(VENV)/.raysr  ## train, decode and stream on this machine's GPU, and compare with its CPU; without Ray
	$(BIN)/raysr check-gpu

docs: $(VENV)/.raysr-docs  ## build the documentation into build/docs; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -n -q docs build/docs
	@echo build/docs/index.html

release: $(VENV)/.raysr-test  ## wheel, source distribution and SBOM into dist/, licences into docs/licences.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e '.[release]'
	rm -rf build/lib dist
	mkdir -p build
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m release.sbom dist/*.whl -o dist/sbom.cdx.json
	$(BIN)/python -m release.licences > build/licences.md && mv build/licences.md docs/licences.md

clean:  ## remove .venv, build outputs and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 14

$(VENV)/bin/python:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: raysr needs \
	Python 3.11 or newer, found: $$($(or $(PYTHON),python3) --version 2>&1); install one and run \
	'make PYTHON=/path/to/python3'" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu \
	it is in the package python3-venv" >&2; exit 2; }

$(VENV)/.raysr: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e .
	@touch $@

$(VENV)/.raysr-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e '.[teachers,voices,docs,test]'
	@touch $@ $(VENV)/.raysr $(VENV)/.raysr-docs

$(VENV)/.raysr-docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e '.[docs]'
	@touch $@ $(VENV)/.raysr
