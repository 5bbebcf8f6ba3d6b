"""How many tokens a model can hold in a row, by its configuration."""

from __future__ import annotations

from bench.data import ModelSource

KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""What the families call it. OPT's table of positions has two rows more than it says; those are of no use to a row."""


def positions(source: ModelSource) -> int | None:
    """Tokens of the longest row; None where the configuration sets no limit."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError, KeyError):
        return None  # a configuration that cannot be read is told where the model is loaded
    values = config.get_text_config().to_dict()
    found = [values[key] for key in KEYS if isinstance(values.get(key), int) and values[key] > 0]
    return min(found, default=None)
