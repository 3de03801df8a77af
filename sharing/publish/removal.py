"""Taking pictures out of a dataset itself: every table, ledger and file that is made of them, and the list that stays.

The list is written first, with the fingerprints of before, so that a removal that was stopped goes on where it was. A
unit is written anew beside its old files; its manifest then names the new ones, and the old ones are removed. Last,
manifests that read what has changed are told the new fingerprints: what is left is as current as it was.

The tags of a dataset lose the same: what an entry names in any of them is taken out of all.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from refloom.schemas import card, copies, exchange, tables, tags
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.lease import Lease
from refloom.schemas.manifest import Manifest
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import TakedownList
from refloom.schemas.unit import drop_unit
from refloom.schemas.upkeep import collect_garbage
from refloom.sharing.publish.cuts import Cut, cut_unit, recount
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.redaction import Redaction
from refloom.sharing.publish.takedown import Reached, Takedown, refuse_unknown, resolve

_REPORT = "report.html"
_FEATURES = "features"
"""Folder of the feature caches of a dataset, and the stage of their units."""
_FINISHED = "features.json"

_COUNTS_OTHERS = ("dedup",)
"""Stages whose kept items are rows of an earlier stage."""

Tell = Callable[[str, int, int], None]
"""Told what is done: a word, how many of it, of how many."""


@dataclass(slots=True)
class Removed:
    """What a removal did.

    Attributes:
        takedown: what the list reached.
        rows: `<table> dropped` and `<table> shrunk` to rows.
        units: units that were written anew, by stage.
        linked: pictures among those removed whose bytes lie in their source.
        features: feature caches that lost units.
        files: derived files that were removed.
        tags: tags that lost rows.
        copies: what is remembered of publications, exports and the like.
    """

    takedown: Takedown
    rows: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    linked: int = 0
    features: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    copies: list[dict[str, Any]] = field(default_factory=list)


def remove(
    url: str,
    entries: Sequence[str],
    *,
    ignore_unknown: bool = False,
    dry_run: bool = False,
    tell: Tell = lambda what, done, total: None,
) -> Removed:
    """Remove pictures from a dataset, and put what names them on its list; go on with a removal that was stopped.

    Args:
        url: of the dataset.
        entries: see `refloom.sharing.publish.takedown.resolve`; none does the dataset's own list again.
        ignore_unknown: entries that name nothing go on the list, for what comes in later.
        dry_run: only look.
        tell: for progress.

    Raises:
        Refused: an entry names nothing; there is no list; the dataset can only be read, or somebody writes to it.
    """
    if is_publication(url):
        raise Refused(f"{url} is a publication: take it out of the dataset it was made of, then publish that again")
    dataset = Dataset(url)
    tags.refuse_change(dataset.folder)
    if dry_run:
        taken, _ = _resolved(dataset, entries, TakedownList.load(dataset.folder), ignore=ignore_unknown)
        return _looked(dataset, taken, entries)
    if dataset.folder.read_only:
        raise Refused(f"{url} can only be read: take pictures out of a copy that you may write to")
    with Lease(dataset.folder):
        dataset.refresh()
        taken, listed = _resolved(dataset, entries, TakedownList.load(dataset.folder), ignore=ignore_unknown)
        collect_garbage(dataset)
        # units that wait to take the place of others hold the pictures too: the ingest that made them makes them again
        exchange.forget(dataset.folder, "ingest", exchange.waiting(dataset.folder, "ingest"))
        done = Removed(taken)
        listed = replace(
            _extended(dataset, listed, taken),
            before=listed.before or _fingerprints(dataset),
            renamed=taken.renamed | taken.clusters,
        )
        listed.save(dataset.folder)
        _cut(dataset, taken, done, tell)
        renew(dataset, listed.before)
        for tag in _tags_of(dataset):
            _remove_from_tag(tag, entries, listed, done, tell)
        _clean(dataset, done)
        replace(listed, before={}, renamed={}).save(dataset.folder)
    return done


def _tags_of(dataset: Dataset) -> list[Dataset]:
    return [Dataset(dataset.url, tag=name) for name in tags.names(dataset.folder)]


def _remove_from_tag(tag: Dataset, entries: Sequence[str], listed: TakedownList, done: Removed, tell: Tell) -> None:
    """Take the same out of a tag, whose list is that of its dataset; goes on where it was stopped."""
    own = TakedownList.load(tag.folder)
    taken = _with_old_names(tag, resolve(tag, entries, listed, again=True), own)
    collect_garbage(tag)
    before = own.before or _fingerprints(tag)
    replace(listed, before=before, renamed=taken.renamed | taken.clusters).save(tag.folder)
    cut = sum(done.units.values())
    _cut(tag, taken, done, tell)
    renew(tag, before)
    if sum(done.units.values()) > cut:
        done.tags.append(tag.url.rpartition("/")[2])
    tag.write_index()
    card.write(tag)
    collect_garbage(tag)
    replace(listed, before={}, renamed={}).save(tag.folder)


def is_publication(url: str) -> bool:
    """Whether a publication lies there and no dataset."""
    folder = Folder(url)
    return folder.exists("MANIFEST.json") and not folder.exists("dataset.json")


def _resolved(
    dataset: Dataset, entries: Sequence[str], listed: TakedownList, *, ignore: bool
) -> tuple[Takedown, TakedownList]:
    """What the entries reach in the dataset, and its list with what they name in its tags."""
    if not entries and not listed:
        raise Refused(
            f"{dataset.url} has no takedown list yet, and no entry was given: name a file with one entry a line"
        )
    before = listed
    in_tags: list[Reached] = []
    for tag in _tags_of(dataset):
        found = resolve(tag, entries, TakedownList.load(tag.folder))
        known = tuple(one for one in found.reached if one.kinds)
        in_tags += known
        listed = _extended(tag, listed, replace(found, reached=known, unknown=()))
    taken = _joined(resolve(dataset, entries, listed, again=True), in_tags)
    refuse_unknown(dataset.url, taken, ignore=ignore)
    return _with_old_names(dataset, taken, before), replace(listed, before=before.before, renamed=before.renamed)


def _joined(taken: Takedown, in_tags: Sequence[Reached]) -> Takedown:
    """What entries reach, told of with what they name in tags alone."""
    known: dict[str, Reached] = {}
    for one in in_tags:
        known.setdefault(one.entry, one)
    reached = tuple(one if one.kinds else known.get(one.entry, one) for one in taken.reached)
    return replace(taken, reached=reached, unknown=tuple(one.entry for one in reached if not one.known))


def _with_old_names(dataset: Dataset, taken: Takedown, listed: TakedownList) -> Takedown:
    """With the names that a removal which was stopped has given already."""
    old = {name: taken.renamed.get(new, new) for name, new in listed.renamed.items()}
    # where a removal was cut off, groups that it dissolved are no longer there to be counted
    held = _groups(dataset) if old else set()
    gone = frozenset(name for name, new in old.items() if held.isdisjoint((name, new)))
    return replace(taken, renamed=old | taken.renamed, clusters=old | taken.clusters, dissolved=taken.dissolved | gone)


def _groups(dataset: Dataset) -> set[str]:
    names = (dataset.read(table, ["group_id"])["group_id"].to_pylist() for table in ("groups", "matches"))
    return {name for table in names for name in table}


def _looked(dataset: Dataset, taken: Takedown, entries: Sequence[str]) -> Removed:
    """What a removal would do to the rows, without bytes of pictures being read."""
    done = Removed(taken)
    _look(dataset, taken, done)
    for tag in _tags_of(dataset):
        of_tag = resolve(tag, entries, TakedownList.load(tag.folder), again=True)
        units = sum(done.units.values())
        _look(tag, replace(of_tag, images=of_tag.images | taken.images), done)
        if sum(done.units.values()) > units:
            done.tags.append(tag.url.rpartition("/")[2])
    done.copies = copies.noted(dataset.folder)
    return done


def _look(dataset: Dataset, taken: Takedown, done: Removed) -> None:
    redaction = Redaction(Publish(), taken)
    for stage in STAGES:
        for manifest in dataset.manifests(stage).values():
            cut = Cut.of(dataset, manifest, redaction)
            done.rows.update(cut.rows)
            done.units[stage] += cut.is_needed


def _extended(dataset: Dataset, listed: TakedownList, taken: Takedown) -> TakedownList:
    """The list with what is removed now."""
    wanted = taken.images | set(listed.images)
    digests = dict(listed.images)
    for unit in dataset.units():
        rows = dataset.read("images", ["image_id", "sha256"], unit=unit).to_pylist()
        digests.update({row["image_id"]: row["sha256"] for row in rows if row["image_id"] in wanted})

    def named(kind: str) -> tuple[str, ...]:
        return tuple(one.entry for one in taken.reached if kind in one.kinds)

    def joined(old: tuple[str, ...], new: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*old, *new]))

    known = [one for one in taken.reached if one.known]
    return replace(
        listed,
        entries=joined(listed.entries, [one.entry for one in taken.reached]),
        images=digests,
        places=joined(listed.places, [*_own(dataset, taken, "video", "video_id"), *sorted(taken.groups)]),
        urls=joined(listed.urls, _own(dataset, taken, "url", "source_url")),
        files=joined(listed.files, named("file")),
        samples=joined(listed.samples, sorted(taken.samples)),
        unknown=joined(
            tuple(name for name in listed.unknown if name not in {one.entry for one in known}),
            taken.unknown,
        ),
    )


def _own(dataset: Dataset, taken: Takedown, kind: str, column: str) -> list[str]:
    """What the dataset itself calls the videos or addresses that entries name."""
    forms = {one.entry.casefold() for one in taken.reached if kind in one.kinds}
    found: set[str] = set()
    for unit in dataset.units() if forms else ():
        values = dataset.read("images", [column], unit=unit)[column].unique().to_pylist()
        found.update(value for value in values if value and value.casefold() in forms)
    return sorted(found)


def _fingerprints(dataset: Dataset) -> dict[str, str]:
    """Every input that a manifest may name, as it is now."""
    values = {f"{name}/*": dataset.fingerprint(name) for name in tables.TABLES}
    for stage in STAGES:
        for unit, manifest in dataset.manifests(stage).items():
            values |= {f"{name}/{unit}": entry.fingerprint for name, entry in manifest.tables.items()}
    return values


def _cut(dataset: Dataset, taken: Takedown, done: Removed, tell: Tell) -> None:
    redaction = Redaction(Publish(), taken)
    for stage in STAGES:
        manifests = list(dataset.manifests(stage).values())
        for number, manifest in enumerate(manifests, 1):
            cut = Cut.of(dataset, manifest, redaction)
            if cut.is_needed:
                done.linked += cut_unit(dataset, manifest, cut, redaction)
                done.units[stage] += 1
            elif stage in _COUNTS_OTHERS:
                recount(dataset, manifest)
            tell(stage, number, len(manifests))
    done.rows.update(+redaction.counts)


def renew(dataset: Dataset, before: Mapping[str, str], stages: Collection[str] = STAGES) -> None:
    """Tell manifests that were current what the fingerprints of their inputs are now.

    Args:
        dataset: whose manifests are written anew where they change.
        before: input, as manifests name them, to its fingerprint before; one that is not named stays as it is.
        stages: whose manifests are told.
    """
    dataset.refresh()
    now: dict[str, str | None] = {}
    for stage in stages:
        for unit, manifest in list(dataset.manifests(stage).items()):
            inputs = dict(manifest.inputs)
            for name, then in manifest.inputs.items():
                if name not in now:
                    now[name] = dataset.fingerprint_of(name)
                if then == before.get(name):
                    inputs[name] = now[name] or "absent"
            if inputs != manifest.inputs:
                new = replace(manifest, inputs=inputs)
                dataset.folder.write(Manifest.path(stage, unit), new.to_json())
    dataset.refresh()


def _clean(dataset: Dataset, done: Removed) -> None:
    """What is derived from rows: index, card, pages, features, scratch; and what may hold them elsewhere."""
    dataset.write_index()
    card.write(dataset)
    done.files += collect_garbage(dataset)
    if dataset.folder.exists(_REPORT) and done.units:
        dataset.folder.remove(_REPORT)
        done.files.append(_REPORT)
    noted = copies.noted(dataset.folder)
    current = {
        (file.path, file.sha256)
        for held in (dataset, *_tags_of(dataset))
        for manifest in held.manifests("compose").values()
        for file in manifest.files
    }
    own = [f"{dataset.url.rstrip('/')}/{_FEATURES}/{name}" for name in dataset.folder.folders(_FEATURES)]
    for place in dict.fromkeys([*own, *(one["place"] for one in noted if one["kind"] == "features")]):
        if _drop_features(place, current):
            done.features.append(place)
    done.copies = [one for one in noted if one["kind"] != "features"]


def _drop_features(place: str, current: set[tuple[str, str]]) -> bool:
    """Remove the units of a feature cache whose samples are no longer those of the dataset, or of a tag of it."""
    folder = Folder(place)
    lost = []
    for stage in (_FEATURES, f"{_FEATURES}.next"):  # the second while features take the place of others
        for name in folder.names(f"manifests/{stage}"):
            if name.endswith(".json"):
                path = f"manifests/{stage}/{name}"
                inputs = Manifest.from_json(folder.read(path), path).inputs
                if not current.issuperset(inputs.items()):
                    lost.append((stage, name.removesuffix(".json")))
    if not lost:
        return False
    folder.remove(_FINISHED)
    for stage, unit in lost:
        drop_unit(folder, stage, unit)
    return True
