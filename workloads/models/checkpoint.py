"""Whether a checkpoint is whole: what can be seen of its files before anything is loaded, and what loading it left out.

Everything here is something its owner can mend, so it is a UsageError that names the file or the tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.data import ModelSource
from bench.errors import UsageError

POINTER = b"version https://git-lfs"
HARMLESS = re.compile(r"(attn\.bias|attention\.bias|masked_bias|rotary_emb\.inv_freq)$")
"""Buffers that old checkpoints hold beside their weights."""
WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DistributedDataParallel", "base_model.model.": "PEFT"}
"""Beginnings of names, and what leaves them there."""
SHOWN = 3


def inspect(source: ModelSource) -> None:
    """UsageError for a config that is no JSON object, a shard that is missing, and a weight file that is not whole."""
    folder = Path(source.path)
    read_config(source)
    if source.weights == "random":
        return
    for index in folder.glob("*.index.json"):
        shards = sorted(set(_json(source, index).get("weight_map", {}).values()))
        missing = [name for name in shards if not (folder / name).exists()]
        if missing:
            raise UsageError(f"--model {source.name}: {index.name} names {_some(missing)}, not in that folder; download it again")
    for file in (*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")):
        _check_whole(source, file)


def read_config(source: ModelSource) -> dict[str, Any]:
    """config.json as it stands."""
    config = _json(source, Path(source.path) / "config.json")
    if "model_type" not in config and "auto_map" not in config:
        raise UsageError(f"--model {source.name}: config.json has no model_type; give the folder of a Hugging Face model")
    return config


def saved_dtype(source: ModelSource) -> str | None:
    """The type that a checkpoint's config.json names, as transformers of any age wrote it."""
    config = read_config(source)
    parts = (config, config.get("text_config") or {})
    return next((part[key] for part in parts for key in ("dtype", "torch_dtype") if isinstance(part.get(key), str)), None)


def check_architecture(source: ModelSource) -> None:
    """UsageError for a model that was trained to fill in masks: it sees the answer it is asked for."""
    from transformers.models.auto import modeling_auto as auto

    named = read_config(source).get("architectures") or []
    masked, causal = (set(m.values()) for m in (auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    for name in named:
        if name in masked - causal:
            raise UsageError(f"--model {source.name}: {name} is no causal language model; give one that predicts the next token")


def check_keys(source: ModelSource, info: Mapping[str, Any]) -> None:
    """UsageError for tensors that the checkpoint lacks, has beyond the model, or has in another shape.

    info    what `from_pretrained(output_loading_info=True)` gives
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(k for k in info["unexpected_keys"] if not HARMLESS.search(k))
    if not missing and not unexpected:
        return
    wrapper = _wrapper(missing, unexpected)
    if wrapper:
        by = f", as {WRAPPERS[wrapper]} leaves them" if wrapper in WRAPPERS else ""
        raise UsageError(
            f"--model {source.name}: the checkpoint's names begin with {wrapper!r}{by}; save them under the model's own names"
        )
    told = [f"lacks {_some(missing)}"] if missing else []
    told += [f"holds {_some(unexpected)}, which the model has not"] if unexpected else []
    raise UsageError(
        f"--model {source.name}: the checkpoint {' and '.join(told)}; it does not belong to its config.json, or was saved in part"
    )


@contextmanager
def loading(source: ModelSource) -> Iterator[None]:
    """Whatever loading raises, but for a lack of memory, becomes one line about the model."""
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # transformers, safetensors and a model's own code raise anything
        if "memory" in str(error).lower():
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UsageError(f"--model {source.name}: {_advice(' '.join(lines[:2]))}") from error


@contextmanager
def running(source: ModelSource) -> Iterator[None]:
    """Whatever a model's own forward raises, but for a lack of memory, becomes one line about the model."""
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # sizes that do not fit together, a family's own code
        if "memory" in str(error).lower():
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"--model {source.name}: its own forward fails ({reason[:150]}); the sizes in its config.json do not fit together, "
            "or it needs another version of transformers"
        ) from error


def _wrapper(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """What stands before every missing name in a name that is there instead; "" when there is no such thing."""
    found = {name[: -len(lacking)] for lacking in missing[:1] for name in unexpected if name.endswith(f".{lacking}")}
    return next((before for before in found if all(before + lacking in unexpected for lacking in missing)), "")


def _advice(reason: str) -> str:
    if "trust_remote_code" in reason or "custom code" in reason:
        return "it brings code of its own; read that code, and allow it with --trust-remote-code"
    if "does not recognize this architecture" in reason:
        kind = re.search(r"model type `([^`]*)`", reason)
        return f"transformers does not know its model_type {kind[1] if kind else ''!r}; update transformers or use another model"
    if "Unrecognized configuration class" in reason:
        kind = re.search(r"class '[\w.]*?(\w+)Config'", reason)
        return f"{kind[1] if kind else 'it'} is no causal language model; give one that predicts the next token"
    if "ignore_mismatched_sizes" in reason:
        return "tensors of the checkpoint have other shapes than its config.json says; use the config.json it was saved with"
    return f"cannot be loaded ({reason[:200]}); check its files, or download it again"


def _check_whole(source: ModelSource, file: Path) -> None:
    with file.open("rb") as opened:
        head = opened.read(len(POINTER))
    if head == POINTER:
        raise UsageError(f"--model {source.name}: {file.name} is a Git LFS pointer and no weights; run `git lfs pull` there")
    if file.suffix != ".safetensors":
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except (SafetensorError, OSError) as error:
        raise UsageError(f"--model {source.name}: {file.name} is damaged or cut short ({error}); download it again") from None


def _json(source: ModelSource, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes().decode())
    except (OSError, ValueError) as error:
        raise UsageError(f"--model {source.name}: {path.name} is no JSON that can be read ({error}); mend it") from None
    if not isinstance(found, dict):
        raise UsageError(f"--model {source.name}: {path.name} holds no object; give the folder of a Hugging Face model")
    return found


def _some(names: Collection[str]) -> str:
    """The first few of a list, and how many there are."""
    shown = list(names)[:SHOWN]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
