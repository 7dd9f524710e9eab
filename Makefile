.DEFAULT_GOAL := help
.PHONY: bootstrap families demo lint types imports unit slow check test clean help

BIN := .venv/bin
# Many containers set it: every process that a test starts would compile our modules again.
export PYTHONDONTWRITEBYTECODE :=
# Two workers: more only add imports of torch. One thread each, so that they do not fight for the cores.
PYTEST_FAST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile
# These start processes of their own (accelerate, vLLM) and wait for them: two files at a time, in the order
# of their names, so that the long ones of e2e come first and the workers end together.
PYTEST_SLOW := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

bootstrap: ## prepare .venv for this machine (does nothing when nothing has changed)
	@scripts/bootstrap

demo: bootstrap ## labelled images in, a proven model served by vLLM out: the whole path, on a CPU
	@$(BIN)/python scripts/demo.py

# Side by side; what each has to say comes when it ends, and one that fails does not stop the others.
check: bootstrap ## the fast part of `make test`
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going lint types imports unit

test: check slow ## lint, types, import rules and every test that needs no GPU

lint: bootstrap
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet

types: bootstrap
	$(BIN)/basedpyright

imports: bootstrap
	$(BIN)/lint-imports --no-logo

unit: bootstrap
	$(PYTEST_FAST) -m "not (slow or vllm or e2e or gpu)"

slow: bootstrap
	$(PYTEST_SLOW) -m "(slow or vllm or e2e) and not gpu"

families: bootstrap ## test every family and write what was shown into docs/reference
	LENSMITH_FAMILY_RESULTS=docs/reference/families.json OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/families \
		tests/serving/test_vllm_merged.py tests/serving/test_vllm_adapter.py
	PYTHONPATH=. $(BIN)/python scripts/write_reference.py

clean: ## remove what can be made again: the environment, caches, the demo's workspace
	rm -rf .venv .cache .pytest_cache .ruff_cache .import_linter_cache workspace wandb *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
