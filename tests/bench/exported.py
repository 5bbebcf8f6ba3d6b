"""What was exported, loaded by peft and transformers and scored by plain forwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from killing import Killable

from bench.data import ModelSource, TaskData
from workloads.tasks.load import load_task


def task_of(run: Killable) -> TaskData:
    return load_task("sst2", source=ModelSource(str(run.model), str(run.model), "pretrained"), data=str(run.data))


def held_out_loss(model: Any, run: Killable) -> float:
    """Cross-entropy over the options' log-probs, by a plain forward for each option."""
    losses = []
    for example in task_of(run).eval:
        with torch.no_grad():
            scores = [
                torch.stack([row[token] for row, token in zip(rows.log_softmax(-1), option, strict=True)]).mean()
                for option in example.options
                for rows in [model(torch.tensor([example.prompt + option])).logits[0, len(example.prompt) - 1 : -1]]
            ]
        losses.append(-torch.stack(scores).log_softmax(0)[example.label])
    return float(torch.stack(losses).mean())


def evaluated(run: Killable, split: str) -> float:
    return [found.loss for found in run.session.evaluations if found.split == split][-1]


def base(run: Killable) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(run.model, dtype=torch.float32).eval()


def adapted(run: Killable, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base(run), folder).eval()


def merged(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def merged_from(bench, run: Killable, folder: Path, *more: str) -> Any:
    outcome = bench("export", run.id, "--format", "merged", *more, "--output", str(folder), "--results", str(run.folder))
    assert outcome.code == 0, outcome.err
    return merged(folder)
