"""The YouTube-VIS 2019 tree: `ytvis/train/JPEGImages/<video>/<frame>.jpg` and `ytvis/train/instances.json`."""

from typing import Any

import orjson

from refloom.ingest.sampledata import categories, photos, segmentations, videos
from refloom.ingest.sampledata.identities import Identities
from refloom.ingest.sampledata.videos import Video
from refloom.schemas.storage import Folder

_LEAST_AREA_PX = 80
_INFO = {
    "description": "Made by `refloom sample-data` from photographs inside installed packages",
    "url": "",
    "version": "1.0",
    "year": 2019,
    "contributor": "refloom",
    "date_created": "",
}


def write(out: Folder, seed: int, count: int, identities: Identities) -> int:
    """Write the tree.

    Args:
        out: folder of all trees.
        seed: of the whole.
        count: videos.
        identities: takes who is where.

    Returns:
        Number of frames.
    """
    records, annotations = [], []
    for index in range(count):
        video = videos.plan(seed, index)
        tracks = _tracks(video, index + 1)
        names = []
        for number, (picture, jpeg) in enumerate(video.frames()):
            name = f"{video.name}/{number * videos.FRAME_STEP:05d}.jpg"
            out.write(f"ytvis/train/JPEGImages/{name}", jpeg)
            names.append(name)
            for position, track in enumerate(tracks):
                shown = segmentations.visible(picture.owner == position)
                if shown is None or shown.area < _LEAST_AREA_PX:
                    continue
                track["segmentations"][number] = segmentations.uncompressed(shown)
                track["bboxes"][number] = shown.xywh
                track["areas"][number] = shown.area
        records.append(_record(video, index + 1, names))
        for subject, track in zip(video.cast, tracks, strict=True):
            if any(track["areas"]):
                annotations.append(track)
                identities.tracks[f"ytvis/{video.name}#{track['id']}"] = subject.number
    document = {
        "info": _INFO,
        "licenses": photos.licenses(),
        "videos": records,
        "categories": categories.ytvis(),
        "annotations": annotations,
    }
    out.write("ytvis/train/instances.json", orjson.dumps(document))
    return sum(record["length"] for record in records)


def _tracks(video: Video, number: int) -> list[dict[str, Any]]:
    """Annotations with nothing in any frame yet, one for each of the video's cast."""
    return [
        {
            "height": video.height,
            "width": video.width,
            "length": video.length,
            "category_id": categories.of(subject.kind, "ytvis"),
            "video_id": number,
            "iscrowd": 0,
            "id": number * 10 + position,
            "segmentations": [None] * video.length,
            "bboxes": [None] * video.length,
            "areas": [None] * video.length,
        }
        for position, subject in enumerate(video.cast)
    ]


def _record(video: Video, number: int, names: list[str]) -> dict[str, Any]:
    used = set(video.backdrop.photos) | {subject.photo for subject in video.cast if subject.photo}
    return {
        "width": video.width,
        "length": video.length,
        "date_captured": "",
        "license": photos.license_id(used),
        "flickr_url": "",
        "file_names": names,
        "id": number,
        "coco_url": "",
        "height": video.height,
    }
