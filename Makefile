# Both commands set themselves up: a virtual environment in .venv from the package registry, nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: verify test lint types docs teeth clean

verify: $(STAMP)
	$(PY) -m gaugeblock.conformance.cli.main verify --out gaugeblock-out

test: $(STAMP)
	TRITON_INTERPRET=1 $(PY) -m pytest -n 2 -m "not slow and not gpu"

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# mypy does not follow setuptools' import hook, so the package is shown to it through one link.
types: $(STAMP)
	@mkdir -p .types && ln -sfn .. .types/gaugeblock
	MYPYPATH=.types $(PY) -m mypy -p gaugeblock.kernels -p gaugeblock.reference -p gaugeblock.fixtures -p gaugeblock.conformance

docs: $(STAMP)
	$(PY) -m gaugeblock.conformance.catalogue docs/catalogue.md

# The quick matrix: each fault against the check that names it. `gaugeblock teeth` runs whole layers.
teeth: $(STAMP)
	$(PY) -m gaugeblock.conformance.cli.main teeth --scope named --out kills.json

$(STAMP): pyproject.toml setup.py constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .types build *.egg-info gaugeblock-out
