"""Switches of identity that are planted into the tracks of videos: how many are found, how many windows are accused."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from benchmarks.intervals import Share, share
from benchmarks.judged.photographs import curated
from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.group.settings import Group
from refloom.curation.group.switches import Path, switched
from refloom.curation.neighbours.vectors import vectors_of
from refloom.schemas.dataset import Dataset

GAPS = range(1, 11)
_AROUND = 5
"""Frames before and after the step, as a longer track has them."""


@dataclass(frozen=True, slots=True)
class SwitchScores:
    """Shares over windows of two tracks, with intervals over pairs of tracks.

    Attributes:
        found: of windows with a planted switch, by gap in frames; 0 for all of them.
        accused: of windows without one, likewise.
    """

    found: dict[int, Share]
    accused: dict[int, Share]


def measure(config: Group | None = None, *, looks: bool = True) -> SwitchScores:
    """Plant a switch at every step of all pairs of tracks of a video, with gaps of 1 to 10 frames.

    Args:
        config: settings; the defaults by default.
        looks: whether embeddings are used; objects that are spared the pixel work have none either way.
    """
    config = config or Group()
    dataset = curated("ytvis", "ytvis", config=Curation(models=Models(face="none")), until="embed")
    found: dict[int, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    accused: dict[int, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for name, gap, first, second in _windows(_paths(dataset, looks=looks)):
        for key in (0, gap):
            accused[key][name].append(bool(switched([first, second], config)))
            found[key][name].append(bool(switched(list(_exchanged(first, second)), config)))
    return SwitchScores(*({gap: _share(counts[gap]) for gap in sorted(counts)} for counts in (found, accused)))


def _share(counts: dict[str, list[bool]]) -> Share:
    return share({name: (sum(hits), len(hits)) for name, hits in counts.items()})


def _paths(dataset: Dataset, *, looks: bool) -> dict[str, list[Path]]:
    """Video to its tracks."""
    images = {
        row["image_id"]: row for row in dataset.read("images", ["image_id", "video_id", "frame_index"]).to_pylist()
    }
    vectors: dict[str, np.ndarray] = {}
    objects = dataset.read("objects", ["object_id", "image_id", "track_id", "mask"]).to_pylist()
    if looks:
        order = {row["object_id"]: place for place, row in enumerate(objects)}
        for names, found in vectors_of(dataset, "embeddings", "object_id", dataset.units(), order):
            vectors |= dict(zip(names, found, strict=True))
    tracks = defaultdict(list)
    for row in objects:
        tracks[images[row["image_id"]]["video_id"], row["track_id"]].append(row)
    paths = defaultdict(list)
    for (video, track), rows in sorted(tracks.items()):
        rows.sort(key=lambda row: images[row["image_id"]]["frame_index"])
        known = [vectors[row["object_id"]] for row in rows if row["object_id"] in vectors]
        paths[video].append(
            Path(
                track,
                [images[row["image_id"]]["frame_index"] for row in rows],
                [row["mask"] for row in rows],
                np.stack(known) if len(known) == len(rows) else None,
            )
        )
    return paths


def _windows(paths: dict[str, list[Path]]) -> Iterator[tuple[str, int, Path, Path]]:
    """Pairs of tracks, cut to some frames before and after a step of a gap."""
    for own in paths.values():
        for first, second in combinations(own, 2):
            common = sorted(set(first.frames) & set(second.frames))
            for gap in GAPS:
                for step in range(len(common) - gap):
                    frames = common[max(0, step + 1 - _AROUND) : step + 1] + common[step + gap :][:_AROUND]
                    middle = step + 1 - max(0, step + 1 - _AROUND)
                    one, other = (_cut(path, frames) for path in (first, second))
                    yield f"{first.track_id} {second.track_id}", gap, _marked(one, middle), _marked(other, middle)


def _cut(path: Path, frames: list[int]) -> Path:
    places = [path.frames.index(frame) for frame in frames]
    vectors = None if path.vectors is None else path.vectors[places]
    return Path(path.track_id, frames, [path.masks[place] for place in places], vectors)


def _marked(path: Path, middle: int) -> Path:
    """The path with the place of the step kept in its name."""
    return replace(path, track_id=f"{path.track_id}@{middle}")


def _exchanged(first: Path, second: Path) -> Iterator[Path]:
    middle = int(first.track_id.rpartition("@")[2])
    both = first.vectors is not None and second.vectors is not None
    for own, other in ((first, second), (second, first)):
        vectors = np.concatenate([own.vectors[:middle], other.vectors[middle:]]) if both else None  # type: ignore[index]
        yield replace(own, masks=own.masks[:middle] + other.masks[middle:], vectors=vectors)
