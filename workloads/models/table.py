"""The model table and where a model's files come from. Imports nothing heavy: the command line lists it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data import ModelSource
from bench.errors import UsageError
from bench.files import anchored, write_atomically
from workloads.models.cache import cache_dir, in_cache
from workloads.models.checkpoint import inspect
from workloads.models.hub import in_reach, refuse_unwritable

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
OTHER_FILES = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")


@dataclass(frozen=True)
class ModelInfo:
    """An OPT architecture: source arXiv 2205.01068, table 1, and the published configurations.

    hub_id    "": nobody publishes weights of it
    """

    hub_id: str
    layers: int
    hidden: int
    heads: int
    embedding: int | None = None
    norm_first: bool = True
    vocabulary: int = 50272

    def config(self) -> dict[str, Any]:
        """The Hugging Face configuration of this architecture."""
        return {
            "architectures": ["OPTForCausalLM"],
            "model_type": "opt",
            "hidden_size": self.hidden,
            "ffn_dim": 4 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "word_embed_proj_dim": self.embedding or self.hidden,
            "do_layer_norm_before": self.norm_first,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "activation_function": "relu",
            "init_std": 0.02,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "layerdrop": 0.0,
            "bos_token_id": 2,
            "eos_token_id": 2,
            "pad_token_id": 1,
            "tie_word_embeddings": True,
        }


MODELS = {
    "opt-tiny": ModelInfo("", 0, 0, 0),
    "opt-mini": ModelInfo("", 6, 384, 6, vocabulary=684),  # opt-tiny's vocabulary: the body decides, as in large models
    "opt-125m": ModelInfo("facebook/opt-125m", 12, 768, 12),
    "opt-350m": ModelInfo("facebook/opt-350m", 24, 1024, 16, 512, False),
    "opt-1.3b": ModelInfo("facebook/opt-1.3b", 24, 2048, 32),
    "opt-2.7b": ModelInfo("facebook/opt-2.7b", 32, 2560, 32),
    "opt-6.7b": ModelInfo("facebook/opt-6.7b", 32, 4096, 32),
    "opt-13b": ModelInfo("facebook/opt-13b", 40, 5120, 40),
    "opt-30b": ModelInfo("facebook/opt-30b", 48, 7168, 56),
}


def resolve_model(model: str, weights: str, *, trust_remote_code: bool = False, download: bool = True) -> ModelSource:
    """Find a model by table name, local path or hub id. UsageError when it is unknown, out of reach or not whole.

    download    False: look only at what is already on this machine
    """
    source = _find(model, weights, trust_remote_code, download)
    inspect(source)
    return source


def _find(model: str, weights: str, trust_remote_code: bool, download: bool) -> ModelSource:
    if model == "opt-tiny":
        return _tiny(weights)
    if (folder := model_folder(model)) is not None:
        return _local(model, folder, weights, trust_remote_code)
    hub_id = MODELS[model].hub_id if model in MODELS else model
    if model in MODELS and not hub_id:
        if weights == "pretrained":
            raise UsageError(f"--model {model}: has random weights alone, for speed; leave --weights out")
        return ModelSource(model, str(_config_folder(model, model)), "random", trust_remote_code)
    if not HUB_ID.fullmatch(hub_id) or ".." in hub_id:
        raise UsageError(f"--model {model}: not a model of the table, a folder or a hub id; the table has {', '.join(MODELS)}")
    if weights == "random":
        return ModelSource(model, str(_config_folder(model, hub_id)), "random", trust_remote_code)
    path = _from_hub(hub_id, [*WEIGHT_FILES, *OTHER_FILES], need="weights", download=download)
    if path is None:
        if model not in MODELS and "/" not in model:
            raise UsageError(
                f"--model {model}: not in the table ({', '.join(MODELS)}), no folder with a config.json, and not to be had "
                "from the hub"
            )
        raise UsageError(
            f"--model {model} --weights {weights}: {hub_id} is not cached and the hub is out of reach; "
            "download it and pass its folder as --model, or use --weights random to measure speed alone"
        )
    return ModelSource(model, path, "pretrained", trust_remote_code, hub_id, Path(path).name)


def model_folder(model: str) -> Path | None:
    """The folder that --model means: a path, or a bare name where a model lies under it; a name of the table is the table's."""
    path = Path(os.path.expanduser(model))
    if model in ("", *MODELS):
        return None
    is_path = path.is_absolute() or model.startswith((".", "~")) or ("/" in model and path.exists())
    return Path(anchored(model)) if is_path or (path / "config.json").is_file() else None


def tiny_is_built() -> bool:
    from workloads.models.tiny import folder

    return folder().exists()


def _tiny(weights: str) -> ModelSource:
    from workloads.models.tiny import prepare

    return ModelSource("opt-tiny", str(prepare()), "random" if weights == "random" else "pretrained")


def _local(model: str, folder: Path, weights: str, trust: bool) -> ModelSource:
    if not (folder / "config.json").is_file():
        why = "no config.json in that folder" if folder.is_dir() else "not a folder" if folder.exists() else "no such folder"
        raise UsageError(f"--model {model}: {why}; give the folder of a Hugging Face model")
    found = any(next(folder.glob(pattern), None) for pattern in WEIGHT_FILES)
    if weights == "random" or found:
        return ModelSource(model, str(folder.resolve()), "random" if weights == "random" else "pretrained", trust)
    raise UsageError(f"--model {model} --weights {weights}: no weights (*.safetensors) in that folder; use --weights random")


def _config_folder(model: str, hub_id: str) -> Path:
    """A folder with just config.json: from the table, or fetched from the hub for other ids."""
    folder = cache_dir() / "configs" / hub_id.replace("/", "--")
    if model in MODELS:
        text = json.dumps(MODELS[model].config(), indent=1)
    else:
        found = _from_hub(hub_id, ["config.json"], need="config.json")
        if found is None:
            raise UsageError(f"--model {model}: not in the table ({', '.join(MODELS)}) and its config.json is out of reach")
        text = (Path(found) / "config.json").read_text()
    target = folder / "config.json"
    with in_cache():
        if not target.exists() or target.read_text() != text:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(target, text)
    return folder


def _from_hub(hub_id: str, patterns: list[str], need: str, download: bool = True) -> str | None:
    """A local snapshot of a hub repository, downloaded where the hub can be reached; None when it cannot."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    here = not (download and in_reach())
    try:
        path = snapshot_download(hub_id, allow_patterns=patterns, etag_timeout=5, local_files_only=here)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
        return None
    except OSError as error:
        refuse_unwritable(error)
        return None
    wanted = WEIGHT_FILES if need == "weights" else (need,)
    return path if any(next(Path(path).glob(pattern), None) for pattern in wanted) else None
