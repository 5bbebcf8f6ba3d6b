"""How many tokens a model can hold in a row, and how many it knows, by its configuration."""

from __future__ import annotations

from typing import Any

from bench.data import ModelSource, TaskData
from bench.errors import UsageError

KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""What the families call it. OPT's table of positions has two rows more than it says; those are of no use to a row."""


def positions(source: ModelSource) -> int | None:
    """Tokens of the longest row; None where the configuration sets no limit."""
    values = _values(source)
    found = [values[key] for key in KEYS if isinstance(values.get(key), int) and values[key] > 0]
    return min(found, default=None)


def refuse_unknown_ids(source: ModelSource, task: TaskData) -> None:
    """UsageError for token ids that the model's embedding has no row for."""
    words = _values(source).get("vocab_size")
    rows = (row for part in (task.train, task.dev, task.eval, task.calibration) for e in part for row, _ in e.rows())
    most = max(task.pad_id, max(map(max, rows), default=0))
    if isinstance(words, int) and most >= words:
        raise UsageError(
            f"--model {source.name}: its tokenizer gives the id {most}, and its embedding ends at {words - 1}; "
            "use the tokenizer that the model was trained with"
        )


def _values(source: ModelSource) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError, KeyError):
        return {}  # a configuration that cannot be read is told where the model is loaded
    values: dict[str, Any] = config.get_text_config().to_dict()
    return values
