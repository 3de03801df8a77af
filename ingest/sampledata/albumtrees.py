"""The tree of albums: `scenes/<split>/JPEGImages/<album>/<frame>.jpg` beside `scenes/<split>/instances_<split>.json`.

It is YouTube-VIS's format, with an album for a video and a toy for a track, so that who is who is known, and with
captions of each frame beside the file names. Runs of albums are units of the engine; what is known of a unit's frames
lies in `unfinished/` until all are there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import orjson

from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.tasks import Pool, Status, Task
from refloom.ingest.engine.watch import Watch
from refloom.ingest.sampledata import albums, photos, segmentations
from refloom.ingest.sampledata.albums import Album, View
from refloom.ingest.sampledata.identities import Identities
from refloom.schemas import strict
from refloom.schemas.storage import Folder

SPLITS = ("train", "val")
FRAME_STEP = 300
"""Frame numbers of an album lie ten seconds apart: nothing moves from one to the next."""

NAME = "scenes"
_HELD_OUT_SHARE = 1 / 16
_ALBUMS_PER_UNIT = 64
_PARTS = "unfinished"
_NOTES = "runs"
_LEAST_AREA_PX = 30
_INFO = {
    "description": "Made by `refloom sample-data` from photographs inside installed packages",
    "url": "",
    "version": "1.0",
    "year": 2026,
    "contributor": "refloom",
    "date_created": "",
}


@dataclass(frozen=True, slots=True)
class _Unit:
    """A run of albums of one split."""

    split: str
    albums: range

    @property
    def name(self) -> str:
        return f"{NAME}-{self.split}-{self.albums.start:06d}"

    @property
    def part(self) -> str:
        """Where what is known of its frames waits for the others."""
        return f"{NAME}/{_PARTS}/{self.name}.json"


@dataclass(frozen=True, slots=True)
class ScenesJob:
    """What workers write; travels to them.

    Attributes:
        url: folder of all trees.
        seed: of the whole.
        side_px: of the pictures.
    """

    url: str
    seed: int
    side_px: int

    def start(self) -> "ScenesWorker":
        """One worker per process."""
        cv2.setNumThreads(1)
        return ScenesWorker(self)


class ScenesWorker:
    """Draws and writes runs of albums."""

    def __init__(self, job: ScenesJob) -> None:
        self._job, self._out = job, Folder(job.url)

    def run(self, task: Task, watch: Watch) -> None:
        """One unit: pictures first, and what is known of them last, which says that the unit is whole."""
        unit: _Unit = task.payload
        known = []
        for index in unit.albums:
            album = albums.album(self._job.seed, index, held_out=unit.split != SPLITS[0])
            watch.begin(f"{unit.split}/{album.name}")
            known.append(self._album(album, unit.split))
            watch.verdict("album", "written")
        self._out.write(unit.part, orjson.dumps(known))

    def _album(self, album: Album, split: str) -> dict[str, Any]:
        views = [album.view(number, self._job.side_px) for number in range(len(album.places))]
        names = [f"{album.name}/{number * FRAME_STEP:05d}.jpg" for number in range(len(views))]
        for name, view in zip(names, views, strict=True):
            self._out.write(f"{NAME}/{split}/JPEGImages/{name}", view.jpeg)
        return {
            "index": album.index,
            "name": album.name,
            "file_names": names,
            "captions": [[view.caption] for view in views],
            "license": photos.license_id({name for view in views for name in view.backdrop.photos}),
            "side_px": self._job.side_px,
            "tracks": [
                {"toy": toy.number, "kind": toy.kind} | _shown(views, position)
                for position, toy in enumerate(album.cast)
            ],
        }


def write(
    out: Folder,
    seed: int,
    count: int,
    side_px: int,
    identities: Identities,
    pool: Pool,
    on_status: Callable[[Status], None] | None = None,
) -> dict[str, int]:
    """Write the tree; goes on with one that was interrupted.

    Args:
        out: folder of all trees.
        seed: of the whole.
        count: pictures, both splits together; whole albums, so up to three more.
        side_px: of the pictures, one of `albums.SIDES_PX`.
        identities: takes who is where.
        pool: workers.
        on_status: for progress.

    Returns:
        Pictures of each split.

    Raises:
        JobStopped: see `engine.run`.
    """
    units = {split: _units(split, number) for split, number in zip(SPLITS, _shares(count), strict=True)}
    todo = [unit for listed in units.values() for unit in listed if not out.exists(unit.part)]
    tasks = [Task(unit.name, unit, len(unit.albums)) for unit in todo]
    notes = out.below(f"{NAME}/{_NOTES}")
    engine.run("scenes", ScenesJob(out.url, seed, side_px), tasks, pool=pool, notes=notes, on_status=on_status)
    written = {}
    for split, listed in units.items():
        known = [album for unit in listed for album in strict.loads(out.read(unit.part))]
        out.write(f"{NAME}/{split}/instances_{split}.json", orjson.dumps(_document(known)))
        for album in known:
            for track, name in zip(album["tracks"], _track_ids(album), strict=True):
                identities.tracks[f"ytvis/{album['name']}#{name}"] = track["toy"]
        written[split] = sum(len(album["file_names"]) for album in known)
    out.remove_tree(f"{NAME}/{_PARTS}")
    out.remove_tree(f"{NAME}/{_NOTES}")
    return written


def _shares(count: int) -> tuple[int, int]:
    """Albums of train and of val: one of each at least."""
    total = max(2, -(-count // albums.PICTURES))
    held_out = max(1, round(total * _HELD_OUT_SHARE))
    return total - held_out, held_out


def _units(split: str, count: int) -> list[_Unit]:
    starts = range(0, count, _ALBUMS_PER_UNIT)
    return [_Unit(split, range(start, min(start + _ALBUMS_PER_UNIT, count))) for start in starts]


def _shown(views: Sequence[View], position: int) -> dict[str, list[Any]]:
    """What each picture shows of one of the cast, a list for each field of a track."""
    found = [segmentations.visible(view.picture.owner == position) for view in views]
    seen = [one if one is not None and one.area >= _LEAST_AREA_PX else None for one in found]
    return {
        "segmentations": [None if one is None else segmentations.uncompressed(one) for one in seen],
        "bboxes": [None if one is None else one.xywh for one in seen],
        "areas": [None if one is None else one.area for one in seen],
    }


def _document(known: list[dict[str, Any]]) -> dict[str, Any]:
    """The json of a split."""
    kinds = albums.KINDS
    videos, annotations = [], []
    for album in known:
        length, side, number = len(album["file_names"]), album["side_px"], album["index"] + 1
        size = {"width": side, "height": side, "length": length}
        videos.append(
            size
            | {"id": number, "file_names": album["file_names"], "captions": album["captions"]}
            | {"license": album["license"], "date_captured": "", "flickr_url": "", "coco_url": ""}
        )
        for track, name in zip(album["tracks"], _track_ids(album), strict=True):
            drawn = {field: track[field] for field in ("segmentations", "bboxes", "areas")}
            about = {"id": name, "video_id": number, "category_id": kinds.index(track["kind"]) + 1, "iscrowd": 0}
            annotations.append(size | about | drawn)
    categories = [
        {"supercategory": "object", "id": at, "name": albums.names(kind)[0]} for at, kind in enumerate(kinds, 1)
    ]
    head = {"info": _INFO, "licenses": photos.licenses(), "categories": categories}
    return head | {"videos": videos, "annotations": annotations}


def _track_ids(album: dict[str, Any]) -> list[int]:
    """Ids of an album's tracks, in the order of its cast."""
    return [(album["index"] + 1) * 10 + position for position in range(len(album["tracks"]))]
