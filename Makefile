# acs without a ROS distribution: each command first makes .venv, or brings it up to date, and then runs in it.
# ROS=jazzy takes the wheels of another ROS distribution, in an environment of its own.
# PYTHON=python3.12 names the Python of a new environment; VENV=folder puts it elsewhere.

ROS ?= kilted
VENV ?= .venv$(if $(filter kilted,$(ROS)),,-$(ROS))
RUN := $(VENV)/bin
export PYTHON

# A sourced ROS distribution would mix its own rclpy and libraries into the environment's; see docs/workspace.md for colcon.
unexport PYTHONPATH PYTHONHOME LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unexport RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
# Each of the many processes that the tests start would compile our sources anew.
unexport PYTHONDONTWRITEBYTECODE

# Camera frames are larger than what Fast DDS passes by default, and nothing here should leave this machine.
export FASTDDS_DEFAULT_PROFILES_FILE ?= $(CURDIR)/config/fastdds_profile.xml
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST

.PHONY: help env demo test lint docs fuzz fuzznode audit lock bench gpu-check format clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 11

env: ## make the environment, or bring it up to date; nothing happens where nothing changed
	@tools/set_up.sh --venv $(VENV) --ros $(ROS)

BAG ?= acs_ros/assets/demo_bag
demo: env ## play a bag to the grounding node over DDS and show what it finds (BAG=folder, ARGS="..." are passed on)
	@$(RUN)/python -m acs_ros.replay.cli $(BAG) --live --start-node --lockstep --min-answered 0.9 --wait 60 --quiet 60 \
		--params-file config/tiny_qwen2_5_vl.yaml --out demo_output $(ARGS)

NEWEST := $(VENV)-newest
test: env ## run all tests in up to 4 processes and print their coverage (with ARGS="-k name", those tests on one, without coverage; TRANSFORMERS=newest: with the newest release of transformers)
ifeq ($(TRANSFORMERS),newest)
	@$(RUN)/python tools/newest_transformers.py $(NEWEST)
	@$(NEWEST)/bin/python -m pytest $(if $(strip $(ARGS)),$(ARGS),-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
else ifeq ($(strip $(ARGS)),)
	@$(RUN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --cov --cov-report= && passed=0 || passed=$$?; $(RUN)/python tools/least_covered.py; exit $$passed
else
	@$(RUN)/pytest $(ARGS)
endif

lint: env ## check style, types and who imports whom
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy
	@$(RUN)/lint-imports --no-logo

INSTALL := $(RUN)/python tools/install_locked.py
DOCS := $(VENV)-docs
docs: env ## build the docs site into site/, with every warning an error
	@[ -x $(DOCS)/bin/mkdocs ] || { echo "docs: installing mkdocs" && $(RUN)/python -m venv $(DOCS) && $(INSTALL) $(DOCS)/bin/python docs.txt; }
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict && echo "docs: site/index.html"

fuzz: env ## throw generated bad input at every way in (ARGS="--target parser --cases 1000000" are passed on)
	@$(INSTALL) $(RUN)/python fuzz.txt --optional "fuzz: no atheris for this Python, cases are drawn at random"
	@PYTHONPATH=test $(RUN)/python -m fuzz $(ARGS)

fuzznode: env ## send a running node generated messages over DDS (ARGS="--cases 100000 --seed 2" are passed on)
	@PYTHONPATH=test $(RUN)/python -m fuzz.node $(ARGS)

AUDIT := $(VENV)-audit
audit: env ## ask PyPI's advisory database about every locked package
	@[ -x $(AUDIT)/bin/pip-audit ] || { echo "audit: installing pip-audit" && $(RUN)/python -m venv $(AUDIT) && $(INSTALL) $(AUDIT)/bin/python audit.txt; }
	@$(RUN)/python tools/audit.py $(AUDIT)/bin/pip-audit || [ $$? -eq 3 ] # 3: no answer; it has said so

LOCK := $(VENV)-lock
lock: env ## write requirements/locked anew after a change of requirements/*.txt
	@[ -x $(LOCK)/bin/uv ] || { echo "lock: installing uv" && $(RUN)/python -m venv $(LOCK) && $(INSTALL) $(LOCK)/bin/python uv.txt; }
	@$(RUN)/python tools/lock.py $(LOCK)/bin/uv

BENCH := $(RUN)/acs-bench
FOUND := docs/benchmarks
bench: env ## measure this machine anew into docs/benchmarks (about 20 minutes; leave the machine alone meanwhile)
	@mkdir -p $(FOUND)
	@$(BENCH) --repeats 2 --json $(FOUND)/engine.json
	@$(BENCH) whole --repeats 2 --json $(FOUND)/whole.json
	@$(BENCH) phrases --repeats 2 --json $(FOUND)/phrases.json
	@$(BENCH) limits --json $(FOUND)/limits.json
	@$(BENCH) selector --json $(FOUND)/selector.json
	@$(BENCH) load --json $(FOUND)/load.json
	@$(BENCH) busy --json $(FOUND)/busy.json
	@$(BENCH) ros --json $(FOUND)/ros.json
	@$(BENCH) quantization --image docs/sample.png --phrase key --json $(FOUND)/quantization.json
	@$(BENCH) pictures --json $(FOUND)/pictures.json
	@$(BENCH) sweep --plot $(FOUND)/sweep.png --json $(FOUND)/sweep.json

gpu-check: env ## measure what a GPU is to show, in at most 8 minutes, into gpu_check/; without one, small models on the CPU (ARGS="--out folder --samples 10" are passed on)
	@$(BENCH) gpu-check $(ARGS)

format: env ## apply the style
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .

clean: ## remove the environment and the caches of the tools; what acs made for you stays
	[ ! -d $(VENV)/.acs ] || rm -rf $(VENV) $(AUDIT) $(DOCS) $(LOCK) $(NEWEST)
	rm -rf acs_ros.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
