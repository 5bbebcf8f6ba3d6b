"""The fake executor takes everything: what is asked of it goes into its record of calls."""

from bench.entry import Capabilities, ExecutorEntry

BOTH = ("lora", "full")
ENTRY = ExecutorEntry(
    target="bench.executors.fake.executor:FakeExecutor",
    capabilities=Capabilities(
        loop=("requests", "resident"),
        scopes={"lowrank": BOTH, "dense": BOTH, "factorized": BOTH},
        replicates=False,
    ),
    fastest={"batching": "paired", "kv": "shared", "lora": "fused", "loop": "requests"},
    inputs="bench.executors.fake.executor:inputs",
)
