"""Traces written by hand: what a GPU would record, without one. Times in microseconds, as in a Chrome trace."""

from types import SimpleNamespace

import pytest
import torch

from bench.recorders.timeline import read_trace

HOST = {"ph": "X", "pid": 1, "tid": 1}


def mark(name, ts, dur):
    return HOST | {"cat": "user_annotation", "name": name, "ts": ts, "dur": dur, "args": {}}


def op(name, ts, dur):
    return HOST | {"cat": "cpu_op", "name": name, "ts": ts, "dur": dur, "args": {}}


def call(name, ts, correlation, dur=1, **other):
    args = {"correlation": correlation}
    return HOST | {"cat": "cuda_runtime", "name": name, "ts": ts, "dur": dur, "args": args} | other


def gpu(name, ts, dur, correlation, stream=7, cat="kernel"):
    args = {"correlation": correlation, "stream": stream}
    return {"ph": "X", "pid": 0, "tid": stream, "cat": cat, "name": name, "ts": ts, "dur": dur, "args": args}


def recorder(cls, events, device="cuda"):
    """A recorder that watched exactly these events, of an executor that rewrites dense weights."""
    context = SimpleNamespace(
        work=lambda: {"weight_bytes_written": 1},
        spec=SimpleNamespace(lora="dense"),
        device=torch.device(device),
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
