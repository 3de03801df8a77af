"""`refloom.curate(...)`: what `refloom curate` does, as a function."""

import os
from dataclasses import dataclass

from refloom.curation import job
from refloom.curation.config import Curation
from refloom.ingest.engine.pool import Pool
from refloom.ingest.engine.showing import Show, showing
from refloom.ingest.engine.watch import ITEM_TIMEOUT_S
from refloom.schemas import settings as readers
from refloom.schemas.dataset import Dataset, Place, opened, url_of
from refloom.schemas.errors import Refused
from refloom.schemas.manifest import Counts
from refloom.schemas.settings import Overrides
from refloom.schemas.storeerrors import store_errors_stop


@dataclass(frozen=True, slots=True)
class Curated:
    """What a curation did, or would do.

    Attributes:
        url: of the dataset.
        models: role to the identity of the model that was chosen for it.
        due: stage to the units that were done now, or that a dry run would do.
        without_model: stages that were left out because no model of their role is there.
        counts: stage to item kind to what became of the items of the whole dataset; empty of a dry run.
    """

    url: str
    models: dict[str, str]
    due: dict[str, list[str]]
    without_model: list[str]
    counts: dict[str, dict[str, Counts]]

    @property
    def failed(self) -> int:
        """Items that failed; `retry_failed=True` tries them again."""
        return sum(counts.failed.total() for kinds in self.counts.values() for counts in kinds.values())


@store_errors_stop()
def curate(
    dataset: Place,
    *,
    config: Curation | str | os.PathLike[str] | None = None,
    settings: Overrides = (),
    only: str | None = None,
    until: str | None = None,
    replace: bool = False,
    retry_failed: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
    address: str | None = None,
    item_timeout: float = ITEM_TIMEOUT_S,
    show: bool | Show = False,
) -> Curated:
    """Measure, find faces, embed, score, select, group, split, compose. Resumes; does only what is out of date.

        refloom.curate("DATASET")
        refloom.curate("DATASET", settings={"select.min_quality": 0.6}, replace=True)

    Args:
        dataset: a folder, an fsspec URL, or a dataset.
        config: settings, or a YAML file of them; the defaults without. `docs/curation.md` explains them.
        settings: that differ: dotted keys with values, or texts `key=value`.
        only, until: one stage, or all up to and including one.
        replace: do stages again whose settings changed, and what follows from them.
        retry_failed: do units again that hold failed items.
        dry_run: only say what is due.
        workers: processes; None for all cores, 0 for this one, without Ray.
        address: of a Ray cluster; None starts Ray on this machine.
        item_timeout: longest time for one item, seconds.
        show: True prints progress to stderr as the command does; or a function, see `refloom.ingest.engine.showing`.

    Returns:
        What was done. Rejected and failed items raise nothing: they are counted, and stand in the ledger.

    Raises:
        Refused: there is no such dataset, stage, setting or model, or units were made with other settings.
        JobStopped: a full disk, or units that could not be done; the same call resumes.
    """
    url = url_of(dataset)
    if isinstance(config, Curation):
        if settings:
            raise Refused("settings lie over the defaults or over a file: change the config that is given itself")
        wanted = config
    else:
        wanted = readers.load(Curation, config, settings)
    pool = Pool(workers=workers, address=address, item_timeout_s=item_timeout)
    with showing(show) as display:
        plan = job.curate(
            url,
            wanted,
            pool,
            only=only,
            until=until,
            replace=replace,
            retry_failed=retry_failed,
            dry_run=dry_run,
            show=display,
        )
    now = opened(dataset if isinstance(dataset, Dataset) else url)
    counts = {} if dry_run else {stage: now.counts(stage) for stage in plan.due}
    return Curated(url, plan.models, plan.due, plan.without_model, counts)
