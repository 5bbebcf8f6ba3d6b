"""Option log-probs of a batch under the probes of a forward: padded rows, or the tree of their prefixes, and only the head
positions that the loss needs.

Two variants take one of these two choices back, so that attribution can measure it.
"""

from __future__ import annotations

from typing import Any

import torch

from baselines.eager import unpadded
from baselines.eager.states import AdapterStates
from bench.api import mark, phase
from bench.data import Batch, Example
from workloads.tasks.collate import option_rows
from workloads.tasks.loss import ragged
from workloads.tasks.ragged import Rows, full_rows, tree_rows


def padded_rows(batch: Batch, pad_id: int, prompts: bool) -> dict[str, Any]:
    """Left-padded rows: one per option, or each prompt alone."""
    return option_rows([Example(e.prompt, ((),), e.label) for e in batch] if prompts else batch, pad_id)


class OptionScorer:
    """A Hugging Face causal LM and its head. head: canonical name of the head's weight where it is in scope.

    `variant` is one of bench.config.VARIANTS that the eager executor has, or empty. How a batch is scored:
        full     one row per option, from its first token to its last
        labels   each prompt once; one-token options are read from its last position and their rows of the head
        tree     each distinct prefix once, packed end to end
    """

    def __init__(self, model: Any, head: str | None, pad_id: int) -> None:
        self.model, self.pad_id = model, pad_id
        self._head, self._head_name = model.get_output_embeddings(), head
        self._weight = getattr(self._head, "inner", self._head).weight
        self.vocabulary: int = self._weight.size(0)
        self.has_bias = getattr(self._head, "inner", self._head).bias is not None
        self.variant = ""

    def use(self, variant: str) -> None:
        self.variant = variant

    def option_logprobs(self, batch: Batch, probes: int, states: AdapterStates | None, form: str) -> torch.Tensor:
        """Mean log-prob of each option [P, n_examples, most options], float32, -inf where an example has fewer; up to a constant
        per example for `labels`."""
        packed = form == "tree" or self.variant == "unpadded"
        self.model.set_attn_implementation(unpadded.NAME if packed else "eager")
        options = torch.tensor([len(example.options) for example in batch])
        if packed:
            return ragged(self._packed(batch, probes, states, form), options)
        device = self._weight.device
        with phase("host"):
            rows = padded_rows(batch, self.pad_id, form == "labels")
            ids, mask = (rows[key].to(device, non_blocking=True) for key in ("input_ids", "attention_mask"))
        positions = (mask.cumsum(1) - 1).clamp_(min=0)  # rows start where their padding ends, whatever the architecture
        hidden = self.model.base_model(
            input_ids=ids.repeat(probes, 1),
            attention_mask=mask.repeat(probes, 1),
            position_ids=positions.repeat(probes, 1),
            use_cache=False,
        ).last_hidden_state
        with mark("head_logits"):
            if form == "labels":
                at = torch.repeat_interleave(options).to(device, non_blocking=True)
                scores = self._label_logits(hidden[:, -1].view(probes, len(batch), -1)[:, at], batch, states)
            else:
                lengths = torch.tensor(rows["option_len"]).to(device, non_blocking=True)
                scores = self._row_means(hidden, ids, lengths, max(rows["option_len"])).view(probes, -1)
        return ragged(scores, options)

    def work(self, batch: Batch, form: str) -> dict[str, int]:
        """Exact counts for one probe: rows, tokens_scored, tokens_real, head_rows."""
        labels = sum(len(example.options) for example in batch)
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

    def _packed(self, batch: Batch, probes: int, states: AdapterStates | None, form: str) -> torch.Tensor:
        """Scores [P, options of all examples] over packed rows."""
        device = self._weight.device
        with phase("host"):
            rows = self._rows(batch, probes, form)
            arrays = (rows.tokens, rows.positions(), rows.wanted, rows.at, rows.targets)
            ids, positions, wanted, at, targets = (torch.from_numpy(a).long().to(device, non_blocking=True) for a in arrays)
            spread = unpadded.Spread.of(rows, device)
        hidden = self.model.base_model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, spread=spread
        ).last_hidden_state[0]
        with mark("head_logits"):
            chosen = hidden[wanted]
            if form == "labels":
                return self._label_logits(chosen[at].view(probes, -1, chosen.size(-1)), batch, states)
            logprobs = self._head(chosen).float().log_softmax(-1)
            picked = logprobs[at, targets]
            if rows.per_option.max() > 1:
                picked = torch.stack([option.mean() for option in picked.split(rows.per_option.tolist())])
            return picked.view(probes, -1)

    def _label_logits(self, hidden: torch.Tensor, batch: Batch, states: AdapterStates | None) -> torch.Tensor:
        """hidden [P, options, dim], of each option's prompt: the head's rows of the option tokens, and nothing else of it."""
        tokens = torch.tensor([option[0] for e in batch for option in e.options]).to(hidden.device, non_blocking=True)
        logits = torch.einsum("pod,od->po", hidden.float(), self._weight[tokens].float())
        if states is None or self._head_name is None:
            return logits
        shrunk, rows = states.shrink(self._head_name, hidden), states.head_rows(self._head_name, tokens)
        return logits + torch.einsum("pok,pok->po", shrunk.float(), rows.float())

    def _row_means(self, hidden: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor, longest: int) -> torch.Tensor:
        """hidden [P * rows, width, dim]: log-softmax over the vocabulary at the positions that predict an option token."""
        if self.variant == "every position":
            logprobs = self._head(hidden)[:, :-1].float().log_softmax(-1)[:, -longest:]
        else:
            logprobs = self._head(hidden[:, -longest - 1 : -1]).float().log_softmax(-1)
        targets = ids[:, -longest:]
        wanted = torch.arange(longest, device=ids.device) >= longest - lengths[:, None]
        repeats = len(hidden) // len(ids)
        picked = logprobs.gather(-1, targets.repeat(repeats, 1)[..., None])[..., 0]
        return (picked * wanted.repeat(repeats, 1)).sum(-1) / lengths.repeat(repeats)
