"""Ray for a job: started on this machine, with words of our own where it does not start, or a cluster joined."""

import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private import services

from refloom.ingest import raystart
from refloom.ingest.engine.tasks import Pool
from refloom.schemas.errors import JobStopped
from refloom.schemas.foreseen import foreseen
from refloom.schemas.wording import last_line

_POLL_S = 0.25
_KNOCK_S = 10.0
_SECOND_START_S = 180.0
"""How long Ray may take for its second start."""
_OBJECT_STORE_BYTES = 512 << 20
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")


def connect(pool: Pool) -> bool:
    """Start Ray on this machine or join a cluster.

    Returns:
        True if this process has to shut it down; False if Ray was running in it already.
    """
    if ray.is_initialized():
        return False
    on_terminate = signal.getsignal(signal.SIGTERM)
    one_thread = dict.fromkeys(_ONE_THREAD, "1")
    if pool.address is not None:
        _knock(pool.address)
        try:
            ray.init(
                address=pool.address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": one_thread}
            )
        except ConnectionError as error:
            raise JobStopped(f"no Ray cluster at {pool.address}: {last_line(str(error))}") from error
    else:
        # where refloom lies, which workers must find, installed or not; following the link would lead past it
        here = str(Path(__file__).absolute().parents[3])
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(paths), **one_thread})
        _start_here(
            address="local",  # never one that RAY_ADDRESS or an earlier command of this machine names
            num_cpus=max(os.cpu_count() or 1, math.ceil((pool.workers or 1) * pool.cpus)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # ray replaces it by one that does not unwind
    return True


def _start_here(**options: Any) -> None:
    """Start Ray on this machine; where it times out on a busy one, once more with a longer time.

    Raises:
        Refused: the folder that Ray writes to cannot be used.
        JobStopped: it does not start the second time either.
    """
    raystart.check_folder()
    for seconds in (0.0, _SECOND_START_S):
        try:
            with _patient(seconds):
                ray.init(**options)
            return
        except Exception as error:  # Ray raises bare exceptions here
            ray.shutdown()
            if isinstance(error, OSError) and (known := foreseen(error)) is not None:
                raise known from error
            why = error
    raise JobStopped(
        f"Ray does not start on this machine ({last_line(str(why)) or type(why).__name__}): it may be busy, or out of "
        "memory; wait and run the same command again, or use --workers 0, which needs no Ray"
    ) from why


@contextmanager
def _patient(seconds: float) -> Iterator[None]:
    """Let Ray wait that long for the node that it starts: it gives up after half a minute and has no setting."""
    find = services.get_node
    end = time.monotonic() + seconds

    def find_in_time(*arguments: Any, **named: Any) -> Any:
        while True:
            try:
                return find(*arguments, **named)
            except RuntimeError:  # it is not there yet
                if time.monotonic() > end:
                    raise
            time.sleep(_POLL_S)

    if seconds:
        services.get_node = find_in_time
    try:
        yield
    finally:
        services.get_node = find


def _knock(address: str) -> None:
    """Raise JobStopped if nobody listens at `host:port`; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return  # `auto`, `local`: Ray knows where to look
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except OSError as error:
        raise JobStopped(f"no Ray cluster at {address}: {error.strerror or error}") from error
