"""Which rows of the index a query finds. Pure functions."""

import numpy as np
import numpy.typing as npt

from refloom.viewing.browse.index import Index, Ints
from refloom.viewing.browse.query import Query

Flags = npt.NDArray[np.bool_]


def search(index: Index, query: Query) -> Ints:
    """Rows of the query's view, in its order.

    A picture is found by its own id, or by one of its objects; where objects are asked for by verdict, kind or score,
    a picture needs one that fits all of it.
    """
    listing = index.listings[query.view]
    if query.view == "pictures":
        found = _pictures(index, query)
    elif query.view == "objects":
        found = _objects(index, query)
    else:
        found = _in_range(listing.score, query) & _kind(index, query)
        if query.text:
            found &= listing.matching(query.text) | listing.name.matching(query.text)
    found &= _of_source(index, query)
    rows = np.flatnonzero(found)
    if query.order == "stored":
        return rows
    # rows without a score come last either way; equal ones stay in the stored order
    score = listing.score[rows] if query.order == "lowest" else -listing.score[rows]
    return rows[np.argsort(np.where(np.isnan(score), np.inf, score), kind="stable")]


def _objects(index: Index, query: Query) -> Flags:
    objects = index.listings["objects"]
    found = _in_range(objects.score, query) & _verdict(index, query)
    if query.kind:
        found &= objects.kind.equal(query.kind)
    if query.text:
        found &= objects.matching(query.text) | objects.name.matching(query.text)
    return found


def _pictures(index: Index, query: Query) -> Flags:
    pictures, objects = index.listings["pictures"], index.listings["objects"]
    found = np.zeros(len(pictures), bool)
    asks_for_objects = bool(query.kind or query.verdict) or not np.isnan([query.low, query.high]).all()
    if asks_for_objects or query.text:  # an object's id holds that of its picture
        parents = objects.parent[_objects(index, query)]
        found[parents[parents >= 0]] = True
    if not asks_for_objects:
        found |= pictures.matching(query.text) if query.text else True
    return found


def _kind(index: Index, query: Query) -> Flags:
    listing = index.listings[query.view]
    has_kinds = bool(query.kind) and query.view != "faces"
    return listing.kind.equal(query.kind) if has_kinds else np.ones(len(listing), bool)


def _in_range(score: npt.NDArray[np.float64], query: Query) -> Flags:
    found = np.ones(len(score), bool)
    with np.errstate(invalid="ignore"):
        if not np.isnan(query.low):
            found &= score >= query.low
        if not np.isnan(query.high):
            found &= score <= query.high
    return found


def _verdict(index: Index, query: Query) -> Flags:
    if not query.verdict:
        return np.ones(len(index.verdicts.codes), bool)
    if query.verdict == "reject":
        return ~(index.verdicts.equal("keep") | index.verdicts.equal("undecided"))
    return index.verdicts.equal(query.verdict)


def _of_source(index: Index, query: Query) -> Flags:
    parents = index.listings[query.view].parent
    if not query.source:
        return np.ones(len(parents), bool)
    if not len(index.sources.codes):
        return np.zeros(len(parents), bool)
    found: Flags = (parents >= 0) & index.sources.equal(query.source)[parents]
    return found
