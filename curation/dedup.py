"""Near-duplicates of pictures and objects: which go, of whom they are copies, and by what that is known.

Pictures are copies by their bytes or their perceptual hash, objects by their embedding; what goes with a picture is
on it. The best copy stays: by quality, then size, then id. Nothing is compared inside one video, source group or
picture: those are meant to be alike. Copies of evaluation pictures (`leaks`) go whatever their quality.

Pure functions: columns in, rows of `duplicates` out. What is compared is read in `candidates`.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.candidates import Evaluation, Pictures, Things, read_items
from curation.neighbours.clusters import copies
from curation.neighbours.pairs import Indices, Pairs
from curation.neighbours.phash import BITS, equal_places, hamming_pairs, mirrored
from curation.neighbours.plan import NEAR_CELLS
from curation.neighbours.search import Codes, cosine_pairs
from schemas import boxes
from schemas.dataset import Dataset
from schemas.unit import UnitWriter

VERSION = 1

_SET_BITS = (24, 40)
"""A hash marks 31 of 63 terms above their median, unless many are equal: of a picture without structure."""
_SAME_OBJECT_IOU = 0.5
_MOST_COPIES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Dedup:
    """Near-duplicates.

    Attributes:
        by: what is compared, of bytes, phash and embedding; nothing leaves every copy in.
        max_hamming: bits of 64 in which the perceptual hashes of copies, or of one and the mirror image of the other,
            differ at most; null compares no hashes. Of 123 photographs 98 % stay within 4 as JPEG of quality 40 and
            at a quarter of the size, 84 % mirrored, 45 % as the inner 95 % of the sides; of 7,373 pairs of different
            photographs the nearest differ in 12.
        max_whole_hamming: the same for whole pictures that are copies by embedding, which alone takes two photographs
            of one sitting for copies; 10 holds all of the above and 95 % of the inner 95 %.
        min_contrast: pictures with less (standard deviation of grey) have hashes that mean nothing.
        max_aspect_change: relative difference of width / height of copies by hash; the inner 95 % keeps it.
        max_light_change: difference of brightness and of contrast of copies by hash, of 1.
        min_cosine: of copies by embedding; null takes the model's own `near_copy`.
        quality_step: qualities are compared in steps of this, so that among copies of about the same quality the
            larger one stays: shrinking makes a picture sharper.
        near_cells: of the neighbour search.
        evaluation: folders of pictures, or refloom datasets, whose copies must not be trained on.
    """

    by: tuple[str, ...] = ("bytes", "phash", "embedding")
    max_hamming: int | None = 4
    max_whole_hamming: int = 10
    min_contrast: float = 0.02
    max_aspect_change: float = 0.1
    max_light_change: float = 0.1
    min_cosine: float | None = None
    quality_step: float = 0.1
    near_cells: int = NEAR_CELLS
    evaluation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.by) - {"bytes", "phash", "embedding"}:
            raise ValueError(f"by names bytes, phash and embedding, not {sorted(unknown)[0]!r}")
        if self.max_hamming is not None and not 0 <= self.max_hamming <= 16:
            raise ValueError(f"max_hamming is 0 to 16 bits of 64, not {self.max_hamming}")
        if self.quality_step <= 0:
            raise ValueError(f"quality_step is more than 0, not {self.quality_step}")


@dataclass(frozen=True, slots=True)
class Copy:
    """Why an item goes: of whom it is a copy, by what, and how alike they are."""

    of: str
    by: str
    similarity: float


def duplicates(
    pictures: Pictures, things: Things, config: Dedup, near_copy: float | None, evaluation: Evaluation | None = None
) -> list[dict[str, Any]]:
    """Rows of the table `duplicates`, by id; `of` is an id that stays, or one of the evaluation set.

    Args:
        pictures, things: of the dataset, in any order.
        config: settings.
        near_copy: cosine of near-copies of the embedding model; None compares no embeddings.
        evaluation: what must not leak.
    """
    state = _State(pictures, things, config)
    _compare_pictures(state, evaluation)
    if near_copy is not None and "embedding" in config.by:
        _compare_things(state, config.min_cosine or near_copy, evaluation)
    return state.rows()


def find_duplicates(
    dataset: Dataset, config: Dedup, near_copy: float | None, evaluation: Evaluation | None = None
) -> dict[str, dict[str, Any]]:
    """Id to row of `duplicates`, over the whole dataset.

    Args:
        dataset: with `measure`, and `embed` and `quality` as far as there are models.
        config: settings.
        near_copy: of the registry entry of the embedding model; None without one.
        evaluation: from `read_evaluation`.
    """
    pictures, things = read_items(dataset)
    rows = duplicates(pictures, things, config, near_copy if len(things.vectors) else None, evaluation)
    return {row["id"]: row for row in rows}


class _State:
    """What has gone so far."""

    def __init__(self, pictures: Pictures, things: Things, config: Dedup) -> None:
        self.pictures, self.things, self.config = pictures, things, config
        self.images: dict[int, Copy] = {}
        self.objects: dict[int, Copy] = {}
        self.on: dict[int, list[int]] = defaultdict(list)
        for thing, image in enumerate(things.images.tolist()):
            self.on[image].append(thing)
        self.place = {name: place for place, name in enumerate(pictures.ids)}

    def drop(self, image: int, copy: Copy) -> None:
        """A picture goes, and what is on it: each object as a copy of the same object there, else of that picture."""
        self.images[image] = copy
        for thing in self.on[image]:
            if thing not in self.objects:
                of = copy.of if copy.by == "leak" else self._counterpart(thing, copy.of)
                self.objects[thing] = Copy(of, copy.by, copy.similarity)

    def _counterpart(self, thing: int, image_id: str) -> str:
        things = self.things
        others = [other for other in self.on[self.place[image_id]] if things.kinds[other] == things.kinds[thing]]
        if others:
            overlap = boxes.iou(things.boxes[thing : thing + 1], things.boxes[others])[0]
            best = min(range(len(others)), key=lambda place: (-overlap[place], things.ids[others[place]]))
            if overlap[best] >= _SAME_OBJECT_IOU:
                return things.ids[others[best]]
        return image_id

    def rows(self) -> list[dict[str, Any]]:
        """The table's rows; what was copied from something that went later is a copy of what that is a copy of."""
        gone = {self.pictures.ids[image]: ("image", copy) for image, copy in self.images.items()}
        gone |= {self.things.ids[thing]: ("object", copy) for thing, copy in self.objects.items()}
        out = []
        for name in sorted(gone):
            kind, copy = gone[name]
            of = copy.of
            while of in gone:
                of = gone[of][1].of
            out.append({"id": name, "kind": kind, "of": of, "by": copy.by, "similarity": copy.similarity})
        return out


# -- pictures ----------------------------------------------------------------------------------------------------


def _compare_pictures(state: _State, evaluation: Evaluation | None) -> None:
    """From the best picture on: each stays unless it is a copy of one that stays, or of an evaluation picture."""
    judged = len(evaluation.pictures) if evaluation else 0
    every = evaluation.pictures.joined(state.pictures) if evaluation else state.pictures
    area = every.sizes.prod(axis=1)
    steps = _steps(every.quality, state.config)
    order = list(range(judged)) + sorted(
        range(judged, len(every)), key=lambda row: (-steps[row], -int(area[row]), every.ids[row])
    )
    index = _Index(every, state.config)
    for rank, row in enumerate(order):
        found = index.find(row) if rank >= judged else None
        if found is None:
            index.add(row, rank)
        else:
            of, by, similarity = found
            copy = Copy(every.ids[of], "leak" if of < judged else by, similarity)
            state.drop(row - judged, copy)


class _Index:
    """The pictures that stay, by bytes and by hash."""

    def __init__(self, pictures: Pictures, config: Dedup) -> None:
        self._pictures, self._config = pictures, config
        self._places = pictures.places()
        self._aspect = np.log(pictures.sizes[:, 0] / pictures.sizes[:, 1])
        self._bytes: dict[str, list[int]] = defaultdict(list)
        self._hashed: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._near: dict[int, list[tuple[int, int]]] = {}
        self._code = np.full((len(pictures), 2), -1)
        if config.max_hamming is not None and "phash" in config.by:
            usable = np.flatnonzero(meaningful(pictures.phash, pictures.light[:, 1], config))
            plain = pictures.phash[usable]
            values, codes = equal_places(np.concatenate([plain, mirrored(plain)]))
            self._code[usable] = codes.reshape(2, -1).T
            self._near = {code: [(0, code)] for code in range(len(values))}
            close = hamming_pairs(values, config.max_hamming)
            for i, j, bits in zip(close.i.tolist(), close.j.tolist(), close.distance.tolist(), strict=True):
                self._near[i].append((bits, j))
                self._near[j].append((bits, i))

    def find(self, row: int) -> tuple[int, str, float] | None:
        """The picture that stays and that `row` is a copy of, by what, and how alike they are."""
        same = next((other for other in self._bytes[self._pictures.sha256[row]] if self._separate(row, other)), None)
        if same is not None:
            return same, "bytes", 1.0
        codes = [near for code in self._code[row].tolist() for near in self._near.get(code, ())]
        near = [(bits, *entry) for bits, code in codes for entry in self._hashed.get(code, ())]
        for bits, _, other in sorted(near):
            if self._separate(row, other) and self._alike(row, other):
                return other, "phash", 1 - bits / BITS
        return None

    def add(self, row: int, rank: int) -> None:
        """A picture that stays; of the equal frames of one video the best is enough."""
        same = self._bytes[self._pictures.sha256[row]] if "bytes" in self._config.by else []
        if all(self._places[other] != self._places[row] for other in same):
            same.append(row)
        if self._code[row, 0] >= 0:
            hashed = self._hashed[int(self._code[row, 0])]
            if all(self._places[other] != self._places[row] for _, other in hashed):
                hashed.append((rank, row))

    def _separate(self, row: int, other: int) -> bool:
        groups = self._pictures.groups
        return self._places[row] != self._places[other] and groups[row].isdisjoint(groups[other])

    def _alike(self, row: int, other: int) -> bool:
        """What a hash does not see: shape and light."""
        light = np.abs(self._pictures.light[row] - self._pictures.light[other]).max()
        aspect = abs(self._aspect[row] - self._aspect[other])
        return bool(light <= self._config.max_light_change and aspect <= np.log1p(self._config.max_aspect_change))


def meaningful(
    phash: npt.NDArray[np.uint64], contrast: npt.NDArray[np.float64], config: Dedup
) -> npt.NDArray[np.bool_]:
    """Which hashes say something: (N,) of pictures with contrast, and with as many bits set as structure sets."""
    bits = np.bitwise_count(phash)
    enough: npt.NDArray[np.bool_] = (contrast >= config.min_contrast) & (bits >= _SET_BITS[0]) & (bits <= _SET_BITS[1])
    return enough


# -- objects -----------------------------------------------------------------------------------------------------


def _compare_things(state: _State, near_copy: float, evaluation: Evaluation | None) -> None:
    """Leaks, then whole pictures, which take what is on them along, then objects."""
    things, pictures = state.things, state.pictures
    rows = np.array([row for row in np.flatnonzero(things.rows >= 0) if row not in state.objects], np.int64)
    vectors = things.vectors[things.rows[rows]]
    names = [things.ids[row] for row in rows]
    _, apart = np.unique(np.array(pictures.places(), dtype=object)[things.images[rows]], return_inverse=True)
    judged = len(evaluation.ids) if evaluation else 0
    if evaluation and judged:
        vectors = np.concatenate([evaluation.vectors, vectors])
        names = [f"evaluation:{name}" for name in evaluation.ids] + names
        apart = np.concatenate([np.full(judged, len(rows)), apart])
    found = cosine_pairs(
        names,
        vectors,
        near_copy,
        codes=Codes(apart=apart.astype(np.int64)),
        near_cells=state.config.near_cells,
        most=_MOST_COPIES,
    )
    if evaluation:
        _drop_leaks(state, found.where(found.i < judged), rows, judged, evaluation.ids)
    found = found.where(found.i >= judged)
    i, j = rows[found.i - judged], rows[found.j - judged]
    groups = [pictures.groups[image] for image in things.images]
    apart_groups = np.array([groups[a].isdisjoint(groups[b]) for a, b in zip(i, j, strict=True)], bool)
    whole = np.array([kind == "whole" for kind in things.kinds], bool)
    steps = _steps(things.quality, state.config)
    size = pictures.sizes[things.images].prod(axis=1) * boxes.area(things.boxes)
    order = sorted(range(len(things.ids)), key=lambda row: (not whole[row], -steps[row], -size[row], things.ids[row]))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    pairs = Pairs(i, j, found.cosine).where(apart_groups)
    pairs = pairs.where(~(whole[pairs.i] & whole[pairs.j]) | _same_layout(state, pairs))
    for wholes in (True, False):
        here = np.array([a not in state.objects and b not in state.objects for a, b in _both(pairs)], bool)
        both = whole[pairs.i] & whole[pairs.j]
        for row, (of, cosine) in sorted(copies(rank, pairs.where(here & (both == wholes))).items()):
            copy = Copy(things.ids[of], "embedding", cosine)
            state.objects[row] = copy
            if wholes:
                state.drop(int(things.images[row]), Copy(pictures.ids[things.images[of]], copy.by, cosine))


def _same_layout(state: _State, pairs: Pairs) -> npt.NDArray[np.bool_]:
    """Whether the hashes of the pictures under pairs of objects allow copies; they do where they say nothing."""
    pictures = state.pictures
    usable = meaningful(pictures.phash, pictures.light[:, 1], state.config)
    one, other = state.things.images[pairs.i], state.things.images[pairs.j]
    a, b = pictures.phash[one], pictures.phash[other]
    bits = np.minimum(np.bitwise_count(a ^ b), np.bitwise_count(mirrored(a) ^ b))
    allowed: npt.NDArray[np.bool_] = (bits <= state.config.max_whole_hamming) | ~usable[one] | ~usable[other]
    return allowed


def _drop_leaks(state: _State, pairs: Pairs, rows: Indices, judged: int, names: list[str]) -> None:
    strongest: dict[int, tuple[float, str]] = {}
    for (i, j), cosine in zip(_both(pairs), pairs.cosine.tolist(), strict=True):
        row, candidate = int(rows[j - judged]), (-cosine, names[i])
        strongest[row] = min(strongest.get(row, candidate), candidate)
    for row, (cosine, name) in sorted(strongest.items()):
        copy = Copy(name, "leak", -cosine)
        state.objects[row] = copy
        if state.things.kinds[row] == "whole":
            state.drop(int(state.things.images[row]), copy)


def _both(pairs: Pairs) -> Iterable[tuple[int, int]]:
    return zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)


def _steps(quality: npt.NDArray[np.float64], config: Dedup) -> npt.NDArray[np.float64]:
    """Quality in whole steps; -1 where there is none."""
    return np.nan_to_num(np.floor(quality / config.quality_step + 1e-9), nan=-1.0)


def write_duplicates(
    images: Iterable[str], objects: Iterable[str], rows: dict[str, dict[str, Any]], out: UnitWriter
) -> None:
    """The rows of one unit; every item is settled as kept: `select` rejects what has a row, this stage only says so.

    Args:
        images, objects: ids of its items.
        rows: id to row, of the whole dataset.
        out: the unit's writer.
    """
    for kind, names in (("image", images), ("object", objects)):
        for name in names:
            out.expect(kind)
            if name in rows:
                out.add("duplicates", rows[name])
            out.keep(kind)
