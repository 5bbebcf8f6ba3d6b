"""Which part of the step the time saved was spent in: the authors' accounting of theirs, and ours from the profiled passes.

Theirs is over all sixteen cells of their rerun (`analysis.paper.SAVED`). Ours is the profiled step of the official loop less that
of vLLM, by the phases that both mark; folds, which come once in an interval of V, are in neither. Idle time (a GPU that waits for
the host, Python between the operators of a CPU) is a part of its own here; the authors do not say which part theirs is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analysis.paper import RERUN, SAVED
from analysis.runs import Run, differences, find

PARTS = {"perturb": "probe and forward", "score": "probe and forward", "update": "update"}
"""Phase -> the part of the authors' accounting that it belongs to; every other phase is `other`."""
WAYS = {"recompute": "like for like, kv=recompute", "shared": "kv=shared"}


@dataclass(frozen=True)
class Account:
    """Seconds of a profiled step by part, of the official loop and by kv of vLLM."""

    model: str
    official: Mapping[str, float]
    vllm: Mapping[str, Mapping[str, float]]

    def saved(self, kv: str) -> dict[str, float]:
        """Share of the time saved by part; a part that grew is negative."""
        apart = {part: seconds - self.vllm[kv][part] for part, seconds in self.official.items()}
        return {part: seconds / sum(apart.values()) for part, seconds in apart.items()}

    @property
    def lines(self) -> list[str]:
        """A line for each way of scoring."""
        return [f"time saved, {self.model}, {WAYS[kv]}, profiled steps: {_words(self.saved(kv))}" for kv in self.vllm]


THEIRS = f"time saved, {RERUN}, their sixteen cells: " + ", ".join(f"{part} {share:.2%}" for part, share in SAVED.items())


def accounts(runs: Iterable[Run]) -> list[Account]:
    """Of every interleaved run in which the official loop and vLLM were profiled, and vLLM was faster."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        if run.result.pair_id and run.usable and run.finding("time_breakdown"):
            grouped.setdefault(run.result.pair_id, []).append(run)
    found = []
    for group in grouped.values():
        official = find(group, executor="official")
        fast = {
            kv: find(group, executor="vllm", kv=kv, batching="paired", lora="fused", loop="resident", variant="") for kv in WAYS
        }
        ours = {kv: parts_of(run) for kv, run in fast.items() if run and official and not differences(official, run)}
        if official and ours and all(sum(parts.values()) < sum(parts_of(official).values()) for parts in ours.values()):
            found.append(Account(official.spec["model"], parts_of(official), ours))
    return found


def parts_of(run: Run) -> dict[str, float]:
    """Seconds of a profiled step by part of the accounting."""
    found = run.finding("time_breakdown")
    assert found is not None
    parts = dict.fromkeys(SAVED, 0.0) | {"idle": found["idle_s"]}
    for phase, spent in (found["phases"] or {}).items():
        parts[PARTS.get(phase, "other")] += sum(spent["buckets"].values())
    return parts


def _words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{part} {share:.1%}" for part, share in shares.items())
