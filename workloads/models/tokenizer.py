"""A model's own tokenizer, or opt-tiny's for random weights that come without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.data import ModelSource
from bench.errors import UsageError
from workloads.models.tiny import tokenizer_file

FILES = ("tokenizer*", "vocab.*", "merges.txt", "spiece.model", "sentencepiece*", "*.tiktoken", "special_tokens_map.json")
"""What tokenizers are kept in, as patterns: looked for here, and copied by an export."""
OPT_BOS = 0
"""Upstream forces OPT's prompts to begin with id 0, though the model's own BOS is 2."""

BOS_BY_DEFAULT = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")
"""What upstream's transformers opened with BOS and a newer one does not, where `tokenizer.model` comes without a word on it."""


@dataclass(frozen=True)
class TextCodec:
    """Text to ids and back.

    encode    opened as the tokenizer opens every text (BOS or not), and closed by nothing: an EOS it appends would stand
              between a prompt and its option
    decode    ids to text, special tokens left out
    end_ids   tokens that end a text
    origin    own, or generated: opt-tiny's
    by_words  whether texts are cut into words first, each of which is then encoded by itself
    """

    encode: Callable[[str], tuple[int, ...]]
    decode: Callable[[Sequence[int]], str]
    pad_id: int
    end_ids: tuple[int, ...]
    origin: str
    by_words: bool = False


def load_tokenizer(source: ModelSource) -> TextCodec:
    """UsageError for pretrained weights without a tokenizer that can be used: other ids would score other words."""
    files = {path.name for pattern in FILES for path in Path(source.path).glob(pattern)}
    if not files and source.weights == "random":
        return _generated()
    try:
        return _own(source)
    except Exception as error:  # a damaged or missing file breaks transformers in many ways
        if source.weights == "random":
            return _generated()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        found = f"{', '.join(sorted(files))} cannot be used ({reason:.150})" if files else "the folder has none"
        raise UsageError(
            f"--model {source.name}: pretrained weights need their own tokenizer, and {found}; "
            "add the model's tokenizer.json (or the files it is made from), or use --weights random to measure speed alone"
        ) from None


def tokenizer_folder(source: ModelSource) -> str:
    """A folder that other libraries load the model's tokenizer from: opt-tiny's for random weights that come without one."""
    from workloads.models.tiny import prepare

    own = any(next(Path(source.path).glob(pattern), None) for pattern in FILES)
    return source.path if own or source.weights != "random" else str(prepare())


def _own(source: ModelSource) -> TextCodec:
    from transformers import AutoTokenizer

    folder, options = Path(source.path), {"local_files_only": True, "trust_remote_code": source.trust_remote_code}
    own: Any = AutoTokenizer.from_pretrained(folder, **options)
    if type(own).__name__ in BOS_BY_DEFAULT and not (folder / "tokenizer.json").exists() and not _says(folder, "add_bos_token"):
        own = AutoTokenizer.from_pretrained(folder, add_bos_token=True, **options)
    opt = json.loads((folder / "config.json").read_text()).get("model_type") == "opt"

    def bare(text: str) -> tuple[int, ...]:
        return tuple(own(text, add_special_tokens=False)["input_ids"])

    words = [bare(word) for word in ("good", "a bad film", "It was 7")]
    if not all(words) or len(set(words)) < len(words):
        raise ValueError("it has no vocabulary: different words get the same ids")
    closing = _closing(tuple(own("good")["input_ids"]), words[0])

    def encode(text: str) -> tuple[int, ...]:
        if opt:
            return (OPT_BOS, *bare(text))
        ids = own(text)["input_ids"]
        return tuple(ids[: len(ids) - closing])

    def decode(ids: Sequence[int]) -> str:
        return str(own.decode(ids, skip_special_tokens=True))

    ends = () if own.eos_token_id is None else (int(own.eos_token_id),)
    pad = own.pad_token_id if own.pad_token_id is not None else 0
    return TextCodec(encode, decode, pad, ends, "own", _by_words(getattr(own, "backend_tokenizer", None)))


def _by_words(tokenizer: Any) -> bool:
    """Of a tokenizer of the library `tokenizers`, whose pieces are encoded one by one."""
    pieces = getattr(tokenizer, "pre_tokenizer", None)
    return pieces is not None and len(pieces.pre_tokenize_str("two more words")) == 3


def _says(folder: Path, setting: str) -> bool:
    file = folder / "tokenizer_config.json"
    return file.exists() and json.loads(file.read_text()).get(setting) is not None


def _closing(whole: tuple[int, ...], bare: tuple[int, ...]) -> int:
    """How many special tokens a tokenizer puts after a text."""
    ends = (end for end in range(len(bare), len(whole) + 1) if whole[end - len(bare) : end] == bare)
    return len(whole) - next(ends, len(whole))


def _generated() -> TextCodec:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file()))
    return TextCodec(
        lambda text: (OPT_BOS, *tokenizer.encode(text).ids),
        lambda ids: str(tokenizer.decode(list(ids))),
        1,
        (2,),
        "generated",
        _by_words(tokenizer),
    )
