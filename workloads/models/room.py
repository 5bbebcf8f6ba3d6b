"""How many tokens one forward may have: a fourth of the memory that the weights leave is for what the forward makes.

The estimate is by the configuration and by the memory there is, not by what is free at the moment: the same machine gives the
same number, and so the same sums, every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bench.data import ModelSource, TaskData
from bench.environment import host_memory

SHARE, STEP = 4, 1024
INNER = ("intermediate_size", "ffn_dim", "n_inner")
"""What the families call the width of a block's inner layer; four times the hidden size where they do not say."""
SPARE = 8
"""Hidden states that a block has at once beside the two of its inner layer: input, norm, queries, keys, values, sums."""


@dataclass(frozen=True)
class Made:
    """What a forward makes for each of its tokens.

    logits      share of its positions at which the whole head is computed
    attended    tokens of a row where attention writes its scores out; 0 where it does not
    keys        whether keys and values of all layers are kept
    """

    logits: float
    attended: int = 0
    keys: bool = False

    def bytes_a_token(self, source: ModelSource, dtype: torch.dtype) -> int:
        from transformers import AutoConfig

        options = {"trust_remote_code": source.trust_remote_code, "local_files_only": True}
        config: Any = AutoConfig.from_pretrained(source.path, **options).get_text_config()
        hidden, heads, item = config.hidden_size, config.num_attention_heads, dtype.itemsize
        inner = next((size for name in INNER if (size := getattr(config, name, None))), 4 * hidden)
        body = (SPARE * hidden + 2 * inner) * item
        scores = heads * self.attended * (2 * item + 4)
        kept, head = getattr(config, "num_key_value_heads", None) or heads, getattr(config, "head_dim", None) or hidden // heads
        pool = 2 * kept * head * item * config.num_hidden_layers if self.keys else 0
        return int(body + scores + pool + self.logits * config.vocab_size * (item + 8))


def room(source: ModelSource, dtype: torch.dtype, device: torch.device | str, made: Made, held: int) -> int:
    """Tokens of a forward, in whole thousands (of 1,024) and at least one of them. held: bytes of the weights."""
    found = torch.device(device)
    total = torch.cuda.mem_get_info(found)[1] if found.type == "cuda" else host_memory()
    return max(1, (total - held) // SHARE // made.bytes_a_token(source, dtype) // STEP) * STEP


def scored_share(task: TaskData) -> float:
    """Of the tokens of the training rows, how many are predicted."""
    rows = [row for example in task.train for row in example.rows()]
    return sum(scored for _, scored in rows) / sum(len(tokens) for tokens, _ in rows)
