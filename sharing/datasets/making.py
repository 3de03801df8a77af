"""Making a dataset of others, from claim to commit: who may, what is left to do, and when it is one.

While it is being made, dataset.json says so, and nobody opens it; a run that was cut off goes on where it was. At the
end manifests that were current are told the fingerprints that their inputs have now, so that what was up to date still
is; what was out of date, or can only be known of all units together, is out of date.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.schemas import card, copies, labels, tags
from refloom.schemas.dataset import STAGES, WORK, Dataset, refuse_foreign
from refloom.schemas.errors import JobStopped, Refused
from refloom.schemas.fields import VERSION
from refloom.schemas.ids import image_of
from refloom.schemas.index import INDEX, UNFINISHED, dumped, is_dataset, read_index
from refloom.schemas.lease import Lease
from refloom.schemas.lineage import Lineage
from refloom.schemas.lineage import Source as LineageSource
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import TakedownList
from refloom.schemas.wording import quoted
from refloom.sharing.datasets.leaving import Leaving
from refloom.sharing.datasets.transfer import Origin, TransferJob
from refloom.sharing.publish.removal import renew

OnStatus = Callable[[Status], None]


@dataclass(slots=True)
class Part:
    """What comes out of one source.

    Attributes:
        dataset: the source.
        origin: how workers find it.
        leaving: what stays behind.
        units: names in the source.
        current: stages with what their manifests may have read and stay current: input, as it is called in the new
            dataset, to its fingerprint in the source.
    """

    dataset: Dataset
    origin: Origin
    leaving: Leaving
    units: list[str]
    current: list[tuple[tuple[str, ...], dict[str, str]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is to be made.

    Attributes:
        lineage: how, and of what.
        url: where.
        parts: of the sources.
        listed: takedown list of the new dataset.
        roots: of linked pictures.
        prepare: writes what workers need into the new dataset.
        finish: writes what is made of all units together, when they are there.
    """

    lineage: Lineage
    url: str
    parts: Sequence[Part]
    listed: TakedownList
    roots: dict[str, str]
    prepare: Callable[[Folder], None] = lambda folder: None
    finish: Callable[[Dataset], None] = lambda dataset: None


def source_of(dataset: Dataset) -> LineageSource:
    """A source as a lineage keeps it."""
    url, tag = tags.owner(dataset.url)
    own = Lineage.load(dataset.folder)
    tables = {name: entry["fingerprint"] for name, entry in dataset.table_summary().items()}
    return LineageSource(url, tag, tables, None if own is None else own.to_json())


def fingerprints(dataset: Dataset, origin: Origin) -> dict[str, str]:
    """Inputs that lie in one unit, as the new dataset calls them, to their fingerprints in the source."""
    return {
        f"{directory}/{origin.unit(unit)}": entry.fingerprint
        for stage in STAGES
        for unit, manifest in dataset.manifests(stage).items()
        for directory, entry in manifest.tables.items()
    }


def check_place(url: str, sources: Collection[Dataset]) -> None:
    """Refuse a place that no new dataset can be made in.

    Raises:
        Refused: it can only be read, or lies in a source, or a source in it.
    """
    folder = Folder(url)
    if folder.read_only:
        raise Refused(f"{url} can only be read: give a local folder or an object store to write to")
    for source in sources:
        held = Folder(tags.owner(source.url)[0])
        roots = f"{folder.root}/", f"{held.root}/"
        nested = roots[0].startswith(roots[1]) or roots[1].startswith(roots[0])
        if folder.is_local == held.is_local and nested:
            raise Refused(f"{url} and {held.url} lie in each other: give a folder beside it")


def is_made(url: str, lineage: Lineage) -> bool:
    """Whether the dataset is there already, whole.

    Raises:
        Refused: something else is there.
    """
    folder = Folder(url)
    if not is_dataset(folder):
        refuse_foreign(folder)
        return False
    index, _ = read_index(folder)
    there = Lineage.load(folder)
    if there is None and index is not None and UNFINISHED in index:
        return False  # a run was stopped between the first two files
    if there is None or there.fingerprint != lineage.fingerprint:
        what = "an unfinished dataset" if index is not None and UNFINISHED in index else "another dataset"
        raise Refused(
            f"{url} holds {what}, made otherwise or of other states of its sources: give a new or empty folder, or "
            "remove that one"
        )
    return index is not None and UNFINISHED not in index


def make(recipe: Recipe, pool: Pool, on_status: OnStatus | None = None) -> Dataset:
    """Make the dataset, or go on with one that was begun.

    Args:
        recipe: what is made.
        pool: workers.
        on_status: for progress.

    Raises:
        Refused: something else is there, or somebody writes to it.
        JobStopped: no space left, a source has changed meanwhile, or a unit could not be done; the same call resumes.
    """
    folder, how = Folder(recipe.url), recipe.lineage.how
    with Lease(folder) as lease:
        if is_made(recipe.url, recipe.lineage):
            return Dataset(recipe.url)
        folder.write(INDEX, dumped({"version": VERSION, "roots": recipe.roots, UNFINISHED: how}))
        recipe.lineage.save(folder)
        if recipe.listed:
            recipe.listed.save(folder)
        for part in recipe.parts:
            part.leaving.save(folder, how, part.origin.number)
        recipe.prepare(folder)
        origins = tuple(part.origin for part in recipe.parts)
        tasks = [task for part in recipe.parts for task in _tasks(part, folder)]
        if tasks:

            def watch_lease(status: Status) -> None:
                lease.check()
                if on_status is not None:
                    on_status(status)

            job = TransferJob(how, recipe.url, lease.id, origins)
            notes = folder.below(f"runs/{lease.id[:12]}")
            engine.run(how, job, tasks, pool=pool, notes=notes, on_status=watch_lease)
        lease.check(look=True)
        _refuse_changed(recipe)
        dataset = Dataset(recipe.url, unfinished=True)
        _carry_labels(recipe, dataset, lease)
        recipe.finish(dataset)
        dataset.refresh()
        for part in recipe.parts:
            for stages, before in part.current:
                renew(dataset, before, stages)
        lease.check(look=True)
        folder.remove_tree(WORK)
        card.write(dataset)
        dataset.write_index()  # last: from here on it is a dataset like others
    for part in recipe.parts:
        copies.note(Folder(tags.owner(part.dataset.url)[0]), how, recipe.url)
    return Dataset(recipe.url)


def _carry_labels(recipe: Recipe, dataset: Dataset, lease: Lease) -> None:
    """Write what people say of the objects that are in the new dataset; of two judgements the later one holds."""
    held: dict[str, labels.Label] = {}
    for part in recipe.parts:
        gone = part.leaving.every
        for name, label in labels.read(part.dataset).items():
            other = held.get(name)
            if image_of(name) not in gone and (other is None or (label.time or "") > (other.time or "")):
                held[name] = label
    if held:
        labels.write(dataset, held.values(), lease)


def _tasks(part: Part, folder: Folder) -> list[Task]:
    """The units that lack a stage; the largest first, so that no worker is left alone with one at the end."""
    held = {stage: set(folder.names(f"manifests/{stage}")) for stage in part.origin.stages}
    rows = {unit: manifest.tables["images"].rows for unit, manifest in part.dataset.manifests("ingest").items()}
    due = [
        unit
        for unit in part.units
        if any(
            unit in part.dataset.manifests(stage) and f"{part.origin.unit(unit)}.json" not in names
            for stage, names in held.items()
        )
    ]
    due.sort(key=lambda unit: (-rows[unit], unit))
    return [Task(part.origin.unit(unit), (part.origin.number, unit), max(1, rows[unit])) for unit in due]


def _refuse_changed(recipe: Recipe) -> None:
    """Raise JobStopped where a source is no longer what it was when the units were planned."""
    for part, said in zip(recipe.parts, recipe.lineage.sources, strict=True):
        part.dataset.refresh()
        now = {name: entry["fingerprint"] for name, entry in part.dataset.table_summary().items()}
        if now != said.tables:
            raise JobStopped(
                f"{part.dataset.url} has changed while {recipe.url} was made of it: remove {quoted(recipe.url)}, "
                "and run the same command again"
            )
