"""An option of a verb is a field of the specification, declared there alone; here with a specification of the test's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from bench.cli_options import described, takes
from bench.settings import FEATURES, MEASURE, METHOD, WHAT, setting


@dataclass(frozen=True)
class Recipe:
    dish: str = setting(WHAT, "What is cooked.", "soup", choices=("soup", "bread"))
    spoons: int = setting(METHOD, "Spoons of salt.", "1", 1)
    heat: float | None = setting(METHOD, "Degrees.", "as the dish needs", None, spelled="--degrees")
    stirred: bool = setting(METHOD, "Stir it.", "yes", True)
    herbs: tuple[str, ...] = setting(FEATURES, "Herb; may be repeated.", "none", (), metavar="HERB")
    judged: bool = False


def call(*arguments: str, **shown: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What a verb is given for a command line, and its output."""
    app, seen = typer.Typer(pretty_exceptions_enable=False), {}

    @app.command()
    @takes(Recipe, into="given", **shown)
    def cook(
        given: dict[str, Any],
        dish: Annotated[list[str] | None, described("Dishes.", "soup", panel=WHAT)] = None,
        guests: Annotated[int, described("Who eats.", "2", panel=MEASURE)] = 2,
    ) -> None:
        seen.update(given=given, own={"dish": dish, "guests": guests})

    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))
    return seen.get("given", {}), seen.get("own", {}), done.output


def test_what_was_not_typed_is_not_given():
    assert call()[:2] == ({}, {"dish": None, "guests": 2})


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["--spoons", "0"], {"spoons": 0}),
        (["--degrees", "180.5"], {"heat": 180.5}),
        (["--no-stirred"], {"stirred": False}),
        (["--stirred"], {"stirred": True}),
        (["--herbs", "thyme", "--herbs", "sage"], {"herbs": ("thyme", "sage")}),
    ],
)
def test_the_annotation_of_a_field_decides_how_it_is_typed(typed, given):
    assert call(*typed)[0] == given
    Recipe("soup", **given)


def test_a_parameter_of_the_verb_stands_in_for_the_field_of_its_name():
    given, own, _ = call("--dish", "soup", "--dish", "bread", "--guests", "3")
    assert given == {} and own == {"dish": ["soup", "bread"], "guests": 3}


def test_help_says_meaning_default_and_group_and_leaves_out_what_is_no_option():
    text = call("--help", spoons="two")[2]
    assert "Degrees. [default: (as the dish needs)]" in text and "HERB" in text
    assert "Spoons of salt. [default: (two)]" in text
    assert text.index("What is run") < text.index("Method") < text.index("Features") < text.index("Measurement")
    assert "judged" not in text
