# Each target sets up what it needs in .venv by itself; only Python 3.11 or newer must be there.
PYTHON := $(shell for candidate in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$candidate; break; }; \
	done)
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile

.PHONY: demo test torture model check docs bench clean

demo: .venv/runtime.stamp        ## the whole story on sample data, in ./demo-shop
	.venv/bin/outreach demo demo-shop --force

test: .venv/dev.stamp            ## every test, on SQLite and on PostgreSQL
	.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

torture: .venv/dev.stamp         ## kill every stage at any moment, long; SEED= KILLS= MESSAGES= CHUNK= as you like
	.venv/bin/python -m tests.killing $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS)) \
		$(if $(MESSAGES),--messages $(MESSAGES)) $(if $(CHUNK),--chunk $(CHUNK))

model: .venv/dev.stamp           ## explore the protocol of claim, send, record and reconcile, long
	THOROUGH=1 .venv/bin/python -m pytest -n 3 --dist load tests/test_protocol.py

check: .venv/dev.stamp           ## format, lint, types, layers, reference pages up to date
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m outreach.cli.reference --check

docs: .venv/dev.stamp            ## write the reference pages anew
	.venv/bin/python -m outreach.cli.reference

bench: .venv/dev.stamp           ## the speed figures, as ratios against a bare loop
	for file in benchmarks/[a-z]*.py; do .venv/bin/python $$file || exit 1; done

clean:                           ## remove everything that the targets above have made
	rm -rf .venv dist build demo-shop .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "outreach needs Python 3.11 or newer: install it, then try again" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/dev.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable '.[dev]'
	touch .venv/runtime.stamp $@
