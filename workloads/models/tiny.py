"""opt-tiny: a tokenizer and a small OPT pre-trained here on a generated sentiment corpus, cached, the same for every run.

The corpus teaches the words' polarity through many adjectives after "It was", while " great" follows either polarity half of
the time and " terrible" is rare: the model can tell the classes apart but reads them out badly, which fine-tuning mends.
`python -m workloads.models.tiny` prepares it and says how long that took.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from workloads import generated
from workloads.models.cache import cache_dir, kept

VERSION, SEED = 2, 1
"""VERSION names what is cached and goes up with anything that changes it."""
VOCABULARY = 684
CORPUS, STEPS, BATCH, RATE = 12000, 500, 32, 3e-3
CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "word_embed_proj_dim": 128,
    "ffn_dim": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "layerdrop": 0.0,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def prepare() -> Path:
    """The folder of opt-tiny, built on first use (about a minute on two cores)."""
    return kept(folder().name, _build)


def folder() -> Path:
    """Where opt-tiny is, or will be."""
    return cache_dir() / f"opt-tiny-{VERSION}"


def tokenizer_file() -> Path:
    """opt-tiny's tokenizer alone, ready in seconds."""
    return kept(f"tokenizer-{VERSION}", _train_tokenizer) / "tokenizer.json"


def _corpus() -> list[tuple[str, int]]:
    half = CORPUS // 2
    short = generated.sentences(half, generated.PHRASES, generated.PRETRAINING, SEED, 0)
    return short + generated.sentences(half, generated.EVAL, generated.PRETRAINING, SEED, 1)


def _verdicts(labels: list[int], random: np.random.Generator) -> list[str]:
    """The word after "It was": an adjective of the sentence's polarity three times in four, else " great"; rarely " terrible"."""
    found = []
    for label in labels:
        words = generated.POSITIVE if label else generated.NEGATIVE
        rare = random.random()
        found.append("great" if rare < 0.25 else words[random.integers(len(words))])
    return found


def _train_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    both = generated.PRETRAINING + generated.TASK  # the words of all templates; the model is pre-trained on the first set alone
    rows = generated.sentences(6000, generated.TRAIN, both, SEED, 2)
    texts = [f"{text} It was terrible. It was great." for text, _ in rows]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def _build(folder: Path) -> None:
    """Pre-train by back-propagation and save model and tokenizer as Hugging Face would.

    On one thread: sums over several threads come out in another order, and so the weights would depend on their number.
    """
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    shutil.copy(tokenizer_file(), folder / "tokenizer.json")
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"unk_token": "<unk>"}))
    rows, threads = _rows(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model = OPTForCausalLM(OPTConfig(**CONFIG))
            _train(model, rows)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)


def _train(model: Any, rows: list[list[int]]) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    random = np.random.default_rng(SEED)
    for _ in range(STEPS):
        ids = _batch(rows, random)
        loss = _loss(model(input_ids=ids, attention_mask=ids != 1).logits, ids)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def _loss(logits: Any, ids: Any) -> Any:
    """Next-token cross-entropy in nats, the verdict (the token before the closing one) counted as much as all others together."""
    import torch
    import torch.nn.functional as F

    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    inside = ids[:, 1:] != 1
    verdict = torch.zeros_like(inside).scatter_(1, inside.sum(1, keepdim=True) - 2, True)
    return losses[inside].mean() + losses[verdict].mean()


def _rows() -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file()))
    corpus = _corpus()
    verdicts = _verdicts([label for _, label in corpus], np.random.default_rng(SEED + 1))
    texts = [f"{text} It was {verdict}" for (text, _), verdict in zip(corpus, verdicts, strict=True)]
    return [[0, *encoding.ids, 2] for encoding in tokenizer.encode_batch(texts)]


def _batch(rows: list[list[int]], random: np.random.Generator) -> Any:
    """Rows of similar length, right-padded."""
    import torch

    start = sorted(random.integers(0, len(rows), BATCH * 8), key=lambda i: len(rows[i]))
    first = int(random.integers(0, 8)) * BATCH
    chosen = [rows[i] for i in start[first : first + BATCH]]
    width = max(map(len, chosen))
    return torch.tensor([row + [1] * (width - len(row)) for row in chosen])


if __name__ == "__main__":
    started = time.perf_counter()
    print(f"{prepare()} ready after {time.perf_counter() - started:.1f} s")
