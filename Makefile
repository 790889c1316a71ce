# make demo: a simulated screen of real nuclei through the whole workflow (SCREEN=micronuclei: another one, SEED=1:
# another draw).  make test: the test suite.
PYTHON ?= python3
BIN := .venv/bin
SEED ?= 0
# Cells of the demo, as `wscnn simulate screen --cells` names them, and the folder it is made in.
SCREEN ?= nuclei
DEMO := demo$(patsubst %,_%,$(filter-out nuclei,$(SCREEN)))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test readers lint benchmark clean

$(BIN)/wscnn: pyproject.toml envs/requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e .
	touch $@

$(BIN)/pytest: $(BIN)/wscnn
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@

demo: $(BIN)/wscnn
	test -d $(DEMO) || wscnn simulate screen $(DEMO) --cells $(SCREEN) --seed $(SEED)
	snakemake --configfile $(DEMO)/config.yaml --cores all --quiet rules progress
	wscnn show results/$(DEMO)

test: $(BIN)/pytest
	pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10

lint: $(BIN)/pytest
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# Tools that read exports back in tests; their needs clash with those of this project and with each other.
readers: .venv/readers/ngio .venv/readers/crate

.venv/readers/%: tests/export/%.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet -r $<
	touch $@

benchmark: $(BIN)/wscnn
	$(BIN)/pip install --quiet -e '.[benchmark]'
	python tests/benchmarks/run_all.py

clean:
	rm -rf .venv demo demo_* results logs .snakemake
