"""vLLM as an executor: it opens the engine and hands the steps to the worker, or goes through vLLM's public requests."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bench.api import Probe, Snapshot, Update, Workload, phase
from bench.config import RunSpec
from bench.data import Batch, ModelSource
from bench.errors import UsageError
from bench.executors.vllm import engine
from bench.executors.vllm.refusals import check_model
from bench.executors.vllm.requests import Requested
from bench.executors.vllm.sizes import largest_forward, pass_work, reach, room_for
from bench.registry import check, make_workload
from workloads.directions import Layout
from workloads.models.adapter import SCOPE, Adapter, kind, reached
from workloads.models.memory import release
from workloads.models.scope import layout
from workloads.parameters.checksum import joined
from workloads.parameters.shards import Shards, merged, merged_snapshot
from workloads.steps import core_step, rounds
from workloads.tasks.loss import batch_loss
from workloads.tasks.passes import Pass, mean_loss, passes
from workloads.tasks.reward import Answered, reward_losses

if TYPE_CHECKING:
    from bench.data import TaskData


class VllmExecutor:
    """`--loop resident` runs whole steps in the worker; `--loop requests` scores through LLM.generate. The state is the same."""

    name = "vllm"
    leaves_residue = False

    def __init__(self) -> None:
        self._llm: Any = None
        self._folder: str | None = None

    def load(self, spec: RunSpec, source: ModelSource, task: TaskData) -> None:
        """Start the engine, open an adapter slot for each probe of a step, give the worker its state."""
        check(spec)
        check_model(spec, source)
        self._task, self.spec, self._answers = task, spec, Answered((), 1)
        workload = make_workload(spec)
        probes, lowrank = max(map(len, rounds(workload))), workload.kind == "lowrank"
        full, scoped = layout(source, "full"), reached(source, spec)
        self._adapter = Adapter.of(source, spec) if spec.scope == SCOPE else None
        self._scoped_bytes = sum(math.prod(shape) for shape in scoped.values()) * getattr(torch, spec.dtype).itemsize
        self._rounded_bytes = self._scoped_bytes // getattr(torch, spec.dtype).itemsize if spec.quantization == "fp8" else 0
        self._slots = 0 if spec.lora == "dense" else probes
        self._columns = engine.slot_rank(spec.adapter_rank if self._adapter else spec.rank * (2 if lowrank else 1))
        self._out_rows = sum(shape[0] for shape in scoped.values() if len(shape) == 2)
        self._in_rows = sum(shape[1] for shape in scoped.values() if len(shape) == 2)
        self._vocabulary = next(iter(full.values()))[0]
        options = max(len(example.options) for example in (*task.train, *task.dev, *task.eval))
        self._rows = spec.batch_size * (probes if spec.batching == "paired" else 1)
        self._rows *= 1 if self._labels_only else options
        self._rows = max(self._rows, options)
        self._chunk = max(1, self._rows // options)
        self._most = room_for(spec, source, task, full)
        spec = self.spec = self._bounded(spec)
        set_num_threads = torch.set_num_threads
        self._llm = engine.start(
            spec,
            source,
            slots=self._slots,
            rank=self._columns,
            rows=self._rows,
            longest=task.max_tokens,
            tokens=largest_forward(task, probes if spec.batching == "paired" else 1, self._rows, spec.max_tokens),
            keeps_keys=not task.single_token_options or task.answer_tokens > 0,
            modules=sorted({kind(name) for name in scoped}),
        )
        torch.set_num_threads = set_num_threads  # vLLM's CPU worker puts a stub in its place, for the whole process
        self._requests = self._open_slots(scoped)
        self._requested = Requested(self._llm, adapters=bool(self._slots))
        adapters = [request.lora_int_id for request in self._requests]
        self.set_up(spec, scoped, adapters)

    def set_up(self, spec: RunSpec, scoped: Layout, adapters: list[int]) -> None:
        """Give every rank its state, and learn which part of it each of them holds."""
        found = self._rpc_each("zo_setup", spec, scoped, adapters, reach(self._task, spec.batch_size), self._task.objective)
        self._shards: list[Shards] = [shards for shards in found if shards is not None]

    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        if self.spec.loop == "resident":
            return self._rpc("zo_score", batch, probes)
        self._answers = Answered((), 1)
        if self.spec.lora == "dense":
            losses = []
            for probe in probes:
                self._rpc("zo_write_dense", probe)
                losses.append(self._request_losses(batch, [None]))
            self._rpc("zo_write_dense", None)
            return torch.cat(losses)
        self._rpc("zo_prepare", probes)
        used = self._requests[: len(probes)]
        groups = [used] if self.spec.batching == "paired" else [[request] for request in used]
        return torch.cat([self._request_losses(batch, group) for group in groups])

    def apply(self, update: Update) -> None:
        self._rpc("zo_apply", update)

    def step(self, workload: Workload, step: int, batch: Batch) -> torch.Tensor:
        if self.spec.loop == "resident":
            return self._rpc("zo_step", workload, step, batch)
        return core_step(self, workload, step, batch)

    def replay(self, workload: Workload, step: int, losses: torch.Tensor) -> None:
        self._rpc("zo_replay", workload, step, losses)

    def snapshot(self) -> Snapshot:
        """Of the whole model, however many ranks share it: what one of them wrote another number of them restores."""
        parts: list[Snapshot] = self._rpc_each("zo_snapshot")
        return merged_snapshot(parts, self._shards) if self._shards else parts[0]

    def restore(self, snapshot: Snapshot) -> None:
        self._rpc("zo_restore", snapshot)

    def checksum(self) -> str:
        return joined(self._rpc_each("zo_sums")) if self._shards else self._rpc("zo_checksum")

    def seed(self, step: int) -> int:
        return self.spec.seed

    def evaluate(self, examples: Batch) -> torch.Tensor:
        if self.spec.loop == "resident":
            return self._rpc("zo_evaluate", examples, self._chunk)
        adapter = self._requests[0] if self._rpc("zo_prepare_current") else None
        scores = self._requested.option_logprobs(examples, [adapter], shared=self.spec.kv == "shared")[0]
        if self.spec.lora == "dense":
            self._rpc("zo_write_dense", None)
        return scores

    def generate(self, examples: Batch) -> list[tuple[int, ...]]:
        adapter = self._requests[0] if self._rpc("zo_prepare_current") else None
        (answers,) = self._requested.generate(examples, [adapter], self._task.answer_tokens, self._task.stop_ids)
        if self.spec.lora == "dense":
            self._rpc("zo_write_dense", None)
        return answers

    def parameters(self) -> dict[str, torch.Tensor]:
        parts = self._rpc_each("zo_parameters")
        values = merged(parts, self._shards) if self._shards else parts[0]
        return values if self._adapter is None else self._adapter.named(values)

    def switch(self, spec: RunSpec) -> None:
        """Between steps, in the loaded engine; it must have been loaded for at least as many rows."""
        check(spec)
        if spec.variant and spec.loop == "requests":
            raise UsageError(f"--loop requests: vLLM's own loop has no variant {spec.variant!r}; use --loop resident")
        if spec.lora != "dense" and not self._slots:
            raise UsageError("--lora dense: the engine was started without adapter slots; start it with --lora fused to switch")
        self.spec = self._bounded(spec)
        self._rpc("zo_use", self.spec)

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """While it lasts, recorded passes run kernel by kernel, so that a profiler sees what each kernel is for."""
        self._rpc("zo_replays", False)
        try:
            yield
        finally:
            self._rpc("zo_replays", True)

    def details(self) -> dict[str, Any]:
        found = self._rpc("zo_facts") | {
            "threads": torch.get_num_threads(),
            "slots": self._slots,
            "slot_rank": self._columns if self._slots else 0,
            "prefix_caching": bool(self._llm.llm_engine.vllm_config.cache_config.enable_prefix_caching),
            "kv_used": self.spec.kv,
            "max_tokens": self.spec.max_tokens,
        }
        return found | ({"memory_by_rank": self._rpc_each("zo_memory_parts")} if self._shards else {})

    def start_tracing(self, names: Sequence[str]) -> None:
        """`--loop resident`: every rank traces the whole steps to come."""
        self._rpc("zo_start_tracing", list(names))

    def stop_tracing(self) -> list[dict[str, Any]]:
        return [json.loads(trace) for trace in self._rpc_each("zo_stop_tracing")]

    def memory_parts(self) -> dict[str, int]:
        """Of all ranks together."""
        parts = self._rpc_each("zo_memory_parts")
        return {name: sum(part[name] for part in parts) for name in parts[0]}

    def work(self, batch: Batch, probes: Sequence[Probe], *then: Sequence[Probe]) -> dict[str, int]:
        spec, sizes, direction = self.spec, list(map(len, (probes, *then))), probes[0].direction
        n = sum(sizes)
        if spec.reward is not None:
            made = self._answers.work(batch, n, self._vocabulary)
            tokens, count, forwards, head = (made[name] for name in ("tokens_real", "rows", "forwards", "head_rows"))
            read = tokens
        else:
            given, counts = (spec, self._task.objective, self._vocabulary), self._rpc("zo_counts")
            groups = Counter(sizes) if spec.batching == "paired" else {1: n}
            runs = [(times, of, part.examples) for of, times in groups.items() for part in self._passes(batch, of)]
            parts = [[times * one for one in pass_work(*given, examples, of, counts)] for times, of, examples in runs]
            tokens, count, forwards, head, read = map(sum, zip(*parts, strict=True))
        updates = sum(self._rpc_each("zo_written", len({probe.direction for probe in probes})))
        a_rows = self._in_rows if direction.kind == "factorized" else 0
        itemsize = getattr(torch, spec.dtype).itemsize
        slots = n * itemsize * (self._out_rows * self._columns + a_rows * spec.rank)
        written = {
            "weight_bytes_written": updates + (n + len(sizes)) * (self._scoped_bytes if spec.lora == "dense" else 0),
            "fold_bytes_written": self._scoped_bytes + self._rounded_bytes if direction.factored else 0,
            "adapter_bytes_written": 0 if spec.lora == "dense" else slots,
        }
        if self._adapter is not None:  # the updates, too, go into the adapter
            written = dict.fromkeys(written, 0) | {"adapter_bytes_written": n * itemsize * self._adapter.size + updates}
        return {
            "forwards": forwards,
            "rows": count,
            "tokens_scored": tokens,
            "tokens_real": tokens,
            "head_rows": head,
            **written,
            "host_syncs": len(then) if spec.loop == "resident" else forwards,
        } | ({} if read == tokens else {"tokens_read": read})

    def close(self) -> None:
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            release()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    @property
    def _labels_only(self) -> bool:
        """Whether options cost no row of their own: all are one token, read from the prompt's last position."""
        return self.spec.kv == "shared" and self._task.single_token_options

    def _bounded(self, spec: RunSpec) -> RunSpec:
        return replace(spec, max_tokens=spec.max_tokens or self._most)

    def _passes(self, batch: Batch, probes: int) -> list[Pass]:
        """The forwards of so many states."""
        most, shares = self.spec.max_tokens, self._rpc("zo_counts").shares if self.spec.loop == "resident" else engine.BLOCK
        return passes(batch, self._task.objective, engine.forward_tokens(self.spec.kv, probes, most, shares), most)

    def _open_slots(self, scoped: dict[str, tuple[int, ...]]) -> list[Any]:
        if not self._slots:
            return []
        from vllm.lora.request import LoRARequest

        first = {kind(name): name for name in reversed(scoped)}
        self._folder = tempfile.mkdtemp(prefix="zo-adapter-")
        path = engine.write_empty_adapter(self._folder, {name: scoped[name] for name in first.values()})
        requests = [LoRARequest(f"probe{i}", i, path) for i in range(1, self._slots + 1)]
        for request in requests:
            self._llm.llm_engine.add_lora(request)
        return requests

    def infer(self, batch: Batch) -> int:
        lengths, states = self._answers.lengths, self._answers.rows // len(batch)
        for start in range(0, len(lengths), states):
            self._requested.repeat(batch, lengths[start : start + states])
        return self._answers.tokens

    def _request_losses(self, batch: Batch, adapters: Sequence[Any]) -> torch.Tensor:
        """Of the states that stand in these adapters' slots; with a reward, minus its mean over the answers."""
        if self.spec.reward is not None:
            with phase("score"):
                answers = self._requested.generate(batch, adapters, self._task.answer_tokens, self._task.stop_ids)
            self._answers += Answered.of(self._task, answers, len(answers) * len(batch))
            with phase("host"):
                return reward_losses(self._task, batch, answers)
        with phase("score"):
            shared, objective = self.spec.kv == "shared", self._task.objective

            def loss(part: Batch) -> torch.Tensor:
                return batch_loss(objective, self._requested.option_logprobs(part, adapters, shared=shared), part)

            return mean_loss(self._passes(batch, len(adapters)), loss)

    def _rpc(self, name: str, *args: Any) -> Any:
        """What the first rank answers; all of them do it."""
        return self._rpc_each(name, *args)[0]

    def _rpc_each(self, name: str, *args: Any) -> list[Any]:
        found: list[Any] = self._llm.collective_rpc(name, args=args)
        return found
