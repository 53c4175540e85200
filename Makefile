# The course, by command. `make` alone lists what there is. Each target is one line over a command that
# every system has: README.md says what to type where there is no make.
#
#   PYTHON      the interpreter that makes the environment (3.11 to 3.14)
#   VENV        where the environment lies
#   BUNDLE      the folder that `make bundle` packs
#
# pip takes PyTorch's CUDA build on Linux; its CPU build, a tenth as large, with
#   PIP_EXTRA_INDEX_URL=INDEX make lab       INDEX: what pytorch.org/get-started shows for "CPU"
# Both must pass the tests: an environment of the other build lies beside the first, such as
#   PIP_CONSTRAINT= PIP_EXTRA_INDEX_URL= make test VENV=.venv-pip PYTHON=python3.13

PYTHON ?= python3
VENV ?= .venv
BUNDLE ?= dist/serial-lora-bundle

BIN := $(VENV)/bin
RUN := $(BIN)/python
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install course lab doctor test test-all lint test-notebooks notebooks bench study study-tables \
	site bundle bundle-check weights clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
		| awk -F ':.*## ' '{ printf "make %-16s %s\n", $$1, $$2 }'

$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here:" \
		"install Python 3.11 to 3.14, or say which one with make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
		"Serial LoRA needs Python 3.11 to 3.14, and $(PYTHON) is older:" \
		"install one of them, and name it: make PYTHON=python3.13"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 15))' || echo \
		"$(PYTHON) is newer than 3.14, the newest that Serial LoRA is made for: if the packages" \
		"do not install, install an older one, and name it: make PYTHON=python3.13"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment:" \
		"on Debian and Ubuntu, install the package python3-venv"; exit 2; }
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	$(RUN) -m pip install --disable-pip-version-check -e ".[test]"
	@touch $(INSTALLED)

install: $(INSTALLED) ## make the environment and install the course into it

course: install ## set up everything and run the labs at tiny scale, Serial LoRA beside LoRA
	$(BIN)/serial-lora course

lab: install ## open the lessons in JupyterLab
	$(BIN)/serial-lora open

doctor: install ## say whether this machine is ready, and what to mend
	$(BIN)/serial-lora doctor

lint: install ## look for mistakes in the code without running it
	$(RUN) -m tools.test --lint

test: install ## run all tests but the slow ones, and every lesson, solved and unsolved, offline
	$(RUN) -m tools.test

test-all: install ## run all tests, and both notebooks of every lesson apart
	$(RUN) -m tools.test --all

test-notebooks: install ## run both folders of notebooks
	$(RUN) -m tools.test --lessons

notebooks: install ## run the lesson sources; write notebooks and pages from them
	$(RUN) -m tools.notebooks build

bench: install ## measure speed and memory (see benchmarks/README.md)
	$(RUN) -m benchmarks

study: install ## run what is missing of docs/study.md (may be stopped at any moment)
	$(RUN) -m study run

study-tables: install ## what the study found, from its records
	$(RUN) -m study tables

site: install ## the course as pages to read, in build/site (no network)
	$(RUN) -m sphinx -q -W --keep-going -c site . build/site

bundle: install ## pack wheels, data and notebooks into one folder that installs without a network
	$(RUN) -m tools.bundle "$(BUNDLE)"

bundle-check: ## install that folder without a network beside it, and run the doctor there
	$(PYTHON) -m venv "$(BUNDLE)-check"
	"$(BUNDLE)-check/bin/python" -m pip install --isolated --no-index \
		--find-links "$(BUNDLE)/wheels" -e "$(BUNDLE)[course]"
	"$(BUNDLE)-check/bin/serial-lora" doctor

weights: install ## pretrain the tiny models again (hours)
	$(RUN) -m pip install --disable-pip-version-check -e ".[test,pretrain]"
	$(RUN) data_scripts/pretrain_tiny.py clip
	$(RUN) data_scripts/pretrain_tiny.py sam
	$(RUN) data_scripts/pretrain_tiny.py sd3
	$(RUN) data_scripts/pretrain_tiny.py styles

clean: ## remove the environment and all caches; notebooks, data and results stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
