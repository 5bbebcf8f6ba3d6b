"""What is scored is what the published protocol scores, whatever the tokenizer: it encodes prompt and option together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kinds_of_tokenizers import KINDS
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from bench.data import ModelSource
from bench.errors import UsageError
from workloads.models.tokenizer import load_tokenizer
from workloads.tasks.encode import encode_options
from workloads.tasks.load import load_task

PROMPTS = ["the plot is dull and the actors are fine . It was", "a film It was", "7 It was", "ends in a question?", "in a line\n"]
OPTIONS = [" terrible", " great", " a very long and dull answer", "great", "\nnew line"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """folder(kind, model_type): a folder with a tokenizer of that kind and a config.json."""

    def make(kind: str, model_type: str = "llama") -> Path:
        path = tmp_path_factory.mktemp("tokenizer")
        KINDS[kind](path)
        (path / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 1000}))
        return path

    return make


LONG = "a film of two friends , one of whom is 7 ; the plot is dull . " * 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_beginning_is_encoded_once_and_nothing_changes(kind: str, folder: Callable[..., Path]) -> None:
    """Where the tokenizer cuts texts into words; elsewhere every row is encoded whole."""
    codec = load_tokenizer(ModelSource("m", str(folder(kind)), "pretrained"))
    lengths: list[int] = []

    def encode(text: str) -> tuple[int, ...]:
        lengths.append(len(text))
        return codec.encode(text)

    for prompt in PROMPTS:
        whole = encode_options(codec.encode, LONG + prompt, OPTIONS)
        lengths.clear()
        assert encode_options(encode, LONG + prompt, OPTIONS, by_words=codec.by_words) == whole
        assert (sum(lengths) < 3 * len(LONG)) == codec.by_words


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_scored_tokens_are_upstreams(kind: str, folder: Callable[..., Path]) -> None:
    """Upstream encodes prompt and row, and scores as many last tokens as the row has more. A closing EOS is left out."""
    path = folder(kind)
    opened = {"add_bos_token": "no BOS" not in kind} if kind.startswith("sentencepiece") else {}  # upstream's default
    codec, own = load_tokenizer(ModelSource("m", str(path), "pretrained")), AutoTokenizer.from_pretrained(path, **opened)
    closed = "EOS" in kind or kind == "word pieces"
    joined = 0
    for prompt in PROMPTS:
        found = encode_options(codec.encode, prompt, OPTIONS)
        before = own.encode(prompt)
        scored = found.scored or tuple(map(len, found.options))
        for option, ids, count in zip(OPTIONS, found.options, scored, strict=True):
            row = own.encode(prompt + option)
            if closed:
                assert row[-1] == before[-1] == own.eos_token_id
            whole = row[:-1] if closed else row
            assert found.prompt + ids == tuple(whole)
            assert count == max(1, len(row) - len(before))
        alone = tuple(before[:-1] if closed else before)
        assert found.joined == any(alone != (found.prompt + ids)[:-n] for ids, n in zip(found.options, scored, strict=True))
        joined += found.joined
    assert bool(joined) >= (kind == "joining")


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, BOS", "byte-level, BOS and EOS"])
def test_opt_begins_with_id_0_as_upstream_forces_it_to(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind, "opt")
    ids = load_tokenizer(ModelSource("m", str(path), "pretrained")).encode("a fine film")
    assert ids == (0, *AutoTokenizer.from_pretrained(path).encode("a fine film", add_special_tokens=False))


def test_a_space_mark_is_no_token_of_the_option(folder: Callable[..., Path], tmp_path: Path) -> None:
    """Llama-2's kind: " great" alone is a mark and a word, after a prompt it is one token. So `--kv shared` is exact."""
    (tmp_path / "rows.tsv").write_text("sentence\tlabel\n" + "a fine film\t1\na dull plot\t0\n" * 10)
    for kind in ("space-marked, prefix", "sentencepiece BPE, legacy", "byte-level"):
        path = folder(kind)
        task = load_task("sst2", source=ModelSource("m", str(path), "pretrained"), data=str(tmp_path / "rows.tsv"))
        assert task.single_token_options and not task.summary["warnings"], kind
        own = AutoTokenizer.from_pretrained(path)
        assert task.train[0].options == tuple((own.encode("It was" + word)[-1],) for word in (" terrible", " great"))


def test_warnings_name_the_cause(folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("sentence\tlabel\n" + "a fine film\t1\na dull plot\t0\n" * 10)

    def warnings(kind: str) -> list[str]:
        source = ModelSource("m", str(folder(kind)), "pretrained")
        return load_task("sst2", source=source, data=str(tmp_path / "rows.tsv")).summary["warnings"]

    assert warnings("byte-level, long words") == []  # answers of several tokens are nothing unusual
    assert any("joins the end of the prompt and an option into other tokens in 20 of 20" in w for w in warnings("joining"))


def test_a_joined_token_leaves_its_own_context_to_each_option() -> None:
    """Four letters to a token: "abcd" + "ef" becomes abcd|ef, but "abc" + "ef" becomes abce|f."""

    def encode(text: str) -> tuple[int, ...]:
        return tuple(hash(text[i : i + 4]) for i in range(0, len(text), 4))

    clean, joined = encode_options(encode, "abcd", ["ef", "gh"]), encode_options(encode, "abcdabc", ["ef", "g", "hijklmn"])
    assert clean.prompt == encode("abcd") and clean.options == (encode("ef"), encode("gh")) and not clean.joined
    assert joined.joined and joined.prompt == encode("abcd")
    assert joined.options == (encode("abcef"), encode("abcg"), encode("abchijklmn"))
    assert joined.scored == (1, 1, 2)


def test_nothing_before_the_option_is_refused() -> None:
    with pytest.raises(UsageError, match="prompt '' is no token"):
        encode_options(lambda text: tuple(map(ord, text)), "", ["a", "b"])


@pytest.mark.parametrize("files", [{}, {"tokenizer.model": "not read"}, {"tokenizer.json": "{"}, {"tokenizer_config.json": "{}"}])
def test_pretrained_weights_need_their_own_tokenizer(files: dict[str, str], tmp_path: Path) -> None:
    for model_type in ("llama", "opt", "gemma", "qwen2"):
        for name, text in (files | {"config.json": json.dumps({"model_type": model_type})}).items():
            (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=r"--model mine: pretrained weights need their own tokenizer") as caught:
            load_tokenizer(ModelSource("mine", str(tmp_path), "pretrained"))
        assert "\n" not in str(caught.value)
        assert load_tokenizer(ModelSource("mine", str(tmp_path), "random")).origin == "generated"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("sentencepiece")])
def test_tokenizer_model_alone_gives_the_ids_of_the_library_that_made_it(kind: str, folder: Callable[..., Path]) -> None:
    path = folder(kind)
    codec, made = load_tokenizer(ModelSource("m", str(path), "pretrained")), SentencePieceProcessor(str(path / "tokenizer.model"))
    before = [] if "no BOS" in kind else [made.bos_id()]
    for text in (prompt + option for prompt in PROMPTS for option in OPTIONS):
        assert list(codec.encode(text)) == before + made.encode(text)
