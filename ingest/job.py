"""An ingest from plan to commit: what is there, what is refused, what is left to do, and the worker that does it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from refloom.ingest import admission, frames, idsets
from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.source import Group, Item, Picture, Plan, Source, Track, UnitPlan
from refloom.ingest.sourcekinds import SOURCES
from refloom.schemas import card, exchange
from refloom.schemas.dataset import Dataset, refuse_foreign
from refloom.schemas.errors import Failed, JobStopped, RefloomError, Refused, Rejected
from refloom.schemas.index import is_dataset
from refloom.schemas.lease import Lease, holds
from refloom.schemas.manifest import Manifest, differing, flatten
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import TakedownList, refuse_unfinished
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.schemas.wording import some

STAGE = "ingest"
STAGE_VERSION = 2
_TAKEN_DOWN = Rejected("taken_down")


@dataclass(frozen=True, slots=True)
class Options:
    """How to run an ingest.

    Attributes:
        link: keep pointers to the source's bytes instead of the bytes.
        retry_failed: do the units again that hold failed items.
        replace: do the units of this key again that were made with other settings or from another input.
    """

    link: bool = False
    retry_failed: bool = False
    replace: bool = False


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingest would do.

    Attributes:
        plans: of the source.
        todo: units to do now.
        done: units that are there already.
        dropped: committed units of the same keys that the plan no longer has (only with --replace).
        keys: unit name to its plan.
        replaced: keys whose units take the places of others, all at once when the last of them is whole.
        ready: units of these that are whole and wait; part of `done`.
    """

    plans: tuple[Plan, ...]
    todo: tuple[UnitPlan, ...]
    done: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    keys: dict[str, Plan] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()
    ready: tuple[str, ...] = ()

    def waits(self, unit: str) -> bool:
        """Whether a unit waits for others, when it is whole, to take its place with them."""
        return self.keys[unit].key in self.replaced

    @property
    def notes(self) -> list[str]:
        """What a person should know about the source."""
        return [note for plan in self.plans for note in plan.notes]


def look_ahead(source: Source, dataset: Dataset | None, options: Options) -> IngestPlan:
    """Plan an ingest against what the dataset holds.

    Args:
        source: what to ingest.
        dataset: where it goes; None if it does not exist yet.
        options: how.

    Raises:
        Refused: the same key was made with other settings, or ids are held under another key.
    """
    plans = [replace(plan, config=plan.config | _whose(source)) for plan in source.plans()]
    held = dataset.manifests(STAGE) if dataset is not None else {}
    if dataset is not None and held:
        plans = idsets.set_apart(plans, source, dataset)
    if dataset is not None:
        dataset.damage.look(held.values())
    waiting = exchange.waiting(dataset.folder, STAGE) if dataset is not None and options.replace else {}
    todo, done, dropped, owners, replaced, ready = [], [], [], {}, set(), []
    for plan in plans:
        own = {unit: manifest for unit, manifest in held.items() if manifest.key == plan.key}
        planned = {unit.name for unit in plan.units}
        due = []
        for unit in plan.units:
            owners[unit.name] = plan
            manifest = own.get(unit.name)
            differences = _differences(manifest, plan, unit, options) if manifest else []
            retried = options.retry_failed and manifest is not None and manifest.failed > 0
            if retried:  # what was missing may be there now, so the input may differ; the settings may not
                differences = [found for found in differences if not found.startswith("input")]
            broken = manifest is not None and dataset is not None and not dataset.is_whole(manifest)
            if manifest is None or ((retried or broken) and not differences):
                due.append(unit)
            elif not differences:
                done.append(unit.name)
            elif options.replace:
                due.append(unit)
                replaced.add(plan.key)
            else:
                told = some(differences, between="; ")
                raise Refused(f"{plan.key} was ingested with other settings ({told}): {_way_out(differences)}")
        gone = sorted(own.keys() - planned)
        if gone and not options.replace:
            raise Refused(
                f"{plan.key} holds units that this plan has not, e.g. {gone[0]}: "
                "the source shrank; do it again with --replace"
            )
        if gone:
            replaced.add(plan.key)
        dropped += gone
        for unit in due:
            if plan.key in replaced and _may_stay(waiting.get(unit.name), plan, unit, dataset, options):
                ready.append(unit)
            else:
                todo.append(unit)
    names = [unit.name for unit in ready]
    found = IngestPlan(
        tuple(plans), tuple(todo), (*done, *names), tuple(dropped), owners, frozenset(replaced), tuple(names)
    )
    new = [unit for unit in (*todo, *ready) if unit.name not in held or found.waits(unit.name)]
    idsets.refuse_shared(new, {name: plan.key for name, plan in owners.items()})
    if dataset is not None:
        idsets.refuse_held(dataset, tuple(new), {plan.key for plan in plans})
    return found


def _may_stay(made: Manifest | None, plan: Plan, unit: UnitPlan, dataset: Dataset | None, options: Options) -> bool:
    """Whether a unit that waits, of a run that was cut off, is what this run would make."""
    if made is None or dataset is None or (options.retry_failed and made.failed):
        return False
    return not _differences(made, plan, unit, options) and dataset.is_whole(made)


def _whose(source: Source) -> dict[str, Any]:
    """What manifests keep of a source that a plugin brings: whose it is, in which version; nothing of ours."""
    for name in SOURCES:
        if name not in SOURCES.own and SOURCES[name].reader_class is type(source):
            return {"plugin": SOURCES.record([name])[name]}
    return {}


def _way_out(differences: list[str]) -> str:
    if any(found.startswith("source:") for found in differences):
        return "another kind of source has this key, so give this one another --name"
    if any(found.startswith("input") for found in differences):
        return (
            "if this is another set, give it a --name of its own; if it is the same set and has changed, do it again "
            "with --replace"
        )
    return "use the same settings, or do it again with --replace"


def _differences(manifest: Manifest, plan: Plan, unit: UnitPlan, options: Options) -> list[str]:
    new = flatten(
        {**plan.config, "link": options.link, "stage_version": STAGE_VERSION, "models": {}, "input": unit.identity}
    )
    return differing(manifest.settings() | flatten({"input": manifest.source}), new)


@dataclass(frozen=True, slots=True)
class IngestJob:
    """What ingest workers do; travels to them.

    Attributes:
        source: reads the units.
        dataset_url: where they go.
        lease_id: checked before every commit.
        link: keep pointers.
        waiting: names of units that wait, when they are whole, to take the places of others all at once.
    """

    source: Source
    dataset_url: str
    lease_id: str
    link: bool
    waiting: frozenset[str] = frozenset()

    def start(self) -> "IngestWorker":
        """One worker per process."""
        return IngestWorker(self)


class IngestWorker:
    """Reads, judges and commits units of one source."""

    def __init__(self, job: IngestJob) -> None:
        self._job = job
        self._folder = Folder(job.dataset_url)
        self._roots = job.source.roots() if job.link else {}
        self._listed = TakedownList.load(self._folder)

    def run(self, task: Task, watch: Watch) -> None:
        """One unit: `task.payload` is its plan, key and config."""
        unit, key, config = task.payload
        waits = unit.name in self._job.waiting
        unit_key = UnitKey(
            stage=STAGE,
            unit=unit.name,
            key=key,
            config={**config, "link": self._job.link},
            source=unit.identity,
            stage_version=STAGE_VERSION,
            roots={key: self._roots[key]} if key in self._roots else {},
        )
        writer = UnitWriter(
            self._folder,
            unit_key,
            on_verdict=watch.verdict,
            before_commit=self._fence,
            place=exchange.waiting_path(STAGE, unit.name) if waits else None,
            beside=Manifest.path(STAGE, unit.name) if waits else None,
        )
        with writer as out:
            for kind, count in unit.items.items():
                out.expect(kind, count)
            apart = config.get(idsets.SETTING)
            _fill(self._job.source, unit, out, watch, self._listed, link=self._job.link, apart=apart)

    def _fence(self) -> None:
        if not holds(self._folder, self._job.lease_id):
            raise JobStopped(f"another writer took over {self._job.dataset_url}; run again to resume")


def _fill(
    source: Source,
    unit: UnitPlan,
    out: UnitWriter,
    watch: Watch,
    listed: TakedownList,
    *,
    link: bool,
    apart: str | None = None,
) -> None:
    """Everything a unit's records become. Kinds that the plan did not count are announced as they are read.

    Args:
        source, unit, out, watch: what is read, where it goes, and who looks on.
        listed: what was taken down from the dataset and stays away.
        link: keep pointers.
        apart: what the ids of the unit are under; see `refloom.ingest.idsets`.
    """
    kept_by_track: Counter[str] = Counter()
    away: set[str] = set()
    unit_frames = _unit_frames(source, unit, watch)
    for record in source.read(unit):
        match record:
            case Picture():
                verdicts = _judge(record, source.kind, watch, unit_frames, listed, link=link, apart=apart)
                if any(problem is _TAKEN_DOWN for _, _, problem, _ in verdicts.settled[:1]):
                    away.add(record.image_id)
                for kind, *_ in verdicts.settled:
                    if kind not in unit.items:
                        out.expect(kind)
                kept_by_track.update(verdicts.tracks)
                idsets.rename(verdicts, source.kind, apart)
                verdicts.write(out)
            case Track():
                if "track" not in unit.items:
                    out.expect("track")
                if record.problem is None and not kept_by_track[record.track_id]:
                    record.problem = Rejected("bad_record", "none of its annotations was taken")
                record = idsets.renamed(record, source.kind, apart)
                _settle(out, "track", record.track_id, record)
            case Group():
                if "group" not in unit.items:
                    out.expect("group")
                if away and record.problem is None:
                    _shrink(record, away)
                record = idsets.renamed(record, source.kind, apart)
                if record.problem is None:
                    row = {"group_id": record.group_id, "kind": record.kind, "members": record.members}
                    out.add("source_groups", row | {"target": record.target, "texts": record.texts})
                _settle(out, "group", record.group_id, record)
            case Item():
                if record.kind not in unit.items:
                    out.expect(record.kind)
                record = idsets.renamed(record, source.kind, apart)
                _settle(out, record.kind, record.item_id, record)


def _shrink(group: Group, away: set[str]) -> None:
    """A group without pictures that were taken down; with one left it is none."""
    members = [member for member in group.members if member not in away]
    if len(members) < len(group.members):
        group.members, group.target = members, None if group.target in away else group.target
        if len(members) < 2:
            group.problem = Rejected("too_few_members", "taken_down")


def _is_listed(picture: Picture, listed: TakedownList, kind: str, apart: str | None, sha256: str | None = None) -> bool:
    """Whether a picture, under the ids that it gets here, is on the list of what was taken down."""
    video_id = picture.video_id
    return listed.holds(
        idsets.under(picture.image_id, kind, apart),
        video_id=None if video_id is None else idsets.under(video_id, kind, apart),
        source_url=picture.source_url,
        file=picture.file,
        sha256=sha256,
    )


def _settle(out: UnitWriter, kind: str, item_id: str, record: Track | Group | Item) -> None:
    if record.problem is None:
        out.keep(kind)
        return
    file = record.file if isinstance(record, Item) else None
    occurrence = 0 if isinstance(record, Group) else record.occurrence
    admission.settle(out, kind, item_id, record.problem, file=file, occurrence=occurrence)


def _unit_frames(source: Source, unit: UnitPlan, watch: Watch) -> frames.UnitFrames:
    """What the unit's pictures say of the frame they are drawn in; each is noted as the item under work in its turn."""

    def begin(image_id: str) -> None:
        watch.begin(image_id)
        watch.advance(-1)  # its own turn is what counts as progress

    return frames.UnitFrames(
        lambda: (record for record in source.read(unit) if isinstance(record, Picture)),
        begin,
    )


def _judge(
    picture: Picture,
    kind: str,
    watch: Watch,
    unit_frames: frames.Unit,
    listed: TakedownList,
    *,
    link: bool,
    apart: str | None,
) -> admission.Verdicts:
    def ask(says: frames.Declared) -> set[frames.Frame]:
        found = unit_frames(says)
        watch.begin(picture.image_id)
        watch.advance(-1)
        return found

    try:
        watch.begin(picture.image_id)
        if _is_listed(picture, listed, kind, apart):
            return admission.refuse(picture, _TAKEN_DOWN)
        verdicts = admission.judge(picture, kind, link=link, unit=ask)
        if verdicts.image is not None and _is_listed(picture, listed, kind, apart, verdicts.image["sha256"]):
            return admission.refuse(picture, _TAKEN_DOWN)  # the same bytes under another name
    except Failed as problem:
        return admission.refuse(picture, problem)
    except RefloomError:
        raise  # a full disk or a lost lease is not the picture's fault
    except Exception as error:  # whatever it is, it costs this picture and not the unit; the traceback goes to runs/
        return admission.refuse(picture, watch.unexpected(picture.image_id, error))
    if verdicts.image is not None:
        image, where = verdicts.image["image"], verdicts.image["link"]
        watch.read_bytes(len(image["bytes"]) if image else where["length"])
    return verdicts


def ingest(
    source: Source,
    url: str,
    options: Options,
    pool: Pool,
    on_status: Callable[[Status], None] | None = None,
) -> IngestPlan:
    """Ingest a source into a dataset; resumes what an earlier run left.

    Args:
        source: what to ingest.
        url: of the dataset; made if it does not exist.
        options: how.
        pool: workers.
        on_status: for progress.

    Returns:
        What was planned.

    Raises:
        Refused, JobStopped: see `look_ahead` and `engine.run`.
    """
    place = Folder(url)
    early = None
    if not is_dataset(place):
        refuse_foreign(place)
        early = look_ahead(source, None, options)  # a source that is refused leaves no empty dataset behind
    dataset = Dataset(url, create=True, lenient=True)
    with Lease(dataset.folder) as lease:
        refuse_unfinished(dataset.folder)
        dataset.collect_garbage()
        damaged = bool(dataset.damaged)
        plan = early if early is not None and not dataset.units() else look_ahead(source, dataset, options)
        del early
        coming = [*plan.ready, *(unit.name for unit in plan.todo if plan.waits(unit.name))]
        keys = {plan.key for plan in plan.plans}
        left = exchange.waiting(dataset.folder, STAGE).items()  # of a run that was killed
        exchange.forget(dataset.folder, STAGE, [unit for unit, one in left if one.key in keys and unit not in coming])
        # the payloads are the annotation files: each is needed once, by its own task
        tasks = [
            Task(
                unit.name,
                (unit, plan.keys[unit.name].key, plan.keys[unit.name].config),
                max(1, unit.items.get("image", 1)),
            )
            for unit in plan.todo
        ]
        done = replace(
            plan,
            todo=tuple(replace(unit, payload=b"") for unit in plan.todo),
            plans=tuple(replace(plan, units=()) for plan in plan.plans),
        )
        del plan
        if tasks:

            def watch_lease(status: Status) -> None:
                lease.check()
                if on_status is not None:
                    on_status(status)

            job = IngestJob(source, url, lease.id, options.link, frozenset(coming))
            engine.run("ingest", job, tasks, pool=pool, notes=dataset.new_run(), on_status=watch_lease)
        if coming or done.dropped:
            lease.check(look=True)
            exchange.exchange(dataset.folder, STAGE, coming, done.dropped)
        dataset.refresh()
        dataset.drop_orphans()
        if damaged:
            dataset.collect_garbage()  # what a damaged manifest named, which its unit does not any more
        # a source that has moved is found again by taking it in from its new place
        told = source.roots() if options.link else {}
        is_moved = dataset.set_roots({key: url for key, url in told.items() if key in dataset.index.get("roots", {})})
        card.renew(dataset, tasks or coming or done.dropped or is_moved)
    return done
