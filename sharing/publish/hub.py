"""Pushing a publication to a repository of a Hub, in commits of a few files; what is there already is not sent again.

A commit is all or nothing, and its files are compared by sha256 before anything is sent, so a push that was stopped
goes on with the first file that is missing. MANIFEST.json goes last.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refloom.inference.checkpoints.hub import reported
from refloom.ingest.engine.pool import Status
from refloom.schemas.errors import Refused
from refloom.schemas.publication import MANIFEST
from refloom.sharing.publish.rehydration import read_manifest

FILES_A_COMMIT = 50
"""Hubs ask for fewer than 100."""
BYTES_A_COMMIT = 5 << 30
"""So that a push that is stopped loses little."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did.

    Attributes:
        url: of the repository.
        sent: files sent now.
        there: files that were there already.
        removed: files of an earlier publication that were removed.
    """

    url: str
    sent: int
    there: int
    removed: int


def push(
    published: str,
    repo_id: str,
    *,
    private: bool = True,
    endpoint: str | None = None,
    token: str | None = None,
    forget_history: bool = False,
    files_a_commit: int = FILES_A_COMMIT,
    on_status: Callable[[Status], None] = lambda status: None,
) -> Pushed:
    """Send a publication; call again to resume.

    Args:
        published: local folder of a finished publication.
        repo_id: `owner/name` of a dataset repository; made if absent.
        private: of a repository that is made now; an existing one is left as it is.
        endpoint: of the Hub; by default the library's own, or $HF_ENDPOINT.
        token: by default from where `hf auth login` and $HF_TOKEN put it.
        forget_history: squash the repository's history afterwards: what a takedown removed is otherwise still in it.
        files_a_commit: 1 to 99.
        on_status: told after every commit.

    Raises:
        Refused: not a publication, damaged, holds pictures that may not be given on, or no right to write there.
        JobStopped: the Hub or the way to it failed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    root, listed = _checked(published)
    api = HfApi(endpoint=endpoint, token=token, library_name="refloom")
    with reported(repo_id, to="write"):
        url = str(api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
        remote = _remote(api, repo_id)
        missing = [one for one in listed if not _same(remote.get(one["path"]), one, root)]
        extra = sorted(path for path in remote.keys() - {one["path"] for one in listed} if path.startswith("data/"))
        status = Status(units=len(missing), weight=len(missing))
        for batch in _commits(missing, files_a_commit):
            operations: list[Any] = [CommitOperationAdd(one["path"], str(root / one["path"])) for one in batch]
            last = batch[-1] is missing[-1]
            if last:
                operations += [CommitOperationDelete(path) for path in extra]
            _commit(api, repo_id, operations, len(batch))
            status.done += len(batch)
            status.weight_done += len(batch)
            status.tally["begun"] += len(batch)
            status.tally["bytes"] += sum(one["bytes"] for one in batch)
            on_status(status)
        if extra and not missing:
            _commit(api, repo_id, [CommitOperationDelete(path) for path in extra], 0)
        if forget_history:
            api.super_squash_history(repo_id, repo_type="dataset")
    return Pushed(url, len(missing), len(listed) - len(missing), len(extra))


def _checked(published: str) -> tuple[Path, list[dict[str, Any]]]:
    """Folder and files of a publication, those that describe it last; every file is what MANIFEST.json says."""
    folder, manifest = read_manifest(published)
    if not folder.is_local:
        raise Refused(f"{published} is no local folder: copy the publication here, then push it")
    if manifest["options"]["images"] and manifest["facts"]["withheld"]:
        raise Refused(
            f"{published} holds pictures of {', '.join(manifest['facts']['withheld'])}, which may not be given on: "
            "push the publication without bytes instead"
        )
    root = Path(folder.root)
    for one in manifest["files"]:
        path = root / one["path"]
        if not path.is_file() or path.stat().st_size != one["bytes"] or _sha256(path) != one["sha256"]:
            raise Refused(f"{path} is not the file that {MANIFEST} names: publish again over it, which mends it")
    last = root / MANIFEST
    own = {"path": MANIFEST, "bytes": last.stat().st_size, "sha256": _sha256(last)}
    return root, [*manifest["files"], own]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remote(api: Any, repo_id: str) -> dict[str, Any]:
    """Path to what the Hub says of every file of the repository."""
    entries = api.list_repo_tree(repo_id, repo_type="dataset", recursive=True)
    return {entry.path: entry for entry in entries if hasattr(entry, "blob_id")}


def _same(remote: Any, one: dict[str, Any], root: Path) -> bool:
    """Whether the Hub's file is ours: by sha256 of large files, by git's own hash of small ones."""
    if remote is None or remote.size != one["bytes"]:
        return False
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == one["sha256"])
    data = (root / one["path"]).read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return bool(remote.blob_id == blob.hexdigest())


def _commits(files: list[dict[str, Any]], most: int) -> list[list[dict[str, Any]]]:
    """Cut into batches by number and bytes; README.md, croissant.json and MANIFEST.json are a batch of their own."""
    batches: list[list[dict[str, Any]]] = []
    size = 0
    data = [one for one in files if one["path"].startswith("data/")]
    for one in data:
        if not batches or len(batches[-1]) >= most or size + one["bytes"] > BYTES_A_COMMIT:
            batches.append([])
            size = 0
        batches[-1].append(one)
        size += one["bytes"]
    rest = [one for one in files if not one["path"].startswith("data/")]
    return [*batches, rest] if rest else batches


def _commit(api: Any, repo_id: str, operations: list[Any], count: int) -> None:
    message = f"Add {count} files" if count else "Remove files of an earlier publication"
    api.create_commit(repo_id, operations=operations, commit_message=message, repo_type="dataset")
