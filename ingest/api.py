"""`refloom.ingest(...)`: what `refloom ingest` does, as a function."""

from dataclasses import dataclass, field
from typing import Any

from refloom.ingest import job, sources
from refloom.ingest.engine.pool import Pool
from refloom.ingest.engine.showing import Show, showing
from refloom.ingest.engine.watch import ITEM_TIMEOUT_S
from refloom.ingest.source import Source
from refloom.ingest.worker import STAGE
from refloom.schemas.dataset import Dataset, Place, opened, refuse_foreign, url_of
from refloom.schemas.errors import Refused
from refloom.schemas.index import is_dataset
from refloom.schemas.manifest import Counts
from refloom.schemas.storage import Folder
from refloom.schemas.storeerrors import store_errors_stop


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did, or would do.

    Attributes:
        url: of the dataset, which `refloom.Dataset` opens.
        plan: units done now (`todo`), those that were there already (`done`), those that went (`dropped`).
        counts: item kind to what became of the items of these units; empty of a dry run.
    """

    url: str
    plan: job.IngestPlan = field(repr=False)
    counts: dict[str, Counts]

    @property
    def units(self) -> tuple[str, ...]:
        """Names of the units that were done now, or that a dry run would do."""
        return tuple(unit.name for unit in self.plan.todo)

    @property
    def notes(self) -> list[str]:
        """What a person should know about the source."""
        return self.plan.notes

    @property
    def failed(self) -> int:
        """Items that failed; `retry_failed=True` tries them again."""
        return sum(counts.failed.total() for counts in self.counts.values())


@store_errors_stop()
def ingest(
    source: str | Source,
    out: Place,
    *,
    link: bool = False,
    dry_run: bool = False,
    retry_failed: bool = False,
    replace: bool = False,
    workers: int | None = None,
    address: str | None = None,
    item_timeout: float = ITEM_TIMEOUT_S,
    show: bool | Show = False,
    **options: Any,
) -> Ingested:
    """Take pictures and annotations from a source into a dataset. Resumes; several sources may share one dataset.

        refloom.ingest("coco", "DATASET", images="val2017", instances="instances_val2017.json")
        refloom.ingest("folder", "DATASET", path="photographs", name="holiday", limit=100, workers=4)

    Args:
        source: a name of `refloom.ingest.sources.SOURCES` (coco, ytvis, vos, sa1b, subjects, easyref, subject10k,
            folder, pairs), or a source that was made before.
        out: folder or fsspec URL of the dataset; made if it is not there.
        link: keep pointers to the source's bytes instead of the bytes.
        dry_run: only plan.
        retry_failed: do units again that hold failed items.
        replace: do units again that were made with other settings.
        workers: processes; None for all cores, 0 for this one, without Ray.
        address: of a Ray cluster; None starts Ray on this machine.
        item_timeout: longest time for one item, seconds.
        show: True prints progress to stderr as the command does; or a function, see `refloom.ingest.engine.showing`.
        options: of a source by name: the fields of its class, such as `images` and `instances` of coco; of every one
            `name` (first part of unit names), `limit` (the first so many) and, where it is cut, `unit_size`.

    Returns:
        What was done. Rejected and failed items raise nothing: they are counted, and stand in the ledger.

    Raises:
        Refused: an option is unknown or missing, the source is not there, or the dataset holds the same key with other
            settings; nothing was changed.
        JobStopped: a full disk, or units that could not be done; the same call resumes.
    """
    if isinstance(source, str):
        if source == "sa1b" and link:
            options = {"linked": True, **options}
        source = sources.make(source, **options)
    elif not hasattr(source, "plans"):
        raise Refused(f"{source!r:.60} is no source: give the name of one, or what `refloom.ingest.sources.make` gives")
    elif options:
        raise Refused(f"{', '.join(options)}: options are of a source by name; this one is made already")
    url, settings = url_of(out), job.Options(link=link, retry_failed=retry_failed, replace=replace)
    if dry_run:
        refuse_foreign(Folder(url))
        there = Dataset(url, lenient=True) if is_dataset(Folder(url)) else None
        return Ingested(url, job.look_ahead(source, there, settings), {})
    pool = Pool(workers=workers, address=address, item_timeout_s=item_timeout)
    with showing(show) as display:
        on_status = display("ingest", "image") if display is not None else None
        plan = job.ingest(source, url, settings, pool, on_status)
    dataset = opened(out) if isinstance(out, Dataset) else Dataset(url, lenient=True)
    units = {unit.name for unit in plan.todo} | set(plan.done)
    return Ingested(url, plan, dataset.counts(STAGE, units))
