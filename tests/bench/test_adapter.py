"""`--scope adapter`: its defaults, and what is refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.data import ModelSource
from bench.defaults import complete
from bench.errors import UsageError
from workloads.models.adapter import Adapter

GIVEN: dict[str, Any] = {"workload": "mezo", "scope": "adapter", "device": "cpu", "executor": "vllm"}


def test_states_are_adapters_unless_said_otherwise() -> None:
    spec = complete(GIVEN)
    assert (spec.lora, spec.batching, spec.loop, spec.kv) == ("fused", "paired", "resident", "shared")
    assert (spec.adapter_rank, spec.adapter_alpha, spec.adapter_targets) == (8, 16, "q_proj,v_proj")
    assert complete(GIVEN | {"model": "opt-125m", "weights": "random"}).eps == 1e-2


REFUSED = [
    ({"workload": "lozo"}, "--scope adapter: --executor vllm with lozo supports lora"),
    ({"executor": "official"}, "--scope adapter: --executor official with mezo supports lora, full"),
    ({"lora": "dense"}, "--lora dense: --scope adapter leaves the weights alone; use --lora fused or unfused"),
    ({"adapter_rank": 513}, "--adapter-rank 513: --executor vllm holds at most rank 512"),
    ({"adapter_rank": 0}, "--adapter-rank 0: must be a whole number of at least 1"),
    ({"adapter_alpha": 0.0}, "--adapter-alpha 0.0: must be a finite number, above 0"),
    ({"scope": "lora", "lora": "fused"}, "the dense noise of mezo fits in no adapter; use --lora dense"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused(changes: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        complete(GIVEN | changes)


def test_layers_that_the_model_has_not_are_named(tiny_source: Callable[..., ModelSource]) -> None:
    spec = complete(GIVEN | {"adapter_targets": "q_proj,w_proj"})
    with pytest.raises(
        UsageError, match="OPTForCausalLM has no linear layer 'w_proj' in its blocks; choose among fc1, fc2, k_proj"
    ):
        Adapter.of(tiny_source("opt"), spec)
    trained = Adapter.of(tiny_source("opt"), complete(GIVEN)).trained(tiny_source("opt"))
    assert trained.layers == {"adapter of q_proj": 2, "adapter of v_proj": 2} and not trained.warnings()
