"""A cache from plan to commit: which row groups are due, making their features, and saying that all are there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.schemas import strict
from refloom.schemas.damage import Damage
from refloom.schemas.errors import Damaged, Refused
from refloom.schemas.lease import Lease
from refloom.schemas.manifest import Counts, Manifest, differing, flatten
from refloom.schemas.ranges import COUNT, check_fields
from refloom.schemas.storage import TEMPORARY, Folder
from refloom.schemas.unit import drop_unit
from refloom.schemas.wording import some
from refloom.training.data.index import Index, RowGroupKey
from refloom.training.features.identity import settings_of
from refloom.training.features.store import CLAIM, FEATURES, Summary, unit_of
from refloom.training.features.tables import SCHEMAS, STAGE, VERSION
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
        replace: make features anew that are of other settings.
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
        there: units that are there.
        gone: units of row groups that are no longer there.
    """

    due: dict[str, tuple[RowGroupKey, str]]
    rows: dict[str, int]
    there: tuple[str, ...]
    gone: tuple[str, ...]


def look_ahead(index: Index, folder: Folder, settings: dict[str, Any], options: Options) -> Left:
    """What a run would do.

    Args:
        index: the samples.
        folder: of the features; may be new.
        settings: that features follow from.
        options: how.

    Raises:
        Refused: the folder holds features of other settings, or something else.
    """
    asked = settings | {"variants": options.variants}
    if folder.exists(CLAIM):
        try:
            held = strict.object_in(folder.read(CLAIM))
        except ValueError as error:
            raise Refused(f"{folder.url}/{CLAIM} is damaged: give a new --out") from error
        found = differing(flatten(held), flatten(asked))
        if found and not options.replace:
            raise Refused(
                f"{folder.url} holds features of something else ({some(found, between='; ')}): give another --out, "
                "or make them anew with --replace"
            )
    elif folder.names() or set(folder.folders()) - {"runs"}:
        raise Refused(f"{folder.url} is not empty and holds no features: give an empty or new --out")
    wanted = Manifest(STAGE, "", "", asked, {}, VERSION, {}, {}, {}, {}, (), {}).settings()
    held_units = {name.removesuffix(".json") for name in folder.names(f"manifests/{STAGE}") if name.endswith(".json")}
    due: dict[str, tuple[RowGroupKey, str]] = {}
    rows: dict[str, int] = {}
    there = []
    for file in index.files:
        for number, count in enumerate(file.group_rows):
            key = RowGroupKey(file.path, number)
            unit = unit_of(key)
            if unit in held_units and _is_done(folder, unit, wanted, key, file.sha256):
                there.append(unit)
            else:
                due[unit], rows[unit] = (key, file.sha256), count
    return Left(due, rows, tuple(there), tuple(sorted(held_units - due.keys() - set(there))))


def cache(
    recipe: Recipe,
    samples: str,
    url: str,
    options: Options,
    pool: Pool,
    on_status: Callable[[Status], None] | None = None,
) -> tuple[Summary, Counts]:
    """Make the features of a dataset's samples for a recipe; resumes, and does only what is due.

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
    left = look_ahead(index, folder, settings, options)
    with Lease(folder) as lease:
        if left.due or left.gone:
            folder.remove(FEATURES)
        claim = strict.dumps(settings | {"variants": options.variants}, indent=1, sort_keys=True)
        folder.write(CLAIM, claim.encode() + b"\n")
        for unit in left.gone:
            drop_unit(folder, STAGE, unit)
        if left.due:

            def watch_lease(status: Status) -> None:
                lease.check()
                if on_status is not None:
                    on_status(status)

            job = CacheJob(url, samples, lease.id, recipe, settings, options.variants, options.batch, options.device)
            tasks = [Task(unit, payload, left.rows[unit]) for unit, payload in left.due.items()]
            notes = folder.below(f"runs/{lease.id[:12]}")
            engine.run("features", job, tasks, pool=pool, notes=notes, on_status=watch_lease)
        _clean(folder)
        summary = _summary(index, folder, settings, options, recipe)
        folder.write(FEATURES, summary.to_json())
    return summary, counts(folder, summary)


def counts(folder: Folder, summary: Summary) -> Counts:
    """What became of the samples that the view accepts."""
    total = Counts()
    for unit in summary.units:
        total.add(_manifest(folder, unit).items.get("sample", Counts()))
    return total


def _is_done(folder: Folder, unit: str, wanted: dict[str, Any], key: RowGroupKey, sha256: str) -> bool:
    try:
        manifest = _manifest(folder, unit)
    except Damaged:
        return False
    same = not differing(manifest.settings(), wanted) and Damage(folder).of(manifest) is None
    return same and manifest.inputs == {key.path: sha256} and not manifest.failed


def _manifest(folder: Folder, unit: str) -> Manifest:
    path = Manifest.path(STAGE, unit)
    return Manifest.from_json(folder.read(path), path)


def _summary(index: Index, folder: Folder, settings: dict[str, Any], options: Options, recipe: Recipe) -> Summary:
    units = {}
    for key in index.groups:
        unit = unit_of(key)
        units[unit] = sum(file.bytes for file in _manifest(folder, unit).files)
    whole = METHODS[recipe.method].reads_frozen
    return Summary(settings, options.variants, index.fingerprint, whole, units)


def _clean(folder: Folder) -> None:
    """Remove files that no manifest names: of attempts that were cut off."""
    manifests = [name.removesuffix(".json") for name in folder.names(f"manifests/{STAGE}") if name.endswith(".json")]
    named = {file.path for unit in manifests for file in _manifest(folder, unit).files}
    for directory in (*SCHEMAS, f"ledger/{STAGE}", f"manifests/{STAGE}"):
        for name in folder.names(directory):
            path = f"{directory}/{name}"
            if name.endswith(TEMPORARY) or (name.endswith(".parquet") and path not in named):
                folder.remove(path)
