"""What goes wrong with disks and stores, and is no fault of the file that was asked for: full, shut, out of reach."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from refloom.schemas.errors import JobStopped, RefloomError, Refused, StoreDenied, StoreUnavailable

_STORE_LIBRARIES = {"aiohttp", "botocore", "aiobotocore", "s3fs", "gcsfs", "adlfs"}
"""Packages behind fsspec whose own errors say that a store is not there or not open to this user."""
_NO_CREDENTIALS = {
    *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ConfigParseError"),
    *("NoAuthTokenError", "SSOTokenLoadError", "UnauthorizedSSOTokenError"),
}
"""What botocore raises, before it asks the store, where there are no credentials, half of them, or expired ones."""
_PASSING = {errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENETUNREACH, errno.EHOSTUNREACH}
"""What fsspec's stores make of "slow down", "service unavailable" and "internal error"."""
_UNREACHABLE = (ConnectionRefusedError, ConnectionResetError, ConnectionAbortedError, TimeoutError)
_FULL = (errno.ENOSPC, errno.EDQUOT)

RESUMES = "free some and run the same command again, it resumes"


@contextmanager
def full_disk_stops(where: str, remedy: str = RESUMES) -> Iterator[None]:
    """Turn "no space left" and "over quota" into a stop that names the place and the remedy.

    Args:
        where: is written to.
        remedy: what to do.
    """
    try:
        yield
    except Exception as error:
        if is_full_disk(error):
            raise JobStopped(f"no space left for {where}: {remedy}") from error
        raise


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that a disk or a quota is full; libraries in Rust say it in their text alone."""
    if isinstance(error, RefloomError):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(f"(os error {number})" in str(error) for number in _FULL)


@contextmanager
def credentials_needed() -> Iterator[None]:
    """Missing credentials are no property of the file that was asked for, and must not cost an item."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ in _NO_CREDENTIALS and _is_of_store(error):
            raise _denied(error) from error
        raise


def _denied(error: BaseException) -> StoreDenied:
    return StoreDenied(
        f"the store does not let this user in ({error}): check the credentials (for S3 AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), AWS_ENDPOINT_URL for a store that is not Amazon's, the bucket's name, "
        "and your rights to it; on a cluster every node needs them in the environment that Ray was started in"
    )


@contextmanager
def store_errors_stop() -> Iterator[None]:
    """Turn what a store raises into StoreDenied where it is shut, and StoreUnavailable where it is out of reach.

    A disk that is full stops as well, wherever that was not foreseen.
    """
    try:
        yield
    except Exception as error:
        if is_full_disk(error):
            where = getattr(error, "filename", None) or "what is written"
            raise JobStopped(f"no space left for {where}: {RESUMES}") from error
        if is_denied(error):
            raise _denied(error) from error
        if is_unavailable(error):
            raise StoreUnavailable(
                f"the store cannot be reached ({error}): run the same command again to resume"
            ) from error
        if isinstance(error, PermissionError):
            raise Refused(
                f"{error.filename or 'a file'} is closed to this user ({error.strerror or error}): ask its owner for "
                "the right (`chmod -R g+rwX` on a folder that a group shares), or give another place"
            ) from error
        raise


def is_denied(error: BaseException) -> bool:
    """Whether an error says that a store will go on refusing this user: credentials, rights, no such bucket."""
    if isinstance(error, OSError):
        answer = getattr(error.__cause__ or error.__context__, "response", None)  # as S3 gave it
        if not isinstance(answer, dict):
            return False
        return isinstance(error, PermissionError) or answer.get("Error", {}).get("Code") == "NoSuchBucket"
    return type(error).__name__ in _NO_CREDENTIALS and _is_of_store(error)


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that a store throttles or does not answer just now, whatever was asked of it."""
    if isinstance(error, OSError):
        return error.errno in _PASSING or isinstance(error, _UNREACHABLE)
    return _is_of_store(error) and not is_denied(error)


def _is_of_store(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _STORE_LIBRARIES
