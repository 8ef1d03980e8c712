# make app    environment, default model, dashboard
# make test   environment, browser, everything
# make check  style, types, fast tests
VENV   ?= .venv
PYTHON := $(VENV)/bin/python
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check
TORCH  := $(shell grep '^torch==' requirements.txt)
PORT   ?= 8501
FAST   := tests/sparsity tests/evaluation tests/devices tests/figures tests/models tests/experiments/test_sweep.py

.PHONY: app env dev browser tex model test check format seed screenshots gallery clean

app: env model
	$(PYTHON) -m backend app --port $(PORT)

env: $(VENV)/.runtime
dev: $(VENV)/.dev

$(VENV)/bin/python:
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sparsity Lens needs Python 3.11 or newer.")'
	python3 -m venv $(VENV)

# torch alone comes from PyTorch's CPU index where that can be reached: PyPI's build for Linux brings CUDA along.
$(VENV)/.torch: requirements.txt | $(VENV)/bin/python
	$(PIP) install --quiet --retries 0 --timeout 10 --index-url https://download.pytorch.org/whl/cpu $(TORCH) 2>/dev/null || $(PIP) install --quiet $(TORCH)
	touch $@

$(VENV)/.runtime: $(VENV)/.torch requirements.txt
	$(PIP) install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	$(PIP) install --quiet --requirement requirements-dev.txt
	touch $@

# Debian's Chromium drives the browser tests; CHROMIUM names another one.
browser:
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || tools/install_chromium.sh

# TeX compiles exported figures and tables; without it those tests are skipped.
tex:
	@command -v pdflatex >/dev/null || tools/install_tex.sh || true

model: env
	$(PYTHON) -m backend fetch smollm2-135m

test: dev browser tex model
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PYTHON) -m pytest

check: dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(PYTHON) -m pytest -m "not real_model and not browser and not tex" --ignore tests/figures/test_figures_bundle.py $(FAST)

format: dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# The committed seed results, made again: hours on two cores; goes on where it was cut off. Let nothing run beside
# the latency sweeps. Those of sparse activation need a data root (SPARSITY_LENS_DATA) with eval/TruthfulQA.csv.
SWEEPS := seed dip-ca dip-ca-headline int8 latency latency-int8 \
	$(addprefix sparse-activation-,forced labels text label-free free ranks calibrated-text) \
	latency-label-free moe-headline moe-decode moe-store
seed: env model
	set -e; for sweep in $(SWEEPS); do $(PYTHON) -m backend sweep data/sweeps/$$sweep.yaml --resume; done

screenshots: dev browser
	$(PYTHON) docs/screenshots.py

# The README's figures, from the seed results in a home of their own.
gallery: env
	$(PYTHON) docs/gallery.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
