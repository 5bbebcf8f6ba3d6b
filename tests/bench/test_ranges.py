"""Phases and marks as torch.profiler and NVTX see them."""

from __future__ import annotations

import torch
from torch.profiler import profile

from bench.api import mark, phase


def step():
    with phase("score"), mark("attention"):
        torch.ones(2).sum()


def test_the_profiler_sees_phases_and_marks():
    with profile(acc_events=True) as seen:
        step()
    assert {"zo.score", "zo.op.attention"} <= {event.key for event in seen.key_averages()}


def test_where_cuda_is_in_use_nvtx_sees_the_same_ranges_nested_alike(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", calls.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: calls.append("pop"))
    with profile(acc_events=True) as seen:
        step()
    assert calls == ["zo.score", "zo.op.attention", "pop", "pop"]
    assert {"zo.score", "zo.op.attention"} <= {event.key for event in seen.key_averages()}


def test_a_compiled_region_keeps_its_one_graph(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)

    def marked(x):
        with mark("gemm"):
            return x @ x

    compiled = torch.compile(marked, backend="eager", fullgraph=True)
    x = torch.ones(3, 3)
    assert torch.equal(compiled(x), x @ x)
