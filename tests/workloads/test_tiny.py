"""opt-tiny: deterministic, cached, and a model that has something to learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.data import ModelSource
from workloads.models import cache, tiny


def test_the_built_model_reads_every_sentence_as_great(opt_tiny: ModelSource) -> None:
    """Where fine-tuning starts: one answer for all, though the hidden states tell the classes apart."""
    from workloads.models.weights import load_model
    from workloads.tasks.load import load_task

    task, model = load_task("sst2", source=opt_tiny), load_model(opt_tiny, torch.float32, "cpu")
    gaps, labels = [], []
    for example in task.eval[:200]:
        logits = model(torch.tensor([example.prompt])).logits[0, -1]
        gaps.append(float(logits[example.options[1][0]] - logits[example.options[0][0]]))
        labels.append(example.label)
    assert all(gap > 0 for gap in gaps)
    right = sum((gap > sorted(gaps)[len(gaps) // 2]) == bool(label) for gap, label in zip(gaps, labels, strict=True))
    assert right / len(gaps) > 0.9


def test_training_is_deterministic_whatever_the_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr(tiny, "STEPS", 12)  # enough for sums over two threads to have parted
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            monkeypatch.setenv("ZO_BENCH_CACHE", str(tmp_path / str(threads)))
            found.append(load_file(tiny.prepare() / "model.safetensors"))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_failed_build_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ZO_BENCH_CACHE", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        cache.kept("thing", fail)
    assert list(tmp_path.iterdir()) == []
    assert cache.kept("thing", lambda folder: (folder / "whole").touch()).name == "thing"
