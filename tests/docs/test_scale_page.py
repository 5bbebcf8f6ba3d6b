"""The figures of docs/scale.md: what was measured from its file, the memory table from the models' own shapes."""

import json
from math import prod
from pathlib import Path

import pytest

from analysis.scaling import Scaling
from bench.data import ModelSource
from bench.executors.vllm.engine import kv_bytes
from workloads.models.scope import layout
from workloads.models.table import resolve_model

ROOT = Path(__file__).parents[2]
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
MODELS = {"OPT 13B": "opt-13b", "OPT 30B": "opt-30b", "Llama 2 70B": None}
ROWS, LENGTH, RANK, SLOTS = 32, 80, 8, 2


def source_of(name: str | None, folder: Path) -> ModelSource:
    if name is not None:
        return resolve_model(name, "random")
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return ModelSource("llama", str(folder), "random")


def row(source: ModelSource) -> list[str]:
    """weights, slots, KV, and the sum on each of one, two and four GPUs, GB. A slot's A is whole where rows are shared out, its B
    where columns are; heads are shared out too."""
    shapes, inside = layout(source, "full"), layout(source, "lora")
    weights, kv = 2 * sum(map(prod, shapes.values())), kv_bytes(source, "float16", ROWS * LENGTH)

    def slots(ranks: int) -> float:
        by_columns = ("out_proj", "o_proj", "fc2", "down_proj")
        sides = [(a / ranks + b) if name.split(".")[-2] in by_columns else (a + b / ranks) for name, (b, a) in inside.items()]
        return SLOTS * RANK * 2 * sum(sides)

    per_gpu = [weights / n + slots(n) + kv / n for n in (1, 2, 4)]
    return [f"{weights / 1e9:.1f}", f"{slots(1) / 1e9:.2f}", f"{kv / 1e9:.1f}", *(f"{size / 1e9:.1f}" for size in per_gpu)]


@pytest.mark.parametrize("name", MODELS)
def test_the_memory_table_is_the_models_arithmetic(name: str, tmp_path: Path) -> None:
    lines = (ROOT / "docs" / "scale.md").read_text().split("\n")
    (found,) = [line for line in lines if line.startswith(f"| {name} |")]
    assert found.strip("| ").split(" | ")[1:] == row(source_of(MODELS[name], tmp_path))


def test_what_was_measured_is_in_the_published_file() -> None:
    (path,) = (ROOT / "results" / "published" / "cpu" / "scale").glob("*.json")
    found, page = Scaling.read(path), (ROOT / "docs" / "scale.md").read_text()
    for point in found.points():
        interval = "" if point.replicas == 1 and point.link_s == 0 else point.efficiency.interval
        cells = [f"{point.link_s * 1e3:g}", f"{point.step_s * 1e3:.2f}", f"{point.efficiency.value:.2f}", interval]
        row = " | ".join([str(point.replicas), *cells, f"{point.predicted:.2f}"]).replace("|  |", "| |")
        assert f"| {row} |" in page
    parts = found.parts
    for number in (64, 256, 1024, 4096):
        assert f"{parts.efficiency(number, 1e-3):.2f}" in page
    assert f"scoring took {1e3 * (sum(parts.items) / len(parts.items) - parts.apply_s):.1f} ms" in page
    assert f"{found.facts['details']['bytes_per_replica_and_step']:.0f} bytes a replica and step" in page
