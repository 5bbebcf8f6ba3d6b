"""`export`: the state a run has trained, as a PEFT adapter or as merged Hugging Face weights, redone from its journal."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api import FACTORED, Executor, Inputs, Workload
from bench.commands.resume import current
from bench.config import RunSpec
from bench.defaults import pick_device
from bench.errors import UsageError
from bench.files import share
from bench.harness.inputs import batches_of, prepare, refuse_others
from bench.journal.entries import History
from bench.journal.file import find_journals, read_journal
from bench.journal.keeper import Keeper
from bench.registry import executor_entry, make_executor, make_workload
from workloads.models.tokenizer import FILES

if TYPE_CHECKING:
    import torch

    from workloads.parameters.factors import Factors

SERVED_RANK = 512
"""The largest adapter rank vLLM serves."""
KEPT = (*FILES, "added_tokens.json", "chat_template*", "additional_chat_templates", "generation_config.json", "*.py")
"""What a merged model takes over beside its weights: the whole tokenizer, chat templates, and code of its own."""


@dataclass(frozen=True)
class Tuned:
    """A state to export. parameters: tuned values, float32 on the CPU; losses: [steps][n_probes] of the steps that led to it."""

    run: str
    spec: RunSpec
    source: Any
    workload: Workload
    step: int
    losses: list[list[float]]
    parameters: dict[str, torch.Tensor]


def export(
    run: str, moved: dict[str, Any], *, format: str, output: str, rank: int | None, state: str | None, results: str
) -> int:
    """moved: where the run's model and data are now; state: last, or best by dev loss (default: best, where the run has one).

    Prints one JSON object; returns 0.
    """
    if rank is not None and (rank < 1 or format != "peft"):
        raise UsageError(f"--rank {rank}: the rank of a PEFT adapter, at least 1; leave it out with --format {format}")
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--output {output}: exists and is not empty; give a new folder")
    paths = find_journals(run, Path(results))
    if len(paths) > 1:
        raise UsageError(f"{run}: names {len(paths)} runs; give the id of one of them")
    from transformers.utils import logging

    logging.disable_progress_bar()  # loading takes a second and its bars would bury what is said below
    tuned = rebuild(paths[0], state, moved)
    facts: dict[str, Any] = {"run": tuned.run, "step": tuned.step, "format": format, "output": output}
    with whole(folder) as temporary:
        facts |= write_adapter(tuned, temporary, rank) if format == "peft" else write_merged(tuned, temporary)
        (temporary / "zo_bench.json").write_text(json.dumps(facts | {"spec": tuned.spec.to_json()}, indent=1))
    print(f"relative error of the exported change: {facts['error']:.2e}", file=sys.stderr)
    print(json.dumps(facts, separators=(",", ":")))
    return 0


def rebuild(path: Path, state: str | None, moved: dict[str, Any]) -> Tuned:
    """Load the untrained model and redo what the first session of the run did to it."""
    journal = read_journal(path)
    spec, history = current(journal, moved), journal.sessions.get(0, History())
    if not history.steps:
        raise UsageError(f"{path}: the run has finished no step; there is nothing to export")
    if pick_device("auto" if spec.device == "cuda" else "cpu") != spec.device:
        raise UsageError(f"{path}: its directions were drawn on a GPU, and come out the same only on one; export there")
    inputs, workload = prepare(replaying(spec)), make_workload(spec)
    refuse_others(inputs, history.data, spec)
    executor = loaded(replaying(spec), inputs, workload)
    try:
        keeper = Keeper(executor, workload, history, _tell, path, 0)
        end = len(history.steps) if state == "last" or keeper.best is None else keeper.best
        if state == "best" and keeper.best is None:
            raise UsageError("--state best: the run has no evaluation on dev (--eval-every); use --state last")
        keeper.rebuild(end)
        losses = [entry.losses for entry in history.steps[:end]]
        return Tuned(journal.header.result.id, spec, inputs.source, workload, end, losses, executor.parameters())
    finally:
        executor.close()


def replaying(spec: RunSpec) -> RunSpec:
    """Whose state is redone: that of an executor which moves the same and starts no engine, where there is one."""
    spec, same = replace(spec.alone(), tensor_parallel=1), executor_entry(spec.executor).same_state
    return spec if same is None else replace(spec, executor=same, loop=executor_entry(same).fastest["loop"])


def loaded(spec: RunSpec, inputs: Inputs, workload: Workload) -> Executor:
    """An executor as a session has it before its first step: loaded, and one batch scored (official leaves a residue there)."""
    executor = make_executor(spec.executor)
    executor.load(spec, inputs.source, inputs.task)
    executor.score(next(batches_of(spec, inputs)), workload.plan(0))
    return executor


def write_merged(tuned: Tuned, folder: Path) -> dict[str, Any]:
    """The model with its tuned parameters, in the run's dtype, as `transformers` and vLLM load it."""
    import torch

    from workloads.models.adapter import SCOPE, Adapter
    from workloads.models.scope import views
    from workloads.models.weights import load_model

    model: Any = load_model(tuned.source, getattr(torch, tuned.spec.dtype), "cpu")
    adapter = Adapter.of(model, tuned.spec) if tuned.spec.scope == SCOPE else None
    weights, change, rounding = views(model, "lora" if adapter else tuned.spec.scope), 0.0, 0.0
    values = tuned.parameters
    if adapter is not None:
        values = {name: weights[name].float() + adapter.change(tuned.parameters, name) for name in adapter.targets}
    for name, value in values.items():
        parameter = weights[name]
        change += float((value - parameter.float()).square().sum())
        parameter.copy_(value)
        rounding += float((value - parameter.float()).square().sum())
    model.save_pretrained(folder)
    for path in (path for pattern in KEPT for path in Path(tuned.source.path).glob(pattern)):
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif not (folder / path.name).exists():
            shutil.copy(path, folder / path.name)
    return {"error": (rounding / change) ** 0.5 if change else 0.0}


def write_adapter(tuned: Tuned, folder: Path, rank: int | None) -> dict[str, Any]:
    """A LoRA adapter of the base model; its error is against the change of the weights that the run really made."""
    import torch

    from workloads.models.adapter import SCOPE
    from workloads.models.scope import transposed, views
    from workloads.models.weights import load_model

    if tuned.spec.scope == "full":
        raise UsageError("--format peft: an adapter holds matrices only and --scope full moved more; use --format merged")
    if tuned.source.weights == "random":
        raise UsageError("--format peft: random weights are no base model to load an adapter on; use --format merged")
    if tuned.spec.scope == SCOPE:
        return write_trained_adapter(tuned, folder, rank)
    model: Any = load_model(tuned.source, getattr(torch, tuned.spec.dtype), "cpu")
    factors, weights = factoring(tuned, rank), views(model, "lora")
    tensors: dict[str, torch.Tensor] = {}
    width, change, missed = 0, 0.0, 0.0
    for name, value in tuned.parameters.items():
        moved = value - weights[name].float()
        b, a = (part.contiguous() for part in factors(name, moved))
        change, missed = change + float(moved.square().sum()), missed + float((moved - b @ a).square().sum())
        module = f"base_model.model.{name.removesuffix('.weight')}"
        tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        width = max(width, b.size(1))
    tensors = {name: _widened(tensor, width, "lora_A" in name) for name, tensor in tensors.items()}
    write_peft(tuned, folder, tensors, list(tuned.parameters), width, width, turned=bool(transposed(model)))
    if width > SERVED_RANK:
        print(f"rank {width}: vLLM serves adapters up to rank {SERVED_RANK}; --rank reduces it by SVD", file=sys.stderr)
    return {"rank": width, "error": (missed / change) ** 0.5 if change else 0.0}


def write_trained_adapter(tuned: Tuned, folder: Path, rank: int | None) -> dict[str, Any]:
    """What --scope adapter trained, as it is."""
    from workloads.models.adapter import Adapter
    from workloads.models.scope import transposed
    from workloads.models.weights import skeleton

    spec, model = tuned.spec, skeleton(tuned.source)
    if rank not in (None, spec.adapter_rank):
        raise UsageError(f"--rank {rank}: the run trained an adapter of rank {spec.adapter_rank}; leave it out")
    tensors, targets = (
        {f"base_model.model.{name}": value for name, value in tuned.parameters.items()},
        Adapter.of(model, spec).targets,
    )
    write_peft(tuned, folder, tensors, list(targets), spec.adapter_rank, spec.adapter_alpha, turned=bool(transposed(model)))
    return {"rank": spec.adapter_rank, "error": 0.0}


def write_peft(
    tuned: Tuned, folder: Path, tensors: dict[str, torch.Tensor], targets: list[str], rank: int, alpha: float, *, turned: bool
) -> None:
    """targets: names of the weights it stands beside; turned: whether the model stores matrices as [in, out]."""
    from safetensors.torch import save_file

    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": tuned.source.hub_id or tuned.source.path,
        "revision": tuned.source.revision,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted({name.split(".")[-2] for name in targets}),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": turned,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))


def factoring(tuned: Tuned, rank: int | None) -> Callable[[str, torch.Tensor], Factors]:
    """(name, change of the matrix) -> its factors: the directions' own where they are low-rank and shared, else by SVD."""
    import torch

    from workloads.parameters.factors import decompose, reduce, total_change

    spec = tuned.spec
    dense = tuned.workload.kind not in FACTORED
    if dense or spec.directions == "upstream" or spec.weight_decay:
        if rank is None:
            kind = "dense noise" if dense else "weights that decayed" if spec.weight_decay else "upstream's own directions"
            raise UsageError(f"--format peft: {kind} have no factors to export; give --rank (by SVD), or use --format merged")
        return lambda name, moved: decompose(moved, rank)
    layout = {name: tuple(value.shape) for name, value in tuned.parameters.items()}
    total = total_change(tuned.workload, tuned.losses, layout, spec.device, getattr(torch, spec.dtype))

    def factors(name: str, moved: torch.Tensor) -> Factors:
        found = total.factors(name)
        assert found is not None
        b, a = (part.cpu() for part in found)
        return (b, a) if rank is None or rank >= b.size(1) else reduce(b, a, rank)

    return factors


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder that is there with everything in it or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UsageError(f"--output {folder}: cannot be written ({error.strerror}); give a writable folder") from None
    try:
        yield temporary
        share(temporary)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _widened(tensor: torch.Tensor, width: int, rows: bool) -> torch.Tensor:
    """Zeros up to the adapter's rank: a small matrix may have less."""
    import torch

    missing = width - tensor.size(0 if rows else 1)
    return torch.nn.functional.pad(tensor, (0, 0, 0, missing) if rows else (0, missing))


def _tell(event: dict[str, Any]) -> None:
    if event["event"] == "warning":
        print(f"warning: {event['text']}", file=sys.stderr)
