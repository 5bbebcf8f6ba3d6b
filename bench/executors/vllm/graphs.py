"""Whole forward passes as CUDA graphs: embeddings to final norm, attention and adapters included, one launch each.

vLLM's piecewise graphs stop at every attention layer, where the host builds a call: for a short batch the device waits for it.
A score is one prefill of a known number of rows, so its launches are the same every time and only the buffers' contents differ.
Graphs are captured before anything is timed, for the padded token counts that a task's batches reach.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Kind = tuple[int, int, bool]
"""What a graph is for besides its token count: rows (at most), probes, and whether they use adapters."""


@dataclass(frozen=True)
class Captured:
    """rows: of the pass, some of them empty in smaller batches; padded: its tokens; out: its hidden states [padded, hidden],
    overwritten by every replay of any graph."""

    rows: int
    padded: int
    graph: Any
    out: torch.Tensor
    mappings: tuple[torch.Tensor, ...]


class ForwardGraphs:
    """Graphs by kind and padded token count; all share one memory pool, since only one runs at a time."""

    def __init__(self) -> None:
        self._held: dict[Kind, list[Captured]] = {}
        self._pool: Any = None

    def find(self, kind: Kind, tokens: int) -> Captured | None:
        """The smallest graph for so many rows or more of the same probes that holds so many tokens."""
        fitting = [held for (rows, *same), held in sorted(self._held.items()) if rows >= kind[0] and tuple(same) == kind[1:]]
        for held in fitting:
            at = bisect_left([one.padded for one in held], tokens)
            if at < len(held):
                return held[at]
        return None

    def capture(
        self, kind: Kind, sizes: Sequence[int], stage: Callable[[int], tuple[Callable[[], torch.Tensor], Sequence[torch.Tensor]]]
    ) -> None:
        """Capture the sizes of a kind, largest first, unless they are held.

        stage(padded) fills the buffers with a batch of that size and gives the pass and the slot mappings it reads
        """
        if kind in self._held:
            return
        found = []
        for padded in sorted(sizes, reverse=True):
            run, mappings = stage(padded)
            run()  # what is compiled or set up at a first call must not fall into the capture
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                out = run()
            self._pool = self._pool or graph.pool()
            found.append(Captured(kind[0], padded, graph, out, tuple(mappings)))
        self._held[kind] = found[::-1]
