"""Padded rows as a Hugging Face model's forward takes them."""

from __future__ import annotations

import inspect
from typing import Any

import torch


def padded(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    """Arguments for rows [rows, width] that may be padded on the left.

    A row's positions start where its padding ends. Some families count from the mask themselves and others (GPT-2) do not, so
    they are given wherever the model takes them.
    """
    found = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    if "position_ids" in inspect.signature(model.forward).parameters:
        found["position_ids"] = (mask.cumsum(1) - 1).clamp_(min=0)
    return found
