"""Where operators of ours are put for vLLM to find: the stock wheel names many in `torch.ops._C` that it lacks on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

library = torch.library.Library("_C", "FRAGMENT")


def operator(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function under the name and with the signature that vLLM calls."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        library.define(schema)
        library.impl(schema.split("(")[0], function, "CompositeExplicitAutograd")
        return function

    return register
