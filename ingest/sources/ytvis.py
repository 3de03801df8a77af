"""YouTube-VIS 2019 and 2021.

    {videos: [{id, width, height, length, file_names: [video/frame.jpg]}], categories: [{id, name}],
     annotations: [{id, video_id, category_id, iscrowd, segmentations: [RLE | polygons | null], bboxes: [xywh | null],
                    areas: [number | null]}]}                                        one entry per frame

The two releases number their classes differently; names come from the file itself. A unit is a run of videos. Frames
are taken in the order of their numbers, whatever order the file lists them in.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from refloom.ingest import jsons, records
from refloom.ingest.annotationfile import (
    category_key,
    category_names,
    id_text,
    is_id,
    json_stem,
    license_names,
    object_of_lists,
    split_in,
    text_or_none,
)
from refloom.ingest.files import PictureFile, find_prefix, safe_name, safe_names, total_bytes
from refloom.ingest.source import Annotation, Item, Picture, Plan, Problem, Record, Track, UnitPlan
from refloom.schemas import ids
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder

DEFAULT_UNIT_SIZE = 50
FRAME_RATE = 30.0
"""Frame numbers of YouTube-VIS count at 30 frames a second; every fifth is in the set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YouTubeVis:
    """A YouTube-VIS json beside a folder of frames.

    Attributes:
        frames: folder of `<video>/<frame>.jpg`; the usual layouts below it are found.
        annotations: the json; plain or gzip.
        name: first part of the key.
        unit_size: videos in a unit.
        limit: only the first videos of the file.
        frame_rate: frames per second that the frame numbers count in; 0 if unknown.
    """

    frames: str
    annotations: str
    name: str = "ytvis"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    frame_rate: float = FRAME_RATE
    kind: str = "ytvis"

    @property
    def key(self) -> str:
        """Names the ingest: `--name` and the stem of the annotation file."""
        return ids.unit_key(f"{self.name}.{json_stem(self.annotations)}")

    def roots(self) -> dict[str, str]:
        """The folder of frames."""
        return {self.key: self.frames}

    def plans(self) -> list[Plan]:
        """Parse the json once and cut it into units.

        Raises:
            Refused: the file is not YouTube-VIS json, or the frames are not where it says.
        """
        document = jsons.load(self.annotations)
        if isinstance(document.value, dict) and isinstance(document.value.get("annotations"), list):
            wanted = "the YouTube-VIS json of the same videos"
            records.refuse_panoptic(document.value["annotations"], self.annotations, wanted)
        root = object_of_lists(document.value, self.annotations, {"videos": "videos", "annotations": "tracks"})
        if isinstance(root.get("images"), list):
            raise Refused(
                f"{self.annotations} is CocoVID json (it lists `images`): "
                "YouTube-VIS json has `file_names` in each video. Convert it first"
            )
        videos = root["videos"][: self.limit]
        if not videos:
            raise Refused(f"{self.annotations} lists no videos: nothing to ingest")
        categories = category_names(root, self.annotations)
        names = [name for video in videos[:20] for name in _file_names(video)[:1]]
        guesses = ["", "JPEGImages", *(f"{split}/JPEGImages" for split in ("train", "valid", "test"))]
        prefix = find_prefix(Folder(self.frames), safe_names(names), guesses, "--frames")
        folder = Folder(self.frames).below(prefix)

        owner: dict[Any, int] = {}
        occurrences = []
        for index, video in enumerate(videos):
            identity = video.get("id") if isinstance(video, dict) else None
            occurrences.append(1 if is_id(identity) and identity in owner else 0)
            if is_id(identity) and identity is not None:
                owner.setdefault(identity, index)
        beyond = {video.get("id") for video in root["videos"][len(videos) :] if isinstance(video, dict)}
        tracks, strays = self._assign(root["annotations"], owner, beyond)

        shared = {
            "prefix": prefix,
            "categories": categories,
            "licenses": license_names(root),
            "split": split_in(self.annotations),
        }
        units = []
        for number, start in enumerate(range(0, len(videos), self.unit_size)):
            rows = range(start, min(start + self.unit_size, len(videos)))
            entries = [{"video": videos[row], "occurrence": occurrences[row], "tracks": tracks[row]} for row in rows]
            own_strays = strays if number == 0 else []
            units.append(
                UnitPlan(
                    name=f"{self.key}-{number:05d}",
                    task=shared,
                    items=_count(entries, own_strays),
                    size=total_bytes(folder, [name for entry in entries for name in _file_names(entry["video"])]),
                    identity={"annotations": document.sha256},
                    image_ids=tuple(
                        name for entry in entries if not entry["occurrence"] for name in _image_ids(entry["video"])
                    ),
                    payload=jsons.dumps({"videos": entries, "strays": own_strays}, plain=document.plain),
                )
            )
        config = {
            "source": self.kind,
            "unit_size": self.unit_size,
            "limit": self.limit,
            "prefix": prefix,
            "frame_rate": self.frame_rate,
        }
        return [Plan(self.key, tuple(units), config)]

    def _assign(
        self, items: list[Any], owner: dict[Any, int], beyond: set[Any]
    ) -> tuple[dict[int, list[Any]], list[Any]]:
        """Tracks by the row of their video, each with how often its id came before, and those of no video."""
        tracks: dict[int, list[Any]] = defaultdict(list)
        strays: list[Any] = []
        seen: dict[Any, int] = defaultdict(int)
        for item in items:
            video = item.get("video_id") if isinstance(item, dict) else None
            identity = item.get("id") if isinstance(item, dict) else None
            entry = [item, seen[identity] if is_id(identity) else 0]
            if is_id(identity):
                seen[identity] += 1
            if isinstance(item, dict) and is_id(video) and video in owner:
                tracks[owner[video]].append(entry)
            elif not (is_id(video) and video is not None and video in beyond):
                strays.append(entry)
        return tracks, strays

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """Frames of the unit's videos with their annotations, the tracks, then what belongs to no video."""
        slice_ = jsons.loads(unit.payload)
        folder = Folder(self.frames)
        for record, occurrence in slice_["strays"]:
            what = f"video_id {record.get('video_id')!r}"[:80] if isinstance(record, dict) else "the track is no object"
            reason = "no_image" if isinstance(record, dict) else "bad_record"
            yield Item("track", f"ytvis#{id_text(record)}", Rejected(reason, what), occurrence=occurrence)
        for entry in slice_["videos"]:
            yield from self._video(entry, unit.task, folder)

    def _video(self, entry: dict[str, Any], task: dict[str, Any], folder: Folder) -> Iterator[Record]:
        video, names = entry["video"], _file_names(entry["video"])
        title = _video_name(video)
        problem = None
        if entry["occurrence"]:
            problem = Rejected("duplicate", "the video id came before")
        elif not names:
            problem = Rejected("bad_record", "the video has no file_names")
        if problem is not None:
            yield Item("video", f"ytvis/{ids.encode(title)}", problem, occurrence=entry["occurrence"])
            for record, occurrence in entry["tracks"]:
                lost = Rejected("no_image", "its video was not taken")
                yield Item("track", ids.track_id("ytvis", title, id_text(record)), lost, occurrence=occurrence)
            return
        yield Item("video", f"ytvis/{ids.encode(title)}")
        tracks = [
            _Track(record, occurrence, title, len(names), task["categories"]) for record, occurrence in entry["tracks"]
        ]
        frames = []
        seen: dict[str, int] = defaultdict(int)
        for position, name in enumerate(names):
            picture = self._frame(video, title, name, position, task, folder)
            if seen[picture.file] and picture.problem is None:
                picture.problem = Rejected("duplicate", "the frame's file came before in this video")
            picture.occurrence = seen[picture.file]
            seen[picture.file] += 1
            picture.annotations = [
                annotation for track in tracks for annotation in track.at(position, picture.image_id)
            ]
            frames.append(picture)
        frames.sort(key=lambda picture: picture.frame_index if picture.frame_index is not None else -1)
        yield from frames
        for track in tracks:
            yield Track(track.track_id, track.problem, track.occurrence)

    def _frame(
        self, video: dict[str, Any], title: str, name: Any, position: int, task: dict[str, Any], folder: Folder
    ) -> Picture:
        problem: Problem | None = None
        try:
            path = safe_name(name)
        except Rejected as rejected:
            problem, path = rejected, f"{title}/position-{position}"
        stem = posixpath.splitext(posixpath.basename(path))[0]
        number = int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 10 else None
        size = (video.get("width"), video.get("height"))
        file = PictureFile(folder, posixpath.join(task["prefix"], path), self.key)
        return Picture(
            image_id=ids.image_id("ytvis", title, stem),
            file=path,
            load=file.load,
            link=file.link,
            declared_size=None if size == (None, None) else size,
            split=task["split"],
            video_id=f"ytvis/{ids.encode(title)}",
            frame_index=number if number is not None else position,
            time_s=number / self.frame_rate if number is not None and self.frame_rate else None,
            license=task["licenses"].get(str(video.get("license"))),
            source_url=text_or_none(video.get("flickr_url")) or text_or_none(video.get("coco_url")),
            problem=problem,
        )


class _Track:
    """One annotation record: the instance's masks and boxes, a frame each."""

    def __init__(
        self, record: dict[str, Any], occurrence: int, title: str, frames: int, categories: dict[str, str]
    ) -> None:
        self.record, self.occurrence = record, occurrence
        self.title, self.identity = title, id_text(record)
        self.track_id = ids.track_id("ytvis", title, self.identity)
        self.category = categories.get(category_key(record.get("category_id")))
        self.masks = _entries(record, "segmentations")
        self.boxes = _entries(record, "bboxes")
        self.problem = self._problem(frames)

    def _problem(self, frames: int) -> Rejected | None:
        if "id" not in self.record or not is_id(self.record["id"]):
            return Rejected("bad_record", "the track has no id")
        if self.occurrence:
            return Rejected("duplicate", "the track id came before")
        if self.record.get("iscrowd"):
            return Rejected("crowd")
        if self.category is None:
            return Rejected("unknown_category", f"category_id {self.record.get('category_id')!r}"[:80])
        for name, entries in (("segmentations", self.masks), ("bboxes", self.boxes)):
            if len(entries) != frames:
                return Rejected("bad_record", f"{len(entries)} {name} for {frames} frames")
        return None

    def at(self, position: int, image: str) -> Iterator[Annotation]:
        """The annotation in one frame, if the source has anything there."""
        mask, box = _at(self.masks, position), _at(self.boxes, position)
        if mask is None and box is None:
            return
        fields = {
            key: value
            for key, value in self.record.items()
            if key not in ("segmentations", "bboxes", "areas", "video_id")
        }
        yield Annotation(
            object_id=ids.object_id(image, self.identity),
            segmentation=mask,
            bbox=box,
            area=_at(_entries(self.record, "areas"), position),
            category=self.category,
            phrase=records.phrase_of(self.record, {}),
            track_id=self.track_id,
            source_fields=fields,
            problem=Rejected("track_rejected", self.problem.reason) if self.problem else None,
            occurrence=self.occurrence,
        )


def _entries(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _at(entries: list[Any], position: int) -> Any:
    return entries[position] if position < len(entries) else None


def _file_names(video: Any) -> list[Any]:
    return _entries(video, "file_names") if isinstance(video, dict) else []


def _video_name(video: Any) -> str:
    """The folder of the frames; YouTube-VIS 2019 and 2021 number the same videos differently."""
    names = safe_names(_file_names(video)[:1])
    return (posixpath.basename(posixpath.dirname(names[0])) if names else "") or id_text(video)


def _image_ids(video: Any) -> list[str]:
    title = _video_name(video)
    return [
        ids.image_id("ytvis", title, posixpath.splitext(posixpath.basename(name))[0])
        for name in safe_names(_file_names(video))
    ]


def _count(entries: list[dict[str, Any]], strays: list[Any]) -> dict[str, int]:
    """Items as the json lists them: videos, frames of the sound ones, tracks, and what each track has in each frame."""
    counts = {"video": len(entries), "image": 0, "track": len(strays), "annotation": 0}
    for entry in entries:
        names = _file_names(entry["video"])
        counts["track"] += len(entry["tracks"])
        if entry["occurrence"] or not names:
            continue
        counts["image"] += len(names)
        for record, _ in entry["tracks"]:
            masks, boxes = _entries(record, "segmentations"), _entries(record, "bboxes")
            counts["annotation"] += sum(
                _at(masks, at) is not None or _at(boxes, at) is not None for at in range(len(names))
            )
    return counts
