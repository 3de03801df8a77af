"""`refloom.tag(...)`: keeping a state of a dataset under a name, and letting go of it."""

from concurrent.futures import ThreadPoolExecutor

from refloom.schemas import card, tags
from refloom.schemas.dataset import STAGES, Dataset, Place, opened
from refloom.schemas.errors import Damaged, Refused
from refloom.schemas.index import INDEX, dumped
from refloom.schemas.lease import Lease
from refloom.schemas.lineage import PATH as LINEAGE
from refloom.schemas.manifest import Manifest
from refloom.schemas.parquet import File
from refloom.schemas.storage import Folder
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.tags import RECORD, Tag
from refloom.schemas.takedownlist import PATH as TAKEDOWN
from refloom.schemas.takedownlist import refuse_unfinished
from refloom.schemas.upkeep import collect_garbage
from refloom.schemas.wording import quoted

_AT_ONCE = 8
"""Files that a store copies at once."""


@store_errors_stop()
def tag(dataset: Place, name: str, *, delete: bool = False) -> Tag:
    """Keep a dataset as it is now under a name, or let go of one that was kept. Resumes.

        refloom.tag("DATASET", "v1")
        refloom.Dataset("DATASET", tag="v1").read("samples", ["sample_id"])

    Files are shared with the dataset by hard links where the disk has them, and are copied by the store itself on a
    store. Curation, `replace` and garbage collection leave them; a takedown takes pictures out of them, too.

    Args:
        dataset: a folder, an fsspec URL, or a dataset.
        name: letters, digits, `.`, `_` and `-`, at most 80; not `now`.
        delete: remove the tag of this name instead.

    Returns:
        The tag, with rows and fingerprint of every table.

    Raises:
        Refused: the name cannot be one, or is that of another state; the dataset can only be read, is itself a tag, or
            is being written to.
        Damaged: a file of the dataset is gone.
    """
    tags.check_name(name)
    found = opened(dataset)
    tags.refuse_change(found.folder)
    if found.folder.read_only:
        raise Refused(f"{found.url} can only be read: a tag is kept beside the files, in a copy that you may write to")
    with Lease(found.folder):
        refuse_unfinished(found.folder)
        return _delete(found, name) if delete else _make(found, name)


def _delete(dataset: Dataset, name: str) -> Tag:
    try:
        held = tags.read(dataset.folder, name)
    except Damaged:  # what is wrong with it goes with it
        held = Tag(name, {})
    dataset.folder.remove(f"{tags.path_of(name)}/{RECORD}")  # first: what is left of a tag is none
    dataset.folder.remove_tree(tags.path_of(name))
    return held


def _make(dataset: Dataset, name: str) -> Tag:
    collect_garbage(dataset)
    dataset.refresh()
    place = tags.path_of(name)
    wanted = Tag(name, _tables(dataset))
    for other in dataset.tags():
        if other == name and tags.read(dataset.folder, name) == wanted:
            return wanted
        if other.casefold() == name.casefold():  # some disks take these for the same folder
            raise Refused(
                f"{dataset.url} has a tag {other} of another state: give another name, or remove that one with "
                f"`refloom tag {quoted(dataset.url)} --delete {other}`"
            )
    if not any(dataset.manifests(stage) for stage in STAGES):
        raise Refused(f"{dataset.url} holds nothing yet that could be kept under a name: ingest into it first")
    inside = dataset.folder.below(place)
    with ThreadPoolExecutor(1 if dataset.folder.is_local else _AT_ONCE) as pool:
        for stage in STAGES:
            for manifest in dataset.manifests(stage).values():
                _keep(dataset, manifest, place, inside, pool)
    _describe(dataset, inside)
    dataset.folder.write(f"{place}/{RECORD}", wanted.to_json())
    return wanted


def _tables(dataset: Dataset) -> dict[str, dict[str, object]]:
    summary = dataset.table_summary()
    return {name: {"rows": entry["rows"], "fingerprint": entry["fingerprint"]} for name, entry in summary.items()}


def _keep(dataset: Dataset, manifest: Manifest, place: str, inside: Folder, pool: ThreadPoolExecutor) -> None:
    """Put the files of a unit below the tag, then its manifest.

    Raises:
        Damaged: a file is gone, or was cut before it was kept.
    """

    def copy(file: File) -> None:
        try:
            dataset.folder.copy(file.path, f"{place}/{file.path}")
            size = inside.size(file.path)
        except FileNotFoundError as error:
            raise Damaged(f"{file.path} in {dataset.url} is gone: {dataset.remedy(manifest.stage)}") from error
        if size != file.bytes:
            remedy = dataset.remedy(manifest.stage)
            raise Damaged(f"{file.path} in {dataset.url} has other bytes than were committed: {remedy}")

    list(pool.map(copy, manifest.files))
    path = Manifest.path(manifest.stage, manifest.unit)
    dataset.folder.copy(path, f"{place}/{path}")


def _describe(dataset: Dataset, inside: Folder) -> None:
    """The files of a tag that are not those of a unit: its takedown list, lineage, dataset.json and card."""
    for name in (TAKEDOWN, LINEAGE):
        if dataset.folder.exists(name):
            inside.write(name, dataset.folder.read(name))
        else:
            inside.remove(name)
    inside.write(INDEX, dumped({"version": dataset.index["version"], "roots": dataset.index.get("roots", {})}))
    kept = Dataset(inside.url)
    card.write(kept)
    kept.write_index()
