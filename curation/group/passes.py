"""The passes of match.

gather   per part: faces and tracks by their faces, kept objects by their embeddings
...      the neighbour search over each of the two
link     one task for each search: its pairs in batches of whole connected parts
join     per batch: groups, out of the vectors and columns of its rows alone
settle   one task: which groups say something new, and the unit of each
write    per unit: its rows
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.curation.dedup.columns import source_groups
from refloom.curation.group import identities, looks
from refloom.curation.group.identities import Nodes, Portraits, nodes_of, read_portraits
from refloom.curation.group.looks import Sights, usable
from refloom.curation.group.matches import Row, lead, new_groups, write_matches
from refloom.curation.neighbours.clusters import components
from refloom.curation.neighbours.pairs import Floats, Indices, Pairs
from refloom.curation.neighbours.passes import Search, begin, found, marks_of, search_passes
from refloom.curation.neighbours.search import Bounds
from refloom.curation.neighbours.vectors import vectors_of
from refloom.curation.passes.passes import Pass, PlannedTask, StageContext
from refloom.curation.passes.scratch import TaskResult, part_name, part_of, row_number
from refloom.ingest.engine.watch import Watch
from refloom.schemas.ids import image_of

_FACES, _LOOKS = "faces", "looks"
_LINK = np.dtype([("i", "<i8"), ("j", "<i8"), ("cosine", "<f4")])
"""A pair of rows of a batch."""


def _searches(context: StageContext) -> list[Search]:
    searches = []
    if (lower := _same_identity(context)) is not None:
        config = context.config.identities
        bounds = Bounds(lower=lower, most=identities.MOST_NEIGHBOURS)
        searches.append(Search(_FACES, bounds, config.near_cells, config.exact_below))
    if (alike := _alike(context)) is not None:
        own = context.config.looks
        bounds = Bounds(lower=alike[0], upper=alike[1], most=looks.MOST_NEIGHBOURS)
        searches.append(Search(_LOOKS, bounds, own.near_cells, own.exact_below))
    return searches


def _same_identity(context: StageContext) -> float | None:
    """The cosine of one person; None without a face model."""
    threshold = context.threshold("face", "same_identity")
    return None if threshold is None else context.config.identities.lower(threshold)


def _score_bounds(context: StageContext) -> tuple[float, float] | None:
    """Scores of the detector from which a face counts for nothing, and fully; None where its model does not say."""
    low, high = context.threshold("face", "min_det_score"), context.mark("face", "sure_det_score")
    return None if low is None or high is None else (low, high)


def _alike(context: StageContext) -> tuple[float, float] | None:
    """The bounds of the cosine of one thing; None without an embedding model."""
    similar, near_copy = (context.threshold("image_embedding", name) for name in ("similar", "near_copy"))
    if similar is None or near_copy is None:
        return None
    return context.config.looks.lower(similar, near_copy), context.config.looks.upper(near_copy)


def _gather(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    part, units = args["part"], args["units"]
    unit_of = {
        name: unit
        for unit in units
        for name in context.dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()
    }
    result: TaskResult = {}
    if (lower := _same_identity(context)) is not None:
        result |= _gather_faces(context, part, units, unit_of, lower)
    if _alike(context) is not None:
        result |= _gather_looks(context, part, units, unit_of)
    watch.advance(args["rows"])
    return result


def _gather_faces(
    context: StageContext, part: int, units: list[str], unit_of: dict[str, str], lower: float
) -> TaskResult:
    scratch = context.scratch
    faces = read_portraits(context.dataset, units, _score_bounds(context))
    nodes = nodes_of(faces, context.config.identities, lower)
    scratch.write_table(
        f"{_FACES}/rows/{part_name(part)}.arrow",
        pa.table(
            {
                "name": pa.array(nodes.names, pa.string()),
                "faces": pa.array(nodes.faces, pa.list_(pa.int64())),
                "places": pa.array([sorted(images) for images in nodes.places], pa.list_(pa.string())),
            }
        ),
    )
    scratch.write_table(
        f"{_FACES}/portraits/{part_name(part)}.arrow",
        pa.table(
            {
                "id": pa.array(faces.ids, pa.string()),
                "member": pa.array(faces.members, pa.string()),
                "image": pa.array(faces.images, pa.string()),
                "video": pa.array(faces.videos, pa.string()),
                "track": pa.array(faces.tracks, pa.string()),
                "side": pa.array(faces.sides, pa.float64()),
                "quality": pa.array(faces.quality, pa.float64()),
                "trust": pa.array(faces.trust, pa.float64()),
                "area": pa.array(faces.areas, pa.float64()),
                "unit": pa.array([unit_of[name] for name in faces.images], pa.string()),
            }
        ),
    )
    scratch.write_array(f"{_FACES}/portraits/{part_name(part)}.bin", faces.vectors)
    return dict(begin(scratch, _FACES, part, [(marks_of(nodes.names, part=part), nodes.vectors)]))


def _gather_looks(context: StageContext, part: int, units: list[str], unit_of: dict[str, str]) -> TaskResult:
    sights = looks.read_columns(context.dataset, units)
    sights = sights.take(usable(sights, context.config.looks))
    row = {name: number for number, name in enumerate(sights.ids)}
    places, kinds = sights.places(), sights.kinds()
    rows: list[int] = []

    def batches() -> Iterator[tuple[npt.NDArray[Any], Floats]]:
        for names, vectors in vectors_of(context.dataset, "embeddings", "object_id", units, row):
            here = [row[name] for name in names]
            apart, kind = [places[sight] for sight in here], [kinds[sight] for sight in here]
            yield marks_of(names, apart, kind, part=part, first=len(rows)), vectors
            rows.extend(here)

    result = begin(context.scratch, _LOOKS, part, batches())
    sights = sights.take(rows)
    context.scratch.write_table(
        f"{_LOOKS}/rows/{part_name(part)}.arrow",
        pa.table(
            {
                "id": pa.array(sights.ids, pa.string()),
                "image": pa.array(sights.images, pa.string()),
                "video": pa.array(sights.videos, pa.string()),
                "category": pa.array(sights.categories, pa.string()),
                "cut_out": pa.array(sights.cut_outs, pa.bool_()),
                "side": pa.array(sights.sides, pa.float64()),
                "quality": pa.array(sights.quality, pa.float64()),
                "area": pa.array(sights.areas, pa.float64()),
                "unit": pa.array([unit_of[name] for name in sights.images], pa.string()),
            }
        ),
    )
    return dict(result)


# -- groups ------------------------------------------------------------------------------------------------------


def _plan_link(context: StageContext) -> list[PlannedTask]:
    return [PlannedTask(name, {"search": name}) for name in sorted(context.scratch.done("centroids"))]


def _link(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    """Holds the search's pairs. A connected part stays whole, since groups are joined inside one."""
    search = next(search for search in _searches(context) if search.name == args["search"])
    rows, pairs, width = found(context, search)
    labels = components(len(rows), pairs)
    order = np.argsort(labels[pairs.i], kind="stable")
    _, component, sizes = np.unique(labels[pairs.i][order], return_inverse=True, return_counts=True)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)[:-1]])
    batch = (before // context.config.grain.batch_pairs)[component]
    batches: list[int] = []
    for here in np.split(order, np.flatnonzero(np.diff(batch)) + 1) if len(order) else []:
        some = Pairs(pairs.i[here], pairs.j[here], pairs.cosine[here])
        touched, places = np.unique(np.concatenate([some.i, some.j]), return_inverse=True)
        links = np.zeros(len(some), _LINK)
        links["i"], links["j"], links["cosine"] = places[: len(some)], places[len(some) :], some.cosine
        folder = f"{search.name}/linked/{len(batches):06d}"
        context.scratch.write_array(f"{folder}/rows.bin", rows[touched])
        context.scratch.write_array(f"{folder}/pairs.bin", links)
        batches.append(len(some))
    watch.advance(len(pairs))
    return {"batches": batches, "width": width}


def _plan_join(context: StageContext) -> list[PlannedTask]:
    return [
        PlannedTask(f"{name}-{number:06d}", {"search": name, "number": number, "width": result["width"]}, weight)
        for name, result in context.scratch.results("link").items()
        for number, weight in enumerate(result["batches"])
    ]


def _join(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    """Holds a batch's pairs, and vectors and columns of the rows in them."""
    name, width = args["search"], args["width"]
    folder = f"{name}/linked/{args['number']:06d}"
    rows = context.scratch.array(f"{folder}/rows.bin", np.int64).all()
    links = context.scratch.array(f"{folder}/pairs.bin", _LINK).all()
    table = context.scratch.take(f"{name}/rows", rows)
    # groups break ties by row: rows go by name
    order = np.array(pa.compute.sort_indices(table["name" if name == _FACES else "id"]), np.int64)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    i, j = place[links["i"]], place[links["j"]]
    pairs = Pairs(np.minimum(i, j), np.maximum(i, j), links["cosine"]).sorted()
    vectors = context.scratch.vectors(f"{name}/vectors", rows[order], width)
    joined = _join_faces if name == _FACES else _join_looks
    groups = joined(context, rows[order], table.take(pa.array(order)), vectors, pairs)
    context.scratch.write_json(f"{name}/groups/{args['number']:06d}.json", groups)
    watch.advance(len(pairs))
    return {"groups": len(groups)}


def _join_faces(context: StageContext, rows: Indices, table: pa.Table, vectors: Floats, pairs: Pairs) -> list[Row]:
    scratch, lower = context.scratch, _same_identity(context)
    if lower is None:
        raise ValueError("there is no face model")
    numbers = [
        row_number(part, np.array(faces, np.int64))
        for part, faces in zip(part_of(rows).tolist(), table["faces"].to_pylist(), strict=True)
    ]
    every = np.concatenate(numbers)
    ends = np.cumsum([len(faces) for faces in numbers]).tolist()
    held = scratch.take(f"{_FACES}/portraits", every)
    faces = Portraits(
        held["id"].to_pylist(),
        held["member"].to_pylist(),
        held["image"].to_pylist(),
        held["video"].to_pylist(),
        held["track"].to_pylist(),
        held["side"].to_numpy(),
        held["quality"].to_numpy(),
        held["trust"].to_numpy(),
        held["area"].to_numpy(),
        _face_vectors(context, every),
        {},
    )
    nodes = Nodes(
        table["name"].to_pylist(),
        [list(range(end - len(own), end)) for end, own in zip(ends, numbers, strict=True)],
        vectors,
        [frozenset(images) for images in table["places"].to_pylist()],
    )
    unit_of: dict[str | None, str] = dict(zip(faces.members, held["unit"].to_pylist(), strict=True))
    return [lead(row, unit_of) for row in identities.joined(faces, nodes, pairs, context.config.identities, lower)]


def _face_vectors(context: StageContext, rows: Indices) -> Floats:
    width = context.scratch.result("link", _FACES)["width"]
    order, back = np.unique(rows, return_inverse=True)
    vectors: Floats = context.scratch.vectors(f"{_FACES}/portraits", order, width)[back]
    return vectors


def _join_looks(context: StageContext, rows: Indices, table: pa.Table, vectors: Floats, pairs: Pairs) -> list[Row]:
    bounds = _alike(context)
    if bounds is None:
        raise ValueError("there is no embedding model")
    sights = Sights(
        table["id"].to_pylist(),
        table["image"].to_pylist(),
        table["video"].to_pylist(),
        table["category"].to_pylist(),
        table["cut_out"].to_numpy(),
        table["side"].to_numpy(),
        table["quality"].to_numpy(),
        table["area"].to_numpy(),
        vectors,
    )
    unit_of: dict[str | None, str] = dict(zip(sights.ids, table["unit"].to_pylist(), strict=True))
    return [lead(row, unit_of) for row in looks.joined(sights, pairs, context.config.looks, *bounds)]


# -- rows --------------------------------------------------------------------------------------------------------


def _plan_settle(context: StageContext) -> list[PlannedTask]:
    return [PlannedTask("all")]


def _settle(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    """Holds all groups."""
    scratch = context.scratch
    groups: list[Row] = []
    for name in (_FACES, _LOOKS):
        batches = len(scratch.result("link", name)["batches"]) if name in scratch.done("link") else 0
        rows = [row for number in range(batches) for row in scratch.read_json(f"{name}/groups/{number:06d}.json")]
        groups += sorted(rows, key=lambda row: str(row["group_id"]))
    images = {image_of(member) for row in groups for member in row["members"]}
    by_unit: dict[str, list[Row]] = defaultdict(list)
    for row in new_groups(groups, source_groups(context.dataset, images)):
        by_unit[row.pop("unit")].append(row)
    for unit, rows in by_unit.items():
        scratch.write_json(f"matches/{unit}.json", rows)
    watch.advance(len(groups))
    return {"units": sorted(by_unit)}


def _plan_write(context: StageContext) -> list[PlannedTask]:
    held = set(context.scratch.result("settle", "all")["units"])
    return [
        PlannedTask(order.name, {"unit": order.name, "holds": order.name in held}, order.weight)
        for order in context.planned_tasks_of_units()
    ]


def _write(context: StageContext, args: dict[str, Any], watch: Watch) -> None:
    rows = context.scratch.read_json(f"matches/{args['unit']}.json") if args["holds"] else []
    with context.unit(args["unit"], watch) as out:
        write_matches(rows, out)
    watch.advance(len(rows))


PASSES = (
    Pass("gather", "row", StageContext.planned_tasks, _gather),
    *search_passes(_searches, ("gather",)),
    Pass("link", "pair", _plan_link, _link),
    Pass("join", "pair", _plan_join, _join),
    Pass("settle", "group", _plan_settle, _settle),
    Pass("write", "group", _plan_write, _write),
)
