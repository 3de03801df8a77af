"""YouTube-VIS 2019 and 2021.

    {videos: [{id, width, height, length, file_names: [video/frame.jpg], captions?: [[str] | null]}],
     categories: [{id, name}],
     annotations: [{id, video_id, category_id, iscrowd, segmentations: [RLE | polygons | null], bboxes: [xywh | null],
                    areas: [number | null]}]}                                        one entry per frame

Captions are no part of YouTube-VIS: `refloom sample-data` writes them, one list of texts for each frame. A frame in
which an instance is absent has null, `[]`, `[0, 0, 0, 0]` or a mask without a pixel. A track may lack its
boxes, which then come from the masks, or its masks. The two releases number their classes differently; names come from
the file itself. A unit is a run of videos. Frames are taken in the order of their numbers, whatever order the file
lists them in.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from refloom.ingest import crowds, jsons, naming, records, videos
from refloom.ingest.annotationfile import (
    category_names,
    id_text,
    json_stem,
    license_names,
    object_of_lists,
    split_in,
    text_or_none,
    texts_of,
)
from refloom.ingest.files import PictureFile, find_prefix, safe_name, safe_names, total_bytes
from refloom.ingest.naming import Named
from refloom.ingest.numbers import is_absent_box, is_absent_mask
from refloom.ingest.references import References, exact
from refloom.ingest.source import Annotation, Item, Picture, Plan, Record, Track, UnitPlan
from refloom.schemas import ids
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder

DEFAULT_UNIT_SIZE = 50
FRAME_RATE = 30.0
"""Frame numbers of YouTube-VIS count at 30 frames a second; every fifth is in the set."""

_NO_ID = "no-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class YouTubeVis:
    """A YouTube-VIS json beside a folder of frames.

    Attributes:
        frames: folder of `<video>/<frame>.jpg` or `<video>/img1/<frame>.jpg`; the usual layouts below it are found.
        annotations: the json; plain or gzip.
        name: first part of the key.
        unit_size: videos in a unit.
        limit: only the first videos of the file.
        frame_rate: frames per second that the frame numbers count in; 0 if unknown.
        crowds: what becomes of tracks with `iscrowd`; see `refloom.ingest.crowds`.
    """

    frames: str
    annotations: str
    name: str = "ytvis"
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    frame_rate: float = FRAME_RATE
    crowds: str = crowds.REJECT
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
        listed = root["videos"][: self.limit]
        if not listed:
            raise Refused(f"{self.annotations} lists no videos: nothing to ingest")
        categories = category_names(root, self.annotations)
        names = [name for video in listed[:20] for name in _file_names(video)[:1]]
        guesses = ["", "JPEGImages", *(f"{split}/JPEGImages" for split in ("train", "valid", "test"))]
        prefix = find_prefix(Folder(self.frames), safe_names(names), guesses, "--frames")
        folder = Folder(self.frames).below(prefix)

        titles = videos.titles([_video(row, video) for row, video in enumerate(root["videos"])])
        owner = References(
            (video.get("id"), row) for row, video in enumerate(root["videos"]) if isinstance(video, dict)
        )
        first = [owner.get(video.get("id")) if isinstance(video, dict) else None for video in listed]
        occurrences = [int(row is not None and row != place) for place, row in enumerate(first)]
        tracks, strays = _assign(root["annotations"], owner)

        shared = {
            "prefix": prefix,
            "categories": categories,
            "licenses": license_names(root),
            "split": split_in(self.annotations),
            # a file that gives masks to nobody is a set of boxes; one that gives them to some has lost the others
            "masks": any(
                isinstance(item, dict) and any(_entries(item, "segmentations")) for item in root["annotations"]
            ),
        }
        called = _track_names(root["annotations"], tracks)
        units = []
        for number, start in enumerate(range(0, len(listed), self.unit_size)):
            rows = range(start, min(start + self.unit_size, len(listed)))
            entries = [
                {
                    "video": listed[row],
                    "title": titles[row],
                    "occurrence": occurrences[row],
                    "tracks": [(item, list(name)) for item, name in zip(tracks[row], called[row], strict=True)],
                }
                for row in rows
            ]
            own_strays = strays if number == 0 else []
            units.append(
                UnitPlan(
                    name=f"{self.key}-{number:05d}",
                    task=shared,
                    items=_count(entries, own_strays),
                    size=total_bytes(folder, [name for entry in entries for name in _file_names(entry["video"])]),
                    identity={"annotations": document.sha256},
                    image_ids=tuple(name for entry in entries if not entry["occurrence"] for name in _image_ids(entry)),
                    video_ids=tuple(dict.fromkeys(f"ytvis/{entry['title']}" for entry in entries)),
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
        sound = (pair for row, own in called.items() for pair in zip(tracks[row], own, strict=True))
        pairs = (pair for pair in sound if pair[1].identity != _NO_ID)
        notes = [*crowds.notes(root["annotations"], self.crowds), *naming.notes(pairs, "tracks", "video")]
        return [Plan(self.key, tuple(units), config | crowds.setting(self.crowds), tuple(notes))]

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
        video, names, title = entry["video"], _file_names(entry["video"]), entry["title"]
        problem = None
        if entry["occurrence"]:
            problem = Rejected("duplicate", "the video id came before")
        elif not names:
            problem = Rejected("bad_record", "the video has no file_names")
        if problem is not None:
            yield Item("video", f"ytvis/{title}", problem, occurrence=entry["occurrence"])
            for _, called in entry["tracks"]:
                name = Named(*called)
                lost = Rejected("no_image", "its video was not taken")
                yield Item("track", f"ytvis/{title}#{name.identity}", lost, occurrence=name.occurrence)
            return
        yield Item("video", f"ytvis/{title}")
        tracks = [self._track(record, Named(*called), title, len(names), task) for record, called in entry["tracks"]]
        frames = list(self._frames(video, title, names, task, folder))
        for position, picture in enumerate(frames):
            picture.annotations = [
                annotation for track in tracks for annotation in track.at(position, picture.image_id)
            ]
        frames.sort(key=lambda picture: picture.frame_index if picture.frame_index is not None else -1)
        yield from frames
        for track in tracks:
            yield Track(track.track_id, track.problem, track.occurrence)

    def _track(self, record: dict[str, Any], called: Named, title: str, frames: int, task: dict[str, Any]) -> "_Track":
        track = _Track(record, called, title, task["categories"].get(record.get("category_id")), masked=task["masks"])
        track.problem = track.wrong(frames, is_crowd_taken=self.crowds == crowds.KEEP)
        return track

    def _frames(
        self, video: dict[str, Any], title: str, names: list[Any], task: dict[str, Any], folder: Folder
    ) -> Iterator[Picture]:
        """The frames of one video in the order of the file, without their annotations."""
        paths, problems = _paths(names, title)
        called = videos.frames(paths)
        sound = [path for path, problem in zip(paths, problems, strict=True) if problem is None]
        numbers = dict(zip(sound, videos.numbers(sound), strict=True))
        size = (video.get("width"), video.get("height"))
        seen: dict[str, int] = defaultdict(int)
        for position, (path, problem) in enumerate(zip(paths, problems, strict=True)):
            number = numbers.get(path)
            file = PictureFile(folder, posixpath.join(task["prefix"], path), self.key)
            if seen[path] and problem is None:
                problem = Rejected("duplicate", "the frame's file came before in this video")
            yield Picture(
                image_id=f"ytvis/{title}/{called[position]}",
                file=path,
                load=file.load,
                link=file.link,
                declared_size=None if size == (None, None) else size,
                split=task["split"],
                video_id=f"ytvis/{title}",
                frame_index=number if number is not None else position,
                time_s=number / self.frame_rate if number is not None and self.frame_rate else None,
                license=task["licenses"].get(video.get("license")),
                source_url=text_or_none(video.get("flickr_url")) or text_or_none(video.get("coco_url")),
                captions=_captions(video, position, f"ytvis/{title}/{called[position]}"),
                problem=problem,
                occurrence=seen[path],
            )
            seen[path] += 1


def _paths(names: list[Any], title: str) -> tuple[list[str], list[Rejected | None]]:
    """The path of each frame and what is wrong with it; a name that is no path gets one that is none in the source."""
    paths: list[str] = []
    problems: list[Rejected | None] = []
    for position, name in enumerate(names):
        try:
            paths.append(safe_name(name))
            problems.append(None)
        except Rejected as rejected:
            paths.append(f"{title}/position-{position}")
            problems.append(rejected)
    return paths, problems


class _Track:
    """One annotation record: the instance's masks and boxes, a frame each.

    Args:
        record: as it stands in the json.
        called: its id within the video, and how often it came before.
        title: of the video, encoded.
        category: name of its class; None if the file has none.
        masked: the file gives masks, so that null is no mask and not none asked for.
    """

    def __init__(
        self, record: dict[str, Any], called: Named, title: str, category: str | None, *, masked: bool
    ) -> None:
        self.record, self.identity, self.occurrence = record, called.identity, called.occurrence
        self.track_id = f"ytvis/{title}#{called.identity}"
        self.category, self._masked = category, masked
        self.problem: Rejected | None = None

    def wrong(self, frames: int, *, is_crowd_taken: bool) -> Rejected | None:
        """What is wrong with the whole track in a video of so many frames."""
        if self.identity == _NO_ID:
            return Rejected("bad_record", "the track has no id")
        if self.occurrence:
            return Rejected("duplicate", "the track id came before in this video")
        if self.record.get("iscrowd") and not is_crowd_taken:
            return Rejected("crowd")
        if self.category is None:
            return Rejected("unknown_category", f"category_id {self.record.get('category_id')!r}"[:80])
        listed = {name: _entries(self.record, name) for name in ("segmentations", "bboxes")}
        for name, entries in listed.items():
            if entries and len(entries) != frames:
                return Rejected("bad_record", f"{len(entries)} {name} for {frames} frames")
        if not any(listed.values()):
            return Rejected("bad_record", "the track has neither segmentations nor bboxes")
        return None

    def at(self, position: int, image: str) -> Iterator[Annotation]:
        """The annotation in one frame, if the source has anything there."""
        mask, box = _drawn(self.record, position)
        if mask is None and box is None:
            return
        fields = {
            key: value
            for key, value in self.record.items()
            if key not in ("segmentations", "bboxes", "areas", "video_id") and (key != "id" or exact(value) is not None)
        }
        yield Annotation(
            object_id=f"{image}#{self.identity}",
            segmentation=mask,
            bbox=box,
            area=_at(_entries(self.record, "areas"), position),
            category=self.category,
            phrase=records.phrase_of(self.record, {}),
            track_id=self.track_id,
            # null where others have a mask says that the instance is absent, and a box beside it contradicts that
            needs_mask=self._masked and mask is None and bool(_entries(self.record, "segmentations")),
            needs_box=False,
            source_fields=fields,
            problem=Rejected("track_rejected", self.problem.reason) if self.problem else None,
            occurrence=self.occurrence,
        )


def _drawn(record: dict[str, Any], position: int) -> tuple[Any, Any]:
    """Mask and box in one frame as they stand in the json; both None where the instance is absent."""
    mask, box = _at(_entries(record, "segmentations"), position), _at(_entries(record, "bboxes"), position)
    if is_absent_box(box) and (is_absent_mask(mask) or _is_empty(mask)):
        return None, None
    return mask, box


def _is_empty(mask: Any) -> bool:
    """Whether a run-length encoding is one run, which is of unset pixels: how an absent instance is often written."""
    counts = mask.get("counts") if isinstance(mask, dict) else None
    if isinstance(counts, list):
        return len(counts) == 1
    return isinstance(counts, str) and 0 < len(counts) < 8 and all(ord(one) - 48 & 32 for one in counts[:-1])


def _assign(items: list[Any], owner: References[int]) -> tuple[dict[int, list[Any]], list[Any]]:
    """Tracks by the row of their video, and those of no video, each with how often its id came before."""
    tracks: dict[int, list[Any]] = defaultdict(list)
    strays: list[Any] = []
    seen: dict[Any, int] = defaultdict(int)
    for item in items:
        row = owner.get(item.get("video_id")) if isinstance(item, dict) else None
        if row is not None:
            tracks[row].append(item)
            continue
        key = _id_of(item)
        strays.append([item, 0 if key is None else seen[key]])
        seen[key] += 1
    return tracks, strays


def _track_names(items: list[Any], tracks: dict[int, list[Any]]) -> dict[int, list[Named]]:
    """What to call the tracks of each video; ids need not be unique beyond it.

    Where no track of the file has an id, or all have the same, ids say nothing and names are made. Otherwise the second
    track of one id is a duplicate, and one without an id is none.
    """
    own = [_id_of(item) for item in items]
    if (len(set(own)) < 2 and len(own) > 1) or not any(key is not None for key in own):
        return defaultdict(list, {row: naming.of_annotations(listed) for row, listed in tracks.items()})
    names: dict[int, list[Named]] = defaultdict(list)
    for row, listed in tracks.items():
        seen: dict[Any, int] = defaultdict(int)
        texts = [_NO_ID if _id_of(record) is None else ids.encode(id_text(record)) for record in listed]
        for text in texts:
            names[row].append(Named(text, seen[text]))
            seen[text] += 1
    return names


def _id_of(record: Any) -> Any:
    return exact(record.get("id")) if isinstance(record, dict) else None


def _video(row: int, video: Any) -> videos.Video:
    """The folder of the frames; YouTube-VIS 2019 and 2021 number the same videos differently."""
    key = _id_of(video)
    names = safe_names(_file_names(video)[:1])
    folder = posixpath.dirname(names[0]) if names else ""
    return videos.Video(("row", row) if key is None else ("id", key), folder, id_text(video))


def _entries(record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _at(entries: list[Any], position: int) -> Any:
    return entries[position] if position < len(entries) else None


def _file_names(video: Any) -> list[Any]:
    return _entries(video, "file_names") if isinstance(video, dict) else []


def _captions(video: dict[str, Any], position: int, identity: str) -> list[tuple[str, Any]]:
    """Ids and texts of one frame's captions."""
    texts = texts_of(_at(_entries(video, "captions"), position))
    return [(f"{identity}#caption{number}", text) for number, text in enumerate(texts)]


def _image_ids(entry: dict[str, Any]) -> list[str]:
    paths, problems = _paths(_file_names(entry["video"]), entry["title"])
    named = zip(videos.frames(paths), problems, strict=True)
    return list(dict.fromkeys(f"ytvis/{entry['title']}/{frame}" for frame, problem in named if problem is None))


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
            counts["annotation"] += sum(_drawn(record, at) != (None, None) for at in range(len(names)))
        if told := sum(len(_captions(entry["video"], at, "")) for at in range(len(names))):
            counts["caption"] = counts.get("caption", 0) + told
    return counts
