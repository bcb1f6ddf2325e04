# Two commands matter: `make demo` and `make test`. All logic is in scripts/.
.PHONY: help setup demo test figures clean

help:
	@echo "make demo     train a heart-disease model across four hospitals, without pooling them"
	@echo "make test     lint, types, import layers, tests and doctests"
	@echo "make setup    only the environment: .venv with .venv/bin/manyloom in it"
	@echo "make figures  the pictures of README.md, from a real run"
	@echo "make clean    remove the environment and what tools left behind (runs stay)"

setup:
	@scripts/setup

demo:
	@scripts/demo

test:
	@scripts/test

figures:
	@scripts/figures

clean:
	@rm -rf .venv dist build .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
