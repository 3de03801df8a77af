"""`refloom.publish(...)`: what `refloom publish` does, as a function."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from refloom.ingest.engine.showing import OnStatus, Show, showing
from refloom.schemas import copies
from refloom.schemas.dataset import Place, opened
from refloom.schemas.storage import absolute_url
from refloom.schemas.storeerrors import store_errors_stop
from refloom.sharing.publish import hub, publication
from refloom.sharing.publish import takedown as takedowns
from refloom.sharing.publish.assembly import silent
from refloom.sharing.publish.options import SHARD_BYTES, Publish
from refloom.sharing.publish.takedown import Takedown

_ITEMS = {"read": "byte", "push": "file"}


@dataclass(frozen=True, slots=True)
class Published:
    """What was published.

    Attributes:
        folder: of the publication.
        manifest: the content of its MANIFEST.json: files with sha256, rows, settings, fingerprint.
        takedown: what the takedown list reached; its `unknown` are entries that the dataset does not hold.
        was_there: it was complete before.
        pushed: what was sent to a Hub; None without `push`.
    """

    folder: str
    manifest: dict[str, Any]
    takedown: Takedown
    was_there: bool
    pushed: hub.Pushed | None = None


@store_errors_stop()
def publish(
    dataset: Place,
    dest: str | os.PathLike[str],
    *,
    tables: Sequence[str] = ("samples",),
    images: bool = True,
    face_embeddings: bool = False,
    shard_bytes: int = SHARD_BYTES,
    only_sources: Sequence[str] = (),
    accept_licenses: Sequence[str] = (),
    takedown: str | os.PathLike[str] | Sequence[str] = (),
    ignore_unknown: bool = False,
    keep_metadata: bool = False,
    replace: bool = False,
    push: str | None = None,
    public: bool = False,
    endpoint: str | None = None,
    forget_history: bool = False,
    show: bool | Show = False,
) -> Published:
    """Write a dataset as a publication: even shards, a card, checksums. Resumes; refuses what licenses forbid.

        refloom.publish("DATASET", "PUBLISHED", accept_licenses=["none"])
        datasets.load_dataset("PUBLISHED")

    Args:
        dataset: curated, up to date: a folder, an fsspec URL, or a dataset.
        dest: new or empty local folder, or the one to resume.
        tables: which; `["all"]` for every table that has rows but `labels`, which is published where it is named.
        images: whether the bytes of pictures and of face crops are published; `refloom rehydrate` joins them again.
        face_embeddings: whether identity embeddings of faces are published.
        shard_bytes: target size of a file, bytes, at least 64 KiB.
        only_sources: sources to publish, such as `["coco"]`; all without.
        accept_licenses: to publish pictures of, though they are not known to allow it; `none` where none is stated.
        takedown: ids to leave out, or a file of them, one a line.
        ignore_unknown: go on where an entry of the list names nothing.
        keep_metadata: pictures keep what their files say beside the pixels: places, names, thumbnails.
        replace: throw away another publication that lies in `dest`.
        push: then send it to this dataset repository of a Hub, `owner/name`; resumes.
        public: whether a repository that is made now is public.
        endpoint: of another Hub.
        forget_history: squash the repository's history, where taken-down data still lies.
        show: True prints progress to stderr as the command does; or a function, see `refloom.ingest.engine.showing`.

    Raises:
        Refused: the dataset is stale or half done, licenses forbid it, or `dest` is somebody else's.
        JobStopped: no space left, a linked picture has changed, or the Hub failed; the same call resumes.
    """
    wanted = settings(
        tables=tables,
        images=images,
        face_embeddings=face_embeddings,
        shard_bytes=shard_bytes,
        only_sources=only_sources,
        accept_licenses=accept_licenses,
        takedown=takedown,
        ignore_unknown=ignore_unknown,
        keep_metadata=keep_metadata,
    )
    folder = absolute_url(dest)
    with showing(show) as display:

        def phase(title: str) -> OnStatus:
            return silent(title) if display is None else display(title, _ITEMS.get(title, "row"))

        done = publication.publish(opened(dataset), folder, wanted, replace=replace, show=phase)
    pushed = None
    if push is not None:
        pushed = send(dataset, folder, push, public=public, endpoint=endpoint, forget_history=forget_history, show=show)
    return Published(folder, done.manifest, done.takedown, done.was_there, pushed)


def send(
    dataset: Place,
    folder: str,
    repository: str,
    *,
    public: bool,
    endpoint: str | None,
    forget_history: bool,
    show: bool | Show,
) -> hub.Pushed:
    """Send a publication to a Hub; arguments and errors as for `publish`."""
    copies.note(opened(dataset).folder, "publication", folder, pushed=repository, endpoint=endpoint)
    with showing(show) as display:
        on_status = silent("push") if display is None else display("push", _ITEMS["push"])
        return hub.push(
            folder,
            repository,
            private=not public,
            endpoint=endpoint,
            forget_history=forget_history,
            on_status=on_status,
        )


def settings(
    *,
    tables: Sequence[str],
    images: bool,
    face_embeddings: bool,
    shard_bytes: int,
    only_sources: Sequence[str],
    accept_licenses: Sequence[str],
    takedown: str | os.PathLike[str] | Sequence[str],
    ignore_unknown: bool,
    keep_metadata: bool,
) -> Publish:
    """The settings of a publication; arguments as for `publish`.

    Raises:
        Refused: a table is unknown, a shard too small, or the takedown list cannot be read.
    """
    return Publish(
        tables=_several(tables),
        images=images,
        face_embeddings=face_embeddings,
        shard_bytes=shard_bytes,
        only_sources=_several(only_sources),
        accept_licenses=_several(accept_licenses),
        takedown=_ids(takedown),
        ignore_unknown=ignore_unknown,
        keep_metadata=keep_metadata,
    )


def _several(names: Sequence[str]) -> tuple[str, ...]:
    """Names; one alone is taken for a list of one, and not for its letters."""
    return (names,) if isinstance(names, str) else tuple(names)


def _ids(given: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    return takedowns.read(os.fspath(given)) if isinstance(given, str | os.PathLike) else tuple(given)
