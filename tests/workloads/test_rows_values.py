"""Labels and texts as people write them; anything else is refused with the row it stands in."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from bench.errors import UsageError
from workloads.rows.table import DataOptions, Row, Table
from workloads.rows.values import labels_of, one_label_warning, text_of

NAMES = ("negative", "positive")


def table(*values: Any, **more: Any) -> Table:
    return Table(tuple(Row({"label": value}, "f.tsv", at, at + 1) for at, value in enumerate(values, start=1)), **more)


@pytest.mark.parametrize(
    "spelling",
    [
        (0, 1),
        ("0", "1"),
        (" 0", "1 "),
        (0.0, 1.0),
        ("0.0", "1.0"),
        ("0", 1.0),
        (False, True),
        ("false", "true"),
        ("False", "TRUE"),
        ("negative", "positive"),
        ("Negative", "POSITIVE"),
        (Decimal(0), Decimal("1.0")),
        (np.int8(0), np.float32(1)),
    ],
)
def test_labels_that_people_have(spelling: tuple[Any, Any]) -> None:
    assert labels_of(table(*spelling), "label", NAMES, also={"false": 0, "true": 1}) == [0, 1]


@pytest.mark.parametrize(
    ("given", "values"),
    [("neg,pos", ("neg", "pos")), ("1,2", ("1", 2.0)), ("-1,1", (-1, "1")), ("1,0", (1, "0.0")), ("Bad,Good", ("bad", "GOOD"))],
)
def test_labels_by_the_users_words(given: str, values: tuple[Any, Any]) -> None:
    assert labels_of(table(*values), "label", NAMES, DataOptions.parse(None, [], given)) == [0, 1]


def test_the_users_words_are_the_only_ones() -> None:
    with pytest.raises(UsageError, match=r"row 2 \(line 3\): label 'positive'; expected bad or good$"):
        labels_of(table("bad", "positive"), "label", NAMES, DataOptions(labels=("bad", "good")))
    with pytest.raises(UsageError, match=r"--labels a,b,c: the task has 2 labels \(negative, positive\)"):
        labels_of(table(0), "label", NAMES, DataOptions(labels=("a", "b", "c")))


def test_a_file_that_names_its_numbers_is_understood_by_its_names() -> None:
    names = {"label": ("positive", "negative")}
    assert labels_of(table(0, 1, "positive", label_names=names), "label", NAMES) == [1, 0, 1]
    assert labels_of(table(0, 1, label_names={"label": ("LABEL_0", "LABEL_1")}), "label", NAMES) == [0, 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1, "row 3 .line 4.: label -1 marks an unlabelled row, as in test sets; give rows with labels"),
        ("-1.0", "unlabelled"),
        (math.nan, "row 3 .line 4.: the label is missing"),
        (None, "the label is missing"),
        ("", "the label is missing"),
        (2, r"label 2; expected 0 \(negative\), 1 \(positive\); --labels gives"),
        (0.5, "label 0.5; expected"),
        ("pos", "label 'pos'; expected"),
        (True, "label True; expected"),
        ([0], r"label \[0\]; expected"),
        (b"1", "expected"),
        ("1" * 5000, "expected"),
        ("a film " * 50, "a film a film.*[.][.][.]"),
        (math.inf, "expected"),
    ],
)
def test_labels_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        labels_of(table(0, 1, value), "label", NAMES)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (" a ", " a "), (1900, "1900"), (1.5, "1.5"), (True, "true")])
def test_a_number_is_text(value: Any, text: str) -> None:
    assert text_of(Row({"sentence": value}, "f", 1), "sentence") == text


@pytest.mark.parametrize("value", ["", "  ", None, math.nan, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text(value: Any) -> None:
    with pytest.raises(UsageError, match="--data f: row 7: the sentence is empty or no text"):
        text_of(Row({"sentence": value}, "f", 7), "sentence")


def test_one_label_only_is_said() -> None:
    assert one_label_warning([0, 1], NAMES, "f.tsv") == []
    assert "all 3 rows have the label positive" in one_label_warning([1, 1, 1], NAMES, "f.tsv")[0]
