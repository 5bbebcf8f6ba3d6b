"""Finding a model: the table, local folders, the hub out of reach; names that are no names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench.data import Example, TaskData
from bench.defaults import complete
from bench.errors import UsageError
from workloads.models.positions import refuse_unknown_ids
from workloads.models.published import MODELS
from workloads.models.table import resolve_model


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZO_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def parameters(name: str) -> int:
    from workloads.models.scope import layout

    shapes = layout(resolve_model(name, "random"), "full").values()
    total = 0
    for shape in shapes:
        size = 1
        for part in shape:
            size *= part
        total += size
    return total


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("opt-125m", 125_239_296), ("opt-350m", 331_196_416), ("opt-1.3b", 1_315_758_080), ("opt-13b", 12_853_473_280),
        ("llama-3.2-1b", 1_235_814_400), ("llama-3.2-3b", 3_212_749_824), ("llama-3.1-8b", 8_030_261_248),
        ("qwen3-0.6b", 596_049_920), ("qwen3-1.7b", 1_720_574_976), ("qwen3-4b", 4_022_468_096), ("qwen3-8b", 8_190_735_360),
        ("mistral-7b", 7_248_023_552), ("gemma-3-1b", 999_885_952), ("gemma-3-4b", 3_880_263_168),
        ("phi-3-mini", 3_821_079_552), ("phi-4-mini", 3_836_021_760), ("pythia-70m", 70_426_624), ("pythia-160m", 162_322_944),
        ("pythia-410m", 405_334_016), ("pythia-1b", 1_011_781_632), ("pythia-1.4b", 1_414_647_808),
        ("pythia-2.8b", 2_775_208_960), ("pythia-6.9b", 6_857_302_016), ("pythia-12b", 11_846_072_320),
    ],
)  # fmt: skip
def test_random_weights_have_the_published_architecture(name: str, published: int) -> None:
    assert parameters(name) == published


def test_a_local_folder_needs_weights_unless_they_are_random(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MODELS["opt-125m"].config))
    with pytest.raises(UsageError, match=r"--weights auto: no weights .* use --weights random"):
        resolve_model(str(tmp_path), "auto")
    assert resolve_model(str(tmp_path), "random").path == str(tmp_path)
    save_file({"w": np.zeros(1)}, tmp_path / "model.safetensors")
    assert resolve_model(str(tmp_path), "auto").weights == "pretrained"


@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_the_hub_out_of_reach_says_what_to_do(weights: str) -> None:
    with pytest.raises(UsageError, match=r"facebook/opt-125m is not cached .* --weights random"):
        resolve_model("opt-125m", weights)


@pytest.mark.parametrize("name", ["", "../secret", "a b", "a/b/c", "x;rm", "/no/such/folder"])
def test_names_that_are_no_models(name: str) -> None:
    with pytest.raises(UsageError, match="--model"):
        resolve_model(name, "random")


def test_the_table_needs_neither_torch_nor_transformers() -> None:
    code = "import workloads.models, sys; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'vllm')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_opt_mini_has_random_weights_alone_and_the_shape_it_declares():
    import torch

    from workloads.models.tiny import VOCABULARY
    from workloads.models.weights import load_model

    source = resolve_model("opt-mini", "auto")
    assert source.weights == "random" and MODELS["opt-mini"].config["vocab_size"] == VOCABULARY
    layer = 4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 4 * 384  # attention, feed-forward, norms
    around = (VOCABULARY + 2048 + 2) * 384 + 2 * 384  # embeddings, tied to the head, positions and OPT's two more, last norm
    assert sum(p.numel() for p in load_model(source, torch.float32, "cpu").parameters()) == 6 * layer + around
    with pytest.raises(UsageError, match="opt-mini: has random weights alone"):
        resolve_model("opt-mini", "pretrained")


@pytest.mark.parametrize(
    ("model", "device", "given", "dtype"),
    [
        ("llama-3.2-1b", "cuda", {}, "bfloat16"),
        ("llama-3.2-1b", "cuda", {"dtype": "float16"}, "float16"),
        ("llama-3.2-1b", "cpu", {}, "float32"),
        ("pythia-70m", "cuda", {}, "float16"),
        ("opt-125m", "cuda", {}, "float16"),
    ],
)
def test_a_gpu_takes_the_type_the_checkpoint_was_saved_in(
    model: str, device: str, given: dict, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.defaults.pick_device", lambda _: device)
    assert complete({"executor": "eager", "model": model, "weights": "random", **given}).dtype == dtype


def test_ids_that_the_embedding_has_no_row_for_are_refused() -> None:
    """Of a prompt, an option or the padding."""

    def task(prompt: int, option: int, pad: int) -> TaskData:
        return TaskData((Example((0, prompt), ((option,), (3,)), 0),), (), (), "t", pad, 3, True, {})

    source = resolve_model("pythia-70m", "random")
    refuse_unknown_ids(source, task(50303, 50303, 50303))
    for wrong in (task(50304, 1, 1), task(1, 50304, 1), task(1, 1, 50304)):
        with pytest.raises(UsageError, match=r"pythia-70m: its tokenizer gives the id 50304, .* ends at 50303; use"):
            refuse_unknown_ids(source, wrong)
