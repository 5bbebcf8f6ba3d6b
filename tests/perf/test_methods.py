"""Every workload's step writes what the executor says it writes, and makes as many forwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from counted import Counted, Forwards

from bench.registry import WORKLOADS, make_workload, workload_class
from workloads.steps import rounds

Make = Callable[..., Any]
DENSE = {"lora": "dense", "batching": "sequential"}
CELLS = [(w, "eager", DENSE if workload_class(w).kind == "dense" else {}) for w in WORKLOADS.own]
CELLS += [("one-sided", "eager", DENSE), ("lozo-m", "eager", DENSE), ("one-sided", "official", {}), ("zo-sign", "official", {})]
CELLS += [("conservative", "eager", DENSE), ("conservative", "official", {})]


@pytest.mark.parametrize("weight_decay", [0.0, 1.0])
@pytest.mark.parametrize(("workload", "executor", "features"), CELLS, ids=str)
def test_a_step_costs_what_the_executor_says(
    workload: str, executor: str, features: dict, weight_decay: float,
    tiny_spec: Make, loaded: Make, tiny_source: Make, tiny_task: Any,
) -> None:  # fmt: skip
    queries = 1 if workload == "conservative" else 2
    spec = tiny_spec(workload, executor, scope="full", queries=queries, weight_decay=weight_decay, **features)
    under_test, method, batch = loaded(spec, tiny_source("opt"), tiny_task), make_workload(spec), tiny_task.train
    claimed = under_test.work(batch, *rounds(method))
    if executor == "official":
        model, written = under_test.model, [weight for _, weight in under_test.weights.parameters]
    else:
        moved = under_test.moved
        model, written = under_test._scorer.model, [*moved.weights.values(), *(moved.dense.base.values() if moved.dense else ())]
    with Forwards(model) as forwards, Counted(written) as counted:
        under_test.step(method, 0, batch)
    assert (forwards.calls, forwards.tokens) == (claimed["forwards"], claimed["tokens_scored"])
    assert counted.weight_bytes == claimed["weight_bytes_written"]
