"""Results made by hand, so that the analysis is tested on data whose truth is known."""

import json
from dataclasses import replace

import pytest

from bench.config import RunSpec
from bench.result import Result, SessionResult

ENVIRONMENT = {"device": "a CPU", "driver": None, "torch": "2.11.0", "vllm": "0.26.0", "threads": 2}
FEATURES = {
    "official": {"batching": "sequential", "kv": "recompute", "lora": "dense", "loop": "requests", "directions": "upstream"},
    "eager": {"batching": "paired", "kv": "shared", "lora": "fused", "loop": "requests", "directions": "shared"},
    "vllm": {"batching": "paired", "kv": "shared", "lora": "fused", "loop": "resident", "directions": "shared"},
}


def make_result(executor, seconds, *, pair_id=None, id=None, unit="session", created="20260101T000000Z", **changes):
    """A run whose sessions take these amortised seconds a step; other keywords change the spec, or fields of result and sessions.

    Three timed steps, 0.9, 1 and 1.1 of it; nothing folds unless `kinds` and `fold_every` say so.
    """
    base = {"workload": "lozo", "executor": executor, "model": "opt-125m", "weights": "random", "task": "sst2"}
    base |= {"dtype": "float32", "device": "cpu", **FEATURES[executor]}
    fields = {name: changes.pop(name) for name in ("status", "environment", "data", "workload_version") if name in changes}
    seen = {"kinds": ["plain"] * 3, "losses": [[0.7, 0.6]] * 3}
    seen |= {
        name: changes.pop(name) for name in ("kinds", "fold_every", "model_runner", "evaluations", "reached") if name in changes
    }
    spec = RunSpec(**(base | {"steps": 3} | changes))
    sessions = [SessionResult(i, "passed", unit, 1.0, step_s=[0.9 * s, s, 1.1 * s], **seen) for i, s in enumerate(seconds)]
    result = Result(
        id=id or f"{executor}{abs(hash((tuple(seconds), created))) % 10**6}",
        created=created,
        status="passed",
        spec=spec.to_json(),
        workload_version=1,
        environment=ENVIRONMENT,
        source={"commit": "c0ffee", "dirty": False, "argv": ["run"]},
        data={"digest": "d1"},
        sessions=sessions,
        pair_id=pair_id,
    )
    return replace(result, **fields)


@pytest.fixture(name="make_result")
def make_result_fixture():
    return make_result


@pytest.fixture
def write(tmp_path):
    """Write results under tmp_path/results/local as the harness names them; returns their paths."""

    def write(*results):
        folder = tmp_path / "results" / "local"
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for r in results:
            path = folder / f"{r.created}_{r.spec['workload']}_{r.spec['executor']}_{r.spec['model']}_{r.id}.json"
            path.write_text(json.dumps(r.to_json()))
            paths.append(path)
        return paths

    return write
