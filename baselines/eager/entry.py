"""What the eager executor honours: every feature, in every dtype, on every device."""

from bench.entry import Capabilities, ExecutorEntry

BOTH = ("lora", "full")
ENTRY = ExecutorEntry(
    target="baselines.eager.executor:EagerExecutor",
    capabilities=Capabilities(
        scopes={"lowrank": BOTH, "dense": (*BOTH, "adapter"), "factorized": BOTH},
        variants=("every position", "unpadded"),
        rewards=True,
        quantization=("none", "fp8", "bitsandbytes"),
    ),
    fastest={"batching": "paired", "kv": "shared", "lora": "fused", "loop": "requests"},
)
