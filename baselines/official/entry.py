"""What the official executor honours: the published loops as they are, and shared directions through the same rewriting."""

from pathlib import Path

from baselines.official.checkout import ORIGINS, commit_of
from bench.api import Workload
from bench.config import RunSpec
from bench.entry import Capabilities, ExecutorEntry

BOTH = ("lora", "full")


def check(spec: RunSpec, workload: type[Workload]) -> None:
    """--upstream names a checkout of the repository that has this workload."""
    if spec.upstream is not None and workload.upstream is not None:
        commit_of(Path(spec.upstream), ORIGINS[workload.upstream])


ENTRY = ExecutorEntry(
    target="baselines.official.executor:OfficialExecutor",
    capabilities=Capabilities(
        batching=("sequential",),
        kv=("recompute",),
        lora=("dense",),
        directions=("shared", "upstream"),
        scopes={"lowrank": BOTH, "dense": BOTH, "factorized": BOTH},
        upstream=tuple(ORIGINS),
        means=False,
        rewinds=False,
        replicates=False,
    ),
    fastest={"batching": "sequential", "kv": "recompute", "lora": "dense", "loop": "requests"},
    check=check,
)
