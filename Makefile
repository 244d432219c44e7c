# `make demo` and `make test` set everything up first; both can be repeated.
PY := .venv/bin/python
LAUNCH_CONFIG ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo accelerate_configs/single_gpu.yaml || echo accelerate_configs/cpu.yaml)
LAUNCH := .venv/bin/accelerate launch --config_file $(LAUNCH_CONFIG)

# Idle OpenMP threads sleep instead of spinning: browser, engine and learner share the cores.
export OMP_WAIT_POLICY ?= PASSIVE
export OMP_NUM_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); [ $$n -gt 4 ] && echo 4 || echo $$n)
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
export VLLM_LOGGING_LEVEL ?= ERROR

# One test process more than cores, since many tests wait for others (servers, browsers, ranks), where memory allows
# (7.5 GB each, four at most); one where a GPU would have to be shared.
TEST_WORKERS ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo 1 || awk -v cores=$$(nproc 2>/dev/null || echo 1) \
	'/MemTotal/ {n = int($$2 / 7.5e6); n = n < cores + 1 ? n : cores + 1; n = n < 4 ? n : 4; print (n > 1 ? n : 1)}' /proc/meminfo)

.PHONY: help setup demo test test-quick check fix bench docs site clean

help:
	@echo "make setup    virtual environment, packages, browser"
	@echo "make demo     teach SmolLM2 to use web pages: demonstrations, SFT, GRPO, evaluation   ARGS='key=value ...'"
	@echo "make test     the whole suite                                        ARGS='-k name' TEST_WORKERS=1"
	@echo "make test-quick   what needs neither minutes nor a browser, an engine of vLLM, a sandbox, a phone or Ray"
	@echo "make check    ruff and mypy"
	@echo "make fix      format, and what ruff can mend safely"
	@echo "make bench    every benchmark, results in benchmarks/results/"
	@echo "make docs     docs/configuration.md from the recipes' own help, the pictures from code and results"
	@echo "make site     the documentation as a web site in build/site; stops at a warning or a dead link"

setup:
	@bash scripts/setup.sh

demo: setup
	$(LAUNCH) recipes/demo.py $(ARGS)

test: setup
	OMP_NUM_THREADS=$$(( ($(OMP_NUM_THREADS) + $(TEST_WORKERS) - 1) / $(TEST_WORKERS) )) \
		$(PY) -m pytest $(if $(filter-out 1,$(TEST_WORKERS)),-n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder) $(ARGS)

# By markers alone: a test that is slow or needs a service says so where it stands.
QUICK := not (slow or long or browser or vllm or gpu or sandbox or adb or ray)
QUICK_WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 1); [ $$n -gt 8 ] && echo 8 || echo $$n)

test-quick: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "$(QUICK)" \
		$(if $(filter-out 1,$(QUICK_WORKERS)),-n $(QUICK_WORKERS) --dist loadfile --no-loadscope-reorder) $(ARGS)

check: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

fix: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup
	@mkdir -p benchmarks/results
	@set -e; for file in benchmarks/[a-z]*.py; do \
		name=$$(basename $$file .py); \
		case $$name in demo_*|world_learning|learning) echo "== $$name: takes an hour, run it by itself"; continue;; \
			critic_depth) echo "== $$name: wants a store and a model, run it by itself"; continue;; esac; \
		echo "== $$name"; \
		$(PY) $$file --json | tail -n 1 | tee benchmarks/results/$$name.json; \
	done

docs: setup
	$(PY) scripts/write_docs.py
	$(PY) scripts/write_metric_notes.py
	$(PY) scripts/draw_house.py
	$(PY) scripts/draw_figures.py

site: setup
	$(PY) scripts/build_site.py $(ARGS)

clean:
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
