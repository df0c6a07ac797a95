# `make help` lists what there is. Set EXTRA=gpu for onnxruntime's GPU build, PYTHON for another interpreter.

PYTHON ?= python3
EXTRA ?= cpu
VENV ?= .venv$(if $(filter gpu,$(EXTRA)),-gpu)
BIN := $(VENV)/bin
LOCKS := constraints.txt $(if $(filter gpu,$(EXTRA)),constraints-gpu.txt)
# Debian ships venv's own pip separately; where it is missing, the system's pip can install into the environment too.
PIP = $$($(1)/python -c 'import pip' 2>/dev/null && echo $(1)/python -m pip \
	|| echo $(PYTHON) -m pip --python $(1)/python) install --quiet --disable-pip-version-check
INSTALL = $(call PIP,$(BIN)) $(addprefix --constraint ,$(LOCKS))
# What the benchmark compares with contradicts itself and the service, so that each has an environment of its own.
PEERS := mosec mlserver litserve bentoml
PEER_VENVS := $(PEERS:%=.venv-bench/%)
# Tests in environments without PyTorch, which tests/conftest.py imports.
APART := --numprocesses=0 -W default --confcutdir=tests/service
OTHER_VENVS := .venv-ray .venv-kubernetes .venv-audit .venv-chaos

# Two benchmarks at once would measure each other.
.NOTPARALLEL:
.PHONY: help serve test test-all compose-test monitoring-test ray-test kubernetes-check kubernetes-rules check audit chaos \
	bench bench-training bench-serving bench-graph bench-offline bench-tables reproduce format schema lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

serve: $(VENV)/.serving  ## set up what serving needs and start the service
	$(BIN)/python -m service

test: $(VENV)/.complete  ## set up everything and run the tests that are quick and need no data
	$(BIN)/python -m pytest

test-all: $(VENV)/.complete  ## run all tests, those that train on the public datasets too
	$(BIN)/python -m pytest -m 'not monitoring and not compose and not ray and not kubernetes'

chaos: $(VENV)/.complete .venv-chaos/.installed  ## try to break the service, over an hour; OPTIONS='--only 4 --scale 0.1' for less
	$(BIN)/python -m tests.chaos $(OPTIONS)

compose-test: $(VENV)/.complete  ## build the stack of docker-compose.yml and test it in the Docker engine there is
	$(BIN)/python -m pytest -n0 -rfEP -m compose tests/compose

monitoring-test: $(VENV)/.complete  ## run real Prometheus and Alertmanager beside the service; both must be on PATH
	$(BIN)/python -m pytest -m monitoring tests/monitoring

ray-test: .venv-ray/.installed  ## score tables on a local Ray, and let it come to harm
	.venv-ray/bin/python -m pytest -m ray $(APART) tests/service/offline/test_ray.py

kubernetes-check: .venv-kubernetes/.installed  ## render docker/kubernetes and hold it against the schemas
	.venv-kubernetes/bin/python -m pytest -m kubernetes -p no:cloudcoil $(APART) tests/docker/test_kubernetes_rendered.py

audit: .venv-audit/.installed  ## look up known vulnerabilities of what serving installs, and list it in build/sbom.json
	.venv-audit/bin/python .ci/audit.py

kubernetes-rules: $(VENV)/.complete  ## write docker/prometheus/rules as a PrometheusRule
	$(BIN)/python docker/kubernetes/rules.py > docker/kubernetes/base/rules.yaml

check: $(VENV)/.complete  ## check formatting, lint, types, import directions and the manifest's schema
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m service.manifest | diff - models/manifest.schema.json

bench: bench-training bench-serving  ## measure training and serving beside references, each in one run

bench-training: $(VENV)/.complete  ## measure the training's speed and memory
	$(BIN)/python -m tests.load.training_speed

bench-serving: $(VENV)/.complete $(PEER_VENVS:=/.installed)  ## measure the service beside limits and peers
	$(BIN)/python -m tests.load.serving_speed

bench-graph: $(VENV)/.complete  ## measure what many rows cost in pieces, beside at once
	$(BIN)/python -m tests.load.graph_pieces

bench-offline: $(VENV)/.complete  ## measure the scoring of tables beside a plain loop
	$(BIN)/python -m tests.load.offline_speed

bench-tables: $(VENV)/.complete  ## measure fits of large tables, and their scoring
	$(BIN)/python -m tests.load.own_tables

reproduce: $(VENV)/.complete  ## run what is missing of the paper's experiments and write docs/results.md
	$(BIN)/python -m training reproduce

format: $(VENV)/.complete  ## format the code and sort its imports
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

schema: $(VENV)/.complete  ## write models/manifest.schema.json from the service's reader
	$(BIN)/python -m service.manifest > models/manifest.schema.json

lock: $(VENV)/.complete  ## write constraints.txt and constraints-gpu.txt with today's versions
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report $(VENV)/cpu.json '.[cpu,training,traces,signatures,ray,dev]'
	$(BIN)/python -m pip install --quiet --dry-run --ignore-installed --report $(VENV)/gpu.json '.[gpu]'
	$(BIN)/python .ci/lock.py $(VENV)/cpu.json $(VENV)/gpu.json

clean:  ## remove the environments and caches
	rm -rf .venv .venv-gpu .venv-bench .venv-ray .venv-kubernetes .venv-audit .venv-chaos .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(BIN)/python $(PEER_VENVS:=/bin/python) $(OTHER_VENVS:=/bin/python):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), Python 3.11 or newer is needed; set PYTHON" >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(@:/bin/python=); \
		elif $(PYTHON) -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --without-pip $(@:/bin/python=); \
		else echo 'error: $(PYTHON) has neither venv nor pip; on Debian: apt install python3-venv' >&2; exit 1; fi

$(VENV)/.serving: pyproject.toml $(LOCKS) | $(BIN)/python
	$(INSTALL) --editable '.[$(EXTRA)]'
	@touch $@

$(VENV)/.complete: $(VENV)/.serving
	$(INSTALL) --editable '.[$(EXTRA),training,traces,signatures,dev]'
	@touch $@

# Only recent versions of pip know dependency groups. A peer that can't be installed is missing in the tables.
$(PEER_VENVS:=/.installed): .venv-bench/%/.installed: pyproject.toml constraints.txt | .venv-bench/%/bin/python
	@rm -f $@
	@grep -E '^(numpy|onnxruntime|orjson)==' constraints.txt > $(@D)/constraints.txt
	$(call PIP,$(@D)/bin) --upgrade 'pip>=25.1' && $(call PIP,$(@D)/bin) --constraint $(@D)/constraints.txt \
		--group bench-$* && touch $@ || echo 'warning: $* could not be installed, and will be missing' >&2

.venv-ray/.installed: pyproject.toml constraints.txt | .venv-ray/bin/python
	$(call PIP,$(@D)/bin) --upgrade 'pip>=25.1'
	$(call PIP,$(@D)/bin) --constraint constraints.txt --group ray-test --editable '.[cpu,ray]'
	@touch $@

.venv-audit/.installed: pyproject.toml constraints.txt | .venv-audit/bin/python
	$(call PIP,$(@D)/bin) --upgrade 'pip>=25.1'
	$(call PIP,$(@D)/bin) --group audit
	$(@D)/bin/python -m venv --without-pip --clear $(@D)/serving
	$(@D)/bin/python -m pip --python $(@D)/serving/bin/python install --quiet --disable-pip-version-check \
		--constraint constraints.txt '.[cpu]'
	@touch $@

.venv-chaos/.installed: pyproject.toml | .venv-chaos/bin/python
	$(call PIP,$(@D)/bin) --upgrade 'pip>=25.1'
	$(call PIP,$(@D)/bin) --group chaos
	@touch $@

.venv-kubernetes/.installed: pyproject.toml | .venv-kubernetes/bin/python
	$(call PIP,$(@D)/bin) --upgrade 'pip>=25.1'
	$(call PIP,$(@D)/bin) --group kubernetes-check
	@touch $@
