"""The result file: raw observations of one run, never statistics. Read by `analysis` and `compare`.

`python -m bench.result > results/schema.json` writes the JSON schema of these dataclasses.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from bench.config import RunSpec
from bench.errors import UsageError
from bench.files import refuse_constant

SCHEMA_VERSION = 2
"""1: first version. 2: the variant stands in the spec; unit, wall clock and model runner in the session; divergence is a status;
steps say of what kind they were."""

Status = Literal["passed", "incorrect", "failed", "timeout", "out_of_memory", "diverged"]
Unit = Literal["session", "block"]
StepKind = Literal["plain", "resample", "fold", "paused"]
"""resample: V is drawn anew; fold: it is, and what was accumulated over the old one goes into the weights; paused: the first step
after something else was done, with cold caches."""


@dataclass(frozen=True)
class Evaluation:
    """How good the state before a step (0 = untrained) is.

    accuracy by the task's metric, with its standard error
    scores   of generated answers: every metric there is, by name
    split    eval: held out; dev; best: held out again, at the state of the lowest dev loss
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    step: int
    accuracy: float
    standard_error: float
    loss: float
    examples: int
    split: str = "eval"
    metric: str = "accuracy"
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One correctness check made before timing: the largest difference found (None: not finite), and what was allowed."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    name: str
    passed: bool
    value: float | None
    tolerance: float
    detail: str = ""


@dataclass(frozen=True)
class Reached:
    """What it took to get to the target of --until: core steps, their seconds without evaluations, minibatches scored."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    step: int
    seconds: float
    forwards: int


@dataclass(frozen=True)
class SessionResult:
    """What one fresh process saw, or one block of steps inside a loaded one. Times in seconds, sizes in bytes.

    unit               session or block: what one value of a sample is
    warmup_s, step_s   wall clock of each core step, warm-up apart
    kinds              of the warm-up and timed steps together, as `losses` are; empty in files from before they were recorded
    fold_every         steps from one fold to the next; None where nothing is ever folded
    losses             [steps][n_probes] of the warm-up and timed steps together, as scored
    reached            the target of --until, where the session got there
    findings           recorder name -> its `collect()`, from the profiled pass
    stages_s           seconds of each stage of the process: load, check, warmup, timed, evaluate, checkpoint, checksum, profile
    wall_s             the process from start to end, as its parent sees it
    model_runner       the class that runs the model, where there is a choice of it
    details            facts of the executor that nothing else reads
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    index: int
    status: Status
    unit: Unit = "session"
    load_s: float | None = None
    warmup_s: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    kinds: list[StepKind] = field(default_factory=list)
    fold_every: int | None = None
    losses: list[list[float]] = field(default_factory=list)
    projected_gradients: list[list[float]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    reached: Reached | None = None
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    stages_s: dict[str, float] = field(default_factory=dict)
    wall_s: float | None = None
    model_runner: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Result:
    """One run: a spec, where it ran, and its sessions."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    id: str
    created: str
    status: Status
    spec: dict[str, Any]
    workload_version: int
    environment: dict[str, Any]
    source: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    sessions: list[SessionResult] = field(default_factory=list)
    pair_id: str | None = None
    warnings: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def update_to_2(data: dict[str, Any]) -> dict[str, Any]:
    """`details` of a session held what others read. Which steps folded was not recorded, and stays unknown."""
    spec, sessions = dict(data["spec"]), []
    for old in data["sessions"]:
        details = dict(old["details"])
        spec["variant"] = details.pop("variant", spec.get("variant", ""))
        session = old | {"details": details, "unit": details.pop("unit", "session")}
        session |= {name: details.pop(name) for name in ("wall_s", "model_runner") if name in details}
        sessions.append(session | ({"status": "diverged"} if details.pop("diverged", False) else {}))
    status = "diverged" if any(session["status"] == "diverged" for session in sessions) else data["status"]
    return data | {"spec": spec, "sessions": sessions, "status": status, "schema_version": 2}


UPDATES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {2: update_to_2}
"""Version N -> the `update_to_N` that lifts the JSON of version N - 1."""

FILE_NAME = re.compile(r"\d{8}T\d{6}Z_.+\.json")


def load_result(path: Path | str) -> Result:
    """Read and check one result file; UsageError names the file and what is wrong with it."""
    from pydantic import TypeAdapter, ValidationError

    try:
        data = json.loads(Path(path).read_bytes(), parse_constant=refuse_constant)
        written = data.pop("checksum", None) if isinstance(data, dict) else None  # files from before it was written have none
        if written is not None and written != checksum(data):
            raise UsageError("damaged, its checksum is another; remove it or run again")
        data = _update(data)
        result = TypeAdapter(Result).validate_json(json.dumps(data, allow_nan=False), strict=True)
        RunSpec.from_json(result.spec)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give a result file or a folder of them") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise UsageError(f"{path}: not a result of this suite, {where}: {first['msg'].lower()}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: truncated or not JSON ({error}); remove it or run again") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return result


def find_results(paths: Iterable[Path | str]) -> list[Path]:
    """Files as given, folders searched for result files by name, oldest first. UsageError for a path that is not there."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted((p for p in path.rglob("*.json") if FILE_NAME.fullmatch(p.name)), key=lambda p: p.name)
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder; give a result file or a folder of them")
    return list(dict.fromkeys(found))


def read_results(paths: Iterable[Path | str], skip: Callable[[str], None]) -> Iterator[tuple[Path, Result]]:
    """(path, result) of the files given and of all in the folders given, oldest first.

    skip    called with one line for each file of a folder that is damaged, foreign or of a newer version; reading goes on
    UsageError for a file given by itself that cannot be read, and for a path that is not there.
    """
    for given in map(Path, paths):
        for path in find_results([given]):
            try:
                if given.is_dir() and not path.is_file():
                    raise UsageError(f"{path}: not a file")
                yield path, load_result(path)
            except UsageError as error:
                if not given.is_dir():
                    raise
                skip(str(error))


def schema() -> dict[str, Any]:
    """JSON schema of a result file."""
    from pydantic import TypeAdapter

    found = TypeAdapter(Result).json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    found["properties"]["checksum"] = {"type": "string", "description": "blake2b of the rest, as compact JSON with sorted keys"}
    return found


def checksum(data: dict[str, Any]) -> str:
    """Of a result's JSON, whatever its layout in the file."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _update(data: Any) -> dict[str, Any]:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise UsageError("not a result of this suite, it has no schema_version")
    if version > SCHEMA_VERSION:
        raise UsageError(f"schema_version {version} is newer than {SCHEMA_VERSION}; update the suite to read it")
    for target in range(version + 1, SCHEMA_VERSION + 1):
        try:
            data = UPDATES[target](data)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"not a result of this suite, version {target - 1} has no such shape ({error})") from None
    return data


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
