"""Reading json that other people wrote: gzip, byte-order marks and NaN are taken, everything else is a clear error."""

import gc
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.schemas.strict import MOST_LEVELS, check_levels

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_MAX_INFLATION = 300
"""Annotation json shrinks 5 to 20 times; a file that grows more than this is a decompression bomb."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file, the sha256 of its bytes, and whether it is plain json (no NaN, no lone surrogates)."""

    value: Any
    sha256: str
    plain: bool


def load(path: str) -> Document:
    """Parse a whole file.

    Args:
        path: local path or fsspec URL.

    Raises:
        Refused: names the file, what is wrong with it, and where.
    """
    folder, name = split(path)
    try:
        data = folder.read(name)
    except FileNotFoundError:
        raise Refused(f"{path} does not exist") from None
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from error
    digest = hashlib.sha256(data).hexdigest()
    try:
        value, plain = _parse(_inflated(data))
        return Document(value, digest, plain)
    except ValueError as error:
        raise Refused(
            f"{path} is not json: {error}. It may be cut, or of another encoding than UTF-8: fetch it again"
        ) from error


def split(path: str) -> tuple[Folder, str]:
    """The folder of a file and its name."""
    parent, slash, name = path.rpartition("/")
    return Folder(parent if slash and parent else ("/" if slash else ".")), name


def loads(data: bytes) -> Any:
    """Parse json text; a byte-order mark, NaN, Infinity and lone surrogates are taken as Python's json takes them.

    Raises:
        ValueError: it is not json.
    """
    return _parse(data)[0]


def _parse(data: bytes) -> tuple[Any, bool]:
    if not data:
        raise ValueError("the file is empty")
    data = data.removeprefix(b"\xef\xbb\xbf")
    with _no_collection():
        try:
            value, plain = orjson.loads(data), True
        except orjson.JSONDecodeError:
            try:
                value, plain = json.loads(data.decode("utf-8")), False  # slower
            except RecursionError:
                raise ValueError("nested too deeply") from None
    if _levels(data) > MOST_LEVELS:
        check_levels(value)  # brackets in texts count for nothing
    return value, plain


def _levels(data: bytes) -> int:
    """How deep lists and objects nest at most; more where texts hold brackets.

    What nests deeper than any sound file does can be read, and not be written again.
    """
    brackets = np.frombuffer(data.translate(None, _NO_BRACKETS), np.uint8)
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opens, 1, -1), dtype=np.int64).max(initial=0))


def dumps(value: Any, *, plain: bool) -> bytes:
    """The inverse of `loads`, for slices of a document that travel to workers; `plain` as its Document says."""
    if plain:
        return orjson.dumps(value)
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def compact(value: Any) -> str:
    """Canonical json text for a table; what json cannot say (NaN, lone surrogates) becomes null or an escape."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        return strict.dumps(value, sort_keys=True)


def _inflated(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            inflated = stream.read(len(data) * _MAX_INFLATION + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"a damaged gzip file ({error})") from error
    if len(inflated) > len(data) * _MAX_INFLATION:
        raise ValueError("a gzip file that grows beyond reason")
    return inflated


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of fresh objects make the garbage collector walk them again and again for nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
