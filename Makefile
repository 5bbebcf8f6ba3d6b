# Everything a fresh machine needs: `make demo` shows the suite at work, `make test` checks it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test soak clean

demo: $(INSTALLED)
	$(BIN)/python -m bench run --workload lozo --executor official --executor eager --executor vllm --model opt-tiny
	$(BIN)/python -m bench compare
	$(BIN)/python -m analysis losses results/local --output results/local/losses.png

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# Long checks: a hundred SIGKILLs at random moments, each run then resumed; about twenty minutes on two cores.
soak: $(INSTALLED)
	$(BIN)/python tests/bench/killing.py 100

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
