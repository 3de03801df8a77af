"""One writer per dataset or run: a lease file with a heartbeat, taken over when its holder is dead or silent."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from refloom.schemas import strict
from refloom.schemas.errors import JobStopped, Refused, StoreDenied
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder, make_folder, share_with_group
from refloom.schemas.storeerrors import is_denied, is_unavailable
from refloom.schemas.tags import refuse_change

_PATH = "runs/lease.json"
_HEARTBEAT_S = 10.0
_SILENT_S = 60.0
_SETTLE_S = 1.0
_UNSAID_S = 86_400.0
"""A heart that has not beaten for so long by any clock is not one of a clock that is wrong."""
_BEATS = 2.5
"""How many heartbeats a doubtful holder is watched for."""
_LOOK_S = 0.5
_LARGEST_PID = (1 << 31) - 1
_SHAPE = {"id": str, "host": str, "pid": int, "started": float, "beat": float}


class Lease:
    """Holds the folder for one writer while the block runs.

    Raises on entering:
        Refused: another live process holds it; names host, process and since when. Or it is a tag, which stays.
    """

    def __init__(self, folder: Folder, *, heartbeat_s: float = _HEARTBEAT_S, silent_s: float = _SILENT_S) -> None:
        self._folder, self._heartbeat_s, self._silent_s = folder, heartbeat_s, silent_s
        process = psutil.Process()
        self._self = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": process.pid,
            "started": process.create_time(),
        }
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="refloom-lease")

    @property
    def id(self) -> str:
        """Names this lease; workers check it before they commit."""
        return str(self._self["id"])

    def __enter__(self) -> "Lease":
        refuse_change(self._folder)
        with self._alone():
            holder = read_holder(self._folder)
            if holder is not None and not self._is_dead(holder):
                raise Refused(
                    f"{self._folder.url} is being written by process {holder['pid']} on {holder['host']}: "
                    f"wait for it, or stop it (a dead writer is noticed after {self._silent_s:.0f} s)"
                )
            self._write()
        if not self._folder.is_local:
            time.sleep(_SETTLE_S)  # object stores have no exclusive create: the last writer wins
        if not self.is_held():
            raise Refused(f"{self._folder.url} was taken by another writer at the same moment: wait for it")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        try:
            if self.is_held():
                self._folder.remove(_PATH)
        except Exception as error:
            if kind is None or not _is_of_the_moment(error):  # else the error that ended the job is the one to tell
                raise

    def is_held(self) -> bool:
        """Whether the lease file is still this lease's."""
        return holds(self._folder, self.id)

    def check(self, *, look: bool = False) -> None:
        """Raise JobStopped if another writer took the dataset over while this one was silent.

        Args:
            look: into the file, now; else what the last heartbeat found is told.
        """
        if self._lost.is_set() or (look and not self.is_held()):
            raise JobStopped(
                f"another writer took over {self._folder.url} while this one was stalled; run again to resume"
            )

    def _write(self) -> None:
        self._folder.write(_PATH, json.dumps(self._self | {"beat": time.time()}).encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps other processes of this machine out while the holder is looked up and replaced."""
        if not self._folder.is_local:
            yield
            return
        path = self._folder.at(_PATH + ".lock")
        make_folder(os.path.dirname(path))
        handle = _lock_file(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _is_dead(self, holder: dict[str, Any]) -> bool:
        """True where the process is known to be gone, or its heart has not beaten for a while.

        The beat is of the holder's clock, which may be wrong, and so may this one: where it is old or lies ahead, the
        file is watched for a new one.
        """
        age = time.time() - holder["beat"]
        if age > _UNSAID_S:
            return True
        if abs(age) > self._silent_s and not self._beats(holder):
            return True
        if holder["host"] != socket.gethostname():
            return False
        try:
            process = psutil.Process(holder["pid"])
            if process.status() == psutil.STATUS_ZOMBIE:  # dead, and nobody has asked yet how it ended
                return True
            return bool(abs(process.create_time() - holder["started"]) > 1.0)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False

    def _beats(self, holder: dict[str, Any]) -> bool:
        """Whether a holder of a doubtful beat says anything new while it is watched."""
        end = time.monotonic() + _BEATS * self._heartbeat_s
        while time.monotonic() < end:
            time.sleep(min(_LOOK_S, self._heartbeat_s / 4))
            now = read_holder(self._folder)
            if now is None:
                return False  # it has given the folder back
            if now != holder:
                return True
        return False

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            try:
                if not self.is_held():
                    self._lost.set()
                    return
                self._write()
            except Exception as error:
                if not _is_of_the_moment(error):
                    self._lost.set()
                    if isinstance(error, PermissionError):
                        return  # the job says so itself, at its next commit
                    raise


def _lock_file(path: str) -> int:
    """Open the lock, made if it is absent; one that another user made need only be readable to be locked."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as error:
        try:
            return os.open(path, os.O_RDONLY)
        except OSError:
            raise Refused(f"{path} cannot be written: give a folder that this user may write to") from error
    share_with_group(path)
    return handle


def _is_of_the_moment(error: Exception) -> bool:
    """No answer, expired credentials, a full disk: when it works again, the file says whether another writer came."""
    return is_unavailable(error) or is_denied(error) or isinstance(error, JobStopped | StoreDenied)


def read_holder(folder: Folder) -> dict[str, Any] | None:
    """The lease file's content, or None; a file that no `Lease` wrote holds nothing."""
    try:
        holder = strict.loads(folder.read(_PATH))
    except (FileNotFoundError, ValueError):
        return None
    return holder if misfit(holder, _SHAPE) is None and holder["pid"] <= _LARGEST_PID else None


def holds(folder: Folder, lease_id: str) -> bool:
    """Whether the lease `lease_id` holds the dataset."""
    holder = read_holder(folder)
    return holder is not None and bool(holder["id"] == lease_id)
