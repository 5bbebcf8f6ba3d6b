"""Named stretches of a step for torch.profiler and NVIDIA's tools. Costs about a microsecond when neither is watching."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def named(name: str) -> AbstractContextManager[Any]:
    """`record_function`, and where CUDA is in use an NVTX range of the same name inside it; nothing while torch is not there."""
    if "torch" not in sys.modules:
        return nullcontext()
    import torch
    from torch.profiler import record_function

    if torch.compiler.is_compiling() or not torch.cuda.is_initialized():  # a compiled region has no room for NVTX
        return record_function(name)
    return _Both(name)


class _Both:
    def __init__(self, name: str) -> None:
        from torch.profiler import record_function

        self._name, self._recorded = name, record_function(name)

    def __enter__(self) -> _Both:
        from torch.cuda import nvtx

        self._recorded.__enter__()
        nvtx.range_push(self._name)
        return self

    def __exit__(self, *exc: Any) -> None:
        from torch.cuda import nvtx

        nvtx.range_pop()
        self._recorded.__exit__(*exc)
