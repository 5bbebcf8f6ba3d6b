"""A step in several forwards: what each holds, and that their shares make the loss of the whole."""

from __future__ import annotations

import random

import pytest
import torch

from bench.data import Example, Minibatches, minibatches
from bench.environment import host_memory
from workloads.models.room import Made, room
from workloads.tasks.batches import batch_stream
from workloads.tasks.loss import batch_loss
from workloads.tasks.passes import mean_loss, passes, split
from workloads.tasks.ragged import full_tokens, tree_rows, tree_tokens


def examples(count: int, seed: int = 0) -> tuple[Example, ...]:
    """Prompts with a common beginning, two to four options of one to five tokens each."""
    draw = random.Random(seed)

    def words(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(10, 300) for _ in range(draw.randint(least, most)))

    common = words(20, 20)
    return tuple(
        Example(common + words(1, 40), tuple(words(1, 5) for _ in range(draw.randint(2, 4))), draw.randrange(2))
        for _ in range(count)
    )


@pytest.mark.parametrize("most", [1, 60, 200, 999, 10**6])
def test_every_forward_is_as_full_as_it_can_be_and_none_is_larger(most: int) -> None:
    batch = examples(23)
    parts = list(split(batch, full_tokens, most))
    assert tuple(example for part in parts for example in part) == batch
    for part, after in zip(parts, [*parts[1:], None], strict=True):
        assert full_tokens(part) <= most or len(part) == 1
        assert after is None or full_tokens((*part, after[0])) > most


@pytest.mark.parametrize("block", [1, 16])
def test_the_tokens_of_a_tree_are_bounded_by_what_is_quickly_told(block: int) -> None:
    for seed in range(20):
        batch = examples(6, seed)
        exact = len(tree_rows(batch, 1, block).tokens)
        assert tree_tokens(batch, block, 0) == exact <= tree_tokens(batch, block, 10**9)


@pytest.mark.parametrize("objective", ["classification", "nll"])
@pytest.mark.parametrize("most", [0, 60, 300])
def test_the_shares_make_the_loss_of_the_whole(objective: str, most: int) -> None:
    """Against float64 by hand: minibatches count alike, and within one every example, or every token of a target."""
    batch = Minibatches((examples(7), examples(3, 1), examples(5, 2)))
    draw = torch.Generator().manual_seed(0)
    scores = {example: torch.randn(4, generator=draw) for example in batch}

    def loss(part: tuple[Example, ...]) -> torch.Tensor:
        table = torch.stack([scores[e].where(torch.arange(4) < len(e.options), -torch.inf) for e in part])
        return batch_loss(objective, table, part)  # type: ignore[arg-type]

    parts = passes(batch, objective, full_tokens, most)  # type: ignore[arg-type]
    assert len(parts) == 3 if most == 0 else len(parts) > 3
    assert sum(part.share for part in parts) == pytest.approx(1.0)
    means = []
    for part in minibatches(batch):
        if objective == "classification":
            each = [(wide := scores[e][: len(e.options)].double()).logsumexp(0) - wide[e.label] for e in part]
            means.append(float(sum(each)) / len(part))
        else:
            lengths = [len(e.options[e.label]) for e in part]
            means.append(-sum(float(scores[e][e.label]) * n for e, n in zip(part, lengths, strict=True)) / sum(lengths))
    assert float(mean_loss(parts, loss)) == pytest.approx(sum(means) / 3, abs=1e-6)


def test_one_forward_is_the_loss_itself() -> None:
    (only,) = passes(examples(4), "classification", full_tokens, 0)
    value = torch.tensor([0.1, 0.2])
    assert mean_loss([only], lambda _: value) is value


def test_a_step_takes_the_next_minibatches_of_the_same_stream() -> None:
    rows = examples(10)
    single, several = batch_stream(rows, 4, 7), batch_stream(rows, 4, 7, 3)
    for _ in range(4):
        step = next(several)
        assert [tuple(part) for part in minibatches(step)] == [next(single) for _ in range(3)]
        assert list(step) == [example for part in minibatches(step) for example in part] and len(step) == len(list(step))


def test_the_room_is_a_fourth_of_what_the_weights_leave(tiny_source, tiny_task) -> None:
    """By hand for a tiny OPT: 8 x 64 + 2 x 128 numbers of 4 bytes, all logits 320 x 12, scores of 2 heads x 32 x 12."""
    source = tiny_source("opt")
    token = (8 * 64 + 2 * 128) * 4 + 320 * 12 + 2 * 32 * 12
    made = Made(logits=1.0, attended=32)
    assert made.bytes_a_token(source, torch.float32) == token
    assert Made(0.0, keys=True).bytes_a_token(source, torch.float16) == (8 * 64 + 2 * 128) * 2 + 2 * 64 * 2 * 2
    held = 10**9
    found = room(source, torch.float32, "cpu", made, held)
    assert found % 1024 == 0 and 0 <= (host_memory() - held) / 4 / token - found < 1024
    assert room(source, torch.float32, "cpu", made, host_memory() + 1) == 1024
