"""Objectives and judgements against plain sums in float64."""

from __future__ import annotations

import math

import pytest
import torch

from bench.data import Example, TaskData
from workloads.tasks.judge import judge, scores_of
from workloads.tasks.loss import batch_loss, classification_loss, ragged, target_loss

SCORES = [[-0.3, -1.2, -4.0], [-2.5, -0.1], [-1.0, -1.5, -0.7, -9.0]]
"""Mean log-probs of the options of three examples."""
LABELS = [1, 1, 0]
LENGTHS = [[2, 5, 1], [3, 4], [7, 1, 1, 2]]
EXAMPLES = tuple(
    Example((0, 5), tuple((9,) * count for count in counts), label) for counts, label in zip(LENGTHS, LABELS, strict=True)
)


def padded(scores: list[list[float]] = SCORES, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return ragged(torch.tensor([s for row in scores for s in row], dtype=dtype), torch.tensor([len(row) for row in scores]))


def task(**changes: object) -> TaskData:
    return TaskData((), (), EXAMPLES, "", 1, 9, False, {}, **changes)  # type: ignore[arg-type]


def test_rows_of_ragged_examples_find_their_places() -> None:
    found = padded()
    assert found.shape == (3, 4) and found[1].tolist() == [-2.5, -0.1, -math.inf, -math.inf]
    twice = ragged(torch.arange(10.0).view(2, 5), torch.tensor([1, 4]))
    assert twice[1].tolist() == [[5.0, -math.inf, -math.inf, -math.inf], [6.0, 7.0, 8.0, 9.0]]


def test_classification_is_one_cross_entropy_for_each_example_however_many_options_it_has() -> None:
    by_hand = [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(SCORES, LABELS, strict=True)]
    assert classification_loss(padded(), torch.tensor(LABELS)).item() == pytest.approx(sum(by_hand) / 3, rel=1e-14)
    assert batch_loss("classification", padded(), EXAMPLES).item() == pytest.approx(sum(by_hand) / 3, rel=1e-14)


def test_a_targets_loss_counts_every_token_alike() -> None:
    """Five tokens of mean -1.2, four of -0.1, seven of -1.0: upstream's mean over all tokens of a batch."""
    by_hand = (5 * 1.2 + 4 * 0.1 + 7 * 1.0) / 16
    assert batch_loss("nll", padded(), EXAMPLES).item() == pytest.approx(by_hand, rel=1e-14)
    of_probes = target_loss(torch.tensor([[-1.2, -0.1, -1.0], [0.0, -0.5, 0.0]], dtype=torch.float64), torch.tensor([5, 4, 7]))
    assert of_probes.tolist() == pytest.approx([by_hand, 2.0 / 16], rel=1e-14)


def test_only_the_scored_tokens_of_a_joined_option_count() -> None:
    joined = (Example((0,), ((3, 4, 5), (6, 7)), 0, scored=(1, 2)), Example((0,), ((8,), (9, 2)), 1))
    loss = batch_loss("nll", torch.tensor([[-2.0, -9.0], [-9.0, -0.5]], dtype=torch.float64), joined)
    assert loss.item() == pytest.approx((1 * 2.0 + 2 * 0.5) / 3, rel=1e-14)


def test_options_are_judged_by_the_best_of_those_there_are() -> None:
    found = judge(task(), EXAMPLES, padded())
    assert (found.score, found.scores) == (1 / 3, {"accuracy": 1 / 3})
    assert found.error == pytest.approx(math.sqrt(1 / 3 * 2 / 3 / 3))
    assert found.loss == pytest.approx(batch_loss("classification", padded(), EXAMPLES).item())


def test_answers_are_judged_by_every_metric_and_the_tasks_own_is_the_score() -> None:
    words = {3: "the cat", 4: " sat", 5: "\n"}
    examples = (Example((0,), ((3,),), 0, references=("cat",)), Example((0,), ((4,),), 0, references=("it sat down", "stood")))
    given = {"objective": "nll", "metric": "f1", "answer_tokens": 5, "decode": lambda ids: "".join(words[i] for i in ids)}
    found = judge(task(**given), examples, torch.tensor([[-1.0], [-3.0]]), [(3, 5), (4, 5)])
    assert found.scores == {"f1": pytest.approx((1 + 0.5) / 2), "exact_match": 0.5}
    assert found.score == found.scores["f1"] and found.loss == pytest.approx(2.0)
    assert found.error == pytest.approx(math.sqrt(2 * 0.25**2) / 2)


def test_calibrated_options_are_ranked_by_what_the_prompt_adds_to_them() -> None:
    """Sums of log-probs less those after the bare prompt, whose tokens need not be as many."""
    bare = tuple(Example((0,), tuple((9,) * count for count in counts), 0) for counts in ([1, 5, 1], [3, 2], [7, 1, 1, 2]))
    alone = [[-0.1, -2.0, -9.0], [-2.0, -0.2], [-1.0, -1.5, -0.7, -30.0]]
    found = scores_of(task(calibration=bare), EXAMPLES, padded(), padded(alone))
    by_hand = [[-0.6 + 0.1, -6.0 + 10.0, -4.0 + 9.0], [-7.5 + 6.0, -0.4 + 0.4], [0.0, 0.0, 0.0, -18.0 + 60.0]]
    for row, expected in zip(found.tolist(), by_hand, strict=True):
        assert row == pytest.approx([*expected, *[-math.inf] * (4 - len(expected))], abs=1e-12)
    assert judge(task(calibration=bare), EXAMPLES, padded(), bare=padded(alone)).score == 1 / 3  # the second alone
