# Every target but help and clean runs the set-up first. It needs git, make and Python 3.11 or newer.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint format bench notebooks docs nails train-nailseg-b0 ship-nailseg-b0 wheel clean

# the first of these that is new enough
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
NAILS ?= ../shared/nails

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "nailseg needs Python 3.11 or newer; none was found on PATH. Install it, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/.installed ## make .venv with the pinned packages

# existing outputs are kept; an interrupted training is resumed
demo: setup ## draw data, train, test, predict: minutes on a laptop, ends with a report and overlays
	test -d demo/Images || $(BIN)/nailseg sample demo --count 400
	test -f demo/dataset.csv || $(BIN)/nailseg index demo --val 0.15 --test 0.15
	test -d runs/demo/model || $(BIN)/nailseg train $(call part,demo,demo) --data.csv demo/dataset.csv --trainer.logger false --trainer.devices 1
	test -d runs/demo/predictions || $(BIN)/nailseg predict demo/dataset.csv --split test --model runs/demo --out runs/demo/predictions --overlay
	@echo "report: runs/demo/test/report.html; masks and overlays: runs/demo/predictions"

test: lint ## the test suite, as CI runs it
	$(BIN)/python -m pytest --ignore tests/export
	$(BIN)/python -m pytest tests/export  # in a separate process: the other tests start many processes, without the exported runtimes

test-slow: setup ## the long checks
	$(BIN)/python -m pytest -m slow

lint: setup ## style, formatting, and the layers of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: setup ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# run in build/, where their images can be viewed; the stored ones have no outputs
notebooks: setup ## make the notebooks from their .py files and run them all, into build/notebooks/
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py
	rm -rf build/notebooks && mkdir -p build/notebooks && cp notebooks/*.ipynb build/notebooks
	cd build/notebooks && for n in *.ipynb; do \
		$(abspath $(BIN))/jupyter-execute --inplace --kernel_name=python3 $$n || exit 1; done

# docs/notebooks/ holds copies of the executed notebooks
docs: notebooks ## run the notebooks and build the documentation into build/site/
	rm -rf docs/notebooks && mkdir docs/notebooks && cp build/notebooks/*.ipynb docs/notebooks
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: setup ## side-by-side timings against transformers, torchmetrics and uncached loading
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/forward.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/metric_update.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/checking.py $(if $(wildcard $(NAILS)),--nails $(NAILS))
	$(BIN)/python benchmarks/loader.py $(if $(wildcard $(NAILS)),--nails $(NAILS))

nails: setup ## index real photographs (NAILS=folder with Images/ and Masks/), train and test scratch_b0 on them
	test -f runs/dataset.csv || { mkdir -p runs && $(BIN)/nailseg index $(NAILS) --out runs/dataset.csv; }
	$(BIN)/python -m nailseg.train --config scratch_b0.yaml --data.csv runs/dataset.csv --data.root $(NAILS)

# nailseg-b0 on its own split (the photographs are not part of the project); an interrupted part is resumed
SPLIT := --data.csv experiments/nailseg_b0_split.csv --data.root $(NAILS)
# the split of the shipped weights is kept: its one pair of near-duplicates, train 3/1389.jpg and val 4/7_1.jpg, is not in the test part
ALLOW := --data.allow '[near-duplicate-split]'
SEEDS := 0 1
SHIPPED := runs/$(if $(GPU),nailseg_b0_gpu,nailseg_b0_mean)
part = $(if $(wildcard runs/$(1)/checkpoints/last.ckpt),--resume runs/$(1),--config $(2).yaml --name $(1) --seed_everything $(or $(3),0))
train = test -d runs/$(1)/model || $(BIN)/python -m nailseg.train $(call part,$(1),$(2),$(3)) $(SPLIT) $(ALLOW) || exit 1;
train-nailseg-b0: setup ## train nailseg-b0 (NAILS=folder): six and a half hours on 2 cores, or with GPU=1; resumes an interrupted training
ifdef GPU
	$(call train,nailseg_b0_gpu,nailseg_b0_gpu)
else
	$(foreach name,scratch_b0 nailseg_b0 nailseg_b0_320,$(call train,$(name),$(name)))
	$(foreach seed,$(SEEDS),$(call train,nailseg_b0_416_$(seed),nailseg_b0_416,$(seed)))
	test -d $(SHIPPED)/model || { rm -rf $(SHIPPED) && $(BIN)/python experiments/average.py $(SHIPPED) $(SEEDS:%=runs/nailseg_b0_416_%) $(SPLIT:--data.%=--%); }
endif

ship-nailseg-b0: setup ## write that run's model into the package, in half precision
	$(BIN)/python experiments/ship.py nailseg-b0 $(SHIPPED)

wheel: setup ## build the package into dist/
	$(BIN)/python -m build --outdir dist

clean: ## remove generated files, except .venv, runs/ and demo/
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
