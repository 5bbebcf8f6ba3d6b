"""The real executors under the recorders: what they say they write is what they write, and little of it is unexplained."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.config import RunSpec
from bench.harness.context import ProfileContext
from bench.harness.steps import core_step
from bench.recorders import observe
from bench.registry import EXECUTORS, resolve
from workloads.make import make_workload
from workloads.weights import layout

OFFICIAL = RunSpec(
    workload="lozo", executor="official", model="tiny", weights="random", task="sst2", dtype="float32", device="cpu",
    directions="upstream", batching="sequential", kv="recompute", lora="dense", loop="requests", batch_size=8, interval=3,
)  # fmt: skip
EAGER = replace(OFFICIAL, executor="eager", directions="shared", batching="paired", kv="shared", lora="fused")


class WeightWrites(TorchDispatchMode):
    """Counts the bytes of scoped weights replaced by a sum or difference with themselves, or changed in place."""

    NEW = ("aten.add.Tensor", "aten.sub.Tensor")
    IN_PLACE = ("aten.add_.Tensor", "aten.sub_.Tensor", "aten.copy_.default", "aten.addmm_.default", "aten._foreach_add_.List")

    def __init__(self, weights):
        super().__init__()
        self.weights, self.written = weights, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if str(func) in self.NEW + self.IN_PLACE:
            held = {weight.untyped_storage().data_ptr() for weight in self.weights}
            targets = args[0] if isinstance(args[0], (list, tuple)) else [args[0]]
            self.written += sum(t.nbytes for t in targets if t.untyped_storage().data_ptr() in held)
        return result


class Loaded:
    """A loaded executor with the batch, the workload and the scoped weights of its model."""

    def __init__(self, spec, source, task):
        self.spec, self.source, self.task, self.steps = spec, source, task, 0
        self.batch, self.workload = task.train, make_workload(spec)
        self.executor = resolve(EXECUTORS, "--executor", spec.executor)()
        self.executor.load(spec, source, task)
        named = dict(self.executor.model.named_parameters())
        self.weights = [named[name] for name in layout(source, spec.scope)]

    def step(self, *_):
        core_step(self.executor, self.workload, self.steps, self.batch)
        self.steps += 1

    def observe(self, *names):
        self.step()
        context = ProfileContext(
            self.executor, self.spec, self.source, self.task, self.batch, self.workload.plan(0), 1e-3, torch.device("cpu"), 3
        )
        return observe(context, names, self.step)

    def writes(self):
        with WeightWrites(self.weights) as counted:
            self.step()
        return counted.written

    @property
    def work(self):
        return self.executor.work(self.batch, self.workload.plan(0))

    @property
    def scoped_bytes(self):
        return sum(weight.nbytes for weight in self.weights)


@pytest.fixture
def load(tiny_source, tiny_task):
    return lambda spec, source=None: Loaded(spec, source or tiny_source("opt"), tiny_task)


@pytest.mark.parametrize("directions", ["upstream", "shared"])
@pytest.mark.parametrize("scope", ["lora", "full"])
def test_official_writes_its_weights_four_times_a_step(load, directions, scope):
    loaded = load(replace(OFFICIAL, directions=directions, scope=scope))
    assert loaded.writes() == loaded.work["weight_bytes_written"] == 4 * loaded.scoped_bytes


def test_adapters_write_no_weights_between_folds(load):
    loaded = load(EAGER)
    written = [loaded.writes() for _ in range(7)]
    fold = loaded.work["fold_bytes_written"]
    assert loaded.work["weight_bytes_written"] == 0
    assert fold == loaded.scoped_bytes
    assert written == [0, 0, 0, fold, 0, 0, fold]


def test_launches_of_official_grow_with_the_tensors(load, tiny_source, tmp_path):
    shallow = tiny_source("opt")
    config = json.loads((Path(shallow.path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    spec = replace(OFFICIAL, directions="shared")
    two, five = (load(spec, replace(shallow, path=path)) for path in (shallow.path, str(tmp_path)))
    rewrites = []
    for loaded in (two, five):
        for _ in range(10):  # its own sampling of absorbed updates is over
            loaded.step()
        rewrites.append(loaded.observe("launches")[0]["launches"]["by_bucket"]["weight_rewrite"])
    assert rewrites[1] / rewrites[0] == pytest.approx(len(five.weights) / len(two.weights), rel=0.05)


@pytest.mark.parametrize(
    "spec",
    [
        OFFICIAL,
        replace(OFFICIAL, workload="mezo", scope="full"),
        EAGER,
        replace(EAGER, lora="unfused", kv="recompute"),
        replace(EAGER, lora="dense", batching="sequential", workload="mezo", scope="full"),
        replace(EAGER, workload="factorized"),
    ],
    ids=lambda spec: f"{spec.executor}-{spec.workload}-{spec.lora}",
)
def test_every_executor_is_explained(load, spec):
    loaded = load(spec)
    found, warnings = loaded.observe("time_breakdown", "launches", "memory", "counters")
    times, memory = found["time_breakdown"], found["memory"]
    assert warnings == []
    assert times["buckets"].get("other", 0) < 0.05 * times["span_s"], times["largest"]["other"]
    assert {"perturb", "score", "update"} <= set(times["phases"])
    assert times["span_s"] == pytest.approx(median(times["wall_s"]), rel=0.5)
    assert {"gemm", "attention", "head_logits", "norm_activation", "direction_generation"} <= set(times["buckets"])
    assert ("weight_rewrite" in times["buckets"]) == (spec.lora == "dense" or spec.workload == "factorized" or spec.interval < 4)
    assert ("lora_shrink_expand" in times["buckets"]) == (spec.lora != "dense")
    assert memory["parts"]["weights"] == sum(p.nbytes for p in loaded.executor.model.parameters())
    assert memory["parts"]["activations_and_temporaries"] > 0
