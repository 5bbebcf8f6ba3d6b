"""The official LoZO and MeZO training loops, reproduced number for number. Importing the package itself needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baselines.official.loop import LozoLoop, MezoLoop, StepRecord

__all__ = ["LozoLoop", "MezoLoop", "StepRecord"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("baselines.official.loop"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
