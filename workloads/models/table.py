"""Where a model's files come from: the table, a folder, the hub. Imports nothing heavy: the command line resolves names."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from bench.data import ModelSource
from bench.errors import UsageError
from bench.files import anchored, write_atomically
from workloads.models.cache import cache_dir, in_cache
from workloads.models.checkpoint import inspect
from workloads.models.hub import in_reach, refuse_unwritable
from workloads.models.published import MODELS

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
OTHER_FILES = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja", "*.py")


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
        text = json.dumps(MODELS[model].config, indent=1)
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
