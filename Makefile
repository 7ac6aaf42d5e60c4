# The two doors are `make demo` and `make test`; both set everything up first.
MM ?= onedl
TASK ?= classification
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := $(if $(filter onedl,$(MM)),.venv,.venv-$(MM))
BIN := $(CURDIR)/$(VENV)/bin
DEVICE ?= cpu
# The Python that makes the environment; the launchers would take it for the one to train with.
unexport PYTHON
SETUP = $(PYTHON) tools/dev/setup_environment.py --family $(MM) $(if $(TORCH),--torch $(TORCH))

.PHONY: help setup demo test test-family bench docs lint clean

help:
	@echo "make demo [TASK=classification|detection|segmentation|pointcloud] [MM=onedl|openmmlab] [DEMO_ARGS=--retrain]   train and test on real digits"
	@echo "make test [MM=...]    lint, types and the test suite; what differs in upstream's family too, where .venv-openmmlab is"
	@echo "make setup [MM=...]   the environment alone: $(VENV); TORCH=cpu: without CUDA; MMCV_WHEEL=FILE-OR-PAGE: without compiling"
	@echo "make bench [DEVICE=cpu|cuda]   measure speed and memory: benchmarks/results/DEVICE.json"
	@echo "make docs              the site: build/docs/index.html"
	@echo "make lint | clean"

setup:
	@$(SETUP)

# Compiling mmcv's operators takes minutes, and these tasks do without.
demo:
	@$(SETUP) $(if $(filter classification pointcloud,$(TASK)),--without-operators)
	@PATH="$(BIN):$$PATH" python tools/dev/demo.py --task $(TASK) $(DEMO_ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PATH="$(BIN):$$PATH" lint-imports --no-cache
	@$(BIN)/shellcheck -x tools/*.sh .ci/run
	@$(BIN)/python tools/dev/check_file_length.py

# In the order of the files: by default those of few tests come last, and some of these are the longest.
test: lint
	@$(BIN)/python tools/dev/setup_browser.py
	@PATH="$(BIN):$$PATH" python -m pytest -n auto --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)
ifeq ($(MM)$(PYTEST_ARGS),onedl)
ifneq ($(wildcard .venv-openmmlab),)
	@$(MAKE) --no-print-directory test-family MM=openmmlab
else
	@echo 'The upstream family was not tested: make setup MM=openmmlab makes its environment, and make test uses it from then on.'
endif
endif

# What differs between the families, two minutes of one core; the whole suite in a family is make test MM=...
test-family: setup
	@PATH="$(BIN):$$PATH" python -m pytest -n auto --dist loadscope -m family

bench: setup
	@$(BIN)/python tools/analysis_tools/benchmark.py --suite --device $(DEVICE) --out benchmarks/results/$(DEVICE).json $(BENCH_ARGS)

# The reference is made from what imports, and needs no compiled operators; every warning is an error, a link that leads
# nowhere among them.
docs:
	@$(SETUP) --without-operators
	@$(BIN)/python -m sphinx -n -W --keep-going -q docs build/docs
	@echo "build/docs/index.html"

clean:
	rm -rf .venv .venv-openmmlab .venv.lock .venv-openmmlab.lock work_dirs data/digits build/docs
