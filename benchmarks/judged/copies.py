"""Whether copies of photographs are found, over a grid of edits, and whether two photographs are taken for copies."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.intervals import Share, share
from benchmarks.judged.photographs import shared
from refloom.curation.annotate.decoded import Decoded
from refloom.curation.annotate.measure import image_scores
from refloom.curation.dedup.columns import Pictures
from refloom.curation.dedup.images import image_copies
from refloom.curation.dedup.pixels import NOTHING, View, is_copy, mirrored, overlay, view
from refloom.curation.dedup.settings import Dedup
from refloom.inference.models import registry
from refloom.inference.models.crops import cut_middle, cut_out
from refloom.inference.models.embedders import ImageEmbedder
from refloom.schemas import pictures

Pixels = npt.NDArray[np.uint8]

_SIDE_PX = 1000
"""Longer side to which the originals are shrunk, to be quick: about that of a picture from the web."""
_FOLDERS = ("subjects/dreambooth", "faces", "coco/train2017", "coco/val2017")
_ENDS = (".jpg", ".jpeg", ".png")
_NEAR_COPY = 0.93
_KNOWN = {("subjects/dreambooth/cat/03.jpg", "subjects/msbench/living/cat.jpg")}
"""Copies that the sets hold on purpose."""


def _cut(left: float, top: float, right: float, bottom: float) -> Callable[[Pixels], Pixels]:
    def edit(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        rows = slice(int(height * top), int(height * (1 - bottom)))
        return np.ascontiguousarray(pixels[rows, int(width * left) : int(width * (1 - right))])

    return edit


def _scaled(x: float, y: float) -> Callable[[Pixels], Pixels]:
    kind = cv2.INTER_AREA if x < 1 else cv2.INTER_CUBIC
    return lambda pixels: np.asarray(
        cv2.resize(pixels, (round(pixels.shape[1] * x), round(pixels.shape[0] * y)), interpolation=kind), np.uint8
    )


def _light(gain: float, lift: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.clip(gain * pixels.astype(np.float32) + lift, 0, 255).astype(np.uint8)


def _saturated(much: float) -> Callable[[Pixels], Pixels]:
    def edit(pixels: Pixels) -> Pixels:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
        return np.asarray(np.clip(grey + much * (pixels - grey), 0, 255), np.uint8)

    return edit


def _tinted(pixels: Pixels) -> Pixels:
    return np.asarray(np.clip(pixels * np.array([1.15, 1.0, 0.85]), 0, 255), np.uint8)


def _written(height: float, size: float, lines: int = 1, *, bar: bool = False) -> Callable[[Pixels], Pixels]:
    """Lines of white letters from a height on, as shares of the picture's, on a black bar or on the picture."""

    def edit(pixels: Pixels) -> Pixels:
        written, scale = pixels.copy(), size * pixels.shape[0] / 400
        for line in range(lines):
            below = int(height * pixels.shape[0] + 40 * line * scale)
            if bar:
                written[below - int(35 * scale) : below + int(15 * scale)] = 0
            where, thick = (int(0.05 * pixels.shape[1]), below), max(1, round(2 * scale))
            cv2.putText(
                written, "Sample text 2026", where, cv2.FONT_HERSHEY_SIMPLEX, scale, (255,) * 3, thick, cv2.LINE_AA
            )
        return written

    return edit


def _bordered(share_of: float, grey: int, *, sides: bool = True) -> Callable[[Pixels], Pixels]:
    def edit(pixels: Pixels) -> Pixels:
        width = int(share_of * min(pixels.shape[:2]))
        across = width if sides else 0
        return np.pad(pixels, ((width, width), (across, across), (0, 0)), constant_values=grey)

    return edit


def _jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    return lambda pixels: pictures.decode(pictures.encode_jpeg(pixels, quality))


def _several(pixels: Pixels) -> Pixels:
    return _written(0.9, 1)(_jpeg(40)(_scaled(0.5, 0.5)(_cut(0.05, 0.05, 0.05, 0.05)(pixels))))


EDITS: dict[str, Callable[[Pixels], Pixels]] = {
    **{f"jpeg {quality}": _jpeg(quality) for quality in (75, 40, 20)},
    "half": _scaled(0.5, 0.5),
    "quarter": _scaled(0.25, 0.25),
    "grown": _scaled(1.5, 1.5),
    "squeezed": _scaled(0.8, 0.7),
    **{f"inner {100 - 2 * cut} %": _cut(*[cut / 100] * 4) for cut in (2, 5, 10, 15)},
    "without left 20 %": _cut(0.2, 0, 0, 0),
    "without bottom 20 %": _cut(0, 0, 0, 0.2),
    "corner 80 %": _cut(0.2, 0.2, 0, 0),
    "mirrored": mirrored,
    "mirrored inner 90 %": lambda pixels: _jpeg(60)(mirrored(_cut(0.05, 0.05, 0.05, 0.05)(pixels))),
    "brighter": _light(1, 35),
    "darker": _light(0.6, 0),
    "more contrast": _light(1.4, -40),
    "grey": _saturated(0),
    "paler": _saturated(0.4),
    "more colour": _saturated(1.8),
    "warmer": _tinted,
    "text": _written(0.9, 1),
    "two lines": _written(0.5, 1.5, 2),
    "text on a bar": _written(0.9, 1.2, bar=True),
    "border 5 %": _bordered(0.05, 255),
    "border 12 %": _bordered(0.12, 0),
    "letterbox": _bordered(0.15, 0, sides=False),
    "several": _several,
}


@dataclass(frozen=True, slots=True)
class CopyScores:
    """What was found, with intervals over photographs.

    Attributes:
        recall: copies that are found.
        false: pairs of distinct photographs that are taken for copies; a pair counts for its first.
        asked: pairs of distinct photographs whose pixels are asked, likewise.
        missed: edit to how often it was not found.
        wrong: the false pairs.
    """

    recall: Share
    false: Share
    asked: Share
    missed: dict[str, int]
    wrong: list[tuple[str, str]]


@dataclass(slots=True)
class _Tally:
    """Photograph to yes and no, for each of two rules."""

    recall: dict[str, list[bool]]
    false: dict[str, list[bool]]
    asked: dict[str, list[bool]]
    missed: dict[str, int]
    wrong: list[tuple[str, str]]

    def scores(self) -> CopyScores:
        return CopyScores(_share(self.recall), _share(self.false), _share(self.asked), self.missed, self.wrong)


class _Photograph:
    """What dedup knows of a picture, today and in November 2026, when whole pictures were embedded whole."""

    def __init__(self, name: str, pixels: Pixels, embedder: ImageEmbedder) -> None:
        self.name, self.pixels = name, pixels
        self.scores = image_scores(Decoded(pixels))
        height, width = pixels.shape[:2]
        whole = cut_out(pixels, None, (0, 0, width, height), embedder.input_px)
        self.vector, self.whole_vector = embedder.embed(np.stack([cut_middle(pixels, embedder.input_px), whole]))
        self._views: dict[bool, View] = {}

    def view(self, *, mirror: bool) -> View:
        """Made when it is asked for."""
        if mirror not in self._views:
            self._views[mirror] = view(mirrored(self.pixels) if mirror else self.pixels)
        return self._views[mirror]


def measure(config: Dedup | None = None, *, every: int = 6) -> tuple[CopyScores, CopyScores]:
    """Edit every so many of the photographs, and compare all of them with each other.

    Args:
        config: settings; the defaults by default.
        every: photographs, of which one is edited.

    Returns:
        Scores of today's rules, and of those of November 2026.
    """
    config = config or Dedup()
    embedder = registry.by_name("image_embedding", "efficientnet-lite0").load("cpu")
    known = [_Photograph(name, pixels, embedder) for name, pixels in _photographs()]
    now, before = (
        _Tally(defaultdict(list), defaultdict(list), defaultdict(list), defaultdict(int), []) for _ in range(2)
    )
    for original in known[::every]:
        for edit, change in EDITS.items():
            copy = _Photograph("copy", change(original.pixels), embedder)
            for tally, rule in ((now, _today), (before, _november)):
                found = rule(original, copy, config)
                tally.recall[original.name].append(found)
                tally.missed[edit] += not found
    for one, other in combinations(known, 2):
        for tally, rule in ((now, _today), (before, _november)):
            wrong = rule(one, other, config) and (one.name, other.name) not in _KNOWN
            tally.false[one.name].append(wrong)
            tally.asked[one.name].append(tally is now and _asked(one, other, config))
            tally.wrong += [(one.name, other.name)] * wrong
    return now.scores(), before.scores()


def _share(tally: dict[str, list[bool]]) -> Share:
    return share({name: (sum(answers), len(answers)) for name, answers in tally.items()})


def _photographs() -> Iterator[tuple[str, Pixels]]:
    root: Path = shared()
    for name in (*_FOLDERS, "subjects/msbench"):
        for file in sorted((root / name).rglob("*")):
            if file.suffix.lower() in _ENDS:
                pixels = pictures.decode(file.read_bytes())
                scale = min(1.0, _SIDE_PX / max(pixels.shape[:2]))
                yield str(file.relative_to(root)), _scaled(scale, scale)(pixels) if scale < 1 else pixels


def _by_hash(one: _Photograph, other: _Photograph, config: Dedup) -> bool:
    both = (one, other)
    found = image_copies(
        Pictures(
            ["a", "b"],
            ["", "other"],
            np.array([photograph.pixels.shape[1::-1] for photograph in both], np.int64),
            np.array([photograph.scores.phash for photograph in both], np.uint64),
            np.array([(photograph.scores.brightness, photograph.scores.contrast) for photograph in both], np.float64),
            np.full(2, np.nan),
            [None, None],
            [frozenset(), frozenset()],
        ),
        0,
        config,
    )
    return bool(found)


def _asked(one: _Photograph, other: _Photograph, config: Dedup) -> bool:
    return float(one.vector @ other.vector) >= config.min_proposed_cosine


def _today(one: _Photograph, other: _Photograph, config: Dedup) -> bool:
    """By hash, or by embedding and pixels."""
    if _by_hash(one, other, config):
        return True
    if not _asked(one, other, config):
        return False
    found = [overlay(one.view(mirror=False), other.view(mirror=turn)) for turn in (False, True)]
    if any(way != NOTHING for way in found):
        return any(is_copy(way, config.min_agreement or 1.0) for way in found)
    near = float(one.vector @ other.vector) >= _NEAR_COPY
    return near and _by_hash(one, other, _wider(config))


def _november(one: _Photograph, other: _Photograph, config: Dedup) -> bool:
    """By hash, or by embedding and a wider hash."""
    if _by_hash(one, other, config):
        return True
    near = float(one.whole_vector @ other.whole_vector) >= _NEAR_COPY
    return near and _by_hash(one, other, _wider(config))


def _wider(config: Dedup) -> Dedup:
    """The bound on hashes of whole pictures that are near by their embedding."""
    return replace(config, max_hamming=config.max_whole_hamming, max_light_change=1.0, max_aspect_change=1e6)
