"""Random small configurations of every family: eager gives the reference's losses, or one line says why not; no traceback."""

from __future__ import annotations

import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from families import EXPERT_FAMILIES, FAMILIES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plain_loop import tiny_spec

from baselines.eager.executor import EagerExecutor
from bench.data import Example, ModelSource, TaskData
from bench.errors import UsageError
from bench.registry import make_workload
from workloads.models.scope import Trained
from workloads.reference import reference_losses

SIZES: dict[str, Any] = {
    "num_hidden_layers": st.integers(1, 3),
    "hidden_size": st.sampled_from([32, 48, 64, 96]),
    "num_attention_heads": st.sampled_from([1, 2, 3, 4]),
    "num_key_value_heads": st.sampled_from([1, 2, 4]),
    "head_dim": st.sampled_from([8, 16, 32]),
    "intermediate_size": st.sampled_from([1, 24, 96]),
    "vocab_size": st.sampled_from([40, 320, 321]),
    "tie_word_embeddings": st.booleans(),
    "sliding_window": st.sampled_from([1, 3, 8, 4096]),
    "attention_bias": st.booleans(),
    "final_logit_softcapping": st.sampled_from([None, 0.5, 30.0]),
    "attn_logit_softcapping": st.sampled_from([None, 1.0, 50.0]),
    "logit_scale": st.floats(0.01, 4.0),
    "logits_scaling": st.floats(0.1, 16.0),
    "partial_rotary_factor": st.sampled_from([0.25, 0.5, 1.0]),
    "num_experts_per_tok": st.sampled_from([1, 2]),
    "do_layer_norm_before": st.booleans(),
    "initializer_range": st.sampled_from([0.02, 0.3]),
}


@st.composite
def configurations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(FAMILIES)))
    config = dict(FAMILIES[name])
    changed = draw(st.sets(st.sampled_from(sorted(SIZES.keys() & config.keys())), max_size=4))
    return name, config | {key: draw(SIZES[key]) for key in sorted(changed)}


@settings(max_examples=settings().max_examples // 10)
@example(("gemma3", FAMILIES["gemma3"]), ("factorized", "full"), 1)  # norms over heads that come before tokens
@example(("gpt_oss", FAMILIES["gpt_oss"]), ("factorized", "full"), 1)  # attention that owns a parameter
@given(configurations(), st.sampled_from([("lozo", "lora"), ("factorized", "full")]), st.integers(0, 9))
def test_a_random_configuration_agrees_or_is_refused(
    configuration: tuple[str, dict[str, Any]], cell: tuple[str, str], seed: int
) -> None:
    name, config = configuration
    task, (workload, scope) = prompts(seed), cell
    spec = tiny_spec(workload, "eager", scope=scope, eps=1e-2, batch_size=4)
    probes = make_workload(spec).plan(0)
    with TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        source, executor = ModelSource(name, folder, "random"), EagerExecutor()
        try:
            Trained.of_model(source, scope)
            wide = None if name in EXPERT_FAMILIES else torch.float64
            expected = reference_losses(source, spec, task.train, probes, arithmetic=wide).double()
        except UsageError as refused:
            assert str(refused).startswith(("--model", "--scope")) and "\n" not in str(refused)
            return
        executor.load(spec, source, task)
        assert torch.allclose(executor.score(task.train, probes).double(), expected, rtol=0, atol=2e-5)


def prompts(seed: int) -> TaskData:
    """Four prompts that begin alike, with answers of one token or, where the seed is odd, of up to three."""
    draw = random.Random(seed)

    def words(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(4, 40) for _ in range(draw.randint(least, most)))

    common = (0, *words(0, 6))
    examples = tuple(Example(common + words(1, 20), (words(1, 1 + seed % 2 * 2), words(1, 1)), 0) for _ in range(4))
    return TaskData(examples, (), examples, "fuzz", 1, 40, seed % 2 == 0, {})
