"""Rows as upstream lays them out, batches in epochs, the loss by hand."""

from __future__ import annotations

import math

import numpy as np
import torch

from bench.data import Example
from workloads.tasks.batches import batch_stream, sum_range, typical
from workloads.tasks.collate import option_rows
from workloads.tasks.loss import classification_loss
from workloads.tasks.ragged import synthetic


def test_option_rows_are_left_padded_to_a_multiple_of_eight() -> None:
    rows = option_rows([Example((0, 5, 6), ((7,), (8, 9)), 1), Example((0,) * 9, ((7,), (8, 9)), 0)], pad_id=1)
    assert rows["input_ids"].shape == (4, 16)
    assert rows["input_ids"][1].tolist() == [1] * 11 + [0, 5, 6, 8, 9]
    assert rows["attention_mask"][1].tolist() == [0] * 11 + [1] * 5
    assert (rows["labels"], rows["option_len"], rows["num_options"]) == ([1, 1, 0, 0], [1, 2, 1, 2], [2] * 4)


def test_every_epoch_visits_every_example_once_and_ends_short() -> None:
    examples = [Example((i,), ((1,),), 0) for i in range(20)]
    stream = batch_stream(examples, 8, seed=0)
    epochs = [[next(stream) for _ in range(3)] for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [8, 8, 4]
    visited = [[e.prompt[0] for batch in epoch for e in batch] for epoch in epochs]
    assert sorted(visited[0]) == sorted(visited[1]) == list(range(20)) and visited[0] != visited[1]


def test_the_loss_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(3)], [1.0, 1.0]])
    labels = torch.tensor([1, 0])
    assert math.isclose(classification_loss(scores, labels).item(), (-math.log(0.75) - math.log(0.5)) / 2, rel_tol=1e-6)
    assert math.isclose(classification_loss(scores + 7, labels).item(), classification_loss(scores, labels).item(), rel_tol=1e-6)


def test_the_typical_batch_has_the_median_length_and_the_usual_size() -> None:
    def batch(*lengths: int) -> list[Example]:
        return [Example((0,) * n, ((7,), (9,)), 0) for n in lengths]

    short = batch(100)  # the last of an epoch
    assert typical([batch(9, 9), batch(1, 2), short, batch(5, 4)]) == batch(5, 4)


def test_the_range_of_a_sum_holds_every_batch_and_little_more() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(5, 60, 1000).tolist()
    low, high = sum_range(lengths, 16)
    sums = [sum(random.choice(lengths, 16, replace=False)) for _ in range(2000)]
    assert low <= min(sums) and max(sums) <= high
    assert high - low < 3 * (max(sums) - min(sums))
    assert sum_range([7] * 30, 4) == (28, 28)
    assert sum_range([1, 100], 1) == (1, 100)


def test_synthetic_rows_fill_what_they_are_asked_to() -> None:
    rows = synthetic(np.array([3, 4, 3, 4, 3, 4], dtype=np.int32), 2)
    assert len(rows.tokens) == 21 and rows.probes == 2 and len(rows.lengths) == 6
    assert rows.states.tolist() == [0, 0, 0, 1, 1, 1]
