# A fresh machine needs Python 3.11 or newer and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_TO_RUN := $(VENV)/.ready-to-run
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
WORKERS ?= 2
COMPILED := src/catalysis/engine/alchemy/_instances.c

.PHONY: run test test-long faults check format bench load soak docs lock changelog clean

run: $(READY_TO_RUN)  ## serve the starter backend with demo data and the inspector on http://127.0.0.1:8000
	@DATABASE_INSPECTOR=$${DATABASE_INSPECTOR-1} $(BIN)/python -m catalysis.starter

test: $(READY)  ## every check, and every test but the long ones
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n $(WORKERS) -q

test-long: $(READY)  ## what needs minutes or much memory
	$(BIN)/python -m pytest -m long -q

faults: $(READY)  ## every injected fault, the long ones too; PgBouncer's need pgbouncer
	$(BIN)/python -m pytest tests/faults -m "long or not long" -n $(WORKERS) -q

check: $(READY)  ## lint, format, types, import contracts, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell src tests README.md GLOSSARY.md changes
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## Catalysis, the bare drivers and other ORMs in one interleaved run, as ratios; JSON in .cache/
	@mkdir -p .cache
	$(BIN)/python -m bench --json .cache/bench.json

load: $(READY)  ## one FastAPI application by hand, on SQLModel and on Catalysis, under wrk; needs wrk
	@mkdir -p .cache
	$(BIN)/python -m bench.http --json .cache/http.json

soak: $(READY)  ## ten minutes of clients that leave, bursts and cancellations; fails if anything is left
	@mkdir -p .cache
	$(BIN)/python -m bench.soak --json .cache/soak.json

docs: $(READY)  ## build the site into site/
	@$(PIP) --require-hashes -r requirements-docs.lock
	$(BIN)/zensical build --strict -f mkdocs.yml

lock: COMPILE = uv pip compile pyproject.toml --universal --generate-hashes --python-version 3.11 --upgrade -q \
	--custom-compile-command "make lock"
lock:  ## pin the versions anew; needs uv
	$(COMPILE) --extra fastapi --extra starter -o requirements.lock
	$(COMPILE) --all-extras --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --group docs -c requirements-dev.lock -o requirements-docs.lock

changelog: $(READY)  ## what the next release will say
	$(BIN)/towncrier build --draft --version next

clean:
	rm -rf $(VENV)

$(READY_TO_RUN): requirements.lock pyproject.toml hatch_build.py $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps -e .
	@touch $@

$(READY): requirements-dev.lock $(READY_TO_RUN)
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@
