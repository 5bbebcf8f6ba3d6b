"""Starts vLLM with everything the steps need set aside beforehand: adapter slots, a KV pool of the batch's size."""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.config import RunSpec
from bench.data import Batch, ModelSource
from bench.errors import UsageError
from bench.executors.vllm.variables import prepare_environment
from workloads.tasks.passes import Tokens
from workloads.tasks.ragged import full_tokens, tree_tokens

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The adapter ranks vLLM 0.26 allocates."""
BLOCK = 16
WAVES = 3
"""Requests that share prefixes go in so many waves, each of which may leave a block of every row partly filled."""
WORKER = "bench.executors.vllm.worker.ZoWorker"


def slot_rank(needed: int) -> int:
    """The smallest adapter rank vLLM offers that holds `needed`."""
    return next(rank for rank in RANKS if rank >= needed)


def start(
    spec: RunSpec,
    source: ModelSource,
    *,
    slots: int,
    rank: int,
    rows: int,
    longest: int,
    tokens: int,
    keeps_keys: bool,
    modules: list[str],
) -> Any:
    """A vllm.LLM.

    slots       adapters held at once (0: no LoRA)
    rank        per slot
    rows        sequences of the largest forward
    longest     tokens of the longest row
    tokens      of the largest forward
    keeps_keys  whether later passes read the keys and values of earlier ones: answers are generated, or prefixes reused
    modules     names of the linear layers that get adapters
    """
    prepare_environment(spec.device)
    from vllm import LLM

    settings: dict[str, Any] = {"dtype": spec.dtype}
    if slots:
        settings |= dict(enable_lora=True, max_loras=slots, max_lora_rank=slot_rank(rank), lora_target_modules=modules)
    if source.weights == "random":
        from bench.executors.vllm import loader

        settings |= dict(load_format=loader.FORMAT, model_loader_extra_config=loader.describe(source))
    if spec.quantization != "none":
        from bench.executors.vllm.quantized import name_for

        settings |= {"quantization": name_for(spec)}
    length = -(-(longest + 1) // BLOCK) * BLOCK
    tokens = max(tokens, length)
    rows = min(rows, tokens)
    settings |= _runtime(spec, tokens)
    with lora_kernels(spec.device), refusals(source, spec.device):
        return LLM(
            source.path,
            skip_tokenizer_init=True,
            seed=spec.seed,
            max_model_len=length,
            max_num_seqs=rows + slots,  # a spaced batch has a row between every two probes
            max_num_batched_tokens=tokens,
            block_size=BLOCK,
            kv_cache_memory_bytes=kv_bytes(
                source, spec.dtype, min(rows * length, tokens + WAVES * rows * BLOCK), spec.tensor_parallel
            ),
            enable_prefix_caching=keeps_keys,
            disable_hybrid_kv_cache_manager=True,  # one table of blocks for layers with windows and layers without
            max_logprobs=-1,
            disable_log_stats=True,
            trust_remote_code=spec.trust_remote_code,
            worker_extension_cls=WORKER,
            tensor_parallel_size=spec.tensor_parallel,
            distributed_executor_backend="mp" if spec.tensor_parallel > 1 else None,
            **settings,
        )


@contextmanager
def refusals(source: ModelSource, device: str) -> Iterator[None]:
    """What vLLM says no to while it loads is the choice of a model, which the user can change: UsageError with its reason."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, NotImplementedError) as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = said[1] if "validation error" in said[0] and len(said) > 1 else said[0]
    except (AssertionError, RuntimeError) as error:
        inside = any("/vllm/model_executor/" in frame.filename for frame in traceback.extract_tb(error.__traceback__))
        if not inside or "memory" in str(error).lower():
            raise
        reason = (str(error).strip().splitlines() or ["its tensors are not of the shapes that vLLM expects"])[0]
    except AttributeError as error:
        if device != "cpu" or "_OpNamespace" not in str(error):
            raise
        reason = f"the CPU platform lacks the operator {str(error).split()[-1]}"
    else:
        return
    raise UsageError(
        f"--executor vllm --model {source.name}: vLLM cannot load it ({reason.split('. ')[0]}); use --executor eager or official"
    )


@contextmanager
def lora_kernels(device: str) -> Iterator[None]:
    """While the engine starts on a GPU, vLLM is given our LoRA kernels where it asks its platform for a wrapper class."""
    if device == "cpu":  # our CPU platform names its own
        yield
        return
    from vllm.platforms import current_platform

    kind: Any = type(current_platform)
    own = kind.__dict__.get("get_punica_wrapper")
    kind.get_punica_wrapper = classmethod(lambda _: "bench.executors.vllm.lora_cuda.TritonLora")
    try:
        yield
    finally:
        if own is None:
            del kind.get_punica_wrapper
        else:
            kind.get_punica_wrapper = own


def _runtime(spec: RunSpec, tokens: int) -> dict[str, Any]:
    """Eager on the CPU; on a GPU compiled, with piecewise graphs for the token counts steps have.

    Adapters are used in every step, so nothing is captured without them. Plain products per probe (`unfused`) are not compiled:
    the compiled model has the fused kernels in it.
    """
    if spec.device == "cpu":
        return {"enforce_eager": True}
    settings: dict[str, Any] = {"gpu_memory_utilization": 0.05}  # only a check at the start: the KV pool's size is given in bytes
    if spec.lora == "unfused":
        return settings | {"enforce_eager": True}
    sizes = recorded_sizes(tokens)
    graphs = {"cudagraph_mode": "PIECEWISE", "cudagraph_capture_sizes": sizes, "cudagraph_specialize_lora": False}
    return settings | {"compilation_config": graphs}


def recorded_sizes(tokens: int) -> list[int]:
    """Padded token counts that passes of up to so many tokens are recorded for: fine where most steps fall, so that little is
    padded; the rare longer ones run without a recording."""
    return [size for size in (*range(64, 640, 32), *range(640, 1281, 64), *range(1408, 1793, 128)) if size <= tokens] or [tokens]


def forward_tokens(kv: str, probes: int, enough: int, block: int) -> Tokens:
    """How many tokens a forward over examples has, in so many states; not counted exactly where it is clear that they are few.
    block: in pieces of so many tokens rows share a prefix."""

    def tokens(examples: Batch) -> int:
        each = tree_tokens(examples, block, enough // probes) if kv == "shared" else full_tokens(examples)
        return probes * each

    return tokens


def kv_bytes(source: ModelSource, dtype: str, tokens: int, ranks: int = 1) -> int:
    """Bytes of a rank's KV pool that holds so many tokens, and vLLM's null block."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source.path, trust_remote_code=source.trust_remote_code).get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    kv_heads = max(1, kv_heads // ranks)
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    per_token = 2 * config.num_hidden_layers * kv_heads * head * getattr(torch, dtype).itemsize
    return (tokens + 2 * BLOCK) * per_token


def write_empty_adapter(folder: str, layers: dict[str, tuple[int, ...]]) -> str:
    """A rank-1 adapter of zeros in PEFT's format: vLLM opens slots from files; their contents are then written in place.

    layers    canonical weight name -> shape of one linear layer of each kind (others stay zero by themselves)
    """
    from safetensors.torch import save_file

    tensors = {}
    for name, (out, inp) in layers.items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{prefix}.lora_A.weight"] = torch.zeros(1, inp)
        tensors[f"{prefix}.lora_B.weight"] = torch.zeros(out, 1)
    path = Path(tempfile.mkdtemp(dir=folder))
    save_file(tensors, path / "adapter_model.safetensors")
    targets = sorted({name.split(".")[-2] for name in layers})
    config = dict(peft_type="LORA", r=1, lora_alpha=1, target_modules=targets, bias="none", task_type="CAUSAL_LM")
    (path / "adapter_config.json").write_text(json.dumps(config))
    return str(path)
