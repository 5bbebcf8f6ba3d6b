"""Which files a path stands for. Names are taken literally: no character of a path is a pattern here."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UsageError

KINDS = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv")
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
    """The files of each split (train, validation, test), shards in order; left_out: files of rows that belong to none."""

    splits: dict[str, tuple[DataFile, ...]]
    left_out: tuple[str, ...] = ()


def find_files(path: Path) -> Files:
    """A file alone is the train split. A folder holds files or folders named by their split, as the hub's do, perhaps in data/.

    UsageError: nothing there, no train split, shards missing, several files for one split.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if path.is_file():
            return Files({"train": (_checked(path),)})
        exists = path.exists()
    except OSError as error:
        raise UsageError(f"--data {path}: cannot be read: {error.strerror or error}") from None
    if exists:
        raise UsageError(f"--data {path}: neither a file nor a folder; save the rows in a file")
    raise UsageError(f"--data {path}: no such file or folder; give a file ({READABLE}) or a folder with a train file")


def _checked(path: Path) -> DataFile:
    found = DataFile.of(path)
    if found.kind not in KINDS:
        raise UsageError(f"--data {path}: unknown kind of file {path.suffix!r}; use {READABLE}")
    return found


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
    unnamed = tuple(sorted(file.path.name for file in groups.pop("", [])))
    return Files({split: _shards(path, split, files) for split, files in groups.items()}, unnamed)


def _candidates(path: Path) -> Iterable[tuple[str, DataFile]]:
    """(split or "", file) of the folder, of its data/, and of folders that are named by a split alone."""
    for entry in sorted(path.iterdir()):
        if entry.name.startswith((".", "~")):
            continue
        if entry.is_dir():
            split = SPLITS.get(entry.name.lower())
            if split:
                yield from ((split, file) for _, file in _candidates(entry))
            elif entry.name.lower() == "data":
                yield from _candidates(entry)
        elif entry.is_file() and entry.name not in DESCRIPTIONS:
            file = DataFile.of(entry)
            named = NAMES_A_SPLIT.search(file.stem.lower())
            if file.kind in KINDS:
                yield SPLITS[named[1]] if named else "", file


def _shards(folder: Path, split: str, files: list[DataFile]) -> tuple[DataFile, ...]:
    """The files of one split in the order of their numbers, all of them there and of one kind."""
    series = {_series(file) for file in files}
    numbers = [int(match["number"]) for file in files if (match := SHARD.fullmatch(file.stem))]
    total = next(iter(series))[2]
    if len(files) == 1 and not total:
        return tuple(files)
    names = ", ".join(sorted(str(file.path.relative_to(folder)) for file in files))
    if len(series) > 1 or len({*numbers}) < len(files):
        raise UsageError(f"--data {folder}: several files could be its {split} split: {names}; keep one, or one set of shards")
    expected = range(int(total)) if total else range(min(numbers), max(numbers) + 1)
    if missing := sorted({*expected} ^ {*numbers}):
        wrong = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise UsageError(f"--data {folder}: of the shards of its {split} split, number {wrong} is missing; found {names}")
    return tuple(file for _, file in sorted(zip(numbers, files, strict=True), key=lambda pair: pair[0]))


def _series(file: DataFile) -> tuple[Path, str, str, str, str]:
    """What the shards of one split have in common."""
    match = SHARD.fullmatch(file.stem)
    base, total = (match["base"], match["total"] or "") if match else (file.stem, "")
    return file.path.parent, base, total, file.kind, file.compression or ""
