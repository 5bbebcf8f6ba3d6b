"""The suite from Python, for notebooks and scripts: run a point, look at its result, set two side by side.

    import bench.notebook as zo
    eager, vllm = zo.run(executors=["eager", "vllm"], model="opt-tiny", steps=50)
    zo.table(eager, vllm)        # a pandas table, a row a run
    zo.compare(eager, vllm)      # ratio, interval and verdict

Every run is a fresh process and a result file, as on the command line. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from analysis.runs import Run


def run(
    *, executors: Sequence[str] = ("vllm",), sessions: int | None = None, results: str | Path = "results", **spec: Any
) -> list[Run]:
    """Run one point on each executor, sessions interleaved; the results in the same order.

    spec    fields of bench.config.RunSpec by name; what is left out gets the command line's defaults
    UsageError for what cannot be run; RuntimeError, naming the files, when a session failed.
    """
    from analysis.runs import Run
    from bench.config import RunOptions
    from bench.defaults import complete_all, default_sessions
    from bench.harness.conduct import conduct, start
    from bench.journal.store import Store
    from bench.terminal import stderr_console

    specs, store = complete_all(spec, executors), Store(results)
    count = default_sessions(specs[0].model) if sessions is None else sessions
    options = RunOptions(count, results=str(results))
    runs = start(specs, options, store)
    if conduct(runs, options, store, stderr_console(), quiet=True) != 0:
        failed = [f"{one.path}: {one.result.status}" for one in runs if one.result.status != "passed"]
        raise RuntimeError("; ".join(failed) or "the run was interrupted")
    return [Run(Path(str(one.path)), one.result) for one in runs]


def load(*paths: str | Path) -> list[Run]:
    """Runs from result files and folders of them, oldest first."""
    from analysis.runs import load_runs

    return load_runs(paths)


def table(*runs: Run) -> pd.DataFrame:
    """One row for each value of each metric of each session, with what was run beside it; `analysis.table.tidy` names them."""
    from analysis.table import tidy

    return tidy(runs)


def compare(*runs: Run, reference: str | None = None) -> pd.DataFrame:
    """A row a run: seconds a step, the ratio to the reference executor with its interval, the verdict.

    UsageError where the runs differ in more than a comparison allows.
    """
    import pandas as pd

    from analysis.compare import compare as compared

    return pd.DataFrame([row.to_json() for part in compared(runs, reference).tables for row in part.rows])
