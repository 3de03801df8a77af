"""A person judging objects as references: which comes next, what it looks like, what was said. No markup, no HTTP."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.curation.select.settings import Select
from refloom.inference.models.crops import cut_out
from refloom.schemas import boxes, card, labels, masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.labels import Label
from refloom.schemas.lease import Lease
from refloom.viewing.browse.index import Floats, Index, Ints
from refloom.viewing.browse.library import Library
from refloom.viewing.report.sampling import hashes
from refloom.viewing.report.threshold import select_settings

ORDERS = ("random", "uncertain")
"""By a hash of the id; or those first whose quality lies nearest to the threshold."""
_SIDE_PX = 640
_MAX_ZOOM = 4
"""What is tiny is to look tiny."""
_JPEG_QUALITY = 92


def in_order(order: str, ids: pa.Array, quality: Floats, threshold: float) -> Ints:
    """Places of N objects in the order in which they are judged: the same for the same objects, so it can go on.

    Args:
        order: one of `ORDERS`.
        ids: (N,) of objects.
        quality: (N,), NaN where there is none; such objects come last where the order asks for it.
        threshold: on quality.
    """
    shuffled = np.argsort(hashes(ids), kind="stable").astype(np.int64)
    if order == "random":
        return shuffled
    distance = np.abs(quality[shuffled] - threshold)
    return shuffled[np.argsort(np.where(np.isnan(distance), np.inf, distance), kind="stable")]


def candidates(index: Index) -> Ints:
    """Rows of the objects that can be judged: annotated or found ones, and once there are qualities, those with one."""
    listing = index.listings["objects"]
    is_object = listing.kind.equal("object") & (listing.parent >= 0)
    has_quality = is_object & ~np.isnan(listing.score)
    return np.flatnonzero(has_quality if has_quality.any() else is_object)


@dataclass(slots=True)
class Labelling:
    """What a session knows. Safe to share between threads.

    Attributes:
        library: rows and pixels.
        labeller: who judges, or None.
        threshold: on quality, as most objects were selected with.
        rows: (N,) of the index, of what can be judged.
        saved: judgements that were written in this session.
    """

    library: Library
    labeller: str | None = None
    threshold: float = 0.0
    rows: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    saved: int = 0
    _scores: dict[int, int] = field(default_factory=dict)
    _is_judged: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    _orders: dict[str, Ints] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, dataset: Dataset, library: Library, labeller: str | None = None) -> "Labelling":
        """A session on a dataset, which goes on where earlier ones stopped.

        Raises:
            Refused: nothing can be written there, or there is no object.
        """
        if dataset.folder.read_only:
            raise Refused(f"{dataset.url} can only be read: label a copy that you may write to")
        found = cls(library, labeller, (select_settings(dataset) or Select()).min_quality, candidates(library.index))
        if not len(found.rows):
            raise Refused(f"{dataset.url} holds no objects to judge: take in a source with boxes or masks")
        found._is_judged = np.zeros(len(found.rows), bool)
        place_of = {row: place for place, row in enumerate(found.rows.tolist())}
        for name, label in labels.read(dataset).items():
            row = library.index.listings["objects"].find(name)
            if row in place_of:
                found._note(place_of[row], label.score)
        return found

    @property
    def has_quality(self) -> bool:
        """Whether there are qualities that can be near to the threshold."""
        return not bool(np.isnan(self._quality).all())

    @property
    def _quality(self) -> Floats:
        return self.library.index.listings["objects"].score[self.rows]

    def progress(self) -> dict[str, Any]:
        """How many were judged, of how many, and with which scores."""
        counts = Counter(self._scores.values())
        return {
            "judged": int(self._is_judged.sum()),
            "total": len(self.rows),
            "scores": {str(score): counts[score] for score in labels.SCORES},
        }

    def coming(self, order: str, start: int, count: int) -> list[dict[str, Any]]:
        """The next objects that were not judged yet.

        Args:
            order: one of `ORDERS`.
            start: place in the order from which on to look; each object says its own.
            count: at most so many.
        """
        with self._lock:
            if order not in self._orders:
                ids = self.library.index.listings["objects"].ids.take(pa.array(self.rows))
                self._orders[order] = in_order(order, ids, self._quality, self.threshold)
            ordered = self._orders[order]
            waiting = np.flatnonzero(~self._is_judged[ordered[start:]])[:count] + start
        return [{"place": int(place)} | self._about(int(ordered[place])) for place in waiting]

    def _about(self, place: int) -> dict[str, Any]:
        """What the page says of an object; not its quality, which would sway whoever judges."""
        listing, row = self.library.index.listings["objects"], int(self.rows[place])
        return {"object_id": self.library.identity("objects", row), "name": listing.name.at(row) or ""}

    def cut_out(self, object_id: str) -> bytes | None:
        """An object alone on white as a JPEG; None for no such object, or where its picture cannot be read."""
        row = self.library.index.listings["objects"].find(object_id)
        picture = -1 if row is None else int(self.library.index.listings["objects"].parent[row])
        if picture < 0:
            return None
        pixels = self.library.pixels(picture)
        found = next((one for one in self.library.objects_on(picture) if one["object_id"] == object_id), None)
        if isinstance(pixels, str) or found is None:
            return None
        height, width = pixels.shape[:2]
        box = boxes.pad(found["box"], width, height)
        try:
            shape = None if found["mask"] is None else masks.decode_box(found["mask"], box)
        except Rejected:
            return None
        side = min(_SIDE_PX, _MAX_ZOOM * max(box[2] - box[0], box[3] - box[1]))
        return pictures.encode_jpeg(cut_out(pixels, shape, box, side), _JPEG_QUALITY)

    def judge(self, object_id: str, score: int | None, flags: tuple[str, ...]) -> dict[str, Any] | None:
        """Write a judgement, or take one back where the score is None; returns the progress, None for no such object.

        Raises:
            ValueError: the score or a flag is none.
            Refused: somebody else writes to the dataset, or the object is gone from it.
        """
        row = self.library.index.listings["objects"].find(object_id)
        place = None if row is None else int(np.searchsorted(self.rows, row))
        if row is None or place is None or place >= len(self.rows) or self.rows[place] != row:
            return None
        url = self.library.dataset.url
        label = None if score is None else Label(object_id, score, flags, self.labeller)
        with self._lock:
            if label is None:
                labels.remove(url, object_id)
            else:
                labels.save(url, label, self.library.unit_of("objects", row))
            self.saved += 1
            self._note(place, score)
        return self.progress()

    def _note(self, place: int, score: int | None) -> None:
        self._is_judged[place] = score is not None
        if score is None:
            self._scores.pop(place, None)
        else:
            self._scores[place] = score

    def close(self) -> str | None:
        """Derive dataset.json and the card anew; what whoever writes to the dataset now has to do instead."""
        if not self.saved:
            return None
        dataset = Dataset(self.library.dataset.url)
        try:
            with Lease(dataset.folder):
                card.renew(dataset, True)
        except Refused as error:
            return f"the labels are saved; dataset.json and the card follow with the next run ({error})"
        return None
