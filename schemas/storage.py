"""One folder, local or on an object store, through fsspec; files appear whole or not at all.

On a local disk a file is written under a temporary name, synced, renamed, and its folder synced. On an object store an
upload becomes visible only when it is complete. Temporary names never end in `.parquet`, so that a glob sees no half
file.
"""

import hashlib
import os
import posixpath
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from refloom.schemas.errors import DamagedFile, Refused, StoreDenied
from refloom.schemas.storeerrors import credentials_needed, full_disk_stops, is_denied, is_unavailable

TEMPORARY = ".partial"
_CHUNK_BYTES = 8 << 20
_READ_ONLY = {"hf", "http", "https"}
_UPLOADS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss"}
"""Protocols of stores that show a file when its upload is complete, and the old one until then."""
STORE_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_", *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"))
"""How the names of the environment variables begin from which they take addresses and credentials."""
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?:/|:)")
"""How a URL begins, also one whose slashes a `Path` has drawn together."""


def local_path(path: str | os.PathLike[str], what: str) -> Path:
    """A path on a disk of this machine, for what cannot write to a store.

    Args:
        path: as it was given; `file:` URLs are paths.
        what: is written there, for messages.

    Raises:
        Refused: it is empty, or the URL of a store.
    """
    text = os.fspath(path)
    if not text:
        raise Refused(f"{what} is written to an empty path: give a local one")
    found = _URL.match(text)
    if found and found[1] in ("file", "local"):
        return Path(re.sub(r"^\w+:/*(?=/)", "", text))
    if found:
        raise Refused(
            f"{what} is written to a local disk, not to {text}: give a local path, or one where the store is mounted, "
            "and copy it to the store when it is done"
        )
    return Path(text).expanduser()


def absolute_url(path: str | os.PathLike[str]) -> str:
    """A local path as an absolute one, since workers may run elsewhere; URLs as they are.

    Raises:
        Refused: an empty path, something that is no path, or a URL that a `Path` has spoiled.
    """
    if not isinstance(path, str | os.PathLike):
        raise Refused(f"{path!r:.60} is no path: give a folder, a file or a URL")
    text = os.fspath(path)
    if not text:
        raise Refused("an empty path: give a folder, a file or a URL")
    if "://" in text:
        return text
    if not isinstance(path, str) and (found := _URL.match(text)) and found[1] not in ("file", "local"):
        raise Refused(f"{text} was a URL before it became a Path, which draws its slashes together: give it as a text")
    return os.path.abspath(os.path.expanduser(text))


class Folder:
    """A folder and everything below it; paths are relative and use `/`."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Open a folder, which need not exist.

        Args:
            url: a local path or an fsspec URL such as `s3://bucket/data`.
        """
        self.url = os.fspath(url)
        try:
            fs, root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise Refused(f"{self.url} cannot be opened: {error}") from error
        self._fs: Any = fs
        self.root: str = root.rstrip("/") or "/"
        self.is_local = isinstance(fs, LocalFileSystem)
        self.read_only = urlsplit(self.url).scheme in _READ_ONLY

    def __repr__(self) -> str:
        return f"Folder({self.url!r})"

    def at(self, path: str) -> str:
        """The full path of `path` in the file system.

        Raises:
            Refused: `path` would leave the folder. Paths come out of manifests and links, which other people write.
        """
        if path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise Refused(f"{path!r} leaves the folder {self.url}: a damaged or hostile manifest or link")
        return posixpath.join(self.root, path)

    def below(self, path: str) -> "Folder":
        """The folder `path` in this one."""
        self.at(path)
        return Folder(f"{self.url.rstrip('/')}/{path}")

    def exists(self, path: str = "") -> bool:
        """Whether a file or folder is there."""
        with credentials_needed():
            return bool(self._fs.exists(self.at(path)))

    def names(self, path: str = "") -> list[str]:
        """Names of the files directly in a folder, sorted; none if there is no such folder."""
        return self._list(path, folders=False)

    def folders(self, path: str = "") -> list[str]:
        """Names of the folders directly in a folder, sorted."""
        return self._list(path, folders=True)

    def _list(self, path: str, *, folders: bool) -> list[str]:
        try:
            if self.is_local:
                with os.scandir(self.at(path)) as entries:
                    return sorted(entry.name for entry in entries if _is_folder(entry) == folders)
            found = self._listed(path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except PermissionError as error:
            refusal = Refused if self.is_local else StoreDenied
            raise refusal(f"{self.at(path)} cannot be listed: give this user the right to read it") from error
        wanted = "directory" if folders else "file"
        return sorted(posixpath.basename(entry["name"].rstrip("/")) for entry in found if entry["type"] == wanted)

    def _listed(self, path: str) -> list[dict[str, Any]]:
        """What a store says now of what lies directly in a folder."""
        self._fs.invalidate_cache(self.at(path))
        with credentials_needed():
            found: list[dict[str, Any]] = self._fs.ls(self.at(path), detail=True)
        return found

    def sizes(self, path: str) -> dict[str, int]:
        """Name to bytes of the files directly in a folder; none if there is no such folder."""
        try:
            if self.is_local:
                with os.scandir(self.at(path)) as entries:
                    return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
            found = self._listed(path)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {posixpath.basename(one["name"]): int(one["size"] or 0) for one in found if one["type"] == "file"}

    def size(self, path: str) -> int:
        """Bytes of a file; FileNotFoundError if there is none."""
        if self.is_local:
            return os.stat(self.at(path)).st_size
        with credentials_needed():
            return int(self._fs.size(self.at(path)))

    def read(self, path: str) -> bytes:
        """The bytes of a file; FileNotFoundError if there is none."""
        if self.is_local:  # a tenth of the time that fsspec takes for a small file
            with open(self.at(path), "rb", buffering=0) as file:
                return file.read()
        with credentials_needed():
            data: bytes = self._fs.cat_file(self.at(path))
        return data

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes from a start to before a stop, for several ranges of one file; at once where the store can.

        Raises:
            FileNotFoundError: there is no such file.
            EOFError: it ends before the last of a range.
        """
        if self.is_local:
            found = []
            with open(self.at(path), "rb") as file:
                for start, stop in ranges:
                    file.seek(start)
                    found.append(file.read(stop - start))
        else:
            starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
            found = self._fs.cat_ranges([self.at(path)] * len(ranges), starts, stops, on_error="raise")
            for data in found:
                if isinstance(data, Exception):  # older fsspec returns errors whatever it is told
                    raise data
        if any(len(data) != stop - start for data, (start, stop) in zip(found, ranges, strict=True)):
            raise EOFError(f"{self.at(path)} ends before a range that was asked for")
        return found

    def open(self, path: str) -> IO[bytes]:
        """Open a file to read; seekable."""
        file: IO[bytes]
        with credentials_needed():
            try:
                file = self._fs.open(self.at(path), "rb")
            except FileNotFoundError:
                if self.is_local:
                    raise
                self._fs.invalidate_cache()  # it may be known to be absent from before another process wrote it
                file = self._fs.open(self.at(path), "rb")
        return file

    def write(self, path: str, data: bytes) -> None:
        """Write a whole file; readers see the old one or the new one."""
        with self.create(path) as file:
            file.write(data)

    @contextmanager
    def create(self, path: str) -> Iterator["HashingFile"]:
        """A file that appears under `path` when the block ends, and not at all if it raises."""
        if self.read_only:
            raise Refused(f"{self.url} can only be read; give a local folder or an object store to write to")
        target = self.at(path)
        with full_disk_stops(self.url):
            temporary = f"{target}.{os.getpid()}{TEMPORARY}"
            if not self.is_local:
                hidden = not _UPLOADS.isdisjoint(_protocols(self._fs)) or not _moves(self._fs)
                with _uploaded(self._fs, target) if hidden else _moved(self._fs, temporary, target) as raw:
                    yield HashingFile(raw)
                return
            make_folder(posixpath.dirname(target))
            try:
                with open(temporary, "wb") as raw:
                    yield HashingFile(raw)
                    raw.flush()
                    share_with_group(temporary)
                    os.fsync(raw.fileno())
                os.replace(temporary, target)
            except BaseException:
                if os.path.exists(temporary):
                    os.remove(temporary)
                raise
            sync(posixpath.dirname(target))

    def copy(self, path: str, to: str) -> None:
        """Put a file into another place in the folder too; nothing is written where the disk or store can do without.

        What is in the other place stays whole until the new file is.
        """
        if not self.is_local:
            self._fs.cp_file(self.at(path), self.at(to))
            return
        make_folder(posixpath.dirname(self.at(to)))
        # a name of its own: `create` would write into the file that this is a second name of
        temporary = f"{self.at(to)}.{os.getpid()}.copy{TEMPORARY}"
        with full_disk_stops(self.url):
            try:
                Path(temporary).unlink(missing_ok=True)  # of a process of the same number that was killed
                link(Path(self.at(path)), Path(temporary))
                os.replace(temporary, self.at(to))
            finally:
                if os.path.lexists(temporary):
                    os.remove(temporary)
            sync(posixpath.dirname(self.at(to)))

    def send(self, path: str, folder: "Folder", to: str, sha256: str) -> None:
        """Copy a file into another folder, wherever that is; it appears whole, and only as what it should be.

        Args:
            path: of the file here.
            folder, to: where it goes.
            sha256: of its bytes.

        Raises:
            DamagedFile: it is gone, or holds other bytes.
        """
        try:
            with self.open(path) as source, folder.create(to) as sink:
                while data := source.read(_CHUNK_BYTES):
                    sink.write(data)
                if sink.sha256 != sha256:
                    raise DamagedFile(f"{path} in {self.url} has other bytes than were committed")
        except FileNotFoundError as error:
            raise DamagedFile(f"{path} in {self.url} is gone") from error

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        try:
            self._fs.rm_file(self.at(path))
        except FileNotFoundError:
            return

    def remove_tree(self, path: str) -> None:
        """Remove a folder and everything below it; nothing happens if there is none."""
        if self.exists(path):
            self._fs.rm(self.at(path), recursive=True)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


@contextmanager
def _uploaded(fs: Any, target: str) -> Iterator[Any]:
    """A file on a store where what is written is to be seen when it is complete."""
    upload = fs.open(target, "wb")
    try:
        yield upload
        upload.close()
    except BaseException:
        _abandon(upload)
        raise


def _moves(fs: Any) -> bool:
    """Whether a store can give a file another name, which fsspec leaves to it."""
    kind = type(fs)
    return kind.mv is not AbstractFileSystem.mv or kind.cp_file is not AbstractFileSystem.cp_file


@contextmanager
def _moved(fs: Any, temporary: str, target: str) -> Iterator[Any]:
    """A file on a store where what is written is to be seen at once, such as `memory://`."""
    try:
        with fs.open(temporary, "wb") as raw:
            yield raw
        fs.mv(temporary, target)
    except BaseException:
        if fs.exists(temporary):
            fs.rm_file(temporary)
        raise


def _abandon(upload: Any) -> None:
    """End an upload so that nothing appears: closing it would show what has come so far as a whole file."""
    upload.closed = True
    try:
        upload.discard()
    except Exception as error:
        if not (is_unavailable(error) or is_denied(error)):  # then the error that ended the upload is the one to tell
            raise


def make_folder(path: str) -> None:
    """Make a local folder and those above it.

    Raises:
        Refused: it cannot be made.
    """
    absent = [path]
    while absent[-1] and not os.path.exists(absent[-1]):
        absent.append(os.path.dirname(absent[-1]))
    try:
        os.makedirs(path, exist_ok=True)
        for made in reversed(absent[:-1]):
            share_with_group(made)
    except (FileExistsError, NotADirectoryError, PermissionError, FileNotFoundError) as error:
        raise Refused(f"{path} cannot be made: {error.strerror}; give a place to write to") from error


def share_with_group(path: str) -> None:
    """Let the group of a local folder write to a new file or folder in it, where it may write to the folder itself.

    The user's umask says what others may do with what is theirs alone; a folder that a group writes to is not. One
    where everybody keeps their own (`/tmp`, with the sticky bit) is no group's.
    """
    above = os.stat(os.path.dirname(path) or ".")
    if not above.st_mode & stat.S_IWGRP or above.st_mode & stat.S_ISVTX:
        return
    own = os.stat(path)
    more = stat.S_IRGRP | stat.S_IWGRP | (stat.S_IXGRP if stat.S_ISDIR(own.st_mode) else 0)
    try:
        if own.st_gid != above.st_gid:
            os.chown(path, -1, above.st_gid)
        if own.st_mode & more != more:
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | more)
    except PermissionError:
        return  # of another user, or of a group that this user is not in: left as it is


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: whoever opens it will say so
        return False


class HashingFile:
    """A writable file that keeps the sha256 and size of what went through it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw: IO[bytes] | None = raw
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write bytes or anything with the buffer protocol."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self.size += len(view)
        if self._raw is not None:
            self._raw.write(view)
        return len(view)

    def discard(self) -> None:
        """Swallow whatever still comes: the file will not appear, but its writer wants to end in order."""
        self._raw = None

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        if self._raw is not None:
            self._raw.flush()

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def close(self) -> None:
        """For libraries that close what they write to; the folder closes the file itself."""

    def writable(self) -> bool:
        """True: the file is open for writing."""
        return True

    def readable(self) -> bool:
        """False: the file cannot be read back."""
        return False

    def seekable(self) -> bool:
        """False: the hash is over the bytes in order."""
        return False

    @property
    def sha256(self) -> str:
        """Of everything written so far, hexadecimal."""
        return self._hash.hexdigest()


def sync(path: str | os.PathLike[str]) -> None:
    """Bring a local file, or the names in a local folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def link(file: Path, place: Path) -> None:
    """Put a local file into another place too: by a hard link, or a copy where the disk has none."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copy2(file, place)
