"""The command line, as in tests/bench."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.cli import main


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """refused("serve", "--port", "x"): the one line on stderr of a call that exits 2."""

    def call(*arguments: Any) -> str:
        capfd.readouterr()
        code = main([*arguments])
        said = capfd.readouterr().err.strip()
        assert (code, said.count("\n")) == (2, 0), said
        return said

    return call
