"""A model's own tokenizer, or opt-tiny's for random weights of the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from bench.data import ModelSource
from workloads.models.tiny import tokenizer_file

Encode = Callable[..., tuple[int, ...]]


def load_tokenizer(source: ModelSource) -> tuple[Encode, int, str]:
    """(encode, pad id, whose): encode(text, first=True) gives ids, with BOS when `first`.

    OPT starts every prompt with id 0, as upstream forces it to; other families follow their own tokenizer.
    """
    folder = Path(source.path)
    if (folder / "tokenizer.json").exists() or (folder / "tokenizer_config.json").exists() or (folder / "vocab.json").exists():
        from transformers import AutoTokenizer

        own = AutoTokenizer.from_pretrained(source.path, local_files_only=True, trust_remote_code=source.trust_remote_code)
        opt = json.loads((folder / "config.json").read_text()).get("model_type") == "opt"

        def encode_own(text: str, first: bool = True) -> tuple[int, ...]:
            ids = own(text, add_special_tokens=first and not opt)["input_ids"]
            return (0, *ids) if first and opt else tuple(ids)

        return encode_own, own.pad_token_id if own.pad_token_id is not None else 0, "own"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file()))

    def encode(text: str, first: bool = True) -> tuple[int, ...]:
        ids = tokenizer.encode(text).ids
        return (0, *ids) if first else tuple(ids)

    return encode, 1, "generated"
