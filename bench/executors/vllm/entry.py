"""What the vllm executor honours: adapters of the linear layers, or dense states of everything."""

from bench.entry import DTYPES, Capabilities, ExecutorEntry

ENTRY = ExecutorEntry(
    target="bench.executors.vllm.executor:VllmExecutor",
    capabilities=Capabilities(
        loop=("requests", "resident"),
        scopes={"lowrank": ("lora",), "dense": ("lora", "full"), "factorized": ("lora",)},
        dtypes={"cpu": DTYPES, "cuda": ("float16", "bfloat16")},
        max_rank={"lowrank": 256, "factorized": 512},
        variants=("uncompiled", "no graphs"),
    ),
    fastest={"batching": "paired", "kv": "shared", "lora": "fused", "loop": "resident"},
    same_state="eager",
)
