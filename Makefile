# Both commands do all of their own set-up, in .venv, and do it again only when it changes.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help demo test fuzz lint bench test-langchain test-llama-index clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   the main job: real texts into a real engine, real questions, two stages"
	@echo "make test   the tests"
	@echo "make fuzz   a minute of whatever may come as a filter"
	@echo "make lint   ruff and mypy"
	@echo "make test-langchain  the LangChain adapter with the lowest langchain-core"
	@echo "make test-llama-index  the LlamaIndex adapter with the lowest llama-index-core"
	@echo "make bench  nestvec on Edge beside the raw engine, about 10 minutes"

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

# The tests have the newest langchain-core 1; this is the adapter with the lowest.
test-langchain: .venv-langchain
	.venv-langchain/bin/python -m pytest tests/adapters -k langchain

.venv-langchain: pyproject.toml
	rm -rf $@
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$@/bin/python -m pip install --quiet --editable '.[all]' --group test langchain-core==1.0.0

# The tests have the newest llama-index-core 0.14; this is the adapter with the lowest, which
# pydantic and the version itself warn of on its own account.
test-llama-index: .venv-llama-index
	.venv-llama-index/bin/python -m pytest tests/adapters -k "llama_index and memory" \
		-W "ignore:The 'validate_default' attribute" \
		-W "ignore:Call to deprecated method get_doc_id"

.venv-llama-index: pyproject.toml
	rm -rf $@
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$@/bin/python -m pip install --quiet --editable '.[all]' --group test llama-index-core==0.13.0

bench: .venv/demo
	$(BIN)/python benchmarks/edge.py

# pip 25.1 is the first that knows dependency groups.
.venv/pip:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade 'pip>=25.1'
	@touch $@

.venv/demo: .venv/pip pyproject.toml
	$(PIP) --editable '.[cli]'
	@touch $@

.venv/test: .venv/pip pyproject.toml
	$(PIP) --editable '.[all]' --group test
	@touch $@

.venv/lint: .venv/test
	$(PIP) --group lint
	@touch $@

clean:
	rm -rf .venv .venv-langchain .venv-llama-index nestvec-demo
