"""Giving memory back between one model and the next."""

from __future__ import annotations

import gc

import torch


def release() -> None:
    """Free what is no longer used. Hugging Face models refer to themselves: without a collection they would stay on the GPU."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
