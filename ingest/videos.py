"""Titles of videos and ids of their frames, from the paths of an annotation file.

    <video>/<frame>.jpg          the video is the folder
    <video>/img1/<frame>.jpg     the last folder says the same of every video, so the one above it is the video

No two videos of a file have one title, and no two frames of a video one id.
"""

import posixpath
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from refloom.ingest import naming
from refloom.schemas import ids

_GENERIC = frozenset(
    {"img1", "img", "imgs", "image", "images", "frame", "frames", "jpegimages", "rgb", "color", "data"}
)
"""Folders that trackers' and cameras' layouts have inside each video; none of them is a title while one is above it."""


class Video(NamedTuple):
    """What tells a video apart: the folder of its first frame, and what it is called where it has none."""

    key: Hashable
    folder: str
    otherwise: str


def titles(videos: Sequence[Video]) -> list[str]:
    """A title for each video, the same for videos of one key and different for all others, encoded.

    The title is the last folder that is no generic name. Where several folders share it, it is their paths from the
    first part on that is not the same in all of them. Several videos of one folder are numbered.
    """
    found: dict[str, str] = {}
    groups: dict[str, set[str]] = defaultdict(set)
    for folder in {video.folder for video in videos if video.folder}:
        groups[ids.encode(_last(folder))].add(folder)
    for title, folders in groups.items():
        for folder, own in _apart(title, sorted(folders)).items():
            found[folder] = own
    claims = [(video.key, [found.get(video.folder) or ids.encode(video.otherwise)]) for video in videos]
    return [name.identity for name in naming.distinct(claims)]


def _last(folder: str) -> str:
    parts = folder.split("/")
    return next((part for part in reversed(parts) if part.lower() not in _GENERIC), parts[-1])


def _apart(title: str, folders: list[str]) -> dict[str, str]:
    """Folders of one title by as much of their paths as tells them apart, without generic folders at the end."""
    if len(folders) == 1:
        return {folders[0]: title}
    paths = []
    for folder in folders:
        parts = folder.split("/")
        while len(parts) > 1 and parts[-1].lower() in _GENERIC:
            parts.pop()
        paths.append(parts)
    shared = 0
    while all(len(parts) > shared + 1 for parts in paths) and len({parts[shared] for parts in paths}) == 1:
        shared += 1
    return {folder: ids.encode("/".join(parts[shared:])) for folder, parts in zip(folders, paths, strict=True)}


def frames(paths: Sequence[str]) -> list[str]:
    """A name for each frame of a video, the same for one path and different for all others, encoded.

    It is the file's name without the extension; where two files have the same one, the later is called with its
    extension, or with the folders that its path has.
    """
    claims = []
    for path in paths:
        base = posixpath.basename(path)
        suggestions = [posixpath.splitext(base)[0], base, path]
        claims.append((path, [ids.encode(one) for one in suggestions]))
    return [name.identity for name in naming.distinct(claims)]


def numbers(paths: Sequence[str]) -> list[int | None]:
    """The number in the name of each frame; None for all where they do not tell the frames of a video apart."""
    found = {path: _number(path) for path in paths}
    told = {number for number in found.values() if number is not None}
    return [found[path] if len(told) == len(found) else None for path in paths]


def _number(path: str) -> int | None:
    stem = posixpath.splitext(posixpath.basename(path))[0]
    return int(stem) if stem.isascii() and stem.isdigit() and len(stem) < 10 else None
