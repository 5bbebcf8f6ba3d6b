"""Runs a ragged batch through the model, attention and LoRA modules that vLLM built, without requests or a scheduler.

It fills the model runner's own input buffers, as the runner does for scheduled requests, and calls the model under vLLM's
forward context. Written against vLLM 0.26's first model runner (GPUModelRunner and its CPU subclass).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from vllm.config import CUDAGraphMode
from vllm.forward_context import BatchDescriptor, set_forward_context

from bench.executors.vllm import lora_meta
from bench.executors.vllm.graphs import ForwardGraphs, Kind
from bench.executors.vllm.lora import SegmentedLora, UnfusedLora, segments_of
from bench.executors.vllm.shards import recording
from workloads.tasks.ragged import Rows, synthetic


class Forward:
    """runner: vLLM's model runner. `compiled`: run what torch.compile made of the model, and `graphs`: in CUDA graphs, where
    there are any."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.device: torch.device = runner.device
        self.block = int(runner.input_batch.block_table[0].block_size)
        self.compiled = self.graphs = True
        self._manager: Any = runner.lora_manager._adapter_manager if runner.lora_config else None
        self._fused = self._manager.punica_wrapper_mapping if self._manager else {}
        self._graphs = ForwardGraphs()
        if not runner.vllm_config.cache_config.enable_prefix_caching:
            self._share_kv_pool()

    def _share_kv_pool(self) -> None:
        """One layer's KV pool for all layers, where nothing reads a layer's keys and values after the pass that wrote them.

        vLLM looks a layer's pool up when the layer runs, also between piecewise graphs; the other pools are freed.
        """
        caches = self.runner.kv_caches
        if len({(cache.shape, cache.dtype) for cache in caches}) > 1:
            return  # layers of different kinds keep their own
        for layer in self.runner.compilation_config.static_forward_context.values():
            if isinstance(getattr(layer, "kv_cache", None), torch.Tensor):
                layer.kv_cache = caches[0]
        caches[:] = [caches[0]] * len(caches)

    def use_lora(self, form: str) -> None:
        """`fused`: vLLM's LoRA kernels for this platform; `unfused`: plain products per layer and probe."""
        manager = self._manager
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

    def hidden(self, rows: Rows, slots: list[int]) -> torch.Tensor:
        """Final hidden states [tokens, hidden] of every row. slots: the adapter slot of each probe of the rows, -1 for none."""
        runner, n, total = self.runner, len(rows.lengths), len(rows.tokens)
        kept = self._graphs.find(_kind(n, slots), total) if self.graphs else None
        if kept is not None:
            n = kept.rows
            self._fill(rows, n, total, kept.padded, kept.mappings)
            self._map_tokens(rows, slots)
            kept.graph.replay()
            return kept.out[:total]
        longest = int(rows.lengths.max())
        mode, descriptor, *_ = runner._determine_batch_execution_and_padding(
            num_tokens=total,
            num_reqs=n,
            num_scheduled_tokens_np=rows.lengths,
            max_num_scheduled_tokens=longest,
            use_cascade_attn=False,
            force_eager=not self.graphs,
            force_has_lora=max(slots) >= 0,
            force_num_active_loras=len(set(slots) - {-1}),
        )
        padded = descriptor.num_tokens
        by_group, by_layer = runner._get_slot_mappings(
            num_tokens_padded=padded, num_reqs_padded=n, num_tokens_unpadded=total, ubatch_slices=None
        )
        self._fill(rows, n, total, padded, tuple(by_group.values()))
        metadata, _ = runner._build_attention_metadata(
            num_tokens=total, num_reqs=n, max_query_len=longest, slot_mappings=by_group
        )
        self._map_tokens(rows, slots)
        return self._run(padded, metadata, by_layer, mode, descriptor)[:total]

    @torch.inference_mode()
    def capture(self, n: int, slots: list[int], tokens: tuple[int, int]) -> None:
        """Capture graphs for batches of n rows that have between tokens[0] and tokens[1] tokens, where there are graphs."""
        config = self.runner.compilation_config
        if self.device.type != "cuda" or not self.compiled or not config.cudagraph_capture_sizes:
            return
        sizes, most = sorted(config.cudagraph_capture_sizes), n * self.runner.max_model_len
        last = next((size for size in sizes if size >= tokens[1]), sizes[-1])
        wanted = [size for size in sizes if max(n, tokens[0]) <= size <= min(last, most)]
        with recording(self.device):
            self._graphs.capture(_kind(n, slots), wanted, lambda padded: self._stage(n, slots, padded))

    def _stage(self, n: int, slots: list[int], padded: int) -> tuple[Callable[[], torch.Tensor], Sequence[torch.Tensor]]:
        """A batch that fills a padded size, in the buffers, and the pass over any batch of n rows that they hold by then.

        The pass builds what attention needs itself: a recording then has the kernel that plans FlashAttention's work, once for
        all layers, and every replay plans for the batch it finds.
        """
        runner = self.runner
        lengths = np.diff(np.arange(n + 1, dtype=np.int64) * padded // n).astype(np.int32)
        rows = synthetic(lengths, len(slots))
        by_group, by_layer = runner._get_slot_mappings(
            num_tokens_padded=padded, num_reqs_padded=n, num_tokens_unpadded=padded, ubatch_slices=None
        )
        mappings = tuple(by_group.values())
        self._fill(rows, n, padded, padded, mappings)
        self._map_tokens(rows, slots)

        def run() -> torch.Tensor:
            runner.optimistic_seq_lens_cpu[:n] = runner.max_model_len  # the longest that any replay may have
            metadata, _ = runner._build_attention_metadata(
                num_tokens=padded, num_reqs=n, max_query_len=runner.max_model_len, slot_mappings=by_group
            )
            return self._run(padded, metadata, by_layer, CUDAGraphMode.NONE, BatchDescriptor(padded))

        return run, mappings

    def _run(self, padded: int, metadata: Any, by_layer: Any, mode: CUDAGraphMode, descriptor: BatchDescriptor) -> torch.Tensor:
        runner = self.runner
        with set_forward_context(
            metadata,
            runner.vllm_config,
            num_tokens=padded,
            cudagraph_runtime_mode=mode,
            batch_descriptor=descriptor,
            slot_mapping=by_layer,
            skip_compiled=not self.compiled,
        ):
            return runner.model(
                input_ids=runner.input_ids.gpu[:padded],
                positions=runner.positions[:padded],
                intermediate_tensors=None,
                inputs_embeds=None,
            )

    def _map_tokens(self, rows: Rows, states: list[int]) -> None:
        """Tell the LoRA kernels the slot of every token."""
        if self._manager is None:
            return
        slots = np.repeat(np.array(states, dtype=np.int32)[rows.states], rows.lengths)
        wrapper = next(iter(self._manager.punica_wrapper_mapping.values()))
        if isinstance(wrapper, SegmentedLora):
            wrapper.segments = segments_of(slots.tolist())
        else:
            lora_meta.fill(wrapper.token_mapping_meta, slots, self.to_device)
        self._manager._last_mapping = None  # what vLLM remembers having set for its own requests no longer holds

    def _fill(self, rows: Rows, n: int, total: int, padded: int, mappings: tuple[torch.Tensor, ...]) -> None:
        """Copy a batch's layout into the runner's buffers with one transfer. mappings: where the KV slot of each token goes."""
        runner = self.runner
        own = np.pad(rows.lengths, (0, n - len(rows.lengths)))  # rows that a graph has beyond the batch's are empty
        lengths = own + np.pad(rows.prior, (0, n - len(rows.prior)))
        starts = np.concatenate([[0], np.cumsum(own)]).astype(np.int32)
        within, blocks = rows.positions(), self._blocks(rows, n)
        per_row = blocks.shape[1]
        slots = np.full(padded, -1, dtype=np.int32)  # the padding writes no keys and values
        slots[:total] = blocks[np.repeat(np.arange(n), own), within // self.block] * self.block + within % self.block
        packed = self.to_device(np.concatenate([rows.tokens, within, slots, starts, lengths]))
        tokens, positions, slot_mapping, start_loc, seq_lens = packed.split([total, total, padded, n + 1, n])
        runner.input_ids.gpu[:total].copy_(tokens)
        runner.positions[:total].copy_(positions)
        runner.query_start_loc.np[: n + 1] = starts
        runner.query_start_loc.np[n + 1 :] = starts[-1]
        runner.query_start_loc.gpu[: n + 1].copy_(start_loc)
        runner.query_start_loc.gpu[n + 1 :].fill_(int(starts[-1]))
        runner.optimistic_seq_lens_cpu[:n] = torch.from_numpy(lengths)
        runner.optimistic_seq_lens_cpu[n:] = 0
        runner.seq_lens[:n].copy_(seq_lens)
        runner.seq_lens[n:].zero_()
        table = runner.input_batch.block_table[0].block_table
        table.np[:n, :per_row] = blocks
        table.gpu[:n, :per_row].copy_(self.to_device(blocks))
        for mapping in mappings:
            mapping[:padded].copy_(slot_mapping)

    def _blocks(self, rows: Rows, n: int) -> np.ndarray:
        """Where each row keeps its keys and values [n, blocks]: it begins with its parent's blocks, which the same layer has
        written by the time anything attends to them."""
        taken, needed = rows.prior // self.block, -(-(rows.lengths + rows.prior) // self.block)
        ends = np.cumsum(needed - taken)
        at = np.arange(max(1, int(needed.max())))
        own = (at >= taken[:, None]) & (at < needed[:, None])
        blocks = np.zeros((n, len(at)), dtype=np.int32)  # block 0 is vLLM's null block
        blocks[: len(needed)] = np.where(own, 1 + (ends - needed)[:, None] + at, 0)
        for row in np.flatnonzero(rows.prior):  # parents come before their children
            blocks[row, : taken[row]] = blocks[rows.parents[row], : taken[row]]
        return blocks

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        """A host array on the device; from pinned memory, so the host does not wait."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _kind(n: int, slots: list[int]) -> Kind:
    return n, len(slots), max(slots) >= 0
