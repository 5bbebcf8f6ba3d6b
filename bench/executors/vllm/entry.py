"""What the vllm executor honours: adapters of the linear layers, or dense states of everything."""

from bench.api import Workload
from bench.config import RunSpec
from bench.entry import DTYPES, Capabilities, ExecutorEntry
from bench.executors.vllm.refusals import check_device, check_model, families
from bench.executors.vllm.variables import check_variables


def check(spec: RunSpec, workload: type[Workload]) -> None:
    """Found out before anything is loaded: a variable that vLLM obeys and this executor cannot run with, a GPU
    or a package that a quantization wants."""
    check_variables()
    if spec.device == "cuda" and spec.quantization != "none":
        check_device(spec.quantization)


ENTRY = ExecutorEntry(
    target="bench.executors.vllm.executor:VllmExecutor",
    capabilities=Capabilities(
        loop=("requests", "resident"),
        scopes={"lowrank": ("lora",), "dense": ("lora", "full", "adapter"), "factorized": ("lora",)},
        dtypes={"cpu": DTYPES, "cuda": ("float16", "bfloat16")},
        max_rank={"lowrank": 256, "factorized": 512},
        max_adapter_rank=512,
        variants=("uncompiled", "recorded", "no graphs", "pooled attention"),
        rewards=True,
        tensor_parallel=True,
        quantization=("none", "fp8", "bitsandbytes"),
    ),
    fastest={"batching": "paired", "kv": "shared", "lora": "fused", "loop": "resident"},
    check=check,
    check_model=check_model,
    families=families,
    same_state="eager",
)
