# What a developer or newcomer runs. Each target is also one plain command: see docs/development.md.

# The Python that makes .venv, 3.11 or newer:  make PYTHON=/path/to/python3.12 demo
PYTHON ?= python3
# Arguments for `make demo`, `make test` and `make bench`:  make demo ARGS="--backend opcua --seconds 20"
ARGS ?=

BIN := .venv/bin
SET_UP := $(PYTHON) scripts/set_up.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-windows soak chaos check format proto protos-archive docs bench bench-peers bench-mxaccess
.PHONY: bench-smoke set-up clean

help: ## Show this list
	@echo 'Usage: make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12
	@echo
	@echo 'Start with:  make demo'

demo: ## Set everything up, then show it work (ARGS="--seconds 5 --json", "--backend opcua", ...)
	@$(SET_UP) opcua dashboard
	@$(BIN)/mxgw demo $(ARGS)

test: ## Set everything up, then run the tests (ARGS="tests/core -k lease")
	@$(SET_UP) opcua dashboard dev
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

test-windows: ## Run the tests under Windows Python, and gateways on Windows, in Wine; as root (ARGS="tests/worker")
	@$(SET_UP) opcua dashboard dev
	@$(BIN)/python scripts/windows/set_up.py
	@$(BIN)/python scripts/windows/run_tests.py --beside --numprocesses 2 --dist loadfile $(ARGS)

soak: ## Set everything up, then run the long tests, minutes each (ARGS="-k cuts")
	@$(SET_UP) opcua dashboard dev
	@$(BIN)/python -m pytest -m soak --log-cli-level=INFO $(ARGS)

chaos: ## End the gateway in every way under load and check the streams; last line JSON (ARGS="--rounds 100 --verbose")
	@$(SET_UP) opcua dashboard dev
	@$(BIN)/python scripts/chaos.py $(ARGS)

check: ## Format, lint, types, and whether generated files are current
	@$(SET_UP) opcua dashboard dev
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy --platform win32 --cache-dir .mypy_cache/win32
	PYTHON=$(BIN)/python scripts/generate_protos.sh --check
	$(BIN)/python scripts/contract.py check
	$(BIN)/python scripts/generate_docs.py --check
	$(BIN)/python scripts/check_templates.py

format: ## Format the code and repair what lint can
	@$(SET_UP) opcua dashboard dev
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

proto: ## Generate the code of protos/
	@$(SET_UP) opcua dashboard dev
	PYTHON=$(BIN)/python scripts/generate_protos.sh

protos-archive: ## The .proto files as dist/mxgw-protos-VERSION.zip, for those who generate code from them
	@$(SET_UP)
	@$(BIN)/python scripts/contract.py archive

docs: ## Generate docs/configuration.md and the reference pages from the code, and the pictures of docs/dashboard.md
	@$(SET_UP) opcua dashboard dev
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/python scripts/generate_images.py

bench: ## Measure beside floors and installed peers, minutes (ARGS="--case latency --quick")
	@$(SET_UP) opcua dashboard dev bench
	@$(BIN)/python benchmarks/run.py $(ARGS)

bench-peers: ## Install what `make bench` compares with: NATS, Redis, Mosquitto (Debian, as root)
	@scripts/install_bench_peers.sh

bench-mxaccess: ## Measure the backend for MXAccess beside sim, in Wine on a double, minutes; makes Windows first, as root
	@$(SET_UP) opcua dashboard dev
	@$(BIN)/python scripts/windows/set_up.py
	@$(BIN)/python benchmarks/mxaccess.py $(ARGS)

bench-smoke: ## Is it still as fast, against floors measured in the same minute? A part of CI
	@$(SET_UP) opcua dashboard dev
	@$(BIN)/python benchmarks/smoke.py

set-up: ## Only set .venv up
	@$(SET_UP) opcua dashboard dev

clean: ## Remove .venv, caches and build products; var/ (a gateway's files) stays
	rm -rf .venv .venv-proto .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
