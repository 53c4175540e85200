# The course, by command. `make` alone lists what there is.
#
#   PYTHON      the interpreter that makes the environment (3.10 or newer)
#   VENV        where the environment lies
#   CLIP_DATA, SAM_DATA, SD3_DATA: the tiny data sets that `make course` adapts to
#   BUNDLE      the folder that `make bundle` packs

PYTHON ?= python3
VENV ?= .venv
CLIP_DATA ?= all
SAM_DATA ?= all
SD3_DATA ?= openmoji,night
BUNDLE ?= dist/serial-lora-bundle

RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# Tests and lessons run without a network: the folder on PYTHONPATH refuses every connection beyond
# this machine in each Python process. One thread a process, since two processes share the cores.
OFFLINE = PYTHONPATH="$(CURDIR)/serial_lora_course/offline" \
	HF_HUB_OFFLINE=1 SERIAL_LORA_STATIC=1 OMP_NUM_THREADS=1
CELL_TIMEOUT := 170

.DEFAULT_GOAL := help
.PHONY: help install data course lab doctor test test-all lint test-notebooks notebooks bench \
	bundle bundle-check weights clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
		| awk -F ':.*## ' '{ printf "make %-16s %s\n", $$1, $$2 }'

$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here:" \
		"install Python 3.10 or newer, or say which one with make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo \
		"Serial LoRA needs Python 3.10 or newer, and $(PYTHON) is older:" \
		"name a newer one with make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment:" \
		"on Debian and Ubuntu, install the package python3-venv"; exit 2; }
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	$(RUN) -m pip install --disable-pip-version-check -e ".[test]"
	$(RUN) -m ipykernel install --sys-prefix --name python3
	@touch $(INSTALLED)

install: $(INSTALLED) ## make the environment and install the course into it

data: install ## draw the emoji of every style once, and keep them
	@$(RUN) -c "from serial_lora_course.data.emoji import STYLES, load_emoji; \
		[print(f'{style}: {len(load_emoji(style).names)} pictures') for style in STYLES]"

course: data ## set up everything and run the labs at tiny scale, Serial LoRA beside LoRA
	$(VENV)/bin/serial-lora doctor
	$(VENV)/bin/serial-lora lab clip --scale tiny --dataset $(CLIP_DATA) \
		--methods lora,serial_lora --shots 16 --seeds 1
	$(VENV)/bin/serial-lora lab sam --scale tiny --dataset $(SAM_DATA) \
		--methods lora,serial_lora --percent 100 --seeds 1
	$(VENV)/bin/serial-lora lab sd3 --scale tiny --dataset $(SD3_DATA) \
		--methods lora,serial_lora --percent 100 --seeds 1
	@echo "Next: \"make lab\" opens the lessons in JupyterLab; start with 00_start_here."

lab: install ## open the lessons in JupyterLab
	$(RUN) -m jupyterlab notebooks/00_start_here.ipynb

doctor: install ## say whether this machine is ready, and what to mend
	$(VENV)/bin/serial-lora doctor

lint: install ## look for mistakes in the code without running it
	$(RUN) -m ruff check .

test: lint ## run all tests but the slow ones, and every notebook, without a network
	$(OFFLINE) $(RUN) -m pytest -q -n 2 -m "not slow" tests
	$(MAKE) test-notebooks

test-all: lint ## run all tests, the slow ones too, and every notebook
	$(OFFLINE) $(RUN) -m pytest -q -n 2 tests
	$(MAKE) test-notebooks

test-notebooks: install ## compare notebooks with their sources, and run both folders
	$(RUN) -m tools.notebooks --check
	$(RUN) -m serial_lora_course.claims.ledger --check CLAIMS.md
	$(OFFLINE) $(RUN) -m pytest -q -n 2 --dist loadfile --nbval-lax --nbval-current-env \
		--nbval-cell-timeout=$(CELL_TIMEOUT) notebooks solutions

notebooks: install ## run the lesson sources and write both folders of notebooks from them
	$(RUN) -m tools.notebooks build
	$(RUN) -m serial_lora_course.checks.lessons --write README.md
	$(RUN) -m tools.plans --write INSTRUCTORS.md
	$(RUN) -m serial_lora_course.claims.ledger --write CLAIMS.md

bench: install ## measure speed and memory (see benchmarks/README.md)
	$(RUN) -m benchmarks

bundle: install ## pack wheels, data and notebooks into one folder that installs without a network
	$(RUN) -m tools.bundle "$(BUNDLE)"

bundle-check: install ## install that folder without a network, and run the doctor and lesson 00
	$(RUN) -m tools.bundle --check "$(BUNDLE)"

weights: install ## pretrain the tiny models again (hours)
	$(RUN) -m pip install --disable-pip-version-check -e ".[test,pretrain]"
	$(RUN) data_scripts/pretrain_tiny.py clip
	$(RUN) data_scripts/pretrain_tiny.py sam
	$(RUN) data_scripts/pretrain_tiny.py sd3

clean: ## remove the environment and all caches; notebooks, data and results stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
