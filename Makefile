# Two commands do everything: `make run` and `make test`; `make kernels` looks under other processors' kernels as well.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OURS := abtest policies recgpt simulator
STAMP := $(VENV)/.installed
PIP := pip install --quiet --disable-pip-version-check --only-binary :all:

TOOLS := .venv-tools

.PHONY: run test kernels lint house pictures site fuzz kills mutants peers lock licences audit clean

run: $(STAMP)
	$(BIN)/abtest run scenarios/kuaishou_like.yaml

# Processes of tests keep no compiled modules (tests/conftest.py): without these each would compile all that it imports.
test: $(STAMP) lint
	$(BIN)/python -m compileall -q $(OURS)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Promises, exactness and a small run under the kernels of other processors (`tests/kernels.py`; KERNELS=--all for all combinations).
kernels: $(STAMP)
	$(BIN)/python -m tests.kernels $(KERNELS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every input mutated by seed (some hours; it goes on where it was stopped); runs killed and damaged (about an hour): docs/design.md.
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --resume .fuzz.json

kills: $(STAMP)
	$(BIN)/python -m tests.kills

# One place of the statistics, the estimators or the products changed at a time: does a test notice? A sample (MUTANTS=--all for all):
# some hours, and it goes on where it was stopped: docs/design.md.
mutants: $(STAMP) .venv-mutants/.installed
	.venv-mutants/bin/python .ci/mutants.py $(MUTANTS)

# What abtest needs is that of $(VENV), which stands behind its own packages.
.venv-mutants/.installed: $(STAMP)
	$(PYTHON) -m venv .venv-mutants
	$(BIN)/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' > $$(.venv-mutants/bin/python -c 'import site; print(site.getsitepackages()[0])')/abtest.pth
	.venv-mutants/bin/python -m pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0 coverage==7.17.5
	touch $@

# Other packages that some tests compare with, each in an environment of its own because they need older libraries.
peers: .venv-recbole/.installed .venv-obp/.installed .venv-mlflow/.installed .venv-recommenders/.installed .venv-ray/.installed

.venv-recbole/.installed:
	$(PYTHON) -m venv .venv-recbole
	.venv-recbole/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 recbole==1.2.1 'numpy<2' 'pandas<3' 'scipy<1.14' 'setuptools<80'
	touch $@

.venv-obp/.installed:
	$(PYTHON) -m venv .venv-obp
	.venv-obp/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 'numpy<2' 'pandas==2.1.4' 'scikit-learn==1.5.2' \
	  matplotlib seaborn pingouin pyyaml tqdm
	.venv-obp/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python obp==0.5.7 pyieoe==0.1.1
	touch $@

# With what abtest itself needs, since the recipes of docs/recipes.md run there.
.venv-recommenders/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-recommenders
	.venv-recommenders/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 rectools==0.19.0 lenskit==2025.8.1 'pyarrow==20.*' \
	  click jinja2 numba pydantic pyyaml rich safetensors simpy statsmodels tensordict torchmetrics iopath pyre-extensions
	.venv-recommenders/bin/python -m pip install --quiet --disable-pip-version-check --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0
	touch $@

.venv-mlflow/.installed: constraints.txt
	$(PYTHON) -m venv .venv-mlflow
	.venv-mlflow/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt mlflow-skinny==3.17.2
	touch $@

.venv-ray/.installed: constraints.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m $(PIP) -c constraints.txt ray==2.60.0
	touch $@

# An S3 server for tests/test_store.py.
.venv-moto/.installed:
	$(PYTHON) -m venv .venv-moto
	.venv-moto/bin/python -m pip install --quiet --disable-pip-version-check 'moto[server]==5.2.5'
	touch $@

# requirements.lock has the digests of the files of the versions in constraints.txt; torch is apart, for the reason at its head.
# Modules are compiled by all processors, but for the packages' own tests; pip would compile all, one after another.
$(STAMP): pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "abtest needs Python 3.11 or newer; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m $(PIP) --no-compile --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m $(PIP) --no-compile -c constraints.txt torch
	$(BIN)/python -m $(PIP) --no-deps --no-build-isolation -e .
	-$(BIN)/python -m compileall -qq -j 0 -x '/tests?/|/testing/_internal/' $(VENV)/lib $(OURS)
	$(BIN)/python -m pip check --disable-pip-version-check
	$(BIN)/abtest compile scenarios/kuaishou_like.yaml
	touch $@

lock: $(TOOLS)/.installed
	.ci/lock $(TOOLS)/bin/uv

# The figures of docs/design.md, of this tree or of others (TREES=...), and its picture.
house: $(STAMP)
	$(BIN)/python .ci/house.py $(TREES)
	$(BIN)/python .ci/house.py --draw docs/house.svg

# The pictures of a report's page in README.md and docs/: make pictures RUN=runs/kuaishou_like/latest
pictures: $(STAMP)
	$(BIN)/python -m benchmarks.pictures $(RUN) --out docs

# README.md and docs/ as a site with search, in build/site; every link and anchor must lead somewhere.
site: $(TOOLS)/.site
	NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --quiet --strict -f .ci/mkdocs.yml

$(TOOLS)/.site:
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m $(PIP) mkdocs-material==9.8.1
	touch $@

licences: $(STAMP)
	$(BIN)/python .ci/licences.py

audit: $(TOOLS)/.installed
	$(TOOLS)/bin/python .ci/audit.py $(TOOLS)/bin/pip-audit

$(TOOLS)/.installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m $(PIP) uv==0.13.9 pip-audit==2.10.1
	touch $@

clean:
	rm -rf $(VENV) $(TOOLS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
