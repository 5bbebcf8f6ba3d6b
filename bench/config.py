"""What is run (`RunSpec`) and how often and where (`RunOptions`): frozen, checked on construction, plain JSON outside.

A field with a `setting` is an option of the command line (bench.settings). To add one, add the field here and read it where it
matters.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from bench.errors import UsageError, option
from bench.settings import FEATURES, MEASURE, METHOD, SCALE, WHAT, setting, settings
from bench.until import Until

VARIANTS = {
    "every position": "eager: logits at every position of every row, as the official loop has them",
    "unpadded": "eager: rows end to end without padding",
    "uncompiled": "vllm on a GPU: neither torch.compile nor CUDA graphs",
    "recorded": "vllm on a GPU: not compiled, each pass one CUDA graph",
    "no graphs": "vllm on a GPU: torch.compile without CUDA graphs",
    "pooled attention": "vllm on a GPU: vLLM's own attention, which keeps keys and values in a pool",
}
"""Rungs of the attribution that are no feature: an executor is switched to one of them, never started with it."""

ABOVE, LEAST = "above 0", "0 or more"
NUMBERS = {"learning_rate": LEAST, "eps": ABOVE, "weight_decay": LEAST, "adapter_alpha": ABOVE}

OF_REPLICAS = ("shares", "ray_address", "replica_cpus", "replica_gpus", "replica_timeout_s", "checksum_every")
"""Fields that say something about replicas alone."""


@dataclass(frozen=True)
class RunSpec:
    """One point of the matrix, complete: nothing in it is still to be decided (see bench.defaults)."""

    workload: str = setting(WHAT, "ZO algorithm.", "lozo")
    executor: str = setting(WHAT, "What runs the steps.", "vllm")
    model: str = setting(WHAT, "Name in `list`, hub id or local path of a causal LM.", "opt-tiny")
    weights: str = setting(
        WHAT,
        "pretrained: hub or path; random: seeded, same shapes.",
        "auto: pretrained",
        choices=("auto", "pretrained", "random"),
    )
    task: str = setting(WHAT, "Task that gives the examples.", "sst2")
    dtype: str = setting(
        WHAT,
        "Type of weights and activations.",
        "GPU: the checkpoint's bfloat16, else float16; CPU: float32",
        choices=("float32", "float16", "bfloat16"),
    )
    device: str = setting(WHAT, "Where to run.", "auto: a GPU if there is one", metavar="auto|cpu|cuda", choices=("cpu", "cuda"))
    directions: str = setting(
        METHOD,
        "shared: the same Z for every executor; upstream: upstream's stream.",
        "shared; official: upstream",
        choices=("shared", "upstream"),
    )
    batching: str = setting(
        FEATURES,
        "One forward per probe, or all probes in one.",
        "paired; official: sequential",
        choices=("sequential", "paired"),
    )
    kv: str = setting(
        FEATURES,
        "One row per answer option, or each prompt once.",
        "shared; official: recompute",
        choices=("recompute", "shared"),
    )
    lora: str = setting(
        FEATURES,
        "How a probe reaches the weights.",
        "fused; official and mezo: dense",
        choices=("dense", "unfused", "fused"),
    )
    loop: str = setting(
        FEATURES,
        "Through the engine's API, or inside its worker.",
        "resident on vllm, else requests",
        choices=("requests", "resident"),
    )
    data: str | None = setting(
        WHAT, "File or folder of rows: parquet, jsonl, tsv or csv.", "the task's own", None, metavar="PATH"
    )
    data_seed: int = setting(WHAT, "Seed of the train and dev subset.", "0", 0, least=0)
    column: tuple[str, ...] = setting(
        WHAT, "What the file calls a task's column, as in sentence=text; repeatable.", "the same", (), metavar="OURS=ITS"
    )
    labels: str | None = setting(
        WHAT, "The file's words for the labels 0, 1, ..., as in bad,good.", "the task's words", None, metavar="WORD,WORD"
    )
    encoding: str | None = setting(WHAT, "Encoding of files of text, as in latin-1.", "utf-8", None, metavar="NAME")
    template: str | None = setting(
        WHAT, 'Prompt of your own, as in "{text} It was{option}".', "the task's own", None, metavar="TEXT"
    )
    options: str | None = setting(
        WHAT, 'Answers after the template, as in " bad, great".', "the task's own", None, metavar="TEXT,TEXT"
    )
    target: str | None = setting(
        WHAT, "Column of the answer to generate after the template.", "the task's own", None, metavar="COLUMN"
    )
    calibrate: bool = setting(
        WHAT, "Judge answers by what the prompt adds to their log-prob, as upstream's --sfc does.", "no", False
    )
    demonstrations: int = setting(WHAT, "Right answers shown before every prompt.", "0", 0, metavar="N", least=0)
    scope: str = setting(
        WHAT,
        "lora: linear layers inside the blocks; full: every parameter; adapter: A and B of a LoRA adapter.",
        "lora",
        "lora",
        choices=("lora", "full", "adapter"),
    )
    adapter_rank: int = setting(METHOD, "Rank of the adapter that --scope adapter trains.", "8", 8, least=1)
    adapter_alpha: float = setting(METHOD, "Its alpha: it adds alpha / rank * B A to a weight.", "16", 16.0)
    adapter_targets: str = setting(
        METHOD, "The linear layers it stands beside, or all.", "q_proj,v_proj", "q_proj,v_proj", metavar="NAME,NAME|all"
    )
    quantization: str = setting(
        WHAT,
        "Linear layers in fewer bits: fp8 weights and products, or bitsandbytes' 4-bit weights.",
        "none",
        "none",
        choices=("none", "fp8", "bitsandbytes"),
    )
    trust_remote_code: bool = setting(WHAT, "Let a hub model or data set run its own Python code.", "no", False)
    objective: str = setting(
        METHOD,
        "classification: cross-entropy over the answers; nll: of the right one's tokens.",
        "as the task was published",
        "classification",
        choices=("classification", "nll"),
    )
    reward: str | None = setting(
        METHOD,
        "Train by a reward of generated answers: a function of yours, or task: the task's metric.",
        "none: by the loss",
        None,
        metavar="MODULE:FUNCTION|task",
    )
    steps: int = setting(METHOD, "Timed core steps of a session.", "100; opt-tiny: its own", 100, least=1)
    batch_size: int = setting(METHOD, "Examples in a minibatch.", "16", 16, least=1)
    accumulate: int = setting(METHOD, "Minibatches of a step, whose losses are averaged.", "1", 1, metavar="K", least=1)
    max_tokens: int = setting(
        METHOD, "Most tokens in one forward; a larger step takes several.", "what memory has room for", 0, metavar="N", least=0
    )
    learning_rate: float = setting(METHOD, "Learning rate, the highest of its schedule.", "1e-6; opt-tiny: its own", 1e-6)
    lr_schedule: str = setting(
        METHOD,
        "How the learning rate goes on after --lr-warmup: linear and cosine end at 0.",
        "constant",
        "constant",
        choices=("constant", "linear", "cosine"),
    )
    lr_warmup: int = setting(METHOD, "Steps in which the learning rate rises to its highest.", "0", 0, least=0)
    weight_decay: float = setting(METHOD, "Share of every matrix that a step takes off it, times the learning rate.", "0", 0.0)
    momentum: float = setting(METHOD, "Weight of the past in a running mean, for workloads that keep one.", "0.9", 0.9)
    momentum_state: str = setting(
        METHOD,
        "kept: the mean, beside the weights; redrawn: past directions, drawn again.",
        "kept",
        "kept",
        choices=("kept", "redrawn"),
    )
    eps: float = setting(METHOD, "Size of the perturbation.", "1e-3", 1e-3)
    rank: int = setting(METHOD, "Rank of a direction.", "2; factorized: 128; fzoo: 16; eggroll: 1", 2, least=1)
    interval: int = setting(METHOD, "Steps for which LoZO keeps V.", "50", 50, least=1)
    queries: int = setting(METHOD, "Directions measured in a step.", "1; one-sided, eggroll: 4; fzoo: 8", 1, least=1)
    seed: int = setting(METHOD, "Seed of directions and batches.", "0", 0, least=0)
    upstream: str | None = setting(
        METHOD, "Checkout of upstream's code, for the official executor.", "none", None, metavar="PATH"
    )
    warmup: int = setting(MEASURE, "Steps before the timed ones.", "10", 10, least=0)
    eval_every: int = setting(
        MEASURE, "Evaluate before, after and each N steps; 0: never.", "0; opt-tiny: before and after", 0, metavar="N", least=0
    )
    until: str | None = setting(
        MEASURE, "Stop where the dev split is at accuracy=0.9 or loss=0.3.", "after --steps", None, metavar="METRIC=VALUE"
    )
    checkpoint_every: int = setting(
        MEASURE, "Save the state each N steps, so that resuming is quick; 0: never.", "0", 0, metavar="N", least=0
    )
    replicas: str | None = setting(
        SCALE, "Copies of the model that share every step, through Ray; auto: all that fit.", "none", None, metavar="N|auto"
    )
    shares: int = setting(
        SCALE, "Parts of the minibatch that replicas score apart.", "1; more where queries are fewer than replicas", 1, least=1
    )
    ray_address: str | None = setting(
        SCALE, "Ray cluster to run the replicas on.", "one of this machine, started for the run", None, metavar="HOST:PORT"
    )
    replica_cpus: int = setting(SCALE, "CPU cores, and so threads, of a replica.", "1", 1, least=1)
    replica_gpus: int = setting(SCALE, "GPUs of a replica, for each GPU that its model is spread over.", "1 on cuda", 1, least=1)
    replica_timeout_s: float = setting(
        SCALE, "Seconds without any replica's answer after which a run is given up.", "300", 300.0, spelled="--replica-timeout"
    )
    checksum_every: int = setting(SCALE, "Compare the replicas' states each N steps; 0: never.", "50", 50, metavar="N", least=0)
    tensor_parallel: int = setting(
        SCALE, "GPUs (on a CPU: processes) that share one copy of the model.", "1", 1, metavar="N", least=1
    )
    evaluate: bool = False
    variant: str = ""
    admission: str = ""
    users_per_s: float = 0.0
    tuning: bool = False
    """A run that settings are picked by: it never looks at the held-out split (bench.commands.race)."""

    def __post_init__(self) -> None:
        if self.variant and self.variant not in VARIANTS:
            raise UsageError(f"variant {self.variant}: not known; choose one of {', '.join(VARIANTS)}")
        if self.until is not None:
            Until.parse(self.until)
            if not self.eval_every:
                raise UsageError(f"--until {self.until}: the dev split has to be evaluated on the way; give --eval-every N")
        for name, found in settings(RunSpec).items():
            value = getattr(self, name)
            if found.choices and value not in found.choices:
                raise UsageError(f"{option(name)} {value}: not known; choose one of {', '.join(found.choices)}")
            whole = isinstance(value, int) and not isinstance(value, bool)
            if found.least is not None and not (whole and value >= found.least):
                raise UsageError(f"{option(name)} {value}: must be a whole number of at least {found.least}")
        for name, expected in NUMBERS.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0 or (value == 0 and expected == ABOVE):
                raise UsageError(f"{option(name)} {value}: must be a finite number, {expected}")
        if self.replicas not in (None, "auto") and not (str(self.replicas).isdecimal() and int(str(self.replicas)) > 0):
            raise UsageError(f"--replicas {self.replicas}: must be a whole number of at least 1, or auto")
        if self.shares > self.batch_size:
            raise UsageError(f"--shares {self.shares}: at most one for each of the --batch-size {self.batch_size} examples")
        if not math.isfinite(self.replica_timeout_s) or self.replica_timeout_s <= 0:
            raise UsageError(f"--replica-timeout {self.replica_timeout_s}: must be a positive number of seconds")
        if not isinstance(self.momentum, int | float) or not 0 <= self.momentum < 1:
            raise UsageError(f"--momentum {self.momentum}: must be a number from 0 to below 1")
        if self.weight_decay * self.learning_rate >= 1:
            raise UsageError(f"--weight-decay {self.weight_decay}: times --learning-rate {self.learning_rate} must be below 1")

    def alone(self) -> RunSpec:
        """The same on one copy of the model, without replicas."""
        own: dict[str, Any] = {found.name: found.default for found in fields(self) if found.name in OF_REPLICAS}
        return replace(self, replicas=None, **own)

    @property
    def elsewhere(self) -> bool:
        """Whether the model runs in other processes than the session's."""
        return self.replicas is not None or self.tensor_parallel > 1

    @property
    def watched(self) -> bool:
        """Whether recorders can see the model's steps: in the session's process, or in those of ranks that run whole steps."""
        return self.replicas is None and (self.tensor_parallel == 1 or self.loop == "resident")

    @property
    def precision(self) -> str:
        """What products of linear layers are rounded to: the dtype, or fp8."""
        return "fp8" if self.quantization == "fp8" else self.dtype

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunSpec:
        """The spec of a stored result; unknown or missing fields, or values of another type, are a UsageError."""
        from pydantic import TypeAdapter, ValidationError

        known = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or set(data) - known:
            raise UsageError(f"spec: unknown fields {sorted(set(data) - known) if isinstance(data, dict) else data!r}")
        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise UsageError(f"spec: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None


@dataclass(frozen=True)
class RunOptions:
    """How a spec is run. None of it changes what is computed."""

    sessions: int = setting(MEASURE, "Fresh processes for each executor.", "3; opt-tiny: 1", 3)
    timeout_s: float = setting(MEASURE, "Seconds after which a session is ended.", "3600", 3600.0, spelled="--timeout")
    profile: bool = setting(MEASURE, "A separate profiled pass after the timing.", "yes", True)
    record: tuple[str, ...] = setting(MEASURE, "Recorder of the profiled pass; may be repeated.", "all but gradient_quality", ())
    trace: bool = setting(MEASURE, "Keep a trace of the profiled pass for Perfetto.", "no", False)
    results: str = setting(MEASURE, "Folder of the result files; they go into its local/.", "results", "results", metavar="DIR")
    log_to: tuple[str, ...] = setting(
        MEASURE, "Hand each finished session to a tracker; may be repeated.", "none", (), metavar="tensorboard|wandb|mlflow"
    )

    def __post_init__(self) -> None:
        if self.sessions < 1:
            raise UsageError(f"--sessions {self.sessions}: must be at least 1")
        if not math.isfinite(self.timeout_s) or self.timeout_s <= 0:
            raise UsageError(f"--timeout {self.timeout_s}: must be a positive number of seconds")
