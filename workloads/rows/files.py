"""Which files a path stands for. Names are taken literally: no character of a path is a pattern here."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench.errors import UsageError
from workloads.rows.table import listed

KINDS = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
NAMES_A_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])")
SHARD = re.compile(r"(?P<base>.*?)[-_.]?(?P<number>\d+)(?:-of-(?P<total>\d+))?")
DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""What the hub and `datasets` write beside the rows."""


def _zstd(content: bytes) -> bytes:
    import pyarrow

    found: bytes = pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd").read()
    return found


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": _zstd,
}
READABLE = f"{', '.join(KINDS)}, also with {', '.join(COMPRESSIONS)}"


@dataclass(frozen=True)
class DataFile:
    """A file of rows. kind: its suffix in small letters, without that of a compression; stem: its name before both."""

    path: Path
    kind: str
    compression: str | None
    stem: str

    @classmethod
    def of(cls, path: Path) -> DataFile:
        inner, compression = path.name, path.suffix.lower()
        if compression in COMPRESSIONS:
            inner = Path(path.name).stem
        suffix = Path(inner).suffix
        return cls(path, suffix.lower(), compression if compression in COMPRESSIONS else None, inner.removesuffix(suffix))

    def read(self) -> bytes:
        """The content, decompressed."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UsageError(f"--data {self.path}: cannot be read: {error.strerror or error}") from None
        if self.compression is None or not content:
            return content
        try:
            return COMPRESSIONS[self.compression](content)
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
            raise UsageError(f"--data {self.path}: cannot be decompressed as {self.compression}: {error}") from None


@dataclass(frozen=True)
class Files:
    """The files of the splits train and, if there is one, validation, shards in order; left_out: other files of rows."""

    splits: dict[str, tuple[DataFile, ...]]
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_files(path: Path) -> Files:
    """A file alone is the train split. A folder holds files or folders named by their split, as the hub's do, perhaps in data/.

    UsageError: nothing there, no train split, shards missing, several files for one split.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if path.is_file():
            return _alone(path)
        exists = path.exists()
    except OSError as error:
        raise UsageError(f"--data {path}: cannot be read: {error.strerror or error}") from None
    if exists:
        raise UsageError(f"--data {path}: neither a file nor a folder; save the rows in a file")
    raise UsageError(f"--data {path}: no such file or folder; give a file ({READABLE}) or a folder with a train file")


def _alone(path: Path) -> Files:
    file = DataFile.of(path)
    if file.kind not in KINDS:
        raise UsageError(f"--data {path}: unknown kind of file {path.suffix!r}; use {READABLE}")
    total = _series(file)[2] or 1
    advice = f"{path.name} is one of {total} shards and read alone; give the folder to read all of them"
    return Files({"train": (file,)}, warnings=(advice,) if total > 1 else ())


def _folder(path: Path) -> Files:
    groups: dict[str, list[DataFile]] = {}
    for split, file in _candidates(path):
        groups.setdefault(split, []).append(file)
    if groups.keys() == {""} and len({_series(file) for file in groups[""]}) == 1:
        groups["train"] = groups.pop("")
    if "train" not in groups:
        folders = sorted(f.name for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
        beside = f"; it holds the folders {', '.join(folders)}: give one of them" if folders else ""
        raise UsageError(f"--data {path}: that folder has no train file ({READABLE}){beside}")
    rest = sorted(file.path.name for file in groups.pop("test", []) + groups.pop("", []))
    return Files({split: _shards(path, split, files) for split, files in groups.items()}, tuple(rest))


def _candidates(path: Path) -> Iterator[tuple[str, DataFile]]:
    """(split or "", file) of the folder, of its data/, and of folders in both that are named by a split."""
    for entry in _entries(path):
        if not entry.is_dir():
            yield from _named(entry)
        elif entry.name.lower() == "data":
            for inner in _entries(entry):
                yield from _of_split(inner) if inner.is_dir() else _named(inner)
        else:
            yield from _of_split(entry)


def _of_split(folder: Path) -> Iterator[tuple[str, DataFile]]:
    split = SPLITS.get(folder.name.lower())
    if split:
        yield from ((split, file) for entry in _entries(folder) for _, file in _named(entry))


def _named(entry: Path) -> Iterator[tuple[str, DataFile]]:
    file = DataFile.of(entry)
    if file.kind in KINDS and entry.is_file() and entry.name not in DESCRIPTIONS:
        named = NAMES_A_SPLIT.search(file.stem.lower())
        yield SPLITS[named[1]] if named else "", file


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "~")))


def _shards(folder: Path, split: str, files: list[DataFile]) -> tuple[DataFile, ...]:
    """The files of one split in the order of their numbers, all of them there and of one kind."""
    series = {_series(file) for file in files}
    numbers = [int(match["number"]) for file in files if (match := SHARD.fullmatch(file.stem))]
    total = next(iter(series))[2]
    if len(files) == 1 and total is None:
        return tuple(files)
    names = listed(sorted(str(file.path.relative_to(folder)) for file in files))
    if len(series) > 1 or len({*numbers}) < len(files) or (total is None and min(numbers) > 1):
        raise UsageError(f"--data {folder}: several files could be its {split} split: {names}; keep one, or one set of shards")
    first = 0 if 0 in numbers or (total is not None and total not in numbers) else 1
    expected = range(first, first + total if total is not None else max(numbers) + 1)
    if len(expected) != len(numbers) or max(numbers) not in expected:
        missing = listed(islice((number for number in expected if number not in numbers), 5))
        raise UsageError(f"--data {folder}: of {len(expected)} shards of its {split} split, {missing} missing; found {names}")
    return tuple(file for _, file in sorted(zip(numbers, files, strict=True), key=lambda pair: pair[0]))


def _series(file: DataFile) -> tuple[Path, str, int | None, str, str]:
    """What the shards of one split have in common. The third: how many there are, where the names say it."""
    match = SHARD.fullmatch(file.stem)
    base, total = (match["base"], match["total"]) if match else (file.stem, None)
    return file.path.parent, base, int(total) if total else None, file.kind, file.compression or ""
