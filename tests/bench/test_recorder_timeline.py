"""Traces written by hand: what a GPU would record, without one. Times in microseconds, as in a Chrome trace."""

from types import SimpleNamespace

import pytest
import torch

from bench.recorders.buckets import Phases, classify
from bench.recorders.launches import Launches
from bench.recorders.memory import temporaries
from bench.recorders.time_breakdown import TimeBreakdown
from bench.recorders.timeline import exclusive, read_trace

HOST = {"ph": "X", "pid": 1, "tid": 1}


def mark(name, ts, dur):
    return HOST | {"cat": "user_annotation", "name": name, "ts": ts, "dur": dur, "args": {}}


def op(name, ts, dur):
    return HOST | {"cat": "cpu_op", "name": name, "ts": ts, "dur": dur, "args": {}}


def call(name, ts, correlation, dur=1):
    args = {"correlation": correlation}
    return HOST | {"cat": "cuda_runtime", "name": name, "ts": ts, "dur": dur, "args": args}


def gpu(name, ts, dur, correlation, stream=7, cat="kernel"):
    args = {"correlation": correlation, "stream": stream}
    return {"ph": "X", "pid": 0, "tid": stream, "cat": cat, "name": name, "ts": ts, "dur": dur, "args": args}


def recorder(cls, events, device="cuda"):
    """A recorder that watched exactly these events, of an executor that rewrites dense weights."""
    context = SimpleNamespace(
        executor=SimpleNamespace(work=lambda batch, probes: {"weight_bytes_written": 1}),
        spec=SimpleNamespace(lora="dense"),
        device=torch.device(device),
        batch=(),
        probes=(),
    )
    return cls(context, SimpleNamespace(timeline=read_trace({"traceEvents": events}), wall_s=[1e-4]))


def us(seconds):
    return pytest.approx(seconds * 1e-6)


# One step of 100 us on the host: a product and an addition while perturbing, the same two while scoring, a copy back.
STEP = [
    mark("zo.step 0", 0, 100),
    mark("zo.perturb", 0, 20),
    op("aten::mm", 1, 4),
    call("cudaLaunchKernel", 2, 1),
    op("aten::add_", 6, 4),
    call("cudaLaunchKernel", 7, 2),
    mark("zo.score", 20, 60),
    op("aten::linear", 21, 9),
    op("aten::addmm", 22, 7),
    call("cuLaunchKernelEx", 23, 3),
    op("aten::add", 31, 4),
    call("cudaLaunchKernel", 32, 4),
    call("cudaGraphLaunch", 40, 5),
    call("cudaMemcpyAsync", 50, 6),
    call("cudaStreamSynchronize", 52, 7, dur=20),
    gpu("ampere_sgemm_128x64", 10, 10, 1),
    gpu("vectorized_elementwise_kernel<4, AddFunctor>", 20, 5, 2),
    gpu("sm90_xmma_gemm_f16", 30, 10, 3),
    gpu("vectorized_elementwise_kernel<4, AddFunctor>", 40, 5, 4),
    gpu("flash_fwd_kernel<128>", 50, 10, 5),
    gpu("_lora_expand_kernel", 55, 10, 5, stream=9),
    gpu("reshape_and_cache_flash_kernel", 66, 2, 5),
    gpu("Memcpy DtoH (Device -> Pageable)", 70, 5, 6, cat="gpu_memcpy"),
]


def test_the_phase_decides_before_the_name():
    found = recorder(TimeBreakdown, STEP).collect()
    assert found["phases"]["perturb"]["buckets"] == {"weight_rewrite": us(15)}
    assert found["phases"]["score"]["buckets"]["gemm"] == us(10)
    assert found["phases"]["score"]["buckets"]["norm_activation"] == us(5)
    assert found["phases"]["perturb"]["wall_s"] == us(20)


def test_overlapping_kernels_share_their_common_time_and_nothing_is_lost():
    found = recorder(TimeBreakdown, STEP).collect()
    assert found["buckets"]["attention"] == us(5 + 2.5)  # 50-60, of which 55-60 beside the adapter's kernel
    assert found["buckets"]["lora_shrink_expand"] == us(5 + 2.5)
    assert found["buckets"]["kv_write"] == us(2)
    assert found["buckets"]["memcpy"] == us(5)
    assert found["idle_s"] == us(10 + 5 + 5 + 1 + 2 + 25)
    assert sum(found["buckets"].values()) + found["idle_s"] == pytest.approx(found["span_s"]) == us(100)


def test_kernels_of_a_graph_count_as_kernels_but_one_launch():
    found = recorder(Launches, STEP).collect()
    assert (found["kernels"], found["launch_calls"], found["graph_launches"]) == (7, 4, 1)
    assert (found["memcpys"], found["memsets"], found["synchronizations"]) == (1, 0, 1)
    assert found["by_bucket"] == {
        "gemm": 1, "attention": 1, "lora_shrink_expand": 1, "weight_rewrite": 2, "norm_activation": 1, "kv_write": 1
    }  # fmt: skip


def test_a_driver_call_inside_a_runtime_call_is_one_launch():
    nested = [*STEP, call("cuLaunchKernel", 2.5, 1, dur=0.2)]
    assert recorder(Launches, nested).collect() == recorder(Launches, STEP).collect()


def test_what_ran_outside_the_steps_is_left_out():
    warmup = [mark("zo.warmup", -100, 90), call("cudaLaunchKernel", -50, 90), gpu("late", -40, 10, 90)]
    assert recorder(Launches, warmup + STEP).collect() == recorder(Launches, STEP).collect()


def test_counts_are_per_step():
    later = [event | {"ts": event["ts"] + 200} for event in STEP]
    later[0] = mark("zo.step 1", 200, 100)
    later = [e | {"args": {"correlation": e["args"]["correlation"] + 50}} if e["args"] else e for e in later]
    assert recorder(Launches, STEP + later).collect() == recorder(Launches, STEP).collect() | {"steps": 2}


def test_without_markers_phases_are_unavailable_and_buckets_are_not():
    whole = [mark("zo.step 0", 0, 100), call("cudaGraphLaunch", 1, 1), gpu("nvjet_hsh_128x128", 10, 40, 1)]
    found = recorder(TimeBreakdown, whole).collect()
    assert found["phases"] is None and "graph" in found["phases_unavailable"]
    assert found["buckets"] == {"gemm": us(40)}


def test_unmatched_names_are_named():
    strange = [mark("zo.step 0", 0, 100), call("cudaLaunchKernel", 1, 1), gpu("strange_kernel", 10, 30, 1)]
    found = recorder(TimeBreakdown, strange).collect()
    assert found["buckets"] == {"other": us(30)}
    assert found["largest"]["other"] == [["strange_kernel", us(30)]]


def test_an_executors_mark_decides_before_everything_but_copies_from_and_to_the_host():
    events = [mark("zo.step 0", 0, 100), mark("zo.score", 0, 90), mark("zo.op.head_logits", 10, 30)]
    events += [call("cudaLaunchKernel", 11, 1), call("cudaMemcpyAsync", 12, 2), gpu("gemm", 20, 10, 1)]
    events += [gpu("Memcpy HtoD (Pinned -> Device)", 40, 10, 2, cat="gpu_memcpy")]
    assert recorder(TimeBreakdown, events).collect()["buckets"] == {"head_logits": us(10), "memcpy": us(10)}


def test_operators_keep_their_own_time_and_gaps_are_idle():
    nested = [mark("zo.step 0", 0, 100), op("aten::linear", 10, 40), op("aten::addmm", 20, 25), op("aten::relu", 60, 10)]
    found = recorder(TimeBreakdown, nested, device="cpu").collect()
    assert found["buckets"] == {"gemm": us(40), "norm_activation": us(10)}
    assert dict(found["largest"]["gemm"]) == {"aten::addmm": us(25), "aten::linear": us(15)}
    assert found["idle_s"] == us(50)


@pytest.mark.parametrize(
    ("names", "phase", "bucket"),
    [
        (["aten::add"], "score", "norm_activation"),
        (["aten::add"], "update", "weight_rewrite"),
        (["aten::randn", "aten::normal_"], "perturb", "direction_generation"),
        (["aten::rand"], "fold", "weight_rewrite"),  # the draws of stochastic rounding
        (["aten::matmul", "aten::bmm"], "score", "attention"),
        (["aten::layer_norm", "aten::native_layer_norm"], "score", "norm_activation"),
        (["aten::expand"], "score", "norm_activation"),
        (["aten::to", "aten::_to_copy", "aten::copy_"], "score", "memcpy"),
        (["aten::log_softmax", "aten::_log_softmax", "softmax_warp_forward<float>"], "score", "head_logits"),
        (["aten::addmm", "void gemv2T_kernel_val<int>"], "score", "gemm"),
        (["vllm::unified_attention_with_output", "_C_cache_ops::reshape_and_cache_flash"], "score", "kv_write"),
        (["vllm::lora_shrink", "_lora_shrink_kernel"], "score", "lora_shrink_expand"),
        (["triton_red_fused_add_native_layer_norm_3"], "score", "norm_activation"),
        (["ncclDevKernel_AllReduce_Sum_f16_RING_LL"], "score", "communication"),
        (["aten::broadcast_to"], "score", "norm_activation"),
        (["my_module::my_op"], "score", "other"),
    ],
)
def test_rules(names, phase, bucket):
    start, events = 10.0, [mark("zo.step 0", 0, 100), mark(f"zo.{phase}", 1, 90)]
    for depth, name in enumerate(names):
        events.append(op(name, start + depth, 50 - 2 * depth))
    innermost = read_trace({"traceEvents": events}).operators[-1]
    assert innermost.names == tuple(names)
    assert classify(innermost, Phases()) == bucket


def test_exclusive_time_is_split_between_what_overlaps_and_clipped_to_the_windows():
    work = [((0, 30), "a"), ((10, 20), "b"), ((10, 20), "b"), ((50, 70), "a")]
    shares, idle = exclusive(work, [(5, 40), (60, 65)])
    assert shares == {"a": pytest.approx(5 + 10 / 3 + 10 + 5), "b": pytest.approx(20 / 3)}
    assert idle == 10


def test_temporaries_are_what_a_step_holds_beyond_its_start():
    def memory(ts, total):
        return {"name": "[memory]", "ts": ts, "args": {"Device Type": 0, "Total Allocated": total}}

    events = [mark("zo.step 0", 0, 100), mark("zo.step 1", 200, 100)]
    events += [memory(-5, 100), memory(10, 150), memory(20, 90), memory(150, 900), memory(210, 940), memory(220, 100)]
    assert temporaries(read_trace({"traceEvents": events})) == 50
