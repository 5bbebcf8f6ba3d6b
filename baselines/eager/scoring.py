"""Option log-probs of a batch under the probes of a forward: padded rows, or the tree of their prefixes, and only the head
positions that the loss needs.

Two variants take one of these two choices back, so that attribution can measure it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from baselines.eager import unpadded
from baselines.eager.head import Head, put_head
from baselines.eager.modules import Current
from bench.api import mark, phase
from bench.data import Batch, Example
from bench.errors import UsageError
from workloads.models.inputs import padded
from workloads.tasks.collate import option_rows
from workloads.tasks.loss import ragged
from workloads.tasks.ragged import Rows, full_rows, tree_rows

Take = Callable[[torch.Tensor], torch.Tensor]
ALLOWED = {torch.float32: 1e-5, torch.float64: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far two ways of scoring may be apart in the trial, of the largest value."""


def padded_rows(batch: Batch, pad_id: int, prompts: bool) -> dict[str, Any]:
    """Left-padded rows: one per option, or each prompt alone."""
    return option_rows([Example(e.prompt, ((),), e.label) for e in batch] if prompts else batch, pad_id)


class OptionScorer:
    """A Hugging Face causal LM whose head is asked for what a batch needs.

    `variant` is one of bench.config.VARIANTS that the eager executor has, or empty. How a batch is scored:
        full     one row per option, from its first token to its last
        labels   each prompt once; one-token options are read from its last position and their rows of the head
        tree     each distinct prefix once, packed end to end
    Whether a family can be scored in the last two ways is tried once, on a few tokens: `label_rows` and `packs`.
    """

    def __init__(self, model: Any, current: Current, pad_id: int) -> None:
        self.model, self.pad_id, self._current, self.variant = model, pad_id, current, ""
        self._head = put_head(model, current)
        self._device: torch.device = next(model.parameters()).device
        tried = attempt(self)
        self.label_rows, self.packs, self.vocabulary = tried.label_rows, tried.packs, tried.vocabulary

    def use(self, variant: str) -> None:
        if variant == "unpadded" and not self.packs:
            raise UsageError(f"variant unpadded: the attention of {type(self.model).__name__} takes no packed rows; leave it out")
        self.variant = variant

    def option_logprobs(self, batch: Batch, probes: int, form: str) -> torch.Tensor:
        """Mean log-prob of each option [P, n_examples, most options], float32, -inf where an example has fewer; up to a constant
        per example for `labels`."""
        options = torch.tensor([len(example.options) for example in batch])
        self._current.packed = form == "tree" or self.variant == "unpadded"
        if self._current.packed:
            return ragged(self._packed(batch, probes, form), options)
        self.model.set_attn_implementation("eager")
        with phase("host"):
            rows = padded_rows(batch, self.pad_id, form == "labels")
            ids, mask = (rows[key].to(self._device, non_blocking=True) for key in ("input_ids", "attention_mask"))
        inputs = padded(self.model, ids.repeat(probes, 1), mask.repeat(probes, 1))
        if form == "labels":
            at = torch.repeat_interleave(options).to(self._device, non_blocking=True)
            return ragged(self._labels(inputs, batch, lambda x: x[:, -1].view(probes, len(batch), -1)[:, at]), options)
        lengths = torch.tensor(rows["option_len"]).to(self._device, non_blocking=True)
        return ragged(self._row_means(inputs, ids, lengths, max(rows["option_len"])).view(probes, -1), options)

    def work(self, batch: Batch, form: str) -> dict[str, int]:
        """Exact counts for one probe: rows, tokens_scored, tokens_real, head_rows."""
        labels = sum(len(example.options) for example in batch)
        if self._head is not None and not self._head.by_rows:
            labels *= self.vocabulary
        if form == "tree" or self.variant == "unpadded":
            packed = self._rows(batch, 1, form)
            tokens, head = len(packed.tokens), labels if form == "labels" else len(packed.wanted) * self.vocabulary
            return {"rows": len(packed.lengths), "tokens_scored": tokens, "tokens_real": tokens, "head_rows": head}
        rows = padded_rows(batch, self.pad_id, form == "labels")
        count, width = rows["input_ids"].shape
        positions = width if self.variant == "every position" else max(rows["option_len"])
        head = labels if form == "labels" else count * positions * self.vocabulary
        real = int(rows["attention_mask"].sum())
        return {"rows": count, "tokens_scored": count * width, "tokens_real": real, "head_rows": head}

    def _rows(self, batch: Batch, probes: int, form: str) -> Rows:
        return full_rows(batch, probes) if form == "full" else tree_rows(batch, probes)

    def _packed(self, batch: Batch, probes: int, form: str) -> torch.Tensor:
        """Scores [P, options of all examples] over packed rows."""
        self.model.set_attn_implementation(unpadded.NAME)
        with phase("host"):
            rows = self._rows(batch, probes, form)
            self._current.tokens = len(rows.tokens)
            arrays = (rows.tokens, rows.positions(), rows.wanted, rows.at, rows.targets)
            ids, positions, wanted, at, targets = (torch.from_numpy(a).long().to(self._device, non_blocking=True) for a in arrays)
            spread = unpadded.Spread.of(rows, self._device)
        every = torch.ones_like(ids)[None]  # or transformers would look for several sequences in one row, by their positions
        inputs = {"input_ids": ids[None], "attention_mask": every, "position_ids": positions[None], "use_cache": False}
        with unpadded.spread_as(spread):
            if form == "labels":
                return self._labels(inputs, batch, lambda x: x[0, wanted][at].view(probes, -1, x.size(-1)))
            logits = self._logits(inputs, lambda x: x[:, wanted])
        with mark("head_logits"):
            picked = logits[0].float().log_softmax(-1)[at, targets]
            if rows.per_option.max() > 1:
                picked = torch.stack([option.mean() for option in picked.split(rows.per_option.tolist())])
            return picked.view(probes, -1)

    def _logits(self, inputs: dict[str, Any], take: Take) -> torch.Tensor:
        """What the model makes of the hidden states that `take` keeps of [rows, width, dim]: logits [.., vocabulary]."""

        def want(head: Head, hidden: torch.Tensor) -> torch.Tensor:
            with mark("head_logits"):
                return head.inner(take(hidden))

        if self._head is None:
            return take(self.model(**inputs).logits)
        with self._head.asked(want):
            logits = self.model(**inputs).logits
        return logits if self._head.used else take(logits)

    def _labels(self, inputs: dict[str, Any], batch: Batch, take: Take) -> torch.Tensor:
        """Logits [P, options] of the option tokens, and nothing else of the head; `take`: hidden states to [P, options, dim]."""
        assert self._head is not None
        tokens = torch.tensor([option[0] for e in batch for option in e.options]).to(self._device, non_blocking=True)

        def want(head: Head, hidden: torch.Tensor) -> torch.Tensor:
            with mark("head_logits"):
                return head.labels(take(hidden), tokens)[None]

        with self._head.asked(want):
            logits: torch.Tensor = self.model(**inputs).logits[0]
        return logits.float()

    def _row_means(self, inputs: dict[str, Any], ids: torch.Tensor, lengths: torch.Tensor, longest: int) -> torch.Tensor:
        """Means [P * rows] of the log-softmax over the vocabulary at the positions that predict an option token."""
        if self.variant == "every position":
            logprobs = self._logits(inputs, lambda x: x)[:, :-1].float().log_softmax(-1)[:, -longest:]
        else:
            logprobs = self._logits(inputs, lambda x: x[:, -longest - 1 : -1]).float().log_softmax(-1)
        targets = ids[:, -longest:]
        wanted = torch.arange(longest, device=ids.device) >= longest - lengths[:, None]
        repeats = len(logprobs) // len(ids)
        picked = logprobs.gather(-1, targets.repeat(repeats, 1)[..., None])[..., 0]
        return (picked * wanted.repeat(repeats, 1)).sum(-1) / lengths.repeat(repeats)


@dataclass(frozen=True)
class Attempt:
    """What a family can do, and how many logits it gives."""

    label_rows: bool
    packs: bool
    vocabulary: int


@torch.inference_mode()
def attempt(scorer: OptionScorer) -> Attempt:
    """Two short prompts that begin alike, scored in every way, and by the model alone, a row at a time."""
    model: Any = scorer.model
    most = model.config.get_text_config().vocab_size
    prompts = tuple(tuple(token % most for token in prompt) for prompt in ((11, 12, 13, 14, 15, 16, 17), (11, 12, 18)))
    batch = [Example(prompt, ((9 % most,), (5 % most,), (20 % most,)), 0) for prompt in prompts]
    model.set_attn_implementation("eager")
    every = torch.stack([model(torch.tensor([p], device=scorer._device), use_cache=False).logits[0, -1].float() for p in prompts])
    wanted = [[option[0] for option in example.options] for example in batch]

    def agrees(form: str, truth: torch.Tensor) -> bool:
        try:
            found = scorer.option_logprobs(batch, 1, form)[0]
        except Exception:  # whatever another family's code raises: it cannot be scored in this way
            return False
        expected = torch.stack([row[tokens] for row, tokens in zip(truth, wanted, strict=True)])
        allowed = ALLOWED[next(model.parameters()).dtype] * float(truth.abs().amax())
        return torch.allclose(found, expected, rtol=0, atol=allowed, equal_nan=True)

    return Attempt(
        scorer._head is not None and agrees("labels", every),
        unpadded.takes_packed_rows(model) and agrees("tree", every.log_softmax(-1)) and scorer._current.divisible,
        every.size(-1),
    )
