# make demo: a made-up screen of real nuclei through the whole workflow.  make test: the test suite.
PYTHON ?= python3
BIN := .venv/bin
SEED ?= 0
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test lint benchmark clean

$(BIN)/wscnn: pyproject.toml envs/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e .
	touch $@

$(BIN)/pytest: $(BIN)/wscnn
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@

demo: $(BIN)/wscnn
	test -d demo || wscnn simulate screen demo --seed $(SEED)
	snakemake --configfile demo/config.yaml --cores all --quiet rules progress
	wscnn show results/demo

test: $(BIN)/pytest
	pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(BIN)/pytest
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint

benchmark: $(BIN)/wscnn
	$(BIN)/pip install --quiet -e '.[benchmark]'
	python tests/benchmarks/run_all.py

clean:
	rm -rf .venv demo results logs .snakemake
