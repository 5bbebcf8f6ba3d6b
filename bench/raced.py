"""The race file: what is worth keeping of the many runs of a race. Raw observations, no statistics; `analysis.race` reads it.

Every run of a race is a result file and a journal of its own; a race file is made from those, and small enough to publish.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

from bench.errors import UsageError
from bench.files import write_atomically
from bench.result import Reached, Result, Status, checksum
from bench.steptimes import step_times

RACE_VERSION = 1
OWN = ("workload", "learning_rate", "eps", "seed", "steps", "tuning", "eval_every", "warmup")
"""Fields of a specification that a heat states itself, or that its marks show."""


@dataclass(frozen=True)
class Mark(Reached):
    """A look at the dev split: before this step, after so many seconds of steps and scored minibatches."""

    score: float
    loss: float


@dataclass(frozen=True)
class Heat:
    """One run of a race.

    id          of its result file
    tuning      whether settings were picked by it; it has not looked at the held-out split
    budget      steps at which it was to give up
    reached     the target, where it got there
    held_out    the score on the held-out split at the end
    step_s      amortised seconds of a core step
    memory      bytes by part at the peak of a step, where it was recorded
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    id: str
    workload: str
    workload_version: int
    tuning: bool
    seed: int
    learning_rate: float
    eps: float
    budget: int
    status: Status
    marks: list[Mark] = field(default_factory=list)
    reached: Reached | None = None
    held_out: float | None = None
    step_s: float | None = None
    memory: dict[str, int] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Race:
    """heats of several algorithms on their way to `spec["until"]`.

    spec        what all heats have in common
    settings    workload -> the fields in which it differs from others, such as rank and queries
    metric      what the dev split is judged by
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    created: str
    command: str
    metric: str
    spec: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    heats: list[Heat]
    environment: dict[str, Any]
    source: dict[str, Any]
    data: dict[str, Any]
    race_version: int = RACE_VERSION


def heat(result: Result) -> Heat:
    """What a race keeps of a run of one session."""
    spec, session = result.spec, result.sessions[0]
    seconds = [0.0, *accumulate([*session.warmup_s, *session.step_s])]
    forwards = [0, *accumulate(map(len, session.losses))]
    dev = [e for e in session.evaluations if e.split == "dev"]
    final = [e.accuracy for e in session.evaluations if e.split == "eval" and e.step > 0]
    return Heat(
        id=result.id,
        workload=spec["workload"],
        workload_version=result.workload_version,
        tuning=spec["tuning"],
        seed=spec["seed"],
        learning_rate=spec["learning_rate"],
        eps=spec["eps"],
        budget=spec["warmup"] + spec["steps"],
        status=session.status,
        marks=[Mark(e.step, round(seconds[e.step], 6), forwards[e.step], e.accuracy, e.loss) for e in dev],
        reached=session.reached,
        held_out=final[-1] if final else None,
        step_s=step_times(session).best_known if session.step_s else None,
        memory=session.findings.get("memory", {}).get("parts"),
        error=session.error,
    )


def gather(results: Sequence[Result], command: str) -> Race:
    """The race that these runs of one session make up. ValueError without any."""
    if not results:
        raise ValueError("no runs")
    first, specs = results[0], [result.spec for result in results]
    shared = {name: value for name, value in first.spec.items() if name not in OWN}
    common = {name: value for name, value in shared.items() if all(spec[name] == value for spec in specs)}
    settings = {s["workload"]: {name: s[name] for name in shared if name not in common} for s in specs}
    metric = next((e.metric for r in results for e in r.sessions[0].evaluations), "accuracy")
    return Race(
        created=max(result.created for result in results),
        command=command,
        metric=metric,
        spec=common | {name: first.spec[name] for name in ("eval_every", "warmup")},
        settings=settings,
        heats=[heat(result) for result in results],
        environment=first.environment,
        source=first.source,
        data=first.data,
    )


def write_race(race: Race, path: Path) -> None:
    """One heat a line, whole or not at all."""
    data: Mapping[str, Any] = asdict(race)
    signed = {**data, "checksum": checksum(dict(data))}
    lines = [f" {json.dumps(name)}: {_value(name, value)}" for name, value in signed.items()]
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_race(path: Path | str) -> Race:
    """UsageError names the file and what is wrong with it."""
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(Path(path).read_bytes())
        if not isinstance(data, dict) or "race_version" not in data:
            raise UsageError(f"{path}: not a race file; `python -m bench race` writes one")
        if data["race_version"] != RACE_VERSION:
            raise UsageError(f"{path}: race_version {data['race_version']} is not {RACE_VERSION}; update the suite to read it")
        written = data.pop("checksum", None)
        if written != checksum(data):
            raise UsageError(f"{path}: damaged, its checksum is another; run the race's command again")
        race: Race = TypeAdapter(Race).validate_json(json.dumps(data), strict=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a race file") from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{path}: not a race file, {'.'.join(map(str, found['loc']))}: {found['msg'].lower()}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: truncated or not JSON ({error}); run the race's command again") from None
    return race


def _value(name: str, value: Any) -> str:
    if name == "heats":
        return "[\n  " + ",\n  ".join(json.dumps(one, separators=(",", ":"), allow_nan=False) for one in value) + "\n ]"
    return json.dumps(value, allow_nan=False)
