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


def make_result(executor, medians, *, pair_id=None, id=None, unit="session", details=None, created="20260101T000000Z", **changes):
    """A run whose sessions have these median step seconds; other keywords change the spec or fields of the result."""
    base = {"workload": "lozo", "executor": executor, "model": "opt-125m", "weights": "random", "task": "sst2"}
    base |= {"dtype": "float32", "device": "cpu", **FEATURES[executor]}
    fields = {name: changes.pop(name) for name in ("status", "environment", "data", "workload_version") if name in changes}
    spec = RunSpec(**(base | {"steps": 3} | changes))
    sessions = [
        SessionResult(i, "passed", unit, 1.0, step_s=[0.9 * m, m, 1.2 * m], losses=[[0.7, 0.6]] * 3, details=details or {})
        for i, m in enumerate(medians)
    ]
    result = Result(
        id=id or f"{executor}{abs(hash((tuple(medians), created))) % 10**6}",
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
