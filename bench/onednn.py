"""Products on a CPU by oneDNN, with weights in its own layout: a sixth faster than MKL with plain ones (`results/notes.md`)."""

from __future__ import annotations

from typing import Any

import torch

ROWS = 512
"""The batch that oneDNN chooses the layout for; it takes any other too."""


def packable(weight: torch.Tensor) -> bool:
    """Whether oneDNN multiplies by such a weight on this processor without converting it. One without a version counter, made
    in inference mode, cannot be watched for changes: False."""
    if not torch.backends.mkldnn.is_available() or weight.is_inference() or weight.ndim != 2 or weight.device.type != "cpu":
        return False
    match weight.dtype:
        case torch.float32:
            return True
        case torch.bfloat16:
            return bool(_ops()._is_mkldnn_bf16_supported())
        case torch.float16:
            return bool(_ops()._is_mkldnn_fp16_supported())
    return False


def pack(weight: torch.Tensor) -> Any:
    """The weight [out, in] in oneDNN's layout, as `product` takes it; a copy."""
    return _ops()._reorder_linear_weight(weight.detach(), ROWS)


def product(x: torch.Tensor, packed: Any, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [tokens, in] times a packed weight [out, in], plus bias [out] -> [tokens, out]."""
    found: torch.Tensor = _ops()._linear_pointwise(x, packed, bias, "none", [], "")
    return found


def _ops() -> Any:
    return torch.ops.mkldnn
