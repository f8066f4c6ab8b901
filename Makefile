# make run | check | test | lab | lock …, each with ENV=intel or ENV=stock; the first call sets everything up.
SHELL := /bin/bash
PYTHON ?= $(firstword $(shell command -v python3.11 python3))

# the Intel extension exists for Linux x86-64 and Python 3.11; elsewhere current TensorFlow is the default
DEFAULT_ENV := $(if $(filter Linux-x86_64-3.11,$(shell uname -s)-$(shell uname -m)-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')),intel,stock)
ENV ?= $(DEFAULT_ENV)
VENV := $(if $(filter $(ENV),$(DEFAULT_ENV)),.venv,.venv-$(ENV))
BIN := $(VENV)/bin
LOCK := requirements/$(ENV).txt
JOBS ?= train model

# where no bytecode may be written, as in many images for containers, every process compiles TensorFlow anew (17 s instead of 6)
unexport PYTHONDONTWRITEBYTECODE
# the shell that runs the notebooks' tests would put in the packages of an activated environment, of another project perhaps
unexport VIRTUAL_ENV

.PHONY: run check lint compiled test test-environment campaign nightly readme docs lab lock clean setup
setup: $(VENV)/.ready

run: setup          ## the article's system and the shipped model on the embedded features, evaluated
	$(BIN)/ser-nb run $(JOBS) --parallel

# two workers side by side: threads of their own would only wait for each other
check test test-environment campaign nightly: export OMP_NUM_THREADS = 1
check test test-environment campaign nightly: export OPENBLAS_NUM_THREADS = 1
check test test-environment campaign nightly: export OPENBLAS_THREAD_TIMEOUT = 4
lint: setup         ## style and spelling
	$(BIN)/ruff check ser_nb tests nbs
	$(BIN)/codespell ser_nb tests nbs README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md

check: lint $(VENV)/.librosa ## lint and the fast tests
	$(BIN)/python -m pytest -m 'unit and not corpora and not slow'

NOTEBOOKS = $$(find nbs -name '*.ipynb' -not -path '*/.*' | sort)
test: $(VENV)/.librosa ## every test but the slow ones: the notebooks' own, then pytest
	$(BIN)/python tests/notebooks.py $(NOTEBOOKS)
	$(BIN)/python -m pytest

# what of it may differ from one environment to the other; `make test` in one and this in the other is what CI does
ENVIRONMENT_NBS := $(patsubst %,nbs/library/%.ipynb,Keras_Tools H5_Files)
test-environment: setup ## what depends on TensorFlow, Keras, numpy and scikit-learn
	$(BIN)/python tests/notebooks.py $(ENVIRONMENT_NBS)
	$(BIN)/python -m pytest -m '(unit or environment) and not (slow or librosa)'

nightly: test campaign ## all there is: the jobs' cells too, with their defaults
	$(BIN)/python tests/notebooks.py --flags slow $(NOTEBOOKS)

campaign: export SER_NB_CAMPAIGN = long
campaign: $(VENV)/.librosa ## the long form of what breaks things on purpose: more than 20,000 inputs, 50 kills
	$(BIN)/python -m pytest -n 2 --dist load -q -m 'slow or jobs' tests/test_faults.py tests/test_determinism.py
	$(BIN)/python -m pytest -n 0 -q -m 'slow or jobs' tests/test_campaign.py tests/test_load.py
	$(BIN)/python -m pytest -n 0 -q -m slow --ignore=tests/test_faults.py --ignore=tests/test_determinism.py --ignore=tests/test_load.py

readme: setup       ## README.md from nbs/index.ipynb and its stored outputs
	$(BIN)/jupyter nbconvert --log-level ERROR --to markdown --no-input --stdout nbs/index.ipynb | \
	  $(BIN)/python -c "import re, sys; print(re.sub(r'\]\((?!https?:|\#)', '](nbs/', re.sub(r'\n{3,}', '\n\n', sys.stdin.read()).strip()))" > .part-README.md
	mv .part-README.md README.md

docs: setup         ## the site in _docs/, with Quarto or smalldocs
	$(BIN)/python -W ignore -c 'from ser_nb.docs import make_docs; make_docs()'

lab: setup          ## JupyterLab in nbs/
	cd nbs && ../$(BIN)/jupyter lab

lock: setup         ## renew both locks from settings.ini
	$(BIN)/uv pip compile -q --upgrade setup.py --extra intel --extra dev --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --generate-hashes --no-emit-index-url --no-annotate -o requirements/intel.txt
	$(BIN)/uv pip compile -q --upgrade setup.py --extra stock --extra dev --python-version 3.11 --universal \
	  --generate-hashes --no-emit-index-url --no-annotate -o requirements/stock.txt

# pip brings the locked uv, uv brings the rest, each file checked against its hash; no weights, no network: the functionals model works without
$(VENV)/.ready: $(LOCK) settings.ini setup.py pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no python3 on PATH; install Python 3.11 with venv"; exit 2; }
	@test "$(ENV)" != intel -o "$(DEFAULT_ENV)" = intel || { echo "make: ENV=intel needs Linux x86-64 and Python 3.11; use ENV=stock, or PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || { sed -n '/^uv==/,/[^\\]$$/p' $(LOCK) > $(VENV)/uv.txt && \
	  $(BIN)/python -m pip install -q --no-deps --require-hashes --disable-pip-version-check -r $(VENV)/uv.txt; }
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync -q --require-hashes $(LOCK)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@$(BIN)/ser-nb weights || echo "make: going on without the speech encoder: its weights could not be fetched; 'ser-nb weights' tries again"
	@touch $@

# librosa's functions are compiled by its first user; two first users at once leave a cache that crashes (numba issue 10128)
compiled: $(VENV)/.librosa
$(VENV)/.librosa: $(VENV)/.ready
	$(BIN)/python -W ignore -c "import librosa as l, numpy as n; from ser_nb.feature_extraction import article_features as a; y = n.random.default_rng(0).normal(size=9999).astype('f'); \
	  a(y, 22050); l.effects.trim(y); l.feature.delta(l.feature.mfcc(y=y)); l.feature.spectral_rolloff(y=y); l.tone(440, duration=1)"
	@touch $@

$(LOCK):
	@echo "make: no lock for ENV=$(ENV): use ENV=intel or ENV=stock"; exit 2

clean:              ## environments and caches, not runs
	rm -rf .venv .venv-* build dist *.egg-info
