"""A cache from plan to commit: which row groups are due, making their features, and saying that all are there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.schemas.damage import Damage
from refloom.schemas.errors import Damaged, Refused
from refloom.schemas.lease import Lease
from refloom.schemas.manifest import Counts, Manifest, differing, flatten
from refloom.schemas.ranges import COUNT, check_fields
from refloom.schemas.storage import Folder
from refloom.schemas.wording import some
from refloom.training.data.index import Index, RowGroupKey
from refloom.training.features.identity import settings_of
from refloom.training.features.shelf import Shelf
from refloom.training.features.store import MANIFESTS, Summary, unit_of
from refloom.training.features.tables import STAGE, VERSION
from refloom.training.features.worker import CacheJob
from refloom.training.methods.known import METHODS
from refloom.training.ranges import VARIANTS
from refloom.training.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How features are made.

    Attributes:
        split: of the samples.
        variants: of each target.
        batch: pictures or texts that go through a model at once.
        device: of the models.
        replace: make features anew that are of other settings or samples.
    """

    split: str = "train"
    variants: Annotated[int, VARIANTS] = 4
    batch: Annotated[int, COUNT] = 8
    device: str = "cpu"
    replace: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left to do.

    Attributes:
        due: units to make, each with its row group and the sha256 of its file.
        rows: of their samples, accepted or not.
        there: units that are there, each with the folder of manifests that it is in.
        gone: units of row groups that are no longer there.
        target: folder that the manifests go into.
    """

    due: dict[str, tuple[RowGroupKey, str]]
    rows: dict[str, int]
    there: dict[str, str]
    gone: tuple[str, ...]
    target: str


def look_ahead(index: Index, folder: Folder, settings: dict[str, Any], options: Options) -> Left:
    """What a run would do.

    Args:
        index: the samples.
        folder: of the features; may be new.
        settings: that features follow from.
        options: how.

    Raises:
        Refused: the folder holds features of other settings or of another dataset, or something else.
    """
    asked = settings | {"variants": options.variants}
    shelf = Shelf(folder)
    if shelf.claim is not None:
        said = shelf.summary
        held = [shelf.claim, *([said.settings | {"variants": said.variants}] if said is not None else [])]
        found = [differing(flatten(one), flatten(asked)) for one in held]
        if all(found) and not options.replace:
            raise Refused(
                f"{folder.url} holds features of something else ({some(found[-1], between='; ')}): give another --out, "
                "or make them anew with --replace"
            )
        shelf.check_origin(index, replace=options.replace)
    elif folder.names() or set(folder.folders()) - {"runs"}:
        raise Refused(f"{folder.url} is not empty and holds no features: give an empty or new --out")
    wanted = Manifest(STAGE, "", "", asked, {}, VERSION, {}, {}, {}, {}, (), {}).settings()
    target = shelf.target(asked, index)
    held_units = {name: set(shelf.units(name)) for name in (target, *(name for name in MANIFESTS if name != target))}
    due: dict[str, tuple[RowGroupKey, str]] = {}
    rows: dict[str, int] = {}
    there: dict[str, str] = {}
    for file in index.files:
        for number, count in enumerate(file.group_rows):
            key = RowGroupKey(file.path, number)
            unit = unit_of(key)
            places = (name for name, units in held_units.items() if unit in units)
            done = (name for name in places if _is_done(shelf, name, unit, wanted, key, file.sha256))
            if (place := next(done, None)) is not None:
                there[unit] = place
            else:
                due[unit], rows[unit] = (key, file.sha256), count
    gone = set[str]().union(*held_units.values()) - due.keys() - there.keys()
    return Left(due, rows, there, tuple(sorted(gone)), target)


def cache(
    recipe: Recipe,
    samples: str,
    url: str,
    options: Options,
    pool: Pool,
    on_status: Callable[[Status], None] | None = None,
) -> tuple[Summary, Counts]:
    """Make the features of a dataset's samples for a recipe; resumes, and does only what is due.

    Features that are there, of other settings or samples, can be read until the new ones are whole.

    Args:
        recipe: whose features they are.
        samples: url of a dataset or a publication.
        url: of the features.
        options: how.
        pool: workers.
        on_status: for progress.

    Returns:
        What was written, and what became of the samples that the view accepts.

    Raises:
        Refused, JobStopped: see `look_ahead` and `engine.run`.
    """
    index, folder = Index(samples, options.split), Folder(url)
    settings = settings_of(recipe)
    look_ahead(index, folder, settings, options)  # what is refused takes no lease
    with Lease(folder) as lease:
        left = look_ahead(index, folder, settings, options)
        shelf = Shelf(folder)
        beside = shelf.counting if shelf.counting != left.target else None
        shelf.begin(settings | {"variants": options.variants}, index, left.target, left.there.items())
        if left.due:

            def watch_lease(status: Status) -> None:
                lease.check()
                if on_status is not None:
                    on_status(status)

            models = (options.variants, options.batch, options.device)
            job = CacheJob(url, samples, lease.id, recipe, settings, *models, left.target, beside)
            tasks = [Task(unit, payload, left.rows[unit]) for unit, payload in left.due.items()]
            notes = folder.below(f"runs/{lease.id[:12]}")
            engine.run("features", job, tasks, pool=pool, notes=notes, on_status=watch_lease)
        lease.check(look=True)
        summary = shelf.commit(_summary(index, shelf, settings, options, recipe, left.target))
    return summary, counts(folder, summary)


def counts(folder: Folder, summary: Summary) -> Counts:
    """What became of the samples that the view accepts."""
    total, shelf = Counts(), Shelf(folder)
    for unit in summary.units:
        total.add(shelf.manifest(summary.manifests, unit).items.get("sample", Counts()))
    return total


def _is_done(shelf: Shelf, manifests: str, unit: str, wanted: dict[str, Any], key: RowGroupKey, sha256: str) -> bool:
    try:
        manifest = shelf.manifest(manifests, unit)
    except Damaged:
        return False
    same = not differing(manifest.settings(), wanted) and Damage(shelf.folder).of(manifest) is None
    return same and manifest.inputs == {key.path: sha256} and not manifest.failed


def _summary(
    index: Index, shelf: Shelf, settings: dict[str, Any], options: Options, recipe: Recipe, manifests: str
) -> Summary:
    units = {}
    for key in index.groups:
        unit = unit_of(key)
        units[unit] = sum(file.bytes for file in shelf.manifest(manifests, unit).files)
    whole = METHODS[recipe.method].reads_frozen
    return Summary(settings, options.variants, index.fingerprint, whole, units, manifests)
