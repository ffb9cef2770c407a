# make demo    install and classify a scene made by code (or SCENE=path.tif); print where the map is
# make test    install what tests need and run them
# make install stop before running anything
PYTHON ?= python3
SCENE  ?=
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint types check install install-dev clean

demo: install
ifeq ($(SCENE),)
	@mkdir -p demo
	@$(BIN)/python -m pipeline.synthetic demo/demo.tif
	@$(BIN)/landcover classify demo/demo.tif -o demo --preview --overwrite
else
	@$(BIN)/landcover classify "$(SCENE)" -o demo --preview --overwrite
endif

test: install-dev
	$(BIN)/python -m pytest

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev
	$(BIN)/mypy

check: lint types test

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "landcover needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo build dist
