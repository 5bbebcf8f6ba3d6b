"""Random weights for vLLM, the very ones the other executors get: a model loader registered through vLLM's public hook."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from vllm.config import ModelConfig
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from bench.data import ModelSource
from workloads.models.weights import seeded_weights

FORMAT = "zo_seeded"


def describe(source: ModelSource) -> dict[str, Any]:
    """What the loader needs to know, as vLLM's extra configuration."""
    return asdict(source)


@register_model_loader(FORMAT)
class SeededLoader(BaseModelLoader):
    """Streams seeded tensors, one at a time, into vLLM's own weight loading (which merges q, k, v and pads)."""

    def download_model(self, model_config: ModelConfig) -> None:
        """Nothing to fetch: the weights are generated."""

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        source = ModelSource(**self.load_config.model_loader_extra_config)
        device: torch.device = next(p.device for p in model.parameters() if not p.is_meta)  # FP8 layers are made as they come
        dtype: Any = model_config.dtype
        load: Any = model.load_weights
        load(seeded_weights(source, dtype, device))
