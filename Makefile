# make demo    install and classify a scene made by code (or SCENE=path.tif); print where the map is
# make test    install what tests need and run them
# make install stop before running anything
# make qgis-check  open every output in QGIS, which apt installs if it is not there (Debian, Ubuntu)
# make app-test    use `landcover app` in Chromium, which apt installs if it is not there
PYTHON ?= python3
SCENE  ?=
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test qgis-check app-test lint types check install install-dev clean

demo: install
ifeq ($(SCENE),)
	@mkdir -p demo
	@$(BIN)/python -m pipeline.scenes.synthetic demo/demo.tif
	@$(BIN)/landcover classify demo/demo.tif -o demo --preview --overwrite
else
	@$(BIN)/landcover classify "$(SCENE)" -o demo --preview --overwrite
endif

test: install-dev
	$(BIN)/python -m pytest

# QGIS's bindings belong to the system's Python; the second import fails the target if apt did not bring them.
qgis-check: install-dev
	@/usr/bin/python3 -c 'import qgis.core' 2>/dev/null || { SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y --no-install-recommends python3-qgis; }
	@/usr/bin/python3 -c 'from qgis.core import Qgis; print("QGIS", Qgis.QGIS_VERSION)'
	$(BIN)/python -m pytest tests/maps/test_qgis.py -rs

# The system's Chromium, driven by Playwright, which so need not download a browser of its own.
app-test: $(VENV)/.installed-app
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
		SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$SUDO apt-get update -qq && $$SUDO apt-get install -y --no-install-recommends chromium; }
	$(BIN)/python -m pytest tests/app -rs

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

$(VENV)/.installed-app: $(VENV)/.installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,app-test]'
	@touch $@

clean:
	rm -rf $(VENV) demo build dist
