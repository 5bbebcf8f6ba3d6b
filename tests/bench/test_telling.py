"""What is said once, however many sessions, points and executors report it."""

from __future__ import annotations

import io

from rich.console import Console

from bench.harness.telling import Teller


def test_forwards_and_rows_that_were_cut_are_said_by_every_verb() -> None:
    out = io.StringIO()
    tell = Teller(Console(file=out, width=200))
    cut = {"event": "warning", "text": "prompts longer than the model's 64 positions lost their beginning: 3 of train"}
    for executor in ("eager", "vllm"):
        for _ in range(2):
            tell(executor, {"event": "loaded", "load_s": 1.0, "max_tokens": 4096, "forwards": 1 if executor == "eager" else 6})
            tell(executor, cut)
    assert out.getvalue().splitlines() == [
        "eager: a step takes one forward of at most 4,096 tokens",
        f"eager: warning: {cut['text']}",
        "vllm: a step takes 6 forwards of at most 4,096 tokens",
        f"vllm: warning: {cut['text']}",
    ]
    tell("fake", {"event": "loaded", "load_s": 1.0, "max_tokens": None, "forwards": 1})
    assert len(out.getvalue().splitlines()) == 4
