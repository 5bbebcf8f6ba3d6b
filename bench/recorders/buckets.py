"""Which bucket a piece of work belongs to: one table of rules, read from top to bottom, the first match wins.

Before the table come, in this order: a range that the executor set with `bench.api.mark` around the work, and the phase. So a
plain addition rewrites weights only inside perturb, update or fold; the same addition while scoring is a residual connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from bench.api import BUCKETS, Bucket
from bench.recorders.activity import Activity

if TYPE_CHECKING:
    from bench.recorders.context import ProfileContext


@dataclass(frozen=True)
class Rule:
    """`pattern` is searched, ignoring case, in the work's own name and in the names of the operators around it.

    work    False for operators that only make views, allocate or wait: timed, but not counted as operators
    """

    bucket: Bucket
    pattern: str
    work: bool = True


RULES = (
    Rule("weight_rewrite", r"^_fold$|mkldnn::_reorder_linear_weight"),
    Rule("norm_activation", r"^triton_(poi|red|per|for)_"),  # what inductor fused; its names list every operator inside
    Rule("communication", r"nccl|all_?reduce|all_?gather|reduce_?scatter|gloo|c10d::|cross_device_reduce"),
    Rule("kv_write", r"reshape_and_cache|reshape_cache|concat_and_cache|kv_cache_(update|write)|slot_mapping_kernel|zero_kv_"),
    Rule("lora_shrink_expand", r"lora_(shrink|expand|a|b)|_lora_|bgmv|sgmv|punica"),
    Rule("head_logits", r"log_?softmax|logsumexp|nll_loss|cross_entropy|logits|logprobs"),
    Rule("sampling", r"multinomial|top_?k|top_?p|argmax|penalties|aten::exponential_"),
    Rule(
        "attention", r"attention|attn|flash_?fwd|flash::|fmha|aten::_?(safe_)?softmax|softmax_?(warp_)?forward|aten::(baddb|b)mm"
    ),
    Rule("attention", r"sdpa|batch(prefill|decode)with|get_scheduler_metadata|prepare_varlen|reduce_segments"),
    Rule("lora_shrink_expand", r"aten::(sort|_?unique\d?)$"),  # vLLM orders tokens by adapter; greedy sampling sorts nothing
    Rule(
        "direction_generation",
        r"aten::(randn?|normal|uniform|bernoulli|randint)(_like)?_?$|distribution_(elementwise|nullary)|philox",
    ),
    Rule("gemm", r"aten::_?(mm|addmm|mv|addmv|dot|mkldnn_linear)(_activation)?_?$|gem[mv]|cutlass|cublas|nvjet|xmma|wgmma"),
    Rule("gemm", r"mkldnn::_linear_pointwise|aten::_scaled_mm$|splitk_?reduce|triton_tem_|onednn_(scaled_)?mm|rowwise_mm"),
    Rule("gemm", r"aten::(linear|matmul|einsum|inner|tensordot)$", work=False),
    Rule("norm_activation", r"scaled_fp8_quant"),
    Rule("norm_activation", r"(layer|rms|group|batch|qk)_?norm|rotary|relu|gelu|silu|swish|sigmoid|tanh|_and_mul"),
    Rule("memcpy", r"aten::(_to_copy|copy_|clone|cat|stack|index|gather|scatter|take|embedding|roll|flip|repeat)|memcpy|memset"),
    Rule("memcpy", r"direct_copy|index_?select|index_elementwise|gather_kernel|catarray|embedding"),
    Rule(
        "norm_activation",
        r"aten::_?(add|sub|rsub|mul|div|neg|abs|sign|exp|exp2|log|log2|log1p|pow|square|sqrt|rsqrt|reciprocal|where|clamp|clamp_min|"
        r"clamp_max|maximum|minimum|max|min|amax|amin|aminmax|sum|mean|var|std|norm|prod|any|all|eq|ne|lt|le|gt|ge|isfinite|isin|"
        r"isnan|floor|floor_divide|ceil|round|remainder|fill|zero|tril|triu|arange|native_dropout|dropout|addcmul|addcdiv|lerp|sin|"
        r"cos|nonzero|equal|cumsum|masked_\w+|logical_\w+|bitwise_\w+|linalg_\w+|__\w+__)_?$",
    ),
    Rule("norm_activation", r"elementwise_kernel|reduce_kernel|vectorized_|fillfunctor|multi_tensor"),
    Rule("norm_activation", r"cub::.*device|device(scan|reduce|select|radixsort|segmented|histogram)|thrust::"),
    Rule(
        "norm_activation",
        r"aten::_?(empty|zeros|ones|full|new_|scalar_tensor|resize|set_|detach|alias|lift|to$|type_as|contiguous|view|unsafe_view|"
        r"reshape|flatten|unflatten|t$|transpose|permute|numpy_t|movedim|expand|broadcast_t|squeeze|unsqueeze|select$|slice|narrow|"
        r"split|chunk|unbind|diagonal|as_strided|resolve_|item|local_scalar_dense|is_nonzero|unfold|swapaxes|concat|pad|constant_pad|"
        r"foreach_|assert_)",
        work=False,
    ),
)
HOST_COPY = re.compile(r"memcpy.*(htod|dtoh|host|pageable|pinned)", re.IGNORECASE)
RANDOM = next(rule for rule in RULES if rule.bucket == "direction_generation").pattern


@dataclass(frozen=True)
class Phases:
    """What a phase's work is, unless a mark or a random generator says otherwise: the bucket of perturb, update and fold."""

    perturb: Bucket = "weight_rewrite"
    update: Bucket = "weight_rewrite"
    fold: Bucket = "weight_rewrite"

    @classmethod
    def of(cls, context: ProfileContext) -> Phases:
        """Dense weights are rewritten by every phase; with adapters the states are, and weights only where work says so."""
        writes = context.work()["weight_bytes_written"] > 0
        perturb: Bucket = "weight_rewrite" if context.spec.lora == "dense" else "state_write"
        return cls(perturb, "weight_rewrite" if writes else "state_write")


def classify(activity: Activity, phases: Phases) -> Bucket:
    """The bucket of one activity; `other` where nothing says."""
    name, mark, phase = activity.name, activity.mark, activity.phase
    if activity.kind == "memcpy" and HOST_COPY.search(name):
        return "memcpy"
    if mark in BUCKETS:
        return mark
    if phase in ("perturb", "update", "fold"):
        random = phase != "fold" and _search(RANDOM, activity.names)
        rewrite: Bucket = getattr(phases, phase)
        return "direction_generation" if random else rewrite
    rule = match(activity.names)
    return rule.bucket if rule else "other"


@cache
def match(names: tuple[str, ...]) -> Rule | None:
    """The first rule that any of the names meets."""
    return next((rule for rule in RULES if _search(rule.pattern, names)), None)


def counted(activity: Activity) -> bool:
    """Whether an operator call is one piece of work: the outermost that is neither a view nor a mere wrapper."""
    parent = activity.parent
    if parent and _is_work(parent):
        return False
    return _is_work(activity)


def _is_work(activity: Activity) -> bool:
    """The names around are in `names` too, so everything inside a piece of work is work: only the outermost is counted."""
    rule = match(activity.names)
    return rule.work if rule else activity.leaf


def _search(pattern: str, names: Iterable[str]) -> bool:
    return any(re.search(pattern, name, re.IGNORECASE) for name in names)
