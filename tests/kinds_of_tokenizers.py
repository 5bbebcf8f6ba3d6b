"""Small tokenizers of every kind people have, trained on generated sentences and saved the way models carry them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from workloads import generated

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
NAMES = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


@cache
def corpus() -> tuple[str, ...]:
    rows = generated.sentences(1000, generated.TRAIN, generated.PRETRAINING + generated.TASK, 5, 2)
    return tuple(f"{text} It was {'great' if i % 2 else 'terrible'}" for i, (text, _) in enumerate(rows))


def _framed(tokenizer: Tokenizer, before: Sequence[str], after: Sequence[str]) -> Tokenizer:
    """With special tokens around every text."""
    if before or after:
        ids = [(token, SPECIAL.index(token)) for token in {*before, *after}]
        single = " ".join([*before, "$A", *after])
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=f"{single} $B", special_tokens=ids)
    return tokenizer


def _save(tokenizer: Tokenizer, folder: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMES).save_pretrained(folder)


def byte_level(
    folder: Path, *, size: int = 700, space: bool = False, before: Sequence[str] = (), after: Sequence[str] = ()
) -> None:
    """As GPT-2, OPT, Llama-3 and Qwen. space: a space before every text; size 290: words of many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    _save(_framed(tokenizer, before, after), folder)


def space_marked(folder: Path, *, prefix: bool = True, after: Sequence[str] = ()) -> None:
    """Byte-pair merges over marked spaces, as the fast files of Llama-2, Mistral and Phi-3 (prefix) and of Gemma (none)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    marks: list[Any] = [normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *marks] if prefix else marks)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    known = SPECIAL + [f"<0x{i:02X}>" for i in range(256)]
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=700, special_tokens=known, show_progress=False))
    tokenizer.pre_tokenizer = None  # as in the published files: only the merges know where words end
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _save(_framed(tokenizer, ["<s>"], after), folder)


def sentencepiece(folder: Path, *, legacy: bool, whitespace: bool = True, **config: Any) -> None:
    """Only `tokenizer.model`, as older Llama checkpoints. whitespace False: pieces may reach across words."""
    import sentencepiece as spm

    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(folder / "tokenizer"), vocab_size=420, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_by_whitespace=whitespace, minloglevel=2, num_threads=1, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": legacy,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | config))


def unsplit(folder: Path, *, scheme: str) -> None:
    """As Llama-2 without `legacy`: a mark before the text, or nowhere that it was not written, and no split at spaces."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    known = SPECIAL + [f"<0x{i:02X}>" for i in range(256)]
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=700, special_tokens=known, show_progress=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _save(_framed(tokenizer, ["<s>"], ()), folder)


def word_pieces(folder: Path) -> None:
    """As BERT: lower case, a special token before and after every text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        corpus(), trainers.WordPieceTrainer(vocab_size=600, special_tokens=SPECIAL, show_progress=False)
    )
    _save(_framed(tokenizer, ["<s>"], ["</s>"]), folder)


def unigram(folder: Path) -> None:
    """As T5 and Albert: a unigram model over marked spaces, closed by EOS."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    _save(_framed(tokenizer, (), ["</s>"]), folder)


def joining(folder: Path) -> None:
    """Merges that know no words: a token may hold the end of a prompt and the beginning of an option."""
    tokenizer = Tokenizer(models.BPE())
    texts = [f"{i} It was{' great' if i % 2 else ' terrible'}" for i in range(100)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([*texts, *corpus()], trainer)
    tokenizer.decoder = decoders.Fuse()
    _save(_framed(tokenizer, ["<s>"], ()), folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "byte-level": byte_level,
    "byte-level, BOS": partial(byte_level, before=["<s>"]),
    "byte-level, BOS and EOS": partial(byte_level, before=["<s>"], after=["</s>"]),
    "byte-level, EOS": partial(byte_level, after=["</s>"]),
    "byte-level, space before": partial(byte_level, space=True),
    "byte-level, long words": partial(byte_level, size=270, before=["<s>"]),
    "space-marked, prefix": space_marked,
    "space-marked, prefix, EOS": partial(space_marked, after=["</s>"]),
    "space-marked, no prefix": partial(space_marked, prefix=False),
    "unsplit, mark first": partial(unsplit, scheme="first"),
    "unsplit, no mark": partial(unsplit, scheme="never"),
    "sentencepiece BPE, legacy": partial(sentencepiece, legacy=True),
    "sentencepiece BPE": partial(sentencepiece, legacy=False),
    "sentencepiece, BOS and EOS": partial(sentencepiece, legacy=False, add_bos_token=True, add_eos_token=True),
    "sentencepiece, no BOS": partial(sentencepiece, legacy=False, add_bos_token=False),
    "sentencepiece, across words": partial(sentencepiece, legacy=False, whitespace=False),
    "word pieces": word_pieces,
    "unigram, EOS": unigram,
    "joining": joining,
}
