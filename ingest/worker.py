"""What ingest workers do: read the units of a source, judge what they hold, and commit it."""

from collections import Counter
from dataclasses import dataclass

from refloom.ingest import admission, frames, idsets
from refloom.ingest.engine.pool import Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.source import Group, Item, Picture, Source, Track, UnitPlan
from refloom.schemas import exchange
from refloom.schemas.errors import Failed, JobStopped, RefloomError, Rejected
from refloom.schemas.lease import holds
from refloom.schemas.manifest import Manifest
from refloom.schemas.storage import Folder
from refloom.schemas.takedownlist import TakedownList
from refloom.schemas.unit import UnitKey, UnitWriter

STAGE = "ingest"
STAGE_VERSION = 2
_TAKEN_DOWN = Rejected("taken_down")


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
                    out.add("source_groups", record.row())
                _settle(out, "group", record.group_id, record)
            case Item():
                if record.kind not in unit.items:
                    out.expect(record.kind)
                record = idsets.renamed(record, source.kind, apart)
                _settle(out, record.kind, record.item_id, record)


def _shrink(group: Group, away: set[str]) -> None:
    """A group without pictures that were taken down; with one left, or without its target, it is none.

    Without its target a record would leave open which of its references may be made of which. A text that counts a
    picture that is gone would name others by its numbers, and what was said of the whole record does not hold of what
    is left: both go.
    """
    members = [member for member in group.members if member not in away]
    if len(members) < len(group.members):
        group.members = members
        group.instructions = [one for one in group.instructions if away.isdisjoint(one.references)]
        group.scores, group.source_fields = [], {}
        if len(members) < 2:
            group.problem = Rejected("too_few_members", "taken_down")
        elif group.target in away:
            group.problem = Rejected("no_target", "taken_down")


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
        same = [verdicts.image["sha256"], *([picture.cut.sha256] if picture.cut else [])] if verdicts.image else []
        if any(_is_listed(picture, listed, kind, apart, sha256) for sha256 in same):
            return admission.refuse(picture, _TAKEN_DOWN)  # the same bytes under another name, or a part of them
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
