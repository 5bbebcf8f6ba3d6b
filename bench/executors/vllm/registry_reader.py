"""vLLM's table of models, read from its sources: importing vLLM takes ten seconds, and inspecting a model there another ten."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

TABLES = ("_TEXT_GENERATION_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
LORA = "SupportsLoRA"
PACKAGE = "vllm.model_executor.models"


@cache
def architectures() -> dict[str, tuple[str, str]]:
    """Architecture of a config.json -> (module, class) of vLLM's causal language models."""
    found: dict[str, tuple[str, str]] = {}
    for node in _tree(f"{PACKAGE}.registry").body:
        names = {target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)}
        if isinstance(node, ast.Assign) and names & {*TABLES}:
            found |= ast.literal_eval(node.value)
    return found


def supports_lora(architecture: str) -> bool:
    """Whether the class that vLLM has for an architecture takes adapters."""
    module, name = architectures()[architecture]
    return LORA in _ancestors(module if module.startswith("vllm.") else f"{PACKAGE}.{module}", name)


@cache
def _ancestors(module: str, name: str) -> frozenset[str]:
    """Names of all the classes that a class is made from, as far as they stand in vLLM's sources."""
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            return frozenset(bases).union(*(_ancestors(*_origin(module, base)) for base in bases if base != name))
    where, original = _origin(module, name)
    return _ancestors(where, original) if where != module and where.startswith("vllm") else frozenset()


def _origin(module: str, name: str) -> tuple[str, str]:
    """Where a name of a module comes from: the module itself, or the one that it is imported from."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names):
            parts = module.split(".") if _path(module).name == "__init__.py" else module.split(".")[:-1]
            above = ".".join(parts[: len(parts) - node.level + 1]) + "." if node.level else ""
            return f"{above}{node.module or ''}".rstrip("."), next(
                alias.name for alias in node.names if (alias.asname or alias.name) == name
            )
    return module, name


@cache
def _tree(module: str) -> ast.Module:
    path = _path(module)
    return ast.parse(path.read_text()) if path.exists() else ast.Module([], [])


def _path(module: str) -> Path:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None or not module.startswith("vllm"):
        return Path("/nowhere.py")
    path = Path(spec.origin).parent.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
