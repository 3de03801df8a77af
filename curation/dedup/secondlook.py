"""The second look at proposed copies: which pairs need one, and what their pixels say, in two passes of dedup.

propose   one task: pairs of whole pictures, and of objects, in batches
look      per batch: decodes the pictures in it, and compares

A pair's answer depends on its two pictures alone, so the cut into batches changes nothing. What is decoded is what the
hash or the embedding proposes, and no more: a pair costs two pictures at most, a picture of several pairs in a batch
is decoded once while it is among the last `_VIEWS`.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.curation.compose.imagestore import PictureStore
from refloom.curation.dedup.columns import source_groups
from refloom.curation.dedup.objects import Candidates, candidates_from, unlike
from refloom.curation.dedup.pixels import NOTHING, View, is_copy, mirrored, overlay, view
from refloom.curation.neighbours.pairs import Indices, Pairs, union
from refloom.curation.neighbours.passes import Search, found
from refloom.curation.passes.passes import PlannedTask, StageContext
from refloom.curation.passes.scratch import TaskResult
from refloom.ingest.engine.watch import Watch
from refloom.schemas import boxes, pictures
from refloom.schemas.errors import Failed, Rejected

COPY, OTHER, UNSEEN = 1, 0, -1
"""What the second look says of a pair; `UNSEEN` where a picture cannot be read, or has no texture to compare."""

_VIEWS = 64
_PAIRS_SHARE = 100
"""Pairs that are joined in one task, over pairs that are looked at in one: these take so much longer."""
_LOOKED = pa.schema({"one": pa.string(), "other": pa.string(), "says": pa.int8()})
Searches = Callable[[StageContext], list[Search]]


def proposals(context: StageContext, searches: Sequence[Search]) -> tuple[Indices, Candidates, Pairs]:
    """What the searches have found, together: rows over all parts, their columns, and pairs of them, each once."""
    every, tables, pairs = [np.zeros(0, np.int64)], [], []
    for search in searches:
        rows, near, _ = found(context, search)
        if len(rows):
            every.append(rows)
            tables.append(context.scratch.take(f"{search.name}/rows", rows))
            pairs.append(near)
    names = [name for table in tables for name in table["id"].to_pylist()]
    # an evaluation picture may have the id of one of the dataset
    judged = [flag for table in tables for flag in table["judged"].to_pylist()]
    first: dict[tuple[str, bool], int] = {}
    place = np.array([first.setdefault(key, len(first)) for key in zip(names, judged, strict=True)], np.int64)
    _, keep = np.unique(place, return_index=True)
    if not tables:
        return np.zeros(0, np.int64), candidates_from(None, {}), union([])
    table = pa.concat_tables(tables).take(pa.array(keep))
    start, renumbered = 0, []
    for one, near in zip(tables, pairs, strict=True):
        here = place[start : start + len(one)]
        i, j = here[near.i], here[near.j]
        renumbered.append(Pairs(np.minimum(i, j), np.maximum(i, j), near.cosine))
        start += len(one)
    groups = source_groups(context.dataset, set(table["image_id"].to_pylist()))
    return np.concatenate(every)[keep], candidates_from(table, groups), union(renumbered)


def says(context: StageContext, candidates: Candidates, pairs: Pairs) -> npt.NDArray[np.int8]:
    """(P,) what the second look says of pairs; `UNSEEN` where there was none."""
    told: dict[tuple[str, str], int] = {}
    for task in context.scratch.done("look"):
        table = context.scratch.read_table(f"looked/{task}.arrow")
        told |= {(row["one"], row["other"]): row["says"] for row in table.to_pylist()}
    names = candidates.ids
    both = [_ordered(names[i], names[j]) for i, j in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)]
    return np.array([told.get(pair, UNSEEN) for pair in both], np.int8)


def _ordered(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def plan_propose(context: StageContext, searches: Searches) -> list[PlannedTask]:
    """One task, where pixels are asked."""
    asks = context.config.dedup.min_agreement is not None and searches(context)
    return [PlannedTask("all")] if asks else []


def propose(context: StageContext, searches: Searches, watch: Watch) -> TaskResult:
    """Holds the search's pairs, and columns of the rows in them."""
    _, candidates, pairs = proposals(context, searches(context))
    whole = candidates.whole
    pairs = pairs.where(unlike(candidates, pairs) & (whole[pairs.i] == whole[pairs.j]))
    rank = np.empty(len(candidates.ids), np.int64)
    rank[np.argsort(np.array(candidates.ids, object), kind="stable")] = np.arange(len(rank))
    turned = rank[pairs.i] > rank[pairs.j]
    one, other = np.where(turned, pairs.j, pairs.i), np.where(turned, pairs.i, pairs.j)
    order = np.lexsort((rank[other], rank[one]))  # pairs with one picture follow each other
    columns = {
        "id": pa.array(candidates.ids, pa.string()),
        "image": pa.array(candidates.images, pa.string()),
        "unit": pa.array(candidates.units, pa.string()),
        "box": pa.array(list(candidates.boxes), pa.list_(pa.float64(), 4)),
    }
    size = max(1, context.config.grain.batch_pairs // _PAIRS_SHARE)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    for number, batch in enumerate(batches):
        sides = {"one": pa.array(one[batch]), "other": pa.array(other[batch])}
        table = {
            f"{side}_{name}": column.take(rows) for side, rows in sides.items() for name, column in columns.items()
        }
        context.scratch.write_table(f"proposed/{number:06d}.arrow", pa.table(table))
    watch.advance(len(order))
    return {"batches": [len(batch) for batch in batches]}


def plan_look(context: StageContext) -> list[PlannedTask]:
    """A task for each batch."""
    proposed = context.scratch.results("propose").get("all", {"batches": []})["batches"]
    return [PlannedTask(f"{number:06d}", {"number": number}, pairs) for number, pairs in enumerate(proposed)]


def look(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    """Holds the views of some pictures, a third of a megabyte each."""
    least = context.config.dedup.min_agreement
    if least is None:
        raise ValueError("no pair needs a second look")
    number, looker = args["number"], _Looker(context)
    rows = []
    for row in context.scratch.read_table(f"proposed/{number:06d}.arrow").to_pylist():
        rows.append({"one": row["one_id"], "other": row["other_id"], "says": looker.says(row, least)})
        watch.advance(1)
    context.scratch.write_table(f"looked/{number:06d}.arrow", pa.Table.from_pylist(rows, _LOOKED))
    return {"copies": sum(row["says"] == COPY for row in rows), "decoded": looker.decoded}


class _Looker:
    """Compares pairs, and keeps what it has decoded lately."""

    def __init__(self, context: StageContext) -> None:
        self._store, self._opened = PictureStore(context.dataset), set[str]()
        self._views: OrderedDict[tuple[str, bool], View | None] = OrderedDict()
        self.decoded = 0

    def says(self, row: dict[str, Any], least: float) -> int:
        """What the pixels say of a row of `proposed`."""
        one, answer = self._view(row, "one", mirror=False), UNSEEN
        for mirror in (False, True):
            other = self._view(row, "other", mirror=mirror)
            if one is None or other is None:
                return UNSEEN
            found = overlay(one, other)
            if is_copy(found, least):
                return COPY
            if found != NOTHING:
                answer = OTHER
        return answer

    def _view(self, row: dict[str, Any], which: str, *, mirror: bool) -> View | None:
        key = row[f"{which}_id"], mirror
        if key not in self._views:
            pixels = self._pixels(row[f"{which}_unit"], row[f"{which}_image"], row[f"{which}_box"])
            self._views[key] = None if pixels is None else view(mirrored(pixels) if mirror else pixels)
            if len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        self._views.move_to_end(key)
        return self._views[key]

    def _pixels(self, unit: str, image_id: str, box: list[float]) -> npt.NDArray[np.uint8] | None:
        """What a box shows, of shares of the sides; None where the picture cannot be read: `compose` says so."""
        if unit not in self._opened:
            self._store.open(unit)
            self._opened.add(unit)
        try:
            pixels = pictures.decode(self._store.data(image_id)[0])
        except (Failed, Rejected):
            return None
        self.decoded += 1
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = boxes.pad(np.array(box) * (width, height, width, height), width, height)
        return np.ascontiguousarray(pixels[y0:y1, x0:x1])
