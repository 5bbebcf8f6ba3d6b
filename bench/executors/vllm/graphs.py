"""Whole forward passes as recordings: embeddings to final norm, attention and adapters included, one launch each.

vLLM's piecewise graphs stop at every attention layer, where the host builds a call: for a short batch the device waits for it.
A score is one prefill of a known number of rows, so its launches are the same every time and only the buffers' contents differ.
Passes are recorded before anything is timed, for the padded token counts that a task's batches reach.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Kind = tuple[int, Hashable]
"""What a recording is for besides its token count: rows (at most), and all else that is a constant of it."""
Run = Callable[[], torch.Tensor]
Recorder = Callable[[Run], tuple[Callable[[], object], torch.Tensor]]
"""Records a pass: what plays it back, and the hidden states [padded, hidden] that playing it back overwrites."""


@dataclass(frozen=True)
class Staged:
    """A pass over whatever batch the buffers hold. mappings: the slot mappings that it reads; share: as in `Packed`."""

    run: Run
    mappings: tuple[torch.Tensor, ...]
    share: int


@dataclass(frozen=True)
class Recording:
    """rows: of the pass, gaps apart, some of them empty in smaller batches; padded: its tokens."""

    rows: int
    padded: int
    staged: Staged
    replay: Callable[[], object]
    out: torch.Tensor


class CudaRecorder:
    """Records into CUDA graphs that share one memory pool, since only one runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, run: Run) -> tuple[Callable[[], object], torch.Tensor]:
        run()  # what is compiled or set up at a first call must not fall into the capture
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = run()
        self._pool = self._pool or graph.pool()
        return graph.replay, out


class Recordings:
    """By kind and padded token count. recorder: None where passes cannot be recorded."""

    def __init__(self, recorder: Recorder | None) -> None:
        self.recorder = recorder
        self._held: dict[Kind, list[Recording]] = {}

    def find(self, kind: Kind, tokens: int) -> Recording | None:
        """The smallest for so many rows or more, the rest of the kind alike, that holds so many tokens."""
        fitting = [(rows, held) for (rows, same), held in self._held.items() if rows >= kind[0] and same == kind[1]]
        for _, held in sorted(fitting, key=lambda one: one[0]):
            at = bisect_left([one.padded for one in held], tokens)
            if at < len(held):
                return held[at]
        return None

    def record(self, kind: Kind, sizes: Sequence[int], stage: Callable[[int], Staged]) -> None:
        """Record the sizes of a kind, largest first, unless they are held. stage(padded) fills the buffers with a batch of that
        size and gives the pass over it."""
        if self.recorder is None or kind in self._held:
            return
        found = []
        for padded in sorted(sizes, reverse=True):
            staged = stage(padded)
            found.append(Recording(kind[0], padded, staged, *self.recorder(staged.run)))
        self._held[kind] = found[::-1]
