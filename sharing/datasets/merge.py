"""`refloom.merge(...)`: one dataset of several that were made alike."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from refloom.curation.stages import PIXEL_STAGES
from refloom.ingest.engine.pool import Pool
from refloom.ingest.engine.showing import Show, showing
from refloom.ingest.engine.watch import ITEM_TIMEOUT_S
from refloom.schemas.dataset import Dataset, Place, url_of
from refloom.schemas.errors import Refused
from refloom.schemas.lineage import Lineage
from refloom.schemas.manifest import Manifest
from refloom.schemas.status import stage_state
from refloom.schemas.storage import Folder, absolute_url
from refloom.schemas.storeerrors import store_errors_stop
from refloom.schemas.takedownlist import TakedownList, refuse_unfinished
from refloom.schemas.wording import listed as in_words
from refloom.schemas.wording import quoted, several, some
from refloom.sharing.datasets.agreement import Names, name_units, refuse_differing
from refloom.sharing.datasets.joining import Joined, are_split, join
from refloom.sharing.datasets.leaving import Leaving
from refloom.sharing.datasets.making import Part, Recipe, check_place, fingerprints, is_made, make, source_of
from refloom.sharing.datasets.overlap import Pictures, held_twice, share_out, union
from refloom.sharing.datasets.transfer import CARRIED, Origin
from refloom.sharing.publish.redaction import TAKEN_DOWN

HOW = "merge"
TWICE = "duplicate"
_FROM_SPLIT = ("split", "balance", "compose")
"""Stages that are left to curation where not every dataset has splits."""
_OF_PICTURES = ("mask", *PIXEL_STAGES)
"""Stages that look at pictures one by one: what they said of those that stay holds, whatever goes."""


@dataclass(slots=True)
class Merged:
    """What was made, or would be.

    Attributes:
        url: of the new dataset.
        images: pictures of each source that came, by its address.
        twice: pictures that an earlier source holds, with the same bytes and annotations.
        taken_down: pictures that the takedown list of one of the sources reaches.
        same: units that an earlier source holds, the very same.
        renamed: address of a source to its units and their new names.
        joined: whether splits were joined; else curation makes them.
        changed: pictures that change sides.
        stale: stages that curation has to do again, in all units or some; empty of a dry run.
        was_there: it was whole before.
    """

    url: str
    images: dict[str, int] = field(default_factory=dict)
    twice: Counter[str] = field(default_factory=Counter)
    taken_down: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    renamed: dict[str, dict[str, str]] = field(default_factory=dict)
    joined: bool = False
    changed: int = 0
    stale: list[str] = field(default_factory=list)
    was_there: bool = False


@store_errors_stop()
def merge(
    datasets: Sequence[Place],
    dest: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    workers: int | None = None,
    address: str | None = None,
    item_timeout: float = ITEM_TIMEOUT_S,
    show: bool | Show = False,
) -> Merged:
    """Make one dataset of several that were made with the same settings and models. Resumes; these stay as they are.

        refloom.merge(["COCO", "VIDEOS"], "DEST")
        refloom.curate("DEST")

    A picture that several hold, with the same bytes and annotations, comes once, from the first. Units of one name that
    are not the same are called after their dataset. Splits are joined anew: what belongs together in any of the
    datasets, and pictures of the same bytes, end on one side. What was measured of pictures holds; copies, groups and
    limits over the whole dataset are out of date, and `refloom curate` does exactly these again, with what follows.

    Args:
        datasets: two or more: folders, fsspec URLs, or datasets.
        dest: new or empty folder or URL, or one where the same merge was begun.
        dry_run: only say what would be done.
        workers: processes; None for all cores, 0 for this one, without Ray.
        address: of a Ray cluster; None starts Ray on this machine.
        item_timeout: longest time for one item, seconds.
        show: True prints progress to stderr as the command does; or a function, see `refloom.ingest.engine.showing`.

    Raises:
        Refused: other settings or models, an id with other content in two datasets, or `dest` holds something else.
        JobStopped: no space left, or a unit could not be done; the same call resumes.
        DamagedFile: a file of a source is not what was committed.
    """
    pool = Pool(workers=workers, address=address, item_timeout_s=item_timeout)
    url, sources = absolute_url(dest), _opened([url_of(one) for one in datasets])
    check_place(url, sources)
    plan = _planned(sources, union(refuse_unfinished(source.folder) for source in sources))
    asked: dict[str, Any] = {"names": {new: old for names in plan.names for old, new in sorted(names.keys.items())}}
    lineage = Lineage(HOW, asked, tuple(map(source_of, sources)))
    found = _told(plan, url)
    found.was_there = is_made(url, lineage)
    if dry_run or found.was_there:
        return found
    parts = _parts(plan)
    prepare = partial(_prepare, plan=plan, parts=parts)
    finish = _settle_splits if plan.joined is not None else _leave
    recipe = Recipe(lineage, url, parts, plan.listed, _roots(parts), prepare, finish)
    with showing(show) as display:
        made = make(recipe, pool, display(HOW, "image") if display is not None else None)
    found.stale = [stage for stage in CARRIED if stage_state(made, stage) in ("stale", "partial")]
    return found


def _opened(urls: list[str]) -> list[Dataset]:
    """The sources, made alike."""
    if len(urls) < 2 or len(set(urls)) < len(urls):
        raise Refused(f"a merge is of two or more different datasets, not of {some(urls) or 'none'}")
    sources = [Dataset(url) for url in urls]
    for source in sources:
        if not source.units():
            raise Refused(f"{source.url} holds no pictures yet: leave it out, or ingest into it first")
    refuse_differing(sources)
    return sources


def _roots(parts: Sequence[Part]) -> dict[str, str]:
    """Where linked pictures lie, by the names that their roots have in the merged dataset."""
    found: dict[str, str] = {}
    for part in parts:
        own: dict[str, str] = part.dataset.index.get("roots", {})
        found = {part.origin.keys.get(name, name): place for name, place in own.items()} | found
    return found


@dataclass(frozen=True, slots=True)
class _Plan:
    """What comes from which source, and how it is called."""

    sources: Sequence[Dataset]
    listed: TakedownList
    names: list[Names]
    found: list[Pictures]
    joined: Joined | None


def _planned(sources: Sequence[Dataset], listed: TakedownList) -> _Plan:
    names = name_units(sources)
    found = share_out(sources, [one.units for one in names], listed)
    if not any(pictures.rows for pictures in found):
        raise Refused("all pictures of these datasets were taken down: nothing is left to make a dataset of")
    return _Plan(sources, listed, names, found, join(sources, found) if are_split(sources) else None)


def _told(plan: _Plan, url: str) -> Merged:
    told = Merged(url, joined=plan.joined is not None)
    for source, names, pictures in zip(plan.sources, plan.names, plan.found, strict=True):
        told.images[source.url] = len(pictures.rows)
        told.twice[source.url] = len(pictures.twice)
        told.taken_down[source.url] = len(pictures.taken_down)
        told.same[source.url] = len(names.same)
        if names.renamed:
            told.renamed[source.url] = dict(sorted(names.renamed.items()))
    told.changed = len(plan.joined.changed) if plan.joined is not None else 0
    return told


def _parts(plan: _Plan) -> list[Part]:
    """The sources as workers are told of them."""
    stages = CARRIED if plan.joined is not None else tuple(one for one in CARRIED if one not in _FROM_SPLIT)
    down = set().union(*(pictures.taken_down for pictures in plan.found))
    units = [names.units for names in plan.names]
    groups = [
        one | other
        for one, other in zip(
            held_twice(plan.sources, units, "groups", "group_id"),
            held_twice(plan.sources, units, "matches", "group_id"),
            strict=True,
        )
    ]
    samples = held_twice(plan.sources, units, "samples", "sample_id")
    parts = []
    for number, (source, names, pictures) in enumerate(zip(plan.sources, plan.names, plan.found, strict=True)):
        origin = Origin(source.url, number, names.renamed, names.keys, stages, plan.joined is not None)
        leaving = Leaving(TWICE, {TWICE: pictures.twice, TAKEN_DOWN: down})
        leaving.groups = groups[number]
        leaving.samples = samples[number] | set(plan.listed.samples)
        leaving.videos = _emptied(source, names.units, leaving.every)
        before = fingerprints(source, origin)
        cut = {origin.unit(unit) for unit in names.units if _is_cut(source, unit, pictures)}
        moved = {origin.unit(unit) for unit in names.units if _changes_sides(plan.joined, pictures, unit)}
        whole = {
            name: value
            for name, value in before.items()
            if (unit := name.rpartition("/")[2]) not in cut and not (unit in moved and name.startswith("splits/"))
        }
        others = tuple(stage for stage in CARRIED if stage not in _OF_PICTURES)
        parts.append(Part(source, origin, leaving, names.units, [(_OF_PICTURES, before), (others, whole)]))
    return parts


def _is_cut(source: Dataset, unit: str, pictures: Pictures) -> bool:
    """Whether pictures of a unit stay behind, so that what was decided on them together has to be decided again."""
    return len(pictures.units[unit]) < source.manifests("ingest")[unit].tables["images"].rows


def _changes_sides(joined: Joined | None, pictures: Pictures, unit: str) -> bool:
    return joined is not None and not joined.changed.isdisjoint(pictures.units[unit])


def _emptied(source: Dataset, units: Sequence[str], gone: set[str]) -> set[str]:
    """Videos of which no picture comes along."""
    left: set[str] = set()
    lost: set[str] = set()
    for unit in units if gone else ():
        for row in source.read("images", ["image_id", "video_id"], unit=unit).to_pylist():
            if row["video_id"] is not None:
                (lost if row["image_id"] in gone else left).add(row["video_id"])
    return lost - left


def _prepare(folder: Folder, plan: _Plan, parts: Sequence[Part]) -> None:
    if plan.joined is not None:
        plan.joined.save(folder, HOW, [part.origin for part in parts], plan.found)


def _leave(dataset: Dataset) -> None:
    """Nothing is known of all units together."""


def _settle_splits(dataset: Dataset) -> None:
    """Splits were drawn from all that is here: they are current until copies or groups are found anew."""
    for unit, manifest in dataset.manifests("split").items():
        inputs = {name: dataset.fingerprint_of(name) or "absent" for name in manifest.inputs}
        dataset.folder.write(Manifest.path("split", unit), replace(manifest, inputs=inputs).to_json())


def lines(found: Merged) -> Iterator[str]:
    """What a merge did, or would do, for people."""
    for url, count in found.images.items():
        more = [
            (found.twice[url], "that an earlier one holds"),
            (found.taken_down[url], "that were taken down"),
        ]
        besides = "".join(f", without {several(number, 'picture')} {what}" for number, what in more if number)
        yield f"  {url}: {several(count, 'picture')}{besides}"
        if found.same[url]:
            yield f"    {several(found.same[url], 'unit')} that an earlier one holds, the very same, came once"
        if url in found.renamed:
            names = [f"{old} -> {new}" for old, new in found.renamed[url].items()]
            yield f"    units of the name of others are called anew: {some(names, between='; ')}"
    if found.joined:
        moved = several(found.changed, "picture")
        yield f"  splits are joined anew: {moved} changed sides, so that nothing that belongs together is on both"
    else:
        yield "  not all of these are split yet: splits, limits and samples are left to `refloom curate`"
    if not found.was_there:
        stale = f" ({in_words(found.stale)} out of date or not done)" if found.stale else ""
        yield (
            f"  nobody has looked for copies and groups across these{stale}: `refloom curate {quoted(found.url)}` does "
            "exactly that, and again what follows from it; until then `refloom publish` refuses"
        )
