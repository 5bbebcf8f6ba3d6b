"""Replicas as an executor: any other executor, once in every actor, behind the same contract.

The driver holds no model. It cuts a step into items, collects their losses, and writes them into the log; every replica applies
the same update, drawn from the same seed, when its next message brings the losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import torch

from bench.api import Probe, Snapshot, Update, Workload
from bench.config import RunSpec
from bench.data import Batch, ModelSource, TaskData
from bench.errors import UsageError
from bench.executors.replicated.cluster import Cluster, named, need
from bench.executors.replicated.items import Numbered, combine, cut, pieces
from bench.executors.replicated.log import Log
from bench.executors.replicated.pool import Pool
from bench.executors.replicated.replica import Replica
from bench.registry import check, make_workload
from workloads.models.digest import model_digest
from workloads.models.scope import layout
from workloads.steps import scored
from workloads.tasks.loss import stacked


class ReplicatedExecutor:
    """replica: what runs in an actor; tests put one in its place that fails on purpose."""

    name = "replicated"
    leaves_residue = False
    replica: type[Replica] = Replica

    def load(self, spec: RunSpec, source: ModelSource, task: TaskData) -> None:
        """Start the replicas, each with a model of its own. UsageError for a cluster that cannot be joined."""
        import ray

        check(spec)
        self.spec, self.task, self.workload = spec, task, make_workload(spec)
        self.numbered, self.log = Numbered(task), Log()
        size = getattr(torch, spec.dtype).itemsize
        state_bytes = sum(torch.Size(shape).numel() for shape in layout(source, "full").values()) * size
        self.cluster = Cluster(spec, state_bytes)
        resources = need(spec)
        given = ray.put(self.given(spec.alone(), source, replace(task, decode=None), model_digest(source), spec.replica_cpus))
        actor: Any = ray.remote(self.replica).options(
            num_cpus=resources["CPU"], num_gpus=resources["GPU"], max_restarts=-1, max_task_retries=-1
        )
        room, wanted = self.cluster.room, None if spec.replicas == "auto" else int(str(spec.replicas))
        if wanted is not None and wanted > (most := room()):
            raise UsageError(
                f"--replicas {wanted}: the cluster has room for {most} of {named(resources)} each; give fewer, or add machines"
            )
        self.pool = Pool(actor.remote, given, self.log, room, wanted, spec.replica_timeout_s)
        self.pool.open()

    def given(self, *parts: Any) -> tuple[Any, ...]:
        """What every replica is made from."""
        return parts

    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        step = probes[0].direction.step
        given: Any = step if tuple(probes) == self.workload.plan(step) else tuple(probes)
        items = cut(probes, batch, self.spec.shares)
        found = self.pool.run(("score", given, self.numbered.pack(batch)), items)
        return combine(found, items, len(probes), batch, self.task.objective)

    def step(self, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
        losses = scored(self, workload, step, batch)
        self.replay(workload, step, losses)
        return losses

    def apply(self, update: Update) -> None:
        self.log.add(replace(update, terms=tuple((direction, amount.cpu()) for direction, amount in update.terms)))

    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        every = self.spec.checksum_every
        due = every > 0 and (step + 1) % every == 0
        self.log.add((step, losses.tolist(), due, None if workload == self.workload else workload))

    def evaluate(self, examples: Batch) -> torch.Tensor:
        return stacked(self.pool.run(("evaluate", None, self.numbered.pack(examples)), pieces(len(examples))))

    def generate(self, examples: Batch) -> list[tuple[int, ...]]:
        found = self.pool.run(("generate", None, self.numbered.pack(examples)), pieces(len(examples)))
        return [answer for piece in found for answer in piece]

    def switch(self, spec: RunSpec) -> None:
        check(spec)
        self.log.keep(self.workload)
        self.spec, self.workload = spec, make_workload(spec)
        self.pool.each("switch", spec.alone())

    def snapshot(self) -> Snapshot:
        found: Snapshot = self.pool.snapshot()
        return found

    def restore(self, snapshot: Snapshot) -> None:
        import ray

        self.log.jumped(ray.put(snapshot))

    def checksum(self) -> str:
        return str(self.pool.ask("checksum"))

    def parameters(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.pool.ask("parameters").items()}

    def seed(self, step: int) -> int:
        return self.workload.plan(step)[0].direction.seed

    def work(self, batch: Batch, probes: Sequence[Probe], *then: Sequence[Probe]) -> dict[str, int]:
        """Of all items together, wherever they run."""
        total: dict[str, int] = {}
        items = [(some, item) for some in (probes, *then) for item in cut(some, batch, self.spec.shares)]
        for some, (first, last, start, stop) in items:
            for name, count in self.pool.ask("work", batch[start:stop], some[first:last]).items():
                largest = name in ("weight_bytes_written", "fold_bytes_written")  # once a step on every replica, not once an item
                total[name] = max(total.get(name, 0), count) if largest else total.get(name, 0) + count
        return total

    def memory_parts(self) -> dict[str, int]:
        """Of one replica."""
        found: dict[str, int] = self.pool.ask("memory_parts")
        return found

    def details(self) -> dict[str, Any]:
        pool = self.pool
        warnings = [
            f"replica {number} had another state than the others after {position} updates and got theirs: "
            "its device or its software differs"
            for position, number in pool.checksums.differed
        ]
        warnings += [f"replica {member.number} is gone: {member.lost}" for member in pool.members if member.lost]
        found = pool.ask("details")
        inner = found.pop("warnings", [])
        steps = [timing for timing in pool.timings if timing.answers and timing.what == "score"]
        return found | {
            "replicas": len(pool.present),
            "nodes": sorted({member.node for member in pool.present}),
            "restarts": pool.restarts,
            "joined_late": pool.joined_late,
            "repeated_messages": pool.repeats,
            "checksums_compared": pool.checksums.compared,
            "bytes_per_replica_and_step": fmean(t.sent_bytes / len(t.answers) for t in steps) if steps else 0.0,
            "warnings": [*inner, *warnings],
        }

    def close(self) -> None:
        if hasattr(self, "pool"):
            self.pool.close()
        if hasattr(self, "cluster"):
            self.cluster.close()
        self.__dict__.clear()
