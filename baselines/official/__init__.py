"""The official LoZO and MeZO training loops, reproduced number for number."""

from baselines.official.loop import LozoLoop, MezoLoop, StepRecord

__all__ = ["LozoLoop", "MezoLoop", "StepRecord"]
