"""The harness: command line, specification, sessions, recorders, results and the vLLM executor; `ZOTrainer` for programs."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`from bench import ZOTrainer, ZOTrainingArguments`; nothing of them is imported until then."""
    if name not in ("ZOTrainer", "ZOTrainingArguments"):
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    from bench import trainer

    return getattr(trainer, name)
