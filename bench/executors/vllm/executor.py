"""vLLM as an executor: it opens the engine and hands the steps to the worker, or goes through vLLM's public requests."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bench.api import Probe, Snapshot, Update, Workload, phase
from bench.config import RunSpec
from bench.data import Batch, ModelSource
from bench.errors import UsageError
from bench.executors.vllm import engine
from bench.registry import check, make_workload
from workloads.models.memory import release
from workloads.models.weights import layout
from workloads.steps import core_step
from workloads.tasks.batches import sum_range
from workloads.tasks.ragged import full_rows, shared_rows

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
        self._task = task
        spec = self.spec = self._exact(spec)
        workload = make_workload(spec)
        probes, lowrank = len(workload.plan(0)), workload.kind == "lowrank"
        full, scoped = layout(source, "full"), layout(source, spec.scope)
        self._scoped_bytes = sum(math.prod(shape) for shape in scoped.values()) * getattr(torch, spec.dtype).itemsize
        self._slots = 0 if spec.lora == "dense" else probes
        self._columns = engine.slot_rank(spec.rank * (2 if lowrank else 1))
        self._out_rows = sum(shape[0] for shape in scoped.values() if len(shape) == 2)
        self._in_rows = sum(shape[1] for shape in scoped.values() if len(shape) == 2)
        self._vocabulary = next(iter(full.values()))[0]
        options = len(task.train[0].options)
        self._rows = spec.batch_size * (probes if spec.batching == "paired" else 1)
        self._rows *= options if spec.kv == "recompute" else 1
        self._rows = max(self._rows, options)
        self._chunk = max(1, self._rows // options)
        set_num_threads = torch.set_num_threads
        self._llm = engine.start(
            spec,
            source,
            slots=self._slots,
            rank=self._columns,
            rows=self._rows,
            longest=task.max_tokens,
            modules=sorted({name.split(".")[-2] for name in scoped}),
        )
        torch.set_num_threads = set_num_threads  # vLLM's CPU worker puts a stub in its place, for the whole process
        self._requests = self._open_slots(scoped)
        self._rpc("zo_setup", spec, full, scoped, [request.lora_int_id for request in self._requests], self._reach())

    def score(self, batch: Batch, probes: Sequence[Probe]) -> torch.Tensor:
        if self.spec.loop == "resident":
            return self._rpc("zo_score", batch, probes)
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
        return self._rpc("zo_snapshot")

    def restore(self, snapshot: Snapshot) -> None:
        self._rpc("zo_restore", snapshot)

    def checksum(self) -> str:
        return self._rpc("zo_checksum")

    def seed(self, step: int) -> int:
        return self.spec.seed

    def evaluate(self, examples: Batch) -> torch.Tensor:
        if self.spec.loop == "resident":
            return self._rpc("zo_evaluate", examples, self._chunk)
        adapter = self._requests[0] if self._rpc("zo_prepare_current") else None
        scores = self._request_logprobs(examples, [adapter])[0]
        if self.spec.lora == "dense":
            self._rpc("zo_write_dense", None)
        return scores

    def parameters(self) -> dict[str, torch.Tensor]:
        return self._rpc("zo_parameters")

    def switch(self, spec: RunSpec) -> None:
        """Between steps, in the loaded engine; it must have been loaded for at least as many rows."""
        check(spec)
        if spec.variant and spec.loop == "requests":
            raise UsageError(f"--loop requests: vLLM's own loop has no variant {spec.variant!r}; use --loop resident")
        if spec.lora != "dense" and not self._slots:
            raise UsageError("--lora dense: the engine was started without adapter slots; start it with --lora fused to switch")
        self.spec = self._exact(spec)
        self._rpc("zo_use", self.spec)

    def details(self) -> dict[str, Any]:
        return self._rpc("zo_facts") | {
            "threads": torch.get_num_threads(),
            "slots": self._slots,
            "slot_rank": self._columns if self._slots else 0,
            "prefix_caching": bool(self._llm.llm_engine.vllm_config.cache_config.enable_prefix_caching),
            "kv_used": self.spec.kv,
        }

    def memory_parts(self) -> dict[str, int]:
        return self._rpc("zo_memory_parts")

    def work(self, batch: Batch, probes: Sequence[Probe]) -> dict[str, int]:
        spec, n, kind = self.spec, len(probes), probes[0].direction.kind
        shared = spec.kv == "shared"
        rows = (shared_rows if shared else full_rows)(batch, n)
        tokens, forwards = len(rows.tokens), 1 if spec.batching == "paired" else n
        if spec.loop == "resident":
            head = n * rows.examples * rows.options if shared else len(rows.wanted) * self._vocabulary
        else:
            head = (len(rows.lengths) if shared else tokens) * self._vocabulary
        updates = self._rpc("zo_written", len({probe.direction for probe in probes}))
        a_rows = self._in_rows if kind == "factorized" else 0
        itemsize = getattr(torch, spec.dtype).itemsize
        return {
            "forwards": forwards,
            "rows": len(rows.lengths),
            "tokens_scored": tokens,
            "tokens_real": tokens,
            "head_rows": head,
            "weight_bytes_written": updates + (n + 1) * (self._scoped_bytes if spec.lora == "dense" else 0),
            "fold_bytes_written": 0 if kind == "dense" else self._scoped_bytes,
            "adapter_bytes_written": 0
            if spec.lora == "dense"
            else n * itemsize * (self._out_rows * self._columns + a_rows * spec.rank),
            "host_syncs": 0 if spec.loop == "resident" else forwards,
        }

    def close(self) -> None:
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            release()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _exact(self, spec: RunSpec) -> RunSpec:
        """The spec with the KV handling to use: reading options from the prompt's last position is not exact for every task."""
        return spec if self._task.single_token_options else replace(spec, kv="recompute")

    def _reach(self) -> dict[str, tuple[int, int, int]]:
        """By KV handling: rows of one probe's share of a batch, and the fewest and most tokens to expect of it."""
        train, size = self._task.train, self.spec.batch_size
        shared = [len(e.prompt) for e in train]
        whole = [sum(len(e.prompt) + len(option) for option in e.options) for e in train]
        options = len(train[0].options)
        return {"shared": (size, *sum_range(shared, size)), "recompute": (size * options, *sum_range(whole, size))}

    def _open_slots(self, scoped: dict[str, tuple[int, ...]]) -> list[Any]:
        if not self._slots:
            return []
        from vllm.lora.request import LoRARequest

        first = {name.split(".")[-2]: name for name in reversed(scoped)}
        self._folder = tempfile.mkdtemp(prefix="zo-adapter-")
        path = engine.write_empty_adapter(self._folder, {name: scoped[name] for name in first.values()})
        requests = [LoRARequest(f"probe{i}", i, path) for i in range(1, self._slots + 1)]
        for request in requests:
            self._llm.llm_engine.add_lora(request)
        return requests

    def _request_losses(self, batch: Batch, adapters: Sequence[Any]) -> torch.Tensor:
        from workloads.tasks.loss import classification_loss

        labels = torch.tensor([example.label for example in batch])
        with phase("score"):
            return torch.stack([classification_loss(s, labels) for s in self._request_logprobs(batch, adapters)])

    def _request_logprobs(self, batch: Batch, adapters: Sequence[Any]) -> torch.Tensor:
        """Mean log-prob of each option [n_adapters, n_examples, n_options] through LLM.generate; None is the base model."""
        from vllm import SamplingParams

        common: dict[str, Any] = dict(max_tokens=1, temperature=0.0, detokenize=False)
        shared = self.spec.kv == "shared"
        prompts: list[tuple[int, ...]]
        if shared:
            prompts = [e.prompt for e in batch]
            parameters = [SamplingParams(logprob_token_ids=[o[0] for o in e.options], **common) for e in batch]
        else:
            prompts = [tokens for e in batch for tokens, _ in e.rows()]
            parameters = [SamplingParams(prompt_logprobs=0, **common)] * len(prompts)
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(p)} for p in prompts] * len(adapters),
            parameters * len(adapters),
            lora_request=[adapter for adapter in adapters for _ in prompts] if self._slots else None,
            use_tqdm=False,
        )
        if shared:
            examples = list(batch) * len(adapters)
            scored = [(o.outputs[0].logprobs[0], e) for o, e in zip(outputs, examples, strict=True)]
            read = [[logprobs[option[0]].logprob for option in e.options] for logprobs, e in scored]
        else:
            rows = [row for e in batch for row in e.rows()] * len(adapters)
            read = [[_row_mean(o.prompt_logprobs, *row)] for o, row in zip(outputs, rows, strict=True)]
        return torch.tensor(read, dtype=torch.float32).view(len(adapters), len(batch), -1)

    def _rpc(self, name: str, *args: Any) -> Any:
        return self._llm.collective_rpc(name, args=args)[0]


def _row_mean(logprobs: Any, tokens: tuple[int, ...], scored: int) -> float:
    return sum(logprobs[i][tokens[i]].logprob for i in range(len(tokens) - scored, len(tokens))) / scored
