# `make help` lists everything. Nothing has to be installed beforehand but Python 3.11 and make.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# embedded: a real Kubernetes on this machine, in a network namespace of its own. current: the current kube context.
CLUSTER ?= embedded

PYTHON ?= python3
LOCAL := PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m
VENV := .venv/bin
UV := $(LOCAL) cluster.uv
HELM = $(shell $(LOCAL) cluster.tools helm)

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*##/ {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ See it work

.PHONY: demo
demo: python ## The main job on a real cluster (CLUSTER=current: on your own, see README)
	@$(LOCAL) cluster.demo run --cluster $(CLUSTER)

.PHONY: shell
shell: python ## A shell in the demo's cluster, with kubectl and helm
	@$(LOCAL) cluster.demo shell

.PHONY: demo-down
demo-down: python ## Remove what the demo made
	@$(LOCAL) cluster.demo down --cluster $(CLUSTER)

##@ Test

.PHONY: test
test: setup ## Everything: unit, control plane, end to end on a real cluster (root; KEEP=1 leaves it running)
	@$(LOCAL) cluster.e2e

.PHONY: test-unit
test-unit: setup ## About a minute, no network, no models, nothing slow
	@$(VENV)/python -m pytest -q -n 2 -m "not models and not slow" tests/unit

.PHONY: test-models
test-models: setup ## The unit tests that load models by transformers and diffusers
	@$(VENV)/python -m pytest -q -m models tests/unit

.PHONY: test-control-plane
test-control-plane: setup ## Against a real API server on loopback; needs no root
	@$(VENV)/python -m pytest -q tests/control_plane

.PHONY: test-e2e
test-e2e: setup ## On the real cluster (root); CASE=test_cold_start_success runs one
	@$(LOCAL) cluster.e2e tests/e2e $(if $(CASE),-k $(CASE))

.PHONY: bench-worker
bench-worker: setup ## The worker beside its peers → build/bench/worker.json (BENCH=embedding: one subject, ROUNDS=1: once)
	@BENCH="$(BENCH)" ROUNDS="$(ROUNDS)" $(LOCAL) bench

.PHONY: bench-operator
bench-operator: setup ## The operator at 100, 300 and 1,000 workers → build/bench/operator.json (WORKERS="100": others)
	@WORKERS="$(WORKERS)" PYTHONPATH=tests $(VENV)/python -m bench.operator

.PHONY: bench-gateway
bench-gateway: setup ## The gateway beside other proxies → build/bench/gateway.json (BENCH=requests: one subject, ROUNDS=1: once)
	@BENCH="$(BENCH)" ROUNDS="$(ROUNDS)" PYTHONPATH=tests $(VENV)/python -m bench.gateway

.PHONY: check
check: lint test ## What CI runs

##@ Develop

.PHONY: setup
setup: python ## The development environment (.venv), exactly as locked
	@$(UV) sync --quiet --frozen --all-packages --all-extras

.PHONY: fmt
fmt: setup ## Format the code
	@$(VENV)/ruff check --quiet --fix-only . && $(VENV)/ruff format --quiet .

.PHONY: lint
lint: setup ## ruff, mypy, the import rules, helm lint
	@$(VENV)/ruff check --quiet . && $(VENV)/ruff format --quiet --check .
	@$(VENV)/mypy --no-error-summary && $(VENV)/mypy --no-error-summary tests/cluster \
	  && $(VENV)/mypy --no-error-summary --exclude /peers/ tests/bench
	@said=$$($(VENV)/lint-imports --no-cache 2>&1) || { echo "$$said"; exit 1; }
	@$(VENV)/python -m modelpool_operator.api.crd crds --check
	@$(PYTHON) charts/render.py crds --check && $(PYTHON) charts/render.py plain --check --helm $(HELM)
	@$(HELM) lint --quiet charts/modelpool
	@echo "lint: nothing to complain about"

.PHONY: crds
crds: setup ## Generate crds/ from the models, and the chart's copies
	@$(VENV)/python -m modelpool_operator.api.crd crds && $(PYTHON) charts/render.py crds

.PHONY: manifests
manifests: crds ## Render charts/plain from the chart
	@$(PYTHON) charts/render.py plain --helm $(HELM)

.PHONY: images
images: python ## Build the images (root); prints their names and where they are
	@$(LOCAL) cluster.images

.PHONY: clean
clean: ## Remove what this checkout made; builds in the cache and clusters stay
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: python
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "this needs Python 3.11 or newer as $(PYTHON); name another one: make PYTHON=python3.12 …" >&2; exit 1; }
