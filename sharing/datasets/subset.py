"""`refloom.subset(...)`: a dataset out of a part of another, with all that was made of it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from refloom.ingest.engine.pool import Pool
from refloom.ingest.engine.showing import Show, showing
from refloom.ingest.engine.watch import ITEM_TIMEOUT_S
from refloom.schemas.dataset import STAGES, Dataset, Place, url_of
from refloom.schemas.errors import Refused
from refloom.schemas.lineage import Lineage
from refloom.schemas.storage import absolute_url
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.tables import TABLES
from refloom.schemas.takedownlist import COLUMNS, TakedownList, refuse_unfinished
from refloom.schemas.wording import quoted
from refloom.sharing.datasets.choice import Choice, Held, Kept, choose, ids_of
from refloom.sharing.datasets.leaving import Leaving
from refloom.sharing.datasets.making import Part, Recipe, check_place, fingerprints, is_made, make, source_of
from refloom.sharing.datasets.transfer import Origin
from refloom.sharing.publish.redaction import TAKEN_DOWN

HOW = "subset"
LEFT_OUT = "left_out"


@dataclass(frozen=True, slots=True)
class Subset:
    """What was made, or would be.

    Attributes:
        url: of the new dataset.
        images, samples: how many of the source's stay; samples that lose pictures may yet go, where too few are left.
        of_images, of_samples: how many the source holds.
        was_there: it was whole before.
    """

    url: str
    images: int
    samples: int
    of_images: int
    of_samples: int
    was_there: bool = False


@store_errors_stop()
def subset(
    dataset: Place,
    dest: str | os.PathLike[str],
    *,
    ids: str | os.PathLike[str] | Sequence[str] = (),
    where: str | Sequence[str] = (),
    split: str | None = None,
    share: float | None = None,
    seed: int = 0,
    tag: str | None = None,
    dry_run: bool = False,
    workers: int | None = None,
    address: str | None = None,
    item_timeout: float = ITEM_TIMEOUT_S,
    show: bool | Show = False,
) -> Subset:
    """Make a dataset of a part of another. Resumes; the source stays as it is.

        refloom.subset("DATASET", "SMALL", share=0.1, split="train")
        refloom.subset("DATASET", "DOGS", where='phrases: "dog" in phrase', tag="v1")

    Pictures, annotations, masks, faces, scores, embeddings, groups, samples, judgements and ledgers come along, with
    what they were made with; what stays behind is `left_out` in the ledger of ingest. What was up to date in the source
    is so in the new dataset. Verdicts and groups are those of the source: nothing is decided anew.

    Args:
        dataset: the source: a folder, an fsspec URL, or a dataset.
        dest: new or empty folder or URL, or one where the same subset was begun.
        ids: of pictures or samples, or a file of them, one a line.
        where: conditions on rows, `TABLE: CONDITION`, see `refloom.sharing.datasets.where`; all must hold.
        split: only train, or only validation.
        share: of the samples, or of the pictures where there are no samples yet, drawn by hash of the id.
        seed: of that draw: a smaller share of the same seed is a part of a larger one.
        tag: the state of the source that was kept under this name; the present one without.
        dry_run: only say what would stay.
        workers: processes; None for all cores, 0 for this one, without Ray.
        address: of a Ray cluster; None starts Ray on this machine.
        item_timeout: longest time for one item, seconds.
        show: True prints progress to stderr as the command does; or a function, see `refloom.ingest.engine.showing`.

    Raises:
        Refused: no such dataset, tag, id, table or column; nothing is left; or `dest` holds something else.
        JobStopped: no space left, or a unit could not be done; the same call resumes.
        DamagedFile: a file of the source is not what was committed.
    """
    choice = Choice(
        ids=ids_of(ids),
        where=(where,) if isinstance(where, str) else tuple(where),
        split=split,
        share=share,
        seed=seed,
    )
    pool = Pool(workers=workers, address=address, item_timeout_s=item_timeout)
    with showing(show) as display:
        return take(url_of(dataset), absolute_url(dest), choice, pool, tag=tag, dry_run=dry_run, display=display)


def take(
    address_of: str,
    url: str,
    choice: Choice,
    pool: Pool,
    *,
    tag: str | None = None,
    dry_run: bool = False,
    display: Show | None = None,
) -> Subset:
    """Make a subset; arguments and errors as for `subset`.

    Args:
        address_of: of the source.
        url: of the new dataset.
        choice: what stays.
        pool: workers.
        tag, dry_run: see there.
        display: makes the progress of a job.
    """
    source = Dataset(address_of, tag=tag)
    if not source.units():
        raise Refused(
            f"{source.url} holds no pictures yet: take some in with `refloom ingest ... --out {quoted(source.url)}`"
        )
    check_place(url, [source])
    listed = refuse_unfinished(source.folder)
    held = Held.of(source)
    kept = choose(source, choice, held)
    lineage = Lineage(HOW, choice.to_json(), (source_of(source),))
    there = is_made(url, lineage)
    found = Subset(url, len(kept.images), len(kept.samples), len(held.videos), len(held.samples), there)
    if dry_run or there:
        return found
    part = _part(source, held, kept, listed)
    recipe = Recipe(lineage, url, (part,), listed, source.index.get("roots", {}))
    make(recipe, pool, display(HOW, "image") if display is not None else None)
    return found


def _part(source: Dataset, held: Held, kept: Kept, listed: TakedownList) -> Part:
    """The source as workers are told of it."""
    gone = held.videos.keys() - kept.images
    leaving = Leaving(LEFT_OUT, {LEFT_OUT: gone, TAKEN_DOWN: reached(source, listed)})
    every = leaving.every
    if not held.videos.keys() - every:
        raise Refused(f"all that is asked for of {source.url} was taken down: nothing is left to make a dataset of")
    leaving.samples = set(listed.samples) & held.samples.keys()
    if kept.by_samples:
        leaving.samples |= held.samples.keys() - kept.samples
    leaving.clusters = renamed_clusters(source, every)
    stay = {held.videos[one] for one in held.videos.keys() - every}
    leaving.videos = {video for video in held.videos.values() if video is not None} - stay
    origin = Origin(source.url, 0)
    return Part(source, origin, leaving, source.units(), [(STAGES, _before(source, origin))])


def reached(source: Dataset, listed: TakedownList) -> set[str]:
    """Pictures of a dataset that a takedown list reaches: none, unless files of an older copy were put back."""
    found: set[str] = set()
    for unit in source.units() if listed else ():
        rows = source.read("images", COLUMNS, unit=unit)
        found.update(rows.filter(listed.reach(rows))["image_id"].to_pylist())
    return found


def renamed_clusters(source: Dataset, gone: set[str]) -> dict[str, str]:
    """Clusters of `splits` that are called after a picture that stays behind, by their smallest one that does not."""
    found: dict[str, str] = {}
    for batch in source.batches("splits", ["image_id", "cluster"]):
        for image_id, cluster in zip(
            *(batch.column(name).to_pylist() for name in ("image_id", "cluster")), strict=True
        ):
            if cluster in gone and image_id not in gone:
                found[cluster] = min(image_id, found.get(cluster, image_id))
    return found


def _before(source: Dataset, origin: Origin) -> dict[str, str]:
    """Everything that a manifest of the source may have read, whole tables too: a part of them is as current."""
    whole = {f"{name}/*": source.fingerprint(name) for name in TABLES}
    return whole | fingerprints(source, origin)
