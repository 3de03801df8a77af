"""Fetching the files of a model into the weights folder, when the user asks for it and never else.

A file is fetched beside its place, checked by sha256 and then renamed, so that what is there is whole. What is fetched
is data: nothing of it is run, and a pickle is read by torch's reader of tensors, which builds nothing else.
"""

import fcntl
import hashlib
import json
import os
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from refloom.inference.models.download import download
from refloom.inference.models.entry import WEIGHTS_VARIABLE, Entry, weights_folder
from refloom.inference.models.remote import Remote
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.storage import make_folder, sync
from refloom.schemas.storeerrors import full_disk_stops

PINS = "fetched.json"
"""In a model's folder: file to its sha256 and the place it was fetched from, at its first fetch."""
_SLACK_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
_MOST_HEADER_BYTES = 100 << 20
_ELSEWHERE = "give another place with --from"


class Show(Protocol):
    """Told of progress."""

    def __call__(self, file: str, done: int, total: int | None, now: float) -> None:
        """`done` of `total` bytes of a file are there, at this second of the monotonic clock."""
        ...


def fetch(entry: Entry, *, source: str | None = None, show: Show | None = None) -> list[str]:
    """Bring all files of a model into its folder; resumes, and fetches nothing that is there.

    Args:
        entry: the model.
        source: where its files lie instead of where they are published: a folder, the file itself if it is one, or the
            address of either.
        show: for progress.

    Returns:
        What was done with each file, in words.

    Raises:
        Refused: the model has no known place, the source has not its files, or one of them is not what it should be.
        JobStopped: the network, or the disk, fails.
    """
    if not entry.remotes:
        raise Refused(f"where {entry.name} is published is not known here; get it with: {entry.get}")
    folder = weights_folder() / entry.name
    notes: list[str] = []
    try:
        make_folder(str(folder))
        with _alone(folder), full_disk_stops(str(folder)):
            for remote in entry.remotes:
                notes += _one(folder, entry, remote, source, show or _say_nothing)
    except PermissionError as error:
        raise Refused(
            f"{error.filename or folder}: {error.strerror}; {WEIGHTS_VARIABLE} names another folder"
        ) from error
    return notes


def _say_nothing(file: str, done: int, total: int | None, now: float) -> None:
    pass


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two that fetch one model at once would write into one file."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refused(f"{folder} is being fetched by another process: wait for it") from error
        yield


def _place(entry: Entry, remote: Remote, source: str | None) -> str | Path:
    """The address of a file, or its path."""
    if source is None:
        return remote.url
    if source.startswith(("http://", "https://")):
        return source if source.rstrip("/").endswith(f"/{remote.name}") else f"{source.rstrip('/')}/{remote.name}"
    if "://" in source:
        raise Refused(f"--from is a folder, a file or an http(s) address, not {source}")
    given = Path(source).expanduser()
    for path in (given / remote.name, given / entry.name / remote.name, given):
        if path.is_file() and (path != given or len(entry.remotes) == 1):
            return path
    raise Refused(f"{given} has no {remote.name}, which {entry.name} needs: give the folder that holds it")


def _one(folder: Path, entry: Entry, remote: Remote, source: str | None, show: Show) -> list[str]:
    pins = _read_pins(folder)
    if all((folder / name).is_file() for name in remote.gives):
        said = [_check_present(folder / name, _known(remote, name, pins), show) for name in remote.gives]
        if None not in said:
            return [text for text in said if text is not None]
    place, most = _place(entry, remote, source), 2 * entry.size_bytes + _SLACK_BYTES
    part = folder / f"{remote.name}.part"
    vouched = _bring(remote, place, part, most, show)
    digest = _sha256(part, remote.name, show)
    pinned = pins.get(remote.name, {})
    for wanted, whose in (
        (remote.sha256, "that is published"),
        (pinned.get("sha256"), f"that was first fetched from {pinned.get('from')}"),
        (vouched, "that the Hub has"),
    ):
        if wanted is not None and digest != wanted:
            _forget(part)
            told = f"{remote.name} of {place} has the sha256 {digest}, not the {wanted} {whose}"
            raise Refused(f"{told}: nothing of it was kept")
    _check_form(part, remote, place)
    made = _become(part, folder, remote, most)
    pins |= {name: {"sha256": one, "from": str(place)} for name, one in {remote.name: digest, **made}.items()}
    _write_pins(folder, pins)
    if remote.sha256 is not None or pinned:
        return [f"{remote.name}: fetched, its sha256 is the known one"]
    new = f"none was known before, so it is kept in {folder / PINS} and holds from now on"
    return [f"{remote.name}: fetched, sha256 {digest}; {new}"]


def _bring(remote: Remote, place: str | Path, part: Path, most: int, show: Show) -> str | None:
    """The bytes, to `part`; returns the sha256 that a Hub has for them, if it says so."""
    if isinstance(place, Path):
        _copy(place, part, remote.name, show)
        return None
    on_hub = remote.is_on_hub and place == remote.url

    def told(done: int, total: int | None) -> None:
        show(remote.name, done, total, time.monotonic())

    return download(place, part, most_bytes=most, on_hub=on_hub, show=told)


def _known(remote: Remote, name: str, pins: Mapping[str, Any]) -> str | None:
    """The sha256 that a file in the model's folder should have, if it is known."""
    if remote.form == "file" and remote.sha256 is not None:
        return remote.sha256
    pinned: str | None = pins.get(name, {}).get("sha256")
    return pinned


def _check_present(file: Path, wanted: str | None, show: Show) -> str | None:
    """What is said of a file that is there; None if it is not what it should be."""
    if wanted is None:
        return f"{file.name}: is there already, put there by hand, so that its sha256 is not known"
    return (
        f"{file.name}: is there already, its sha256 is the known one"
        if _sha256(file, file.name, show) == wanted
        else None
    )


def _sha256(file: Path, name: str, show: Show) -> str:
    digest, done, total = hashlib.sha256(), 0, file.stat().st_size
    with file.open("rb") as stream:
        while data := stream.read(_CHUNK_BYTES):
            digest.update(data)
            done += len(data)
            show(f"{name} (check)", done, total, time.monotonic())
    return digest.hexdigest()


def _copy(place: Path, part: Path, name: str, show: Show) -> None:
    total, done = place.stat().st_size, 0
    with place.open("rb") as given, part.open("wb") as taken:
        while data := given.read(_CHUNK_BYTES):
            taken.write(data)
            done += len(data)
            show(name, done, total, time.monotonic())


def _forget(*parts: Path) -> None:
    for part in parts:
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}.etag").unlink(missing_ok=True)


# -- what files are ------------------------------------------------------------------------------------------------


def _check_form(part: Path, remote: Remote, place: str | Path) -> None:
    """Refuse what is plainly something else, such as a page that asks for a login; forgets it too."""
    try:
        if remote.form == "zip":
            with zipfile.ZipFile(part) as archive:
                archive.infolist()
        elif remote.name.endswith(".json"):
            json.loads(part.read_bytes())
        elif remote.name.endswith(".safetensors"):
            _check_safetensors(part)
    except (ValueError, RecursionError, zipfile.BadZipFile) as error:
        _forget(part)
        raise Refused(
            f"what {place} answers is no {Path(remote.name).suffix} file: give another place with --from"
        ) from error


def _check_safetensors(file: Path) -> None:
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_MOST_HEADER_BYTES, file.stat().st_size - 8):
            raise ValueError("no header")
        if not isinstance(json.loads(stream.read(length)), dict):
            raise ValueError("no header")


def _become(part: Path, folder: Path, remote: Remote, most: int) -> dict[str, str]:
    """Put what was fetched into its place; returns the sha256 of files that were made of it."""
    made: dict[str, Path] = {}
    if remote.form == "file":
        _take_place({folder / remote.name: part})
    elif remote.form == "zip":
        made = _unzip(part, folder, remote, most)
    else:
        made = {remote.gives[0]: _to_safetensors(part, folder, remote)}
    digests = {name: _sha256(path, name, _say_nothing) for name, path in made.items()}
    if made:
        _take_place({folder / name: path for name, path in made.items()})
    _forget(part)
    return digests


def _take_place(files: Mapping[Path, Path]) -> None:
    for place, fresh in files.items():
        sync(fresh)
        os.replace(fresh, place)
    for folder in {place.parent for place in files}:
        sync(folder)


def _unzip(part: Path, folder: Path, remote: Remote, most: int) -> dict[str, Path]:
    """The wanted members, wherever in the archive they lie; their places on the disk are ours, not the archive's."""
    made: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(part) as archive:
            for name in remote.gives:
                members = [one for one in archive.infolist() if one.filename.rpartition("/")[2] == name]
                if len(members) != 1:
                    raise Refused(f"{remote.name} holds {len(members)} files of the name {name}, not one: {_ELSEWHERE}")
                made[name] = folder / f"{name}.part"
                with archive.open(members[0]) as packed, made[name].open("wb") as taken:
                    most -= _copy_at_most(packed, taken, most, f"{name} in {remote.name}")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:  # damaged, or locked
        _forget(part, *made.values())
        raise Refused(f"{remote.name} cannot be unpacked ({error}): {_ELSEWHERE}") from error
    except Refused:
        _forget(part, *made.values())
        raise
    return made


def _copy_at_most(packed: IO[bytes], taken: IO[bytes], most: int, what: str) -> int:
    """Bytes that were copied; what an archive says of sizes is not relied on."""
    copied = 0
    while data := packed.read(_CHUNK_BYTES):
        copied += len(data)
        if copied > most:
            raise Refused(f"{what} is larger than the model: {_ELSEWHERE}")
        taken.write(data)
    return copied


def _to_safetensors(part: Path, folder: Path, remote: Remote) -> Path:
    """A pickle of tensors in the form that holds nothing else."""
    import pickle

    import torch
    from safetensors.torch import save_file

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of forms of pickles, which are refused below
            tensors = torch.load(part, map_location="cpu", weights_only=True)
        if not isinstance(tensors, dict) or not all(isinstance(one, torch.Tensor) for one in tensors.values()):
            raise ValueError("not a mapping of tensors")
    except (pickle.UnpicklingError, ValueError, RuntimeError, EOFError, KeyError) as error:
        _forget(part)
        raise Refused(
            f"{remote.name} holds something else than tensors, and is not read: give another with --from"
        ) from error
    made = folder / f"{remote.gives[0]}.part"
    # tensors that share their memory, as tied weights do, are written as many times as they are named
    save_file({name: one.clone().contiguous() for name, one in tensors.items()}, made, metadata={"format": "pt"})
    return made


# -- what was fetched ----------------------------------------------------------------------------------------------


def _read_pins(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / PINS).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Refused(
            f"{folder / PINS} cannot be read: remove it, and the hashes of the next fetch are kept anew"
        ) from error
    return found if isinstance(found, dict) else {}


def _write_pins(folder: Path, pins: Mapping[str, Any]) -> None:
    fresh = folder / f"{PINS}.part"
    fresh.write_text(strict.dumps(dict(pins), indent=1, sort_keys=True) + "\n")
    _take_place({folder / PINS: fresh})
