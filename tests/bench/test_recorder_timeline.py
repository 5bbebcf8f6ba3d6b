"""What a trace says of a step's time: phases, launches, overlaps, and a host that is ahead. Times in microseconds."""

import pytest
from traces import HOST, STEP, call, gpu, mark, op, recorder, us

from bench.recorders import disagreement
from bench.recorders.launches import Launches
from bench.recorders.time_breakdown import TimeBreakdown
from bench.recorders.timeline import read_trace


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
    assert found["idle_s"] == us(10 + 5 + 5 + 1 + 2)
    assert sum(found["buckets"].values()) + found["idle_s"] == pytest.approx(found["span_s"]) == us(75)  # its last work's end


def test_kernels_of_a_graph_count_as_kernels_but_one_launch():
    found = recorder(Launches, STEP).collect()
    assert (found["kernels"], found["launch_calls"], found["graph_launches"]) == (7, 4, 1)
    assert (found["memcpys"], found["memsets"], found["synchronizations"]) == (1, 0, 1)
    assert found["by_bucket"] == {
        "gemm": 1, "attention": 1, "lora_shrink_expand": 1, "weight_rewrite": 2, "norm_activation": 1, "kv_write": 1
    }  # fmt: skip


@pytest.mark.parametrize("correlation", [1, 99])
def test_a_driver_call_inside_a_runtime_call_is_one_launch(correlation):
    """With the number of the call around it or one of its own, and whichever of the two the kernel names."""
    nested = [*STEP, call("cuLaunchKernel", 2.5, correlation, dur=0.2, cat="cuda_driver")]
    for trace in (nested, [e | {"args": {"correlation": correlation}} if e["name"].startswith("ampere") else e for e in nested]):
        assert recorder(Launches, trace).collect() == recorder(Launches, STEP).collect()
        assert recorder(TimeBreakdown, trace).collect() == recorder(TimeBreakdown, STEP).collect()


def test_what_was_launched_outside_the_steps_is_left_out():
    """Even where it runs within one."""
    warmup = [mark("zo.warmup", -100, 90), call("cudaLaunchKernel", -50, 90), gpu("late", -40, 45, 90)]
    assert recorder(Launches, warmup + STEP).collect() == recorder(Launches, STEP).collect()


def test_what_else_a_trace_holds_is_no_work():
    more = [gpu("zo.step 0", 10, 60, None, cat="gpu_user_annotation"), gpu("zo.score", 30, 45, None, cat="gpu_user_annotation")]
    more += [HOST | {"cat": "overhead", "name": "Activity Buffer Request", "ts": 3, "dur": 5, "args": {}}]
    more += [HOST | {"cat": "ac2g", "ph": ph, "name": "ac2g", "id": 1, "ts": 2} for ph in "sf"]
    more += [HOST | {"cat": "cuda_sync", "name": "Stream Sync", "ts": 52, "dur": 20, "args": {"correlation": 7}}]
    assert recorder(TimeBreakdown, STEP + more).collect() == recorder(TimeBreakdown, STEP).collect()
    assert recorder(Launches, STEP + more).collect() == recorder(Launches, STEP).collect()


# Two steps of a host that is ahead, in milliseconds: it is through with both at 50, the GPU at 200. Step 0 runs from the end
# of the warm-up's work, 60, to 150; step 1 from there to 200, beginning on a second stream while step 0 still runs.
AHEAD_MS = [
    mark("zo.warmup", 0, 10),
    call("cudaLaunchKernel", 5, 1),
    gpu("nvjet_hsh_128x128", 10, 50, 1),
    mark("zo.step 0", 10, 20),
    mark("zo.score", 11, 18),
    call("cudaLaunchKernel", 12, 2),
    call("cudaGraphLaunch", 20, 3, dur=5),
    gpu("nvjet_hsh_128x128", 60, 40, 2),
    gpu("_lora_shrink_kernel", 100, 20, 3),
    gpu("_lora_expand_kernel", 120, 30, 3),
    mark("zo.step 1", 30, 20),
    mark("zo.perturb", 31, 4),
    call("cudaMemsetAsync", 32, 4),
    mark("zo.score", 35, 14),
    call("cuLaunchKernelEx", 36, 5, cat="cuda_driver"),
    call("cudaGraphLaunch", 38, 6, dur=5),
    call("cudaMemcpyAsync", 45, 7),
    gpu("Memset (Device)", 140, 10, 4, stream=9, cat="gpu_memset"),
    gpu("nvjet_hsh_128x128", 150, 10, 5),
    gpu("_lora_shrink_kernel", 160, 20, 6),
    gpu("Memcpy DtoH (Device -> Pinned)", 190, 10, 7, cat="gpu_memcpy"),
]
AHEAD = [event | {"ts": 1000 * event["ts"], "dur": 1000 * event["dur"]} for event in AHEAD_MS]


def test_work_belongs_to_the_step_that_launched_it_and_the_host_may_be_ahead():
    found = recorder(TimeBreakdown, AHEAD).collect()
    assert found["span_s"] == pytest.approx((0.090 + 0.050) / 2)
    assert found["idle_s"] == pytest.approx(0.010 / 2)  # the wait before the copy, not the host's 10 ms at the beginning
    assert found["buckets"] == {
        "gemm": pytest.approx(0.050 / 2),
        "lora_shrink_expand": pytest.approx((0.065 - 0.020 + 0.020) / 2),  # 140-150 is shared with the fill
        "weight_rewrite": pytest.approx(0.005 / 2),
        "memcpy": pytest.approx(0.010 / 2),
    }
    assert found["phases"]["score"]["wall_s"] == pytest.approx((0.018 + 0.014) / 2)  # the host's
    counts = recorder(Launches, AHEAD).collect()
    assert (counts["kernels"], counts["launch_calls"], counts["graph_launches"]) == (5 / 2, 1, 1)
    assert (counts["memcpys"], counts["memsets"]) == (1 / 2, 1 / 2)


def test_the_clock_of_the_gpu_is_compared_with_the_steps_on_the_gpu():
    timeline = read_trace({"traceEvents": AHEAD})
    lengths = [[(end - start) / 1e6 for start, end in timeline.windows(on_gpu)] for on_gpu in (True, False)]
    assert lengths == [[pytest.approx(0.090), pytest.approx(0.050)], [pytest.approx(0.020), pytest.approx(0.020)]]
    between_events = [0.0902, 0.0501]
    assert disagreement(between_events, lengths[0]) == []
    assert disagreement(between_events, lengths[1]) != []


def test_a_gpu_that_waits_for_the_host_is_idle():
    """The host sleeps for 30 us before it launches the step's second kernel."""
    slow = [mark("zo.step 0", 0, 60), call("cudaLaunchKernel", 1, 1), gpu("nvjet_a", 5, 10, 1)]
    slow += [call("cudaLaunchKernel", 41, 2), gpu("nvjet_b", 45, 10, 2)]
    found = recorder(TimeBreakdown, slow).collect()
    assert (found["span_s"], found["idle_s"]) == (us(55), us(5 + 30))


def test_a_launch_of_another_thread_belongs_to_the_step_it_was_made_in():
    other = [call("cudaLaunchKernel", 60, 80, tid=2), gpu("nvjet_late", 200, 10, 80)]
    assert recorder(Launches, STEP + other).collect()["kernels"] == 8
    assert recorder(TimeBreakdown, STEP + other).collect()["span_s"] == us(210)


def test_a_trace_without_steps_or_gpu_work_is_no_finding():
    for cls in (TimeBreakdown, Launches):
        with pytest.raises(RuntimeError, match="no step"):
            recorder(cls, [op("aten::mm", 0, 10)], device="cpu").collect()
        with pytest.raises(RuntimeError, match="no GPU work"):
            recorder(cls, [mark("zo.step 0", 0, 100), op("aten::mm", 0, 10)]).collect()


# Names as kernels have them in a graph, without an operator around: CUDA 13, Hopper, torch 2.11, vLLM 0.26.
