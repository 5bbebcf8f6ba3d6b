"""Rows longer than the model's positions lose their beginning, by the rule of the papers' code, and are counted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bench.data import Example, ModelSource
from bench.errors import UsageError
from workloads.models.positions import positions
from workloads.tasks.truncate import Limit, truncate, truncation_warning


def upstream(row: list[int], most: int) -> list[int]:
    """What the published code keeps of a row that begins with BOS."""
    return row[:1] + row[1:][-(most - 1) :]


@pytest.mark.parametrize("most", [16, 64, 2048])
def test_what_is_kept_is_what_upstream_keeps(most: int) -> None:
    draw = random.Random(most)
    examples = []
    for length in (3, most - 2, most - 1, most, most + 1, 3 * most):
        prompt = (0, *(draw.randrange(10, 300) for _ in range(length - 1)))
        examples.append(Example(prompt, tuple((draw.randrange(10, 300),) for _ in range(2)), 0))
    cut, counts = truncate({"train": examples, "eval": examples[:2]}, Limit(most, opening=1))
    for before, after in zip(examples, cut["train"], strict=True):
        rows = [upstream([*before.prompt, *option], most) for option in before.options]
        assert [[*after.prompt, *option] for option in after.options] == rows
    assert counts == {"train": 3, "eval": 0}
    assert truncation_warning(counts, most) == [
        f"prompts longer than the model's {most} positions lost their beginning: 3 of train"
    ]
    assert truncation_warning({"train": 0}, most) == []


def test_options_of_several_tokens_and_answers_to_come_find_room() -> None:
    example = Example((0, *range(10, 40)), ((1, 2, 3), (4,)), 0)
    assert len(Limit(24, opening=1)(example).prompt) == 21
    assert Limit(24, opening=1, room=10)(example).prompt == (0, *range(27, 40))
    assert Limit(24, opening=0)(example).prompt == tuple(range(19, 40))


def test_padded_rows_fit_too() -> None:
    """The official loop pads to a multiple of 8."""
    example = Example((0, *range(10, 60)), ((1,),), 0)
    cut = Limit(30, opening=1)(example)
    assert -(-len(cut.prompt + cut.options[0]) // 8) * 8 <= 30


def test_an_answer_without_room_for_any_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="--model: it holds rows of 8 tokens, too few for an answer of 7 tokens"):
        Limit(8, opening=1)(Example((0, 5, 6, 7), (tuple(range(7)),), 0))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "opt", "max_position_embeddings": 48}, 48),
        ({"model_type": "gpt2", "n_positions": 40}, 40),
        ({"model_type": "gpt2"}, 1024),
        ({"model_type": "llama", "max_position_embeddings": 4096}, 4096),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "max_position_embeddings": 96}}, 96),
        ({"model_type": "bloom"}, None),
        ({}, None),
    ],
)
def test_how_many_positions_a_model_has(config: dict, expected: int | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert positions(ModelSource("m", str(tmp_path), "random")) == expected
