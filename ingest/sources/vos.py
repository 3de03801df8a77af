"""YouTube-VOS and DAVIS: frames beside label maps.

    JPEGImages/<video>/<frame>.jpg    Annotations/<video>/<frame>.png   palette or grey; value = object id, 0 = none
    meta.json: {videos: {video: {objects: {id: {category, frames: [frame]}}}}}

With meta.json the frames and objects are those that it lists. Without it every frame is taken, its objects are the
values of its PNG, 255 is void and no object, and nothing has a category; in a video whose PNGs hold 255 and nothing
else (DAVIS 2016) it is the object. A unit is a run of videos.
"""

import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from refloom.ingest import jsons, naming
from refloom.ingest.annotationfile import is_text, split_in
from refloom.ingest.files import (
    PictureFile,
    is_junk,
    occurrences,
    passed_over,
    picture_names,
    safe_name,
    stem,
    table_name,
    weigh,
)
from refloom.ingest.labelmap import label_map, with_labels
from refloom.ingest.source import Annotation, Item, Picture, Plan, Record, Track, UnitPlan
from refloom.schemas import ids, masks
from refloom.schemas.errors import Failed, Refused, Rejected
from refloom.schemas.storage import Folder

DEFAULT_UNIT_SIZE = 50
VOID = 255
"""Value of pixels that YouTube-VOS and DAVIS leave out of every judgement."""

_RESOLUTIONS = ("480p", "Full-Resolution")
"""Folders that DAVIS has between JPEGImages and the videos; the first is the one of its benchmarks."""


class _Frame(NamedTuple):
    """One frame: its name, its files, and what the plan found wrong."""

    name: str
    picture: str
    png: str | None
    problem: tuple[str, str] | None = None
    occurrence: int = 0


class _Video(NamedTuple):
    """One video; `objects` are meta.json's records by object id."""

    name: str
    frames: list[_Frame]
    objects: dict[str, Any]
    problem: tuple[str, str] | None = None
    occurrence: int = 0


_Row = TypeVar("_Row", _Frame, _Video)


class _Layout(NamedTuple):
    """Where things lie below the root."""

    split: str
    frames: str
    pngs: str
    meta: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vos:
    """A folder in the layout of YouTube-VOS or DAVIS.

    Attributes:
        root: folder with JPEGImages and Annotations, or with `train` or `valid` that have them.
        name: first part of the key.
        unit_size: videos in a unit.
        limit: only the first videos.
        frame_rate: frames per second that the frame numbers count in; 0 if unknown.
    """

    root: str
    name: str = "vos"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    frame_rate: float = 0.0
    kind: str = "vos"

    @property
    def key(self) -> str:
        """Names the ingest: `--name` and the name of the folder."""
        return ids.unit_key(f"{self.name}.{stem(self.root)}")

    def roots(self) -> dict[str, str]:
        """The folder that was given."""
        return {self.key: self.root}

    def plans(self) -> list[Plan]:
        """Read meta.json, or list the folders where there is none, and cut the videos into units.

        Raises:
            Refused: there are no videos, or meta.json is not of its format.
        """
        folder = Folder(self.root)
        layout, notes = _layout(folder)
        meta = jsons.load(posixpath.join(self.root, layout.meta)) if folder.exists(layout.meta) else None
        videos, more = _listed(meta.value, folder, layout) if meta else _found(folder, layout, self.limit)
        if not videos:
            raise Refused(f"{self.root} has no videos: nothing to ingest")
        videos = _marked(videos[: self.limit])
        task = {"split": split_in(layout.split or stem(self.root)), "listed": meta is not None}
        units = []
        for number, start in enumerate(range(0, len(videos), self.unit_size)):
            rows = videos[start : start + self.unit_size]
            frames = [(video.name, frame) for video in rows if video.problem is None for frame in video.frames]
            sound = [frame for _, frame in frames if frame.problem is None]
            size, files = weigh(folder, [path for frame in sound for path in (frame.picture, frame.png) if path])
            units.append(
                UnitPlan(
                    name=f"{self.key}-{number:05d}",
                    task=task,
                    items={"video": len(rows), "image": len(frames)} | (_count(rows) if meta else {}),
                    size=size,
                    identity={"meta": meta.sha256 if meta else None, "files": files},
                    image_ids=tuple(ids.image_id("vos", video, frame.name) for video, frame in frames),
                    video_ids=tuple(dict.fromkeys(f"vos/{ids.encode(video)}" for video, _ in frames)),
                    payload=jsons.dumps(rows, plain=False),
                )
            )
        config = {"source": self.kind, "unit_size": self.unit_size, "limit": self.limit}
        config |= {"prefix": layout.frames, "frame_rate": self.frame_rate}
        return [Plan(self.key, tuple(units), config, (*notes, *more))]

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """Each video's frames with their annotations, then its tracks."""
        folder = Folder(self.root)
        for row in jsons.loads(unit.payload):
            video = _Video(*row)
            problem = Rejected(*video.problem) if video.problem else None
            yield Item("video", f"vos/{ids.encode(video.name)}", problem, occurrence=video.occurrence)
            tracks = [_Track(video.name, identity, record) for identity, record in video.objects.items()]
            if problem is not None:
                lost = Rejected("no_image", "its video was not taken")
                yield from (Item("track", track.track_id, lost, occurrence=video.occurrence) for track in tracks)
                continue
            values: set[int] = set()
            void = VOID if unit.task["listed"] or not self._is_binary(folder, video) else None
            frames = [_Frame(*entry) for entry in video.frames]
            numbers = [_number(frame.name) for frame in frames]
            places = [place if number is None else number for place, number in enumerate(numbers)]
            is_told = len(set(places)) == len({frame.name for frame in frames})
            for position, frame in enumerate(frames):
                picture = self._picture(video.name, frame, position, numbers[position] if is_told else None, folder)
                picture.split = unit.task["split"]
                drawn = [(one, track.value) for track in tracks for one in track.at(picture.image_id, frame.name)]
                picture.annotations = [annotation for annotation, _ in drawn]
                if frame.png is not None:
                    trace = partial(_trace, drawn) if unit.task["listed"] else partial(_find, picture, values, void)
                    picture.load = with_labels(picture, PictureFile(folder, frame.png, self.key), trace)
                yield picture
            if unit.task["listed"]:
                yield from (Track(track.track_id, track.problem) for track in tracks)
            else:
                yield from (Track(ids.track_id("vos", video.name, value)) for value in sorted(values))

    def _is_binary(self, folder: Folder, video: _Video) -> bool:
        """Whether 255 is the only value beside 0 in all label maps of a video; mostly the first of them settles it."""
        found = False
        for frame in (_Frame(*entry) for entry in video.frames):
            if frame.png is None:
                continue
            try:
                labels = label_map(PictureFile(folder, frame.png, self.key).load())
            except (Rejected, Failed):
                continue  # costs its own frame, when that is read
            if ((labels != 0) & (labels != VOID)).any():
                return False
            found |= bool((labels == VOID).any())
        return found

    def _picture(self, video: str, frame: _Frame, position: int, number: int | None, folder: Folder) -> Picture:
        file = PictureFile(folder, frame.picture, self.key)
        return Picture(
            image_id=ids.image_id("vos", video, frame.name),
            file=table_name(frame.picture),
            load=file.load,
            link=file.linker,
            video_id=f"vos/{ids.encode(video)}",
            frame_index=position if number is None else number,
            time_s=number / self.frame_rate if number is not None and self.frame_rate > 0 else None,
            problem=Rejected(*frame.problem) if frame.problem else None,
            occurrence=frame.occurrence,
        )


class _Track:
    """One object of a video as meta.json has it."""

    def __init__(self, video: str, identity: str, record: Any) -> None:
        self.identity, self.record = identity, record if isinstance(record, dict) else {}
        self.track_id = ids.track_id("vos", video, identity)
        self.value = int(identity) if identity.isascii() and identity.isdigit() and len(identity) < 6 else 0
        self.listed = Counter(name for name, _ in _listed_frames(record))
        category = self.record.get("category")
        self.category = category if is_text(category) else None
        self.problem: Rejected | None = None
        if not isinstance(self.record.get("frames"), list):
            self.problem = Rejected("bad_record", "the object has no list of frames")
        elif self.value == 0:
            self.problem = Rejected("bad_record", f"the object id {identity!r} is no pixel value"[:100])
        elif self.category is None and category not in (None, ""):
            self.problem = Rejected("bad_record", f"the category is {category!r}"[:100])

    def at(self, image: str, frame: str) -> Iterator[Annotation]:
        """The annotation in one frame, as often as the frame is listed; the mask is not known yet."""
        for occurrence in range(self.listed[frame]):
            problem = Rejected("track_rejected", self.problem.reason) if self.problem else None
            if occurrence and problem is None:
                problem = Rejected("duplicate", "the object lists this frame twice")
            yield Annotation(
                object_id=ids.object_id(image, self.identity),
                category=self.category,
                track_id=self.track_id,
                needs_box=False,
                source_fields={key: value for key, value in self.record.items() if key not in ("category", "frames")},
                problem=problem,
                occurrence=occurrence,
            )


def _trace(drawn: list[tuple[Annotation, int]], labels: npt.NDArray[Any]) -> None:
    """Give the listed objects their masks; one without a pixel gets an empty mask."""
    for annotation, value in drawn:
        if annotation.problem is None:
            annotation.segmentation = masks.encode(labels == value)


def _find(picture: Picture, values: set[int], void: int | None, labels: npt.NDArray[Any]) -> None:
    """Make the objects of a frame from its label map; `values` collects those of the video, `void` is none."""
    present = [value for value in np.unique(labels).tolist() if value not in (0, void)]
    values.update(present)
    picture.annotations = [
        Annotation(
            object_id=ids.object_id(picture.image_id, value),
            segmentation=masks.encode(labels == value),
            track_id=f"{picture.video_id}#{value}",
            needs_box=False,
        )
        for value in present
    ]


def _layout(folder: Folder) -> tuple[_Layout, list[str]]:
    splits = [split for split in ("", "train", "valid") if "JPEGImages" in folder.folders(split)]
    if not splits:
        raise Refused(
            f"no JPEGImages in {folder.url}, nor in train or valid below it: give the folder that holds JPEGImages"
        )
    split = splits[0]
    above = posixpath.join(split, "JPEGImages")
    sizes = [size for size in _RESOLUTIONS if size in folder.folders(above)]
    others = [*splits[1:], *(posixpath.join(above, size) for size in sizes[1:])]
    notes = [f"{folder.url}/{other} was passed over" for other in others]
    below = sizes[0] if sizes else "."
    frames, pngs = (posixpath.normpath(posixpath.join(split, top, below)) for top in ("JPEGImages", "Annotations"))
    if not folder.exists(pngs):
        notes.append(f"there is no {pngs}: no frame has a mask")
    return _Layout(split, frames, pngs, posixpath.join(split, "meta.json")), notes


def _listed(meta: Any, folder: Folder, layout: _Layout) -> tuple[list[_Video], list[str]]:
    """The videos of meta.json."""
    records = meta.get("videos") if isinstance(meta, dict) else None
    if not isinstance(records, dict):
        raise Refused(
            f"{folder.url}/{layout.meta} has no object `videos`: give a folder with the meta.json of the format"
        )
    unlisted = len(set(folder.folders(layout.frames)) - records.keys())
    notes = [f"{unlisted:,} videos of {layout.frames} are not in meta.json and were passed over"] if unlisted else []
    return [_listed_video(name, record, layout) for name, record in records.items()], notes


def _listed_video(name: str, record: Any, layout: _Layout) -> _Video:
    objects = record.get("objects") if isinstance(record, dict) else None
    if not isinstance(objects, dict):
        return _Video(name, [], {}, ("bad_record", "the video has no `objects`"))
    try:
        video = safe_name(name)
    except Rejected as problem:
        return _Video(name, [], objects, (problem.reason, problem.detail))
    listed: dict[str, tuple[str, str] | None] = {}
    for item in objects.values():
        for frame, wrong in _listed_frames(item):
            listed.setdefault(frame, wrong)
    frames = [
        _Frame(frame, f"{layout.frames}/{video}/{frame}.jpg", f"{layout.pngs}/{video}/{frame}.png", listed[frame])
        for frame in sorted(listed, key=_order)
    ]
    return _Video(video, _marked(frames), objects, None if frames else ("bad_record", "no object lists a frame"))


def _listed_frames(record: Any) -> list[tuple[str, tuple[str, str] | None]]:
    """Frames that a record of meta.json lists, each with what is wrong with its name."""
    frames: list[tuple[str, tuple[str, str] | None]] = []
    listed = record.get("frames") if isinstance(record, dict) else None
    for frame in listed if isinstance(listed, list) else []:
        try:
            frames.append((safe_name(frame), None))
        except Rejected as problem:
            frames.append((repr(frame)[:100], (problem.reason, problem.detail)))
    return frames


def _found(folder: Folder, layout: _Layout, limit: int | None) -> tuple[list[_Video], list[str]]:
    """The videos that lie there. A PNG without its picture is a frame too, whose picture is missing."""
    names = sorted({name for top in (layout.frames, layout.pngs) for name in folder.folders(top) if not is_junk(name)})
    videos, others = [], []
    for name in names[:limit]:
        above, beside = f"{layout.frames}/{name}", f"{layout.pngs}/{name}"
        pictures, no_pictures = picture_names(folder, above)
        maps, no_maps = picture_names(folder, beside)
        others += [*no_pictures, *no_maps, *(path for path in maps if not path.lower().endswith(".png"))]
        pngs = {_below(path, beside): path for path in maps if path.lower().endswith(".png")}
        # 00000.jpg and 00000.png are two frames, of one label map
        called = naming.distinct([(path, [_below(path, above), path[len(above) + 1 :]]) for path in pictures])
        frames = [
            _Frame(name.identity, path, pngs.get(_below(path, above)))
            for path, name in zip(pictures, called, strict=True)
        ]
        lone = pngs.keys() - {_below(path, above) for path in pictures}
        frames += [_Frame(frame, f"{above}/{frame}.jpg", pngs[frame]) for frame in lone]
        frames.sort(key=lambda frame: _order(frame.name))
        problem = None if frames else ("bad_record", "the folder holds no frames")
        videos.append(_Video(name, _marked(frames), {}, problem))
    notes = [f"there is no {layout.meta}: objects are the values of the PNGs, {VOID} is void, nothing has a category"]
    loose = len(folder.names(layout.frames))
    notes += [f"{loose:,} files lie in {layout.frames} and in no video; they were passed over"] if loose else []
    return videos, notes + passed_over(others, f"{layout.frames} and {layout.pngs}")


def _below(path: str, folder: str) -> str:
    return posixpath.splitext(path[len(folder) + 1 :])[0]


def _marked(rows: list[_Row]) -> list[_Row]:
    """Frames of one video, or videos, of which the second of one id is a duplicate."""
    counts = occurrences(ids.encode(row.name) for row in rows)
    repeat = ("duplicate", "one of this name came before")
    return [row._replace(problem=repeat, occurrence=n) if n else row for row, n in zip(rows, counts, strict=True)]


def _order(frame: str) -> tuple[bool, int, str]:
    number = _number(frame)
    return number is None, number or 0, frame


def _number(frame: str) -> int | None:
    base = posixpath.basename(frame)
    return int(base) if base.isascii() and base.isdigit() and len(base) < 10 else None


def _count(videos: list[_Video]) -> dict[str, int]:
    """Tracks as meta.json lists them, and in how many frames each is listed."""
    listed = [len(_listed_frames(record)) for video in videos if not video.problem for record in video.objects.values()]
    return {"track": sum(len(video.objects) for video in videos), "annotation": sum(listed)}
