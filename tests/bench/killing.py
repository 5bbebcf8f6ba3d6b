"""Runs that are killed at exact moments and resumed, against one that was not. `python tests/bench/killing.py 100` is the soak.

The model is small enough for steps of milliseconds; everything else is the real thing: command line, processes, files.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.config import RunOptions
from bench.defaults import complete
from bench.errors import option
from bench.harness.conduct import start
from bench.harness.session import Job, run_session
from bench.journal.events import Event, SessionLog
from bench.journal.file import SUFFIX, Journal, read_journal
from bench.journal.store import Store
from bench.result import Result, SessionResult, load_result

HERE = Path(__file__).parent
WORDS = ("a", "good", "bad", "fine", "dull", "film", "plot", "great", "terrible", "It", "was", "very", "not", "so", "and", "the")
STEPS, WARMUP = 26, 4
METHOD = {"steps": STEPS, "warmup": WARMUP, "interval": 4, "batch_size": 4, "learning_rate": 1e-3}
KEEPING = {"checkpoint_every": 8, "eval_every": 10}


def build_model(folder: Path) -> Path:
    """A two-layer OPT with weights and a tokenizer of whole words, as Hugging Face stores them."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import OPTConfig, OPTForCausalLM

    words = ["<s>", "<pad>", "</s>", "<unk>", *(f" {word}" for word in WORDS), *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\S+"), "isolated")
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": len(words), "max_position_embeddings": 64, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    model = OPTForCausalLM(OPTConfig(**sizes, **tokens, dropout=0.0, init_std=0.2))
    model.save_pretrained(folder)
    return folder


def write_data(path: Path) -> Path:
    draw = random.Random(0)
    rows = [(" ".join(draw.choices(WORDS, k=draw.randrange(3, 9))), draw.randrange(2)) for _ in range(60)]
    path.write_text("".join(json.dumps({"sentence": text, "label": label}) + "\n" for text, label in rows))
    return path


@dataclass(frozen=True)
class Killable:
    """A run of one executor on that model; every call is one command line."""

    folder: Path
    model: Path
    data: Path
    executor: str
    changes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, executor: str, **changes: Any) -> Killable:
        return cls(folder / "results", build_model(folder / "model"), write_data(folder / "data.jsonl"), executor, changes)

    @property
    def given(self) -> dict[str, Any]:
        return METHOD | KEEPING | {"model": str(self.model), "data": str(self.data), "device": "cpu"} | self.changes

    def begin(self, kill: str | None = None) -> int:
        words = [text for name, value in self.given.items() for text in (option(name), str(value))]
        return self._call(["run", "--executor", self.executor, *words, "--sessions", "1", "--no-profile"], kill)

    def here(self) -> Killable:
        """The same run once more, in this process and in a folder of its own, never killed."""
        again = replace(self, folder=self.folder.with_name(f"{self.folder.name}-here"))
        options, store = RunOptions(1, profile=False), Store(again.folder)
        (run,) = start([complete(self.given | {"executor": self.executor})], options, store)
        log = SessionLog(0)

        def note(event: Event) -> None:
            run.journal.event(0, event)
            log.add(event)

        run_session(Job(run.result.spec, profile=False, journal=str(run.journal.path)), note)
        run.journal.close()
        run.add(log.result(), log.data)
        store.write(run.result)
        return again

    def resume(self, kill: str | None = None, **changed: str) -> int:
        words = [word for name, value in changed.items() for word in (option(name), value)]
        return self._call(["run", "--resume", self.id, *words], kill)

    @property
    def begun(self) -> bool:
        return any(path.stat().st_size for path in self.folder.glob(f"local/*{SUFFIX}"))

    @property
    def journal_path(self) -> Path:
        (path,) = (self.folder / "local").glob(f"*{SUFFIX}")
        return path

    @property
    def id(self) -> str:
        return self.journal_path.name.removesuffix(SUFFIX).rpartition("_")[2]

    @property
    def journal(self) -> Journal:
        return read_journal(self.journal_path)

    @property
    def result(self) -> Result:
        return load_result(self.journal_path.with_name(self.journal_path.name.removesuffix(SUFFIX) + ".json"))

    @property
    def session(self) -> SessionResult:
        (session,) = self.result.sessions
        return session

    def _call(self, arguments: list[str], kill: str | None) -> int:
        """Exit code; -9 when it was killed."""
        environment = os.environ | {"ZO_KILL": kill or "", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE / "killpoints"), os.environ.get("PYTHONPATH", "")]).rstrip(":")
        command = [sys.executable, "-m", "bench", *arguments, "--results", str(self.folder)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, err = process.communicate(timeout=float(kill.removeprefix("after:")) if kill and "after:" in kill else None)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
        assert "Traceback" not in err, err
        assert process.returncode in ((0, -signal.SIGKILL) if kill else (0,)), err
        return process.returncode


def trajectory(session: SessionResult) -> tuple[Any, ...]:
    """What must not depend on interruptions."""
    assert session.status == "passed", session.error
    return session.losses, session.projected_gradients, session.evaluations


POINTS = {"fold": (1, 30), "rewrite": (1, 300), "snapshot": (1, 2), "saved": (1, 2), "result": (1, 1), "journal": (2, 25)}
"""Which occurrence kills: from, to. A session that has less of them left simply ends."""
OF = {
    "eager": "fold snapshot saved result journal",
    "official": "rewrite snapshot saved result journal",
    "vllm": "fold saved journal",
}


def soak(kills: int, seed: int) -> None:
    """Each run is killed up to five times, at random points or after random seconds, and must end as one that never was."""
    draw, done, number = random.Random(seed), 0, 0
    expected: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        while done < kills:
            executor = draw.choice(["eager", "eager", "official", "official", "vllm"])
            run, number = Killable.make(Path(folder) / f"run{number}", executor), number + 1
            for _ in range(5):
                point = draw.choice([*OF[executor].split(), "after"])
                first, last = POINTS.get(point, (1, 9))
                kill = f"{point}:{draw.randint(first, last)}"
                code = (run.resume if run.begun else run.begin)(kill)
                done += code != 0
                if code == 0:
                    break
            (run.resume if run.begun else run.begin)()
            if executor not in expected:
                expected[executor] = trajectory(run.here().session)
            assert trajectory(run.session) == expected[executor], f"{executor}: another trajectory; seed {seed}, run {number}"
            print(f"{done} kills in {number} runs, every trajectory the same bit for bit", flush=True)


if __name__ == "__main__":
    soak(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
