"""What one core step does, measured from outside: forwards, tokens, operators, bytes written to the weights and to adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class Counted(TorchDispatchMode):
    """Counts every ATen operator, and the bytes that operators write into the tensors it watches.

    A write is an in-place operator on a watched tensor, or a new tensor that then takes a watched parameter's place.
    """

    def __init__(self, weights: Iterable[torch.Tensor], adapters: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.weights, self.adapters = list(weights), {t.untyped_storage().data_ptr() for t in adapters}
        self.operators = self.weight_bytes = self.adapter_bytes = 0
        self._made: torch.Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._adopt()
        held = self._held()
        self.operators += 1
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info and argument.alias_info.is_write:
                tensors = value if isinstance(value, list | tuple) else [value]
                for tensor in (t for t in tensors if isinstance(t, torch.Tensor)):
                    storage = tensor.untyped_storage().data_ptr()
                    self.weight_bytes += tensor.nbytes * (storage in held)
                    self.adapter_bytes += tensor.nbytes * (storage in self.adapters)
        result = func(*args, **kwargs or {})
        strided = isinstance(result, torch.Tensor) and result.layout is torch.strided  # a packed weight is a copy without storage
        self._made = result if strided and result.untyped_storage().data_ptr() not in held else None
        return result

    def __exit__(self, *exc: object) -> Any:
        self._adopt()
        return super().__exit__(*exc)

    def _adopt(self) -> None:
        if self._made is not None and self._made.untyped_storage().data_ptr() in self._held():
            self.weight_bytes += self._made.nbytes

    def _held(self) -> set[int]:
        return {weight.untyped_storage().data_ptr() for weight in self.weights if weight.numel()}


class Forwards:
    """Calls of the embedding and the tokens it was given: one call for each forward of the model."""

    def __init__(self, model: nn.Module) -> None:
        self.calls = self.tokens = 0
        (self._embedding,) = (m for name, m in model.named_modules() if name.endswith("embed_tokens"))

    def __enter__(self) -> Forwards:
        self._hook = self._embedding.register_forward_pre_hook(self._count)
        return self

    def __exit__(self, *exc: object) -> None:
        self._hook.remove()

    def _count(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.calls, self.tokens = self.calls + 1, self.tokens + inputs[0].numel()


def parts(executor: Any) -> tuple[nn.Module, list[torch.Tensor], list[torch.Tensor]]:
    """(model, scoped weights, adapter storage) of a loaded executor."""
    if executor.name == "official":
        return executor.model, [weight for _, weight in executor.weights.parameters], []
    if executor.name == "eager":
        return executor._scorer.model, list(executor.moved.weights.values()), []
    worker = executor._llm.llm_engine.model_executor.driver_worker.worker
    manager = worker.model_runner.lora_manager._adapter_manager
    slots = [t for m in manager.modules.values() for t in (*m.lora_a_stacked, *m.lora_b_stacked)]
    return worker.model_runner.model, list(worker.zo.moved.weights.values()), slots


def measure(executor: Any, step: Callable[[], object]) -> dict[str, int]:
    """Counts of one step."""
    model, weights, adapters = parts(executor)
    with Forwards(model) as forwards, Counted(weights, adapters) as counted:
        step()
    return {
        "forwards": forwards.calls,
        "tokens_scored": forwards.tokens,
        "weight_bytes_written": counted.weight_bytes,
        "adapter_bytes_written": counted.adapter_bytes,
        "operators": counted.operators,
    }
