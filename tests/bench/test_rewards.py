"""Training by rewards of generated answers: the same texts on eager and vllm, a run that learns and resumes, its throughput."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from served import Served

from baselines.eager.executor import EagerExecutor
from bench.config import RunSpec
from bench.data import ModelSource, TaskData
from bench.defaults import complete
from bench.errors import UsageError
from bench.executors.vllm.executor import VllmExecutor
from bench.registry import check, make_workload
from workloads.directions import draw
from workloads.models.scope import layout, views
from workloads.models.weights import load_model
from workloads.tasks.batches import batch_stream
from workloads.tasks.judge import judge
from workloads.tasks.load import load_task

PRAISE = "workloads.tasks.tiny.sentence:praise"
GIVEN: dict[str, Any] = {"workload": "eggroll", "task": "tiny-sentence", "reward": PRAISE, "device": "cpu", "batch_size": 6}


def spec_of(executor: str, **changes: Any) -> RunSpec:
    return complete(GIVEN | {"executor": executor} | changes)


@pytest.fixture(scope="module")
def task(opt_tiny: ModelSource) -> TaskData:
    """Every text that is rewarded is kept in `texts`, in order."""
    return load_task("tiny-sentence", source=opt_tiny, reward=PRAISE)


class Kept:
    """A task whose reward keeps what it is given."""

    def __init__(self, task: TaskData) -> None:
        self.seen: list[tuple[str, str]] = []
        inner = task.reward
        assert inner is not None

        def reward(prompt: str, text: str, example: Any) -> float:
            self.seen.append((prompt, text))
            return inner(prompt, text, example)

        self.task = replace(task, reward=reward)


def plain_texts(source: ModelSource, spec: RunSpec, task: TaskData, batch: Any) -> list[tuple[str, str]]:
    """Greedy answers of all members: weights written out, one prompt at a time, every token by a whole forward."""
    model: Any = load_model(source, torch.float32, "cpu")
    weights, found = views(model, "lora"), []
    base = {name: weight.clone() for name, weight in weights.items()}
    for probe in make_workload(spec).plan(0):
        z = draw(probe.direction, layout(model, "lora"), "cpu")
        for name, weight in weights.items():
            weight.copy_(base[name] + probe.shift * z.delta(name))
        for example in batch:
            ids: list[int] = []
            while len(ids) < task.answer_tokens:
                with torch.no_grad():
                    token = int(model(torch.tensor([[*example.prompt, *ids]])).logits[0, -1].argmax())
                if token in task.stop_ids:
                    break
                ids.append(token)
            assert task.decode is not None
            found.append((task.decode(example.prompt), task.decode(ids).strip()))
    return found


@pytest.fixture(scope="module")
def vllm(opt_tiny: ModelSource, task: TaskData) -> Iterator[tuple[Served, Kept]]:
    kept = Kept(task)
    served = Served(opt_tiny, spec_of("vllm", rank=4), replace(spec_of("vllm", workload="mezo"), scope="full"), kept.task)
    yield served, kept
    served.executor.close()


CELLS: list[dict[str, Any]] = [{}, {"batching": "sequential"}, {"lora": "unfused", "rank": 4}]


@pytest.mark.parametrize("changes", CELLS, ids=str)
def test_members_say_the_same_on_eager_and_vllm(
    changes: dict, vllm: tuple[Served, Kept], opt_tiny: ModelSource, task: TaskData
) -> None:
    """In float32, three steps: every text of every member, its reward, and the losses the journal keeps."""
    served, seen = vllm
    kept, spec = Kept(task), spec_of("eager", **changes)
    eager, engine = EagerExecutor(), served.by(spec_of("vllm", **changes))
    eager.load(spec, opt_tiny, kept.task)
    whole = eager.spec
    seen.seen.clear()
    method, batch = make_workload(spec), task.train[:6]
    passes = count_forwards(engine)
    for step in range(3):
        eager.switch(replace(whole, max_tokens=4 * task.max_tokens) if step == 1 else whole)  # a batch in several parts
        theirs = eager.step(method, step, batch)
        before = len(passes)
        assert torch.equal(engine.step(method, step, batch), theirs)
        assert len(seen.seen) == len(kept.seen) == (step + 1) * 8 * 6
        if step == 0:
            assert kept.seen == plain_texts(opt_tiny, spec, task, batch)
            assert len({text for _, text in kept.seen}) > 4
        assert seen.seen == kept.seen
        counted = engine.work(batch, method.plan(step))
        assert counted["forwards"] <= len(passes) - before <= counted["forwards"] + (1 if spec.batching == "paired" else 8)
        ours = eager.work(batch, method.plan(step))
        assert ours["tokens_real"] == counted["tokens_real"] and ours["tokens_scored"] >= ours["tokens_real"]
        if step == 2:
            assert engine.infer(batch) == eager.infer(batch) == engine._answers.tokens
    error = sum((eager.parameters()[name] - value).square().sum() for name, value in engine.parameters().items())
    assert float(error) < 1e-6


def count_forwards(executor: VllmExecutor) -> list[int]:
    found: list[int] = []
    runner = executor._llm.llm_engine.model_executor.driver_worker.worker.model_runner
    runner.model.register_forward_hook(lambda *_: found.append(1))
    return found


@pytest.mark.parametrize(
    "changes", [{"workload": "mezo"}, {"workload": "mezo", "scope": "adapter"}, {"workload": "lozo", "rank": 2}], ids=str
)
def test_other_methods_train_by_rewards_too(
    changes: dict, vllm: tuple[Served, Kept], opt_tiny: ModelSource, task: TaskData
) -> None:
    served, _ = vllm
    more = changes | {"eps": 2e-2, "learning_rate": 1e-3}
    spec, eager = spec_of("eager", **more), EagerExecutor()
    engine, method, batch = served.by(spec_of("vllm", **more)), make_workload(spec), task.train[:6]
    eager.load(spec, opt_tiny, task)
    found = [(eager.step(method, step, batch), engine.step(method, step, batch)) for step in range(2)]
    assert all(torch.equal(theirs, ours) for theirs, ours in found)


@pytest.mark.parametrize("turned", [False, True])
def test_members_with_better_answers_pull_the_model(turned: bool, opt_tiny: ModelSource, task: TaskData) -> None:
    """Fifty steps on eager, towards the better members and away from them. Random losses are no control here: at this rate the
    model drifts, and may drift into repeating a word that is rewarded."""
    spec = replace(spec_of("eager"), batch_size=8)
    executor, method, stream = EagerExecutor(), make_workload(spec), batch_stream(task.train, 8, spec.seed)
    executor.load(spec, opt_tiny, task)
    held_out = task.eval[:150]

    def score() -> float:
        return judge(task, held_out, None, executor.generate(held_out)).score

    before = score()
    for step in range(50):
        losses = executor.score(next(stream), method.plan(step))
        executor.apply(method.update(step, -losses if turned else losses))
    after = score()
    print(f"\nreward {before:.3f} -> {after:.3f}{', turned round' if turned else ''}")
    assert after < before - 0.12 if turned else after > before + 0.12


def test_a_run_by_rewards_is_journalled_resumed_and_measured(bench: Callable[..., Any], tmp_path: Path) -> None:
    """Interrupted after its third step, it goes on to the same losses; the share of inference is in the file."""
    words = [text for name, value in GIVEN.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    short = ("--steps", "6", "--warmup", "0", "--eval-every", "6", "--record", "throughput", "--record", "counters")
    done = bench("run", *words, "--executor", "eager", *short)
    assert done.code == 0, done.err
    result = json.loads(Path(done.json["path"]).read_text())
    (session,) = result["sessions"]
    held_out = [found for found in session["evaluations"] if found["split"] == "eval"]
    assert (
        held_out[0]["metric"] == "reward" and held_out[0]["loss"] == -held_out[0]["accuracy"] == -held_out[0]["scores"]["reward"]
    )
    assert all(check["passed"] for check in session["checks"])
    found = session["findings"]["throughput"]
    assert (
        found["share"] > 0 and found["pairs"] == len(found["step_s"]) == len(found["inference_s"]) and min(found["tokens"]) >= 48
    )
    assert session["findings"]["counters"]["required"] is None
    (journal,) = (tmp_path / "results" / "local").glob("*.journal.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    cut = next(number for number, line in enumerate(lines) if b'"event":"step"' in line and b'"step":2' in line)
    journal.write_bytes(b"".join(lines[: cut + 1]))
    again = bench("run", "--resume", result["id"], "--results", str(tmp_path / "results"))
    assert again.code == 0, again.err
    resumed = json.loads(Path(again.json["path"]).read_text())["sessions"][0]
    assert resumed["losses"] == session["losses"] and resumed["evaluations"] == session["evaluations"]


def test_a_function_that_fails_ends_the_run_with_one_line(
    bench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def late(prompt, text, example):\n    raise KeyError('the tone')\n")
    monkeypatch.chdir(tmp_path)
    words = ("--workload", "eggroll", "--executor", "eager", "--task", "tiny-sentence", "--device", "cpu", "--no-profile")
    done = bench("run", *words, "--reward", "mine:late")
    assert done.code == 2 and "Traceback" not in done.err
    assert "--reward mine:late: failed on the answer" in done.err and "KeyError: 'the tone'" in done.err
    assert bench("run", *words, "--reward", "mine:early").code == 2


def test_what_is_refused() -> None:
    for changes, said in (
        ({"executor": "official"}, "--executor official trains by losses alone; use eager or vllm"),
        ({"executor": "vllm", "loop": "resident"}, "--loop resident: answers are generated by the engine's own scheduler"),
        ({"executor": "eager", "task": "sst2"}, "--task sst2 has no answers to generate"),
        ({"executor": "eager", "until": "f1=0.5"}, "--until f1=0.5: the task is judged by reward"),
    ):
        with pytest.raises(UsageError, match=said):
            check(complete(GIVEN | changes))
