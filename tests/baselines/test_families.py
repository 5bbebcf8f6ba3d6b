"""Every family on the eager executor: prompts scored once, packed rows and whole rows give the losses of plain float64 rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import EXPERT_FAMILIES, FAMILIES, checkpoint
from prefixes import long_task
from torch import nn
from transformers import LlamaForCausalLM

from baselines.eager.modules import Current
from baselines.eager.scoring import OptionScorer
from bench.data import ModelSource, TaskData
from bench.errors import UsageError
from bench.registry import make_workload
from workloads.models.weights import load_model
from workloads.reference import reference_losses

Make = Callable[..., Any]
TOLERANCE = 2e-5
PADDED_ONLY = ("bloom", "falcon")
"""Families whose attention is no function that could be exchanged."""
LONGER = {
    name: {key: 128} for name, sizes in FAMILIES.items() for key in ("max_position_embeddings", "n_positions") if key in sizes
}


def source_of(family: str, folder: Path, **changes: Any) -> ModelSource:
    return ModelSource(family, str(checkpoint(family, folder, **LONGER.get(family, {}) | changes)), "pretrained")


def truth(source: ModelSource, spec: Any, task: TaskData) -> torch.Tensor:
    wide = None if source.name in EXPERT_FAMILIES else torch.float64  # experts' grouped products have no float64
    return reference_losses(source, spec, task.train, make_workload(spec).plan(0), arithmetic=wide).double()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_of_scoring_a_family_agrees(
    family: str, tmp_path: Path, tiny_spec: Make, loaded: Make, tiny_task: TaskData
) -> None:
    source, packs = source_of(family, tmp_path), family not in PADDED_ONLY
    for task in (tiny_task, long_task()):
        spec = tiny_spec("lozo", "eager", eps=1e-2, batch_size=6)
        executor, expected = loaded(spec, source, task), truth(source, spec, task)
        assert executor.details()["kv_used"] == ("shared" if packs or task is tiny_task else "recompute")
        assert bool(executor.details()["warnings"]) == (executor.details()["kv_used"] == "recompute")
        assert expected.max() - expected.min() > 10 * TOLERANCE
        for kv in ("recompute", "shared"):
            for variant in ("unpadded", "")[not packs :]:
                executor.switch(replace(spec, kv=kv, variant=variant))
                found = executor.score(task.train, make_workload(spec).plan(0))
                assert torch.allclose(found.double(), expected, rtol=0, atol=TOLERANCE), (kv, variant)
    if not packs:
        with pytest.raises(UsageError, match="takes no packed rows; leave it out"):
            executor.switch(replace(spec, variant="unpadded"))


@pytest.mark.parametrize("family", ["phi", "gemma2", "cohere", "mixtral", "gpt_oss", "bloom"])
def test_a_family_agrees_where_everything_moves(
    family: str, tmp_path: Path, tiny_spec: Make, loaded: Make, tiny_task: TaskData
) -> None:
    """Norms, biases, sinks, experts and the head have a value of their own for every probe."""
    source, spec = source_of(family, tmp_path), tiny_spec("factorized", "eager", scope="full", eps=1e-2)
    found = loaded(spec, source, tiny_task).score(tiny_task.train, make_workload(spec).plan(0))
    assert torch.allclose(found.double(), truth(source, spec, tiny_task), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("family", "without"),
    [
        ("gemma2", {"final_logit_softcapping": None}),
        ("gemma2", {"attn_logit_softcapping": None}),
        ("cohere", {"logit_scale": 1.0}),
        ("granite", {"logits_scaling": 1.0}),
        ("granite", {"embedding_multiplier": 1.0}),
        ("granite", {"attention_multiplier": 1.0}),
        ("mistral", {"sliding_window": None}),
        ("gemma3", {"layer_types": ["full_attention", "full_attention"]}),
    ],
)  # fmt: skip
def test_what_makes_a_family_different_acts_in_its_tiny_checkpoint(
    family: str, without: dict[str, Any], tmp_path: Path, tiny_spec: Make, tiny_task: TaskData
) -> None:
    """Or agreement would show nothing."""
    spec = tiny_spec("lozo", "eager")
    usual, other = (truth(source_of(family, tmp_path / str(i), **more), spec, tiny_task) for i, more in enumerate(({}, without)))
    assert (usual - other).abs().max() > 50 * TOLERANCE


class Masked(LlamaForCausalLM):
    """Forbids tokens after its head, by their place in the vocabulary."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        out.logits[..., [1, 310]] = -100.0
        return out


class Normalised(nn.Module):
    """A head that is no linear layer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.weight = inner.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, nn.functional.normalize(self.weight))


class Tied(LlamaForCausalLM):
    """Multiplies with its embedding and has no head to be found."""

    def get_output_embeddings(self) -> None:
        return None


def test_heads_that_are_no_linear_layer_and_models_that_know_their_vocabulary(tiny_source: Make, tiny_task: TaskData) -> None:
    def scorer(kind: type | None = None, head: Any = None) -> OptionScorer:
        model: Any = load_model(tiny_source("llama"), torch.float32, "cpu")
        model.__class__ = kind or LlamaForCausalLM
        if head:
            model.lm_head = head(model.lm_head)
        return OptionScorer(model, Current(), 1)

    for made, rows in (
        (scorer(), True),
        (scorer(head=Normalised), True),
        (scorer(kind=Masked), False),
        (scorer(kind=Tied), False),
    ):
        assert (made.label_rows, made.packs, made.vocabulary) == (rows, True, 320)
        with torch.inference_mode():
            whole = made.option_logprobs(tiny_task.train, 1, "full")
            assert torch.allclose(made.option_logprobs(tiny_task.train, 1, "tree"), whole, rtol=0, atol=TOLERANCE)
            if rows:
                labels = made.option_logprobs(tiny_task.train, 1, "labels")
                assert torch.allclose(labels.log_softmax(-1), whole.log_softmax(-1), rtol=0, atol=TOLERANCE)
    by_rows, whole_head = (scorer(head=head).work(tiny_task.train, "labels")["head_rows"] for head in (None, Normalised))
    assert (by_rows, whole_head) == (16, 16 * 320)
