"""Runs a ragged batch through the model, attention and LoRA modules that vLLM built, without requests or a scheduler.

It fills the model runner's own input buffers, as the runner does for scheduled requests, and calls the model under vLLM's
forward context. Written against vLLM 0.26's first model runner (GPUModelRunner and its CPU subclass).
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, set_forward_context

from bench.executors.vllm import lora_meta
from bench.executors.vllm.cpu_layers import activate_in_place
from bench.executors.vllm.cpu_products import PackedProducts
from bench.executors.vllm.cpu_rows import TorchRows
from bench.executors.vllm.engine import recorded_sizes
from bench.executors.vllm.graphs import CudaRecorder, Recordings, Staged
from bench.executors.vllm.last_layer import LastLayer
from bench.executors.vllm.lora import SegmentedLora, UnfusedLora, segments
from bench.executors.vllm.packing import Packed, Reach, pack
from bench.executors.vllm.shards import recording
from bench.executors.vllm.switch import Switch
from bench.executors.vllm.whole_rows import Kernel, TritonRows, WholeRows, share_kv_pool
from workloads.tasks.ragged import Rows, synthetic


class Forward:
    """runner: vLLM's model runner. `compiled`: run what torch.compile made of the model; `recorded`: and whole passes, or vLLM's
    pieces of compiled ones, as CUDA graphs, where there are any; without `replays` recorded passes run kernel by kernel, the very
    kernels of the recording in its order; `pooled`: attention is vLLM's own, through its KV pool; `packs`: products on a CPU take
    packed weights."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.device: torch.device = runner.device
        self.block = int(runner.input_batch.block_table[0].block_size)
        self.compiled = self.recorded = True
        self.form = "fused"
        self._manager: Any = runner.lora_manager._adapter_manager if runner.lora_config else None
        self._fused = self._manager.punica_wrapper_mapping if self._manager else {}
        self._recordings = Recordings(CudaRecorder() if self.device.type == "cuda" else None)
        self.replays = True
        self.pooled = False
        on_cpu = self.device.type == "cpu"
        self.packs, self.products = False, PackedProducts(runner.model) if on_cpu else None
        if on_cpu:
            activate_in_place(runner.model)
        self._whole: WholeRows | None = None
        self._last: LastLayer | None = None
        if not runner.vllm_config.cache_config.enable_prefix_caching:
            share_kv_pool(runner)
            if not on_cpu:
                self.take_whole_rows(TritonRows(runner.scheduler_config.max_num_batched_tokens, self.device))
        if on_cpu:
            self.take_whole_rows(TorchRows())

    def take_whole_rows(self, kernel: Kernel) -> bool:
        """From now on it attends to rows that it takes; whether the model's attention is as plain as that needs."""
        rows = WholeRows(self.runner, kernel)
        self._whole = rows if rows.taken else None
        last = LastLayer(self.runner.model) if rows.taken and kernel.goes_on else None
        self._last = last if last is not None and last.taken else None
        return rows.taken

    def use_lora(self, form: str) -> None:
        """`fused`: vLLM's LoRA kernels for this platform; `unfused`: plain products per layer and probe."""
        manager, self.form = self._manager, form
        if form == "unfused":
            capacity = self.runner.scheduler_config.max_num_batched_tokens
            plain = UnfusedLora(capacity, self.runner.scheduler_config.max_num_seqs, self.device)
            manager.punica_wrapper_mapping = dict.fromkeys(self._fused, plain)
        else:
            manager.punica_wrapper_mapping = self._fused
        wrapper = next(iter(manager.punica_wrapper_mapping.values()))
        for module in manager.modules.values():
            module.set_mapping(wrapper)
        manager._last_mapping = None

    @property
    def cuts(self) -> bool:
        """Whether the last layer runs for the wanted positions alone."""
        return self._last is not None and not self.pooled

    @property
    def shares(self) -> int:
        """In pieces of how many tokens rows may have a prefix in common: 1 where keys and values need no pool, else a block."""
        return 1 if self._whole is not None and self._whole.kernel.goes_on and not self.pooled else self.block

    def _without_pool(self, rows: Rows) -> bool:
        """Whether attention reads keys and values where the projections left them."""
        return self._whole is not None and not self.pooled and (self._whole.kernel.goes_on or not rows.prior.any())

    def hidden(self, rows: Rows, slots: list[int]) -> torch.Tensor:
        """Final hidden states [wanted, hidden] of the wanted positions. slots: the adapter slot of each probe of the rows, -1 for
        none."""
        runner, n, total, wanted = self.runner, len(rows.lengths), len(rows.tokens), self.to_device(rows.wanted).long()
        whole = self._without_pool(rows)
        kept = self._recordings.find((n, self._constants(slots, whole)), total) if self.recorded else None
        if kept is not None:
            packed = pack(rows, kept.rows, kept.padded, self.block, kept.staged.share)
            self._fill(packed, kept.staged.mappings, whole)
            self._map_tokens(rows, slots)
            if not self.replays:
                return packed.real(kept.staged.run())[wanted]
            kept.replay()
            return packed.real(kept.out)[wanted]
        longest = int(rows.lengths.max())
        mode, descriptor, *_ = runner._determine_batch_execution_and_padding(
            num_tokens=total,
            num_reqs=n,
            num_scheduled_tokens_np=rows.lengths,
            max_num_scheduled_tokens=longest,
            use_cascade_attn=False,
            force_eager=not (self.compiled and self.recorded),
            force_has_lora=max(slots) >= 0,
            force_num_active_loras=len(set(slots) - {-1}),
        )
        padded = descriptor.num_tokens
        by_group, by_layer = self._slot_mappings(n, total, padded)
        packed = pack(rows, n, padded, self.block)
        self._fill(packed, tuple(by_group.values()), whole)
        metadata = None if whole else self._metadata(n, total, longest, by_group)
        self._map_tokens(rows, slots)
        cut = self.cuts
        if self._last is not None and cut:
            lora = self._wrapper()
            self._last.take(packed, rows.wanted, slots, lora if isinstance(lora, SegmentedLora) else None)
        found = self._run(padded, metadata, by_layer, mode, descriptor, whole, cut)
        return found if cut else found[wanted]

    @torch.inference_mode()
    def record(self, slots: list[int], reach: Reach, limit: int) -> None:
        """Record passes for all batches of these probes, where passes can be recorded. reach: of one probe; limit: tokens that a
        pass may have, 0 for any number."""
        if self._recordings.recorder is None:
            return
        probes, n, whole = len(slots), len(slots) * reach.rows, reach.whole
        most = min(probes * reach.most, limit or probes * reach.most)
        tokens, room = (min(probes * reach.fewest, most), most), self.runner.scheduler_config.max_num_batched_tokens
        whole = whole and self._whole is not None and not self.pooled
        sizes = [size // probes * probes for size in recorded_sizes(room)]
        last, most = next((size for size in sizes if size >= tokens[1]), sizes[-1]), n * self.runner.max_model_len
        wanted = [size for size in sizes if max(n, tokens[0]) <= size <= min(last, most)]
        with recording(self.device):
            kind = (n, self._constants(slots, whole))
            self._recordings.record(kind, wanted, lambda padded: self._stage(n, slots, padded, whole))

    def _constants(self, slots: list[int], whole: bool) -> Hashable:
        """What a recording cannot be told by its buffers: of plain products also which slots they read."""
        same = (self.compiled, whole, len(slots), max(slots) >= 0)
        return (*same, tuple(slots)) if self.form == "unfused" else same

    def _stage(self, n: int, slots: list[int], padded: int, whole: bool) -> Staged:
        """A batch that fills a padded size, in the buffers, and the pass over any batch of n rows that they hold by then.

        The pass builds what attention needs itself: a recording then has the kernel that plans FlashAttention's work, once for
        all layers, and every replay plans for the batch it finds. Plain products read each probe's tokens at a fixed offset.
        """
        runner, probes = self.runner, len(slots)
        each, per_probe = padded // probes, n // probes
        share = each if self.form == "unfused" else 0
        lengths = np.diff(np.arange(per_probe + 1, dtype=np.int64) * each // per_probe).astype(np.int32)
        rows = synthetic(lengths, 1).repeated(probes)
        packed = pack(rows, n, padded, self.block, share)
        by_group, by_layer = self._slot_mappings(packed.rows, padded, padded)
        mappings = tuple(by_group.values())
        self._fill(packed, mappings, whole)
        self._map_tokens(rows, slots)
        wrapper = self._wrapper() if share else None
        fixed = [(slot, at * share, (at + 1) * share) for at, slot in enumerate(slots)]

        def run() -> torch.Tensor:
            if wrapper is not None:
                wrapper.segments = fixed
            runner.optimistic_seq_lens_cpu[: packed.rows] = runner.max_model_len  # the longest that any replay may have
            longest = max(runner.max_model_len, share)
            metadata = None if whole else self._metadata(packed.rows, padded, longest, by_group)
            return self._run(padded, metadata, by_layer, CUDAGraphMode.NONE, BatchDescriptor(padded), whole)

        return Staged(run, mappings, share)

    def _slot_mappings(self, n: int, total: int, padded: int) -> tuple[Any, Any]:
        return self.runner._get_slot_mappings(
            num_tokens_padded=padded, num_reqs_padded=n, num_tokens_unpadded=total, ubatch_slices=None
        )

    def _metadata(self, n: int, total: int, longest: int, by_group: Any) -> Any:
        metadata, _ = self.runner._build_attention_metadata(
            num_tokens=total, num_reqs=n, max_query_len=longest, slot_mappings=by_group
        )
        return metadata

    def _run(
        self,
        padded: int,
        metadata: Any,
        by_layer: Any,
        mode: CUDAGraphMode,
        descriptor: BatchDescriptor,
        whole: bool,
        cut: bool = False,
    ) -> torch.Tensor:
        runner = self.runner
        wanted: list[tuple[Switch | None, bool]] = [(self._whole, whole), (self.products, self.packs), (self._last, cut)]
        with ExitStack() as during:
            for switch, on in wanted:
                if switch is not None and on:
                    during.enter_context(switch.during(True))
            forward = set_forward_context(
                metadata,
                runner.vllm_config,
                num_tokens=padded,
                cudagraph_runtime_mode=mode,
                batch_descriptor=descriptor,
                slot_mapping=by_layer,
                skip_compiled=not self.compiled,
            )
            during.enter_context(forward)
            return runner.model(
                input_ids=runner.input_ids.gpu[:padded],
                positions=runner.positions[:padded],
                intermediate_tensors=None,
                inputs_embeds=None,
            )

    def _wrapper(self) -> Any:
        """What the LoRA layers ask for their tokens' slots."""
        return None if self._manager is None else next(iter(self._manager.punica_wrapper_mapping.values()))

    def _map_tokens(self, rows: Rows, states: list[int]) -> None:
        """Tell the LoRA kernels the slot of every token."""
        wrapper = self._wrapper()
        if wrapper is None:
            return
        if isinstance(wrapper, SegmentedLora):
            wrapper.segments = segments(rows, states)
        else:
            slots = np.repeat(np.array(states, dtype=np.int32)[rows.states], rows.lengths)
            lora_meta.fill(wrapper.token_mapping_meta, slots, self.to_device)
        self._manager._last_mapping = None  # what vLLM remembers having set for its own requests no longer holds

    def _fill(self, packed: Packed, mappings: tuple[torch.Tensor, ...], whole: bool) -> None:
        """Copy a batch into the runner's buffers with one transfer. mappings: where the KV slot of each token goes."""
        runner, n = self.runner, packed.rows
        parts = [packed.tokens, packed.positions, packed.slots, packed.starts, packed.lengths]
        kernel = self._whole.kernel if self._whole is not None and whole else None
        parts += [] if kernel is None else kernel.sent(packed)
        copied = self.to_device(np.concatenate(parts)).split([len(part) for part in parts])
        tokens, positions, slot_mapping, start_loc, seq_lens, *more = copied
        if kernel is not None:
            kernel.take(packed, more)
        runner.input_ids.gpu[: len(tokens)].copy_(tokens)
        runner.positions[: len(positions)].copy_(positions)
        runner.query_start_loc.np[: n + 1] = packed.starts
        runner.query_start_loc.np[n + 1 :] = packed.starts[-1]
        runner.query_start_loc.gpu[: n + 1].copy_(start_loc)
        runner.query_start_loc.gpu[n + 1 :].fill_(int(packed.starts[-1]))
        runner.optimistic_seq_lens_cpu[:n] = torch.from_numpy(packed.lengths)
        runner.optimistic_seq_lens_cpu[n:] = 0
        runner.seq_lens[:n].copy_(seq_lens)
        runner.seq_lens[n:].zero_()
        if whole:
            return  # blocks are not read, and may be those of requests that are under way
        table, per_row = runner.input_batch.block_table[0].block_table, packed.blocks.shape[1]
        table.np[:n, :per_row] = packed.blocks
        table.gpu[:n, :per_row].copy_(self.to_device(packed.blocks))
        for mapping in mappings:
            mapping[: len(slot_mapping)].copy_(slot_mapping)

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        """A host array on the device; from pinned memory, so the host does not wait."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)
