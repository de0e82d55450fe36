# acs without a ROS distribution: each command first makes .venv, or brings it up to date, and then runs in it.
# PYTHON=python3.12 names the Python of a new environment; VENV=folder puts it elsewhere.

VENV ?= .venv
RUN := $(VENV)/bin
export PYTHON

# A sourced ROS distribution would mix its own rclpy and libraries into the environment's; see README for colcon.
unexport PYTHONPATH PYTHONHOME LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unexport RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE

# Camera frames are larger than what Fast DDS passes by default, and nothing here should leave this machine.
export FASTDDS_DEFAULT_PROFILES_FILE ?= $(CURDIR)/config/fastdds_profile.xml
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST

.PHONY: help env demo test lint fuzz audit bench format clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 10

env: ## make the environment, or bring it up to date; nothing happens where nothing changed
	@tools/set_up.sh --venv $(VENV)

demo: env ## play a bag to the grounding node over DDS and show what it finds (ARGS="..." are passed on)
	@$(RUN)/python -m acs_ros.demo $(ARGS)

test: env ## run all tests (ARGS="-k name" are passed on)
	@$(RUN)/pytest $(ARGS)

lint: env ## check style and types
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy

fuzz: env ## throw generated bad input at every way in (ARGS="--target parser --cases 1000000" are passed on)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check -r requirements/fuzz.txt \
		|| echo "fuzz: no atheris for this Python, cases are drawn at random"
	@$(RUN)/python -m fuzz $(ARGS)

AUDIT := $(VENV)-audit
audit: env ## ask PyPI's advisory database about every pinned wheel
	@[ -x $(AUDIT)/bin/pip-audit ] || { $(RUN)/python -m venv $(AUDIT) && \
		$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/audit.txt; }
	@$(RUN)/python tools/audit.py $(AUDIT)/bin/pip-audit || [ $$? -eq 3 ] # 3: no answer; it has said so

BENCH := $(RUN)/acs-bench
FOUND := docs/benchmarks
bench: env ## measure this machine anew into docs/benchmarks (about 15 minutes; leave the machine alone meanwhile)
	@mkdir -p $(FOUND)
	@$(BENCH) --repeats 2 --json $(FOUND)/engine.json
	@$(BENCH) phrases --repeats 2 --json $(FOUND)/phrases.json
	@$(BENCH) limits --json $(FOUND)/limits.json
	@$(BENCH) selector --json $(FOUND)/selector.json
	@$(BENCH) load --json $(FOUND)/load.json
	@$(BENCH) busy --json $(FOUND)/busy.json
	@$(BENCH) ros --json $(FOUND)/ros.json
	@$(BENCH) quantization --image docs/sample.png --phrase key --json $(FOUND)/quantization.json
	@$(BENCH) sweep --plot $(FOUND)/sweep.png --json $(FOUND)/sweep.json

format: env ## apply the style
	@$(RUN)/ruff check --fix .
	@$(RUN)/ruff format .

clean: ## remove the environment and everything the commands wrote
	[ ! -d $(VENV)/.acs ] || rm -rf $(VENV) $(VENV)-audit
	rm -rf build install log demo_output replay_output runs soak_output work world *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
