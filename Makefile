# Everything a fresh machine needs: `make demo` shows the suite at work, `make test` checks it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

NEWEST := 0.33.0
NEW := .venv-newest/bin

.PHONY: demo demo-serve test test-newest perf soak clean

DEMO := results/demo

# Five minutes on two cores: opt-tiny learns on all three executors; then opt-mini, whose steps are arithmetic and no Python, is timed
# in blocks that take turns, and the speed-up is attributed.
demo: $(INSTALLED)
	$(BIN)/python -m bench run --executor official --executor eager --executor vllm --model opt-tiny --no-profile --results $(DEMO)/learning
	$(BIN)/python -m bench ablate --executor vllm --model opt-mini --rounds 5 --steps 2 --results $(DEMO)/steps
	$(BIN)/python -m analysis losses $(DEMO)/learning --output $(DEMO)/losses.png
	$(BIN)/python -m analysis report $(DEMO) --output $(DEMO)/report
	$(BIN)/python -m bench compare $(DEMO)/steps
	@printf '%s\n' "" "losses: $(DEMO)/losses.png" "report, with the attribution: $(DEMO)/report/report.html"

# A live server that trains while users ask it: under four minutes.
demo-serve: $(INSTALLED)
	$(BIN)/python -m bench.serving.demo

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# The vllm executor on the newest vLLM that is known to work, in an environment of its own (10 GB): parity of the executors, features,
# operators, kernels compiled for GPUs, runs that were killed and go on, live servers that train.
test-newest: .venv-newest/.installed
	$(NEW)/python -m pytest $(addprefix tests/bench/,test_compat.py test_vllm_platform.py test_vllm_operators.py test_vllm_slots.py \
	    test_vllm_features.py test_vllm_prefixes.py test_compiled_kernels.py test_resume.py \
	    test_vllm_cells.py::test_a_cell_follows_the_float64_loop test_trajectories.py::test_vllm_follows_eager) \
	    tests/serving/test_server.py tests/serving/test_beside.py

# The performance suite in full; its times go into a file that pytest-benchmark can compare with later ones.
perf: $(INSTALLED)
	mkdir -p results/local
	$(BIN)/python -m pytest tests/perf --benchmark-json results/local/perf.json

# Long checks, over an hour: a hundred SIGKILLs at random moments, each run then resumed; the gates twenty times; learning, five
# seeds; 20,000 fuzzed data files; random sizes of every family of models, and all families on vLLM; one point against itself, which
# should not be called different.
soak: $(INSTALLED)
	$(BIN)/python tests/bench/killing.py 100
	$(BIN)/python tests/bench/killing_replicas.py 20
	for i in $$(seq 20); do $(BIN)/python -m pytest -q tests/perf || exit 1; done
	$(BIN)/python -m pytest tests/bench/test_learning.py --seeds 5
	$(BIN)/python -m pytest tests/workloads/test_rows_fuzz.py --hypothesis-profile soak
	$(BIN)/python -m pytest tests/baselines/test_families_fuzz.py --hypothesis-profile soak
	$(BIN)/python -m pytest tests/bench/test_vllm_families.py --families all
	$(BIN)/python -m bench serve-bench --rates 4 --rounds 1 --seconds 5 --results results/local/soak
	$(BIN)/python tests/bench/same.py 20 --unit session --units 3
	$(BIN)/python tests/bench/same.py 20 --unit block --executor vllm

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# What pyproject.toml asks for, with another vLLM: the suite itself goes in without its dependencies, which name the default.
.venv-newest/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-newest
	$(NEW)/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	    print(*(one for one in p['dependencies'] + p['optional-dependencies']['dev'] if not one.startswith(('vllm=', 'zo-bench['))), sep='\n')" > .venv-newest/needed.txt
	$(NEW)/pip install --quiet --disable-pip-version-check vllm==$(NEWEST) -r .venv-newest/needed.txt
	$(NEW)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

clean:
	rm -rf .venv .venv-newest *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
