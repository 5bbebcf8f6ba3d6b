"""Option log-probs of a batch under the probes of a forward: padded rows, and only the head positions that the loss needs.

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
from workloads.tasks.ragged import full_rows, shared_rows


def padded_rows(batch: Batch, pad_id: int, shared: bool) -> dict[str, Any]:
    """Left-padded rows: each prompt once when shared, else one row per option."""
    return option_rows([Example(e.prompt, ((),), e.label) for e in batch] if shared else batch, pad_id)


class Scorer:
    """A Hugging Face causal LM and its head. head: canonical name of the head's weight where it is in scope.

    `variant` is one of bench.api.VARIANTS that the eager executor has, or empty.
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
        self.model.set_attn_implementation(unpadded.NAME if variant == "unpadded" else "eager")

    def option_logprobs(self, batch: Batch, probes: int, states: AdapterStates | None, shared: bool) -> torch.Tensor:
        """Mean log-prob of each option [P, n_examples, n_options], float32; up to a constant per example when shared."""
        if self.variant == "unpadded":
            return self._unpadded(batch, probes, states, shared)
        device = self._weight.device
        with phase("host"):
            rows = padded_rows(batch, self.pad_id, shared)
            ids, mask = (rows[key].to(device, non_blocking=True) for key in ("input_ids", "attention_mask"))
        positions = (mask.cumsum(1) - 1).clamp_(min=0)  # rows start where their padding ends, whatever the architecture
        hidden = self.model.base_model(
            input_ids=ids.repeat(probes, 1),
            attention_mask=mask.repeat(probes, 1),
            position_ids=positions.repeat(probes, 1),
            use_cache=False,
        ).last_hidden_state
        with mark("head_logits"):
            if shared:
                return self._label_logits(hidden[:, -1].view(probes, len(batch), -1), batch, states)
            lengths = torch.tensor(rows["option_len"]).to(device, non_blocking=True)
            return self._row_means(hidden, ids, lengths, max(rows["option_len"])).view(probes, len(batch), -1)

    def work(self, batch: Batch, shared: bool) -> dict[str, int]:
        """Exact counts for one probe: rows, tokens_scored, tokens_real, head_rows."""
        rows = padded_rows(batch, self.pad_id, shared)
        count, width = rows["input_ids"].shape
        real = int(rows["attention_mask"].sum())
        if shared:
            head = count * len(batch[0].options)
        elif self.variant == "unpadded":
            head = sum(rows["option_len"]) * self.vocabulary
        else:
            head = count * (width if self.variant == "every position" else max(rows["option_len"])) * self.vocabulary
        scored = real if self.variant == "unpadded" else count * width
        return {"rows": count, "tokens_scored": scored, "tokens_real": real, "head_rows": head}

    def _unpadded(self, batch: Batch, probes: int, states: AdapterStates | None, shared: bool) -> torch.Tensor:
        """The same over packed rows."""
        device = self._weight.device
        with phase("host"):
            rows = (shared_rows if shared else full_rows)(batch, probes)
            arrays = (rows.tokens, unpadded.positions(rows), rows.wanted, rows.targets)
            ids, at, wanted, targets = (torch.from_numpy(a).long().to(device, non_blocking=True) for a in arrays)
            spread = unpadded.Spread.of(rows, device)
        hidden = self.model.base_model(
            input_ids=ids[None], position_ids=at[None], use_cache=False, spread=spread
        ).last_hidden_state[0]
        with mark("head_logits"):
            chosen = hidden[wanted]
            if shared:
                return self._label_logits(chosen.view(probes, len(batch), -1), batch, states)
            picked = self._head(chosen).float().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
            if rows.per_row.max() > 1:
                picked = torch.stack([option.mean() for option in picked.split(rows.per_row.tolist())])
            return picked.view(probes, len(batch), -1)

    def _label_logits(self, hidden: torch.Tensor, batch: Batch, states: AdapterStates | None) -> torch.Tensor:
        """hidden [P, n, dim]: the head's rows of the option tokens, and nothing else of it."""
        tokens = torch.tensor([[option[0] for option in e.options] for e in batch]).to(hidden.device, non_blocking=True)
        logits = torch.einsum("pnd,nod->pno", hidden.float(), self._weight[tokens].float())
        if states is None or self._head_name is None:
            return logits
        shrunk, rows = states.shrink(self._head_name, hidden), states.head_rows(self._head_name, tokens)
        return logits + torch.einsum("pnk,pnok->pno", shrunk.float(), rows.float())

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
