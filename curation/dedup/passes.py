"""The passes of dedup.

gather      per part: columns of its pictures; the evaluation sets, as one part more
pictures    one task: which pictures are copies, by bytes and by hash
embed       per part: vectors and columns of the objects on pictures that stay, and of whole pictures once more
...         the neighbour search over each of the two
propose     one task: which pairs their pixels are asked about
look        per batch of these: what their pixels say
settle      one task: which objects are copies, and which pictures go with them, from pairs alone
meet        per part that is asked: the objects on pictures of which others are copies
write       per unit: rows of its pictures, of its objects, and of what is on a picture that goes
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from refloom.curation.dedup.columns import pictures_of, read_columns, source_groups
from refloom.curation.dedup.evaluationsets import read_evaluation
from refloom.curation.dedup.images import image_copies, meeting
from refloom.curation.dedup.objects import (
    EVALUATION,
    MOST_COPIES,
    candidates_of,
    judges,
    object_copies,
)
from refloom.curation.dedup.rows import Gone, Seen, seen, write_duplicates
from refloom.curation.dedup.secondlook import look, plan_look, plan_propose, proposals, propose, says
from refloom.curation.dedup.settings import Copy
from refloom.curation.neighbours.pairs import Floats
from refloom.curation.neighbours.passes import Search, begin, marks_of, search_passes
from refloom.curation.neighbours.search import Bounds
from refloom.curation.neighbours.vectors import matrix, vectors_of
from refloom.curation.passes.passes import Pass, PlannedTask, StageContext
from refloom.curation.passes.scratch import Scratch, TaskResult, part_name, part_of
from refloom.ingest.engine.watch import Watch

_SEARCH, _WHOLES = "objects", "wholes"
_MOST_PROPOSED = 8
"""Pairs of one whole picture that are kept, the strongest: each is decoded."""
_COPIES = pa.schema(
    {
        "id": pa.string(),
        "of": pa.string(),
        "of_part": pa.int64(),
        "by": pa.string(),
        "similarity": pa.float64(),
    }
)
"""What is a copy of what; the part of a picture that stays, -1 for one of an evaluation set or for objects."""
_SEEN = pa.schema(
    {"image_id": pa.string(), "object_id": pa.string(), "kind": pa.string(), "box": pa.list_(pa.float32(), 4)}
)

Copies = dict[str, tuple[Copy, int]]
"""Id to what it is a copy of, and the part of that."""


def _searches(context: StageContext) -> list[Search]:
    config, near_copy = context.config.dedup, context.threshold("image_embedding", "near_copy")
    if near_copy is None or "embedding" not in config.by:
        return []
    lower = config.min_cosine or near_copy
    bounds = {_SEARCH: Bounds(lower=lower, most=MOST_COPIES)}
    if config.min_agreement is not None and config.min_proposed_cosine < lower:
        bounds[_WHOLES] = Bounds(lower=config.min_proposed_cosine, most=_MOST_PROPOSED)
    return [Search(name, one, config.near_cells, config.exact_below) for name, one in bounds.items()]


# -- pictures ----------------------------------------------------------------------------------------------------


def _plan_gather(context: StageContext) -> list[PlannedTask]:
    more = [PlannedTask("evaluation", {"part": len(context.parts)})] if context.config.dedup.evaluation else []
    return context.planned_tasks() + more


def _gather(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    part = args["part"]
    if "units" in args:
        pictures, _ = read_columns(context.dataset, args["units"])
        context.scratch.write_table(f"pictures/{part_name(part)}.arrow", pictures.table())
        watch.advance(len(pictures))
        return {"part": part, "judged": False}
    searched = bool(_searches(context))
    evaluation = read_evaluation(
        context.config.dedup.evaluation, context.model("image_embedding") if searched else None
    )
    if evaluation is None:
        raise ValueError("no evaluation set is given")
    context.scratch.write_table(f"pictures/{part_name(part)}.arrow", evaluation.pictures.table())
    watch.advance(len(evaluation.pictures))
    if not len(evaluation.ids):
        return {"part": part, "judged": True}
    names, places = [EVALUATION + name for name in evaluation.ids], [EVALUATION] * len(evaluation.ids)
    context.scratch.write_table(f"{_SEARCH}/rows/{part_name(part)}.arrow", judges(evaluation.ids).table())
    batch = marks_of(names, places, part=part), evaluation.vectors
    return {"part": part, "judged": True} | begin(context.scratch, _SEARCH, part, [batch])


def _plan_pictures(context: StageContext) -> list[PlannedTask]:
    rows = sum(part.rows for part in context.parts)
    return [PlannedTask("all", {"parts": len(context.parts)}, rows)]


def _pictures(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    """Holds about 100 bytes a picture, and more of those that can have a copy."""
    scratch, config = context.scratch, context.config.dedup
    parts = range(args["parts"])
    numbers = [*([len(parts)] if config.evaluation else []), *parts]
    tables = [scratch.read_table(f"pictures/{part_name(part)}.arrow") for part in numbers]
    part = np.repeat(np.array(numbers, np.int64), [table.num_rows for table in tables])
    judged = tables[0].num_rows if config.evaluation else 0
    every = pa.concat_tables(tables)
    rows = np.flatnonzero(meeting(every["sha256"], every["phash"].to_numpy(), every["contrast"].to_numpy(), config))
    some, part = every.take(pa.array(rows)), part[rows]
    pictures = pictures_of(some, source_groups(context.dataset, set(some["image_id"].to_pylist())))
    judged = int((rows < judged).sum())
    part_of_id = dict(zip(pictures.ids[judged:], part[judged:].tolist(), strict=True))
    by_part: dict[int, Copies] = defaultdict(dict)
    for row, copy in image_copies(pictures, judged, config).items():
        of_part = -1 if copy.by == "leak" else part_of_id[copy.of]
        by_part[int(part[row])][pictures.ids[row]] = copy, of_part
    for number in parts:
        _write_copies(scratch, "copies", number, by_part[number])
    watch.advance(every.num_rows)
    return {"copies": sum(map(len, by_part.values()))}


# -- objects -----------------------------------------------------------------------------------------------------


def _plan_embed(context: StageContext) -> list[PlannedTask]:
    return context.planned_tasks() if _searches(context) else []


def _embed(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    scratch, part = context.scratch, args["part"]
    pictures, things = read_columns(context.dataset, args["units"])
    gone = set(_read_copies(scratch, "copies", part))
    stays = np.array([name not in gone for name in pictures.ids], bool)
    row = {things.ids[thing]: int(thing) for thing in np.flatnonzero(stays[things.images])}
    places = pictures.places()
    unit_of = {
        name: unit
        for unit in args["units"]
        for name in context.dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()
    }
    result: TaskResult = {}
    for search in _searches(context):
        wanted = (
            row if search.name == _SEARCH else {name: at for name, at in row.items() if things.kinds[at] == "whole"}
        )
        rows: list[int] = []

        def batches(
            wanted: dict[str, int] = wanted, rows: list[int] = rows
        ) -> Iterator[tuple[npt.NDArray[Any], Floats]]:
            for names, vectors in vectors_of(context.dataset, "embeddings", "object_id", args["units"], wanted):
                here = [wanted[name] for name in names]
                apart = [places[things.images[thing]] for thing in here]
                yield marks_of(names, apart, part=part, first=len(rows)), vectors
                rows.extend(here)
                watch.advance(len(here))

        result |= begin(scratch, search.name, part, batches())
        found_here = candidates_of(pictures, things, np.array(rows, np.int64), unit_of)
        scratch.write_table(f"{search.name}/rows/{part_name(part)}.arrow", found_here.table())
    return result


def _propose(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    return propose(context, _searches, watch)


def _plan_settle(context: StageContext) -> list[PlannedTask]:
    return [PlannedTask("all", {"parts": len(context.parts)})]


def _settle(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    """Holds the search's pairs, columns of the rows in them, and the pictures that go."""
    scratch, parts = context.scratch, range(args["parts"])
    images: dict[int, Copies] = {part: _read_copies(scratch, "copies", part) for part in parts}
    objects: dict[int, Copies] = defaultdict(dict)
    if searches := _searches(context):
        rows, candidates, pairs = proposals(context, searches)
        part_of_id = dict(zip(candidates.ids, part_of(rows).tolist(), strict=True))
        part_of_image = dict(zip(candidates.images, part_of(rows).tolist(), strict=True))
        told = says(context, candidates, pairs)
        copied, with_wholes = object_copies(candidates, pairs, told, context.config.dedup, searches[0].bounds.lower)
        for name, copy in copied.items():
            objects[part_of_id[name]][name] = copy, -1
        for name, copy in with_wholes.items():
            images[part_of_image[name]][name] = copy, -1 if copy.by == "leak" else part_of_image[copy.of]
        watch.advance(len(pairs))
    asked: dict[int, set[str]] = defaultdict(set)
    for part in parts:
        _write_copies(scratch, "images", part, images[part])
        _write_copies(scratch, "copied", part, objects[part])
        for copy, of_part in images[part].values():
            if of_part >= 0:
                asked[of_part].add(copy.of)
    for part, names in asked.items():
        scratch.write_json(f"asked/{part_name(part)}.json", sorted(names))
    return {"asked": sorted(asked)}


def _plan_meet(context: StageContext) -> list[PlannedTask]:
    asked = set(context.scratch.result("settle", "all")["asked"])
    return [order for order in context.planned_tasks() if order.args["part"] in asked]


def _meet(context: StageContext, args: dict[str, Any], watch: Watch) -> TaskResult:
    asked = set(context.scratch.read_json(f"asked/{part_name(args['part'])}.json"))
    there = _seen(context, args["units"], asked)
    context.scratch.write_table(f"met/{part_name(args['part'])}.arrow", _seen_table(there))
    watch.advance(len(asked))
    return {"pictures": len(there)}


def _seen(context: StageContext, units: Iterable[str], images: set[str]) -> dict[str, Seen]:
    """The objects on some pictures of some units, by picture."""
    there: dict[str, Seen] = {}
    for unit in units:
        pictures, things = read_columns(context.dataset, [unit])
        places = [place for place, name in enumerate(pictures.ids) if name in images]
        there |= {pictures.ids[place]: on for place, on in seen(things, places).items()}
    return there


# -- rows --------------------------------------------------------------------------------------------------------


def _write(context: StageContext, args: dict[str, Any], watch: Watch) -> None:
    dataset, unit = context.dataset, args["unit"]
    images = dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()
    objects = dataset.read("objects", ["object_id"], unit=unit)["object_id"].to_pylist()
    gone = _gone(context, args["part"], unit, images)
    with context.unit(unit, watch) as out:
        write_duplicates(images, objects, gone, out)
    watch.advance(len(images))


def _gone(context: StageContext, part: int, unit: str, names: list[str]) -> Gone:
    """What a unit has to know of copies: its own, and where they lead, from part to part."""
    scratch, own = context.scratch, set(names)
    images = {name: copy for name, copy in _read_copies(scratch, "images", part).items() if name in own}
    objects = {name: copy for name, (copy, _) in _read_copies(scratch, "copied", part).items()}
    on = _seen(context, [unit], set(images)) if images else {}
    ahead: Copies = images
    while ahead:
        asked: dict[int, set[str]] = defaultdict(set)
        for copy, of_part in ahead.values():
            if of_part >= 0:
                asked[of_part].add(copy.of)
        ahead = {}
        for of_part, there in asked.items():
            on |= _read_seen(scratch, of_part, there)
            copied = _read_copies(scratch, "copied", of_part)
            things = [name for image in there & on.keys() for name in on[image].ids]
            objects |= {name: copied[name][0] for name in things if name in copied}
            further = _read_copies(scratch, "images", of_part)
            ahead |= {name: further[name] for name in there if name in further}
        images |= ahead
    return Gone({name: copy for name, (copy, _) in images.items()}, objects, on)


# -- files -------------------------------------------------------------------------------------------------------


def _write_copies(scratch: Scratch, what: str, part: int, copies: Copies) -> None:
    rows = [
        {"id": name, "of": copy.of, "of_part": of_part, "by": copy.by, "similarity": copy.similarity}
        for name, (copy, of_part) in sorted(copies.items())
    ]
    scratch.write_table(f"{what}/{part_name(part)}.arrow", pa.Table.from_pylist(rows, _COPIES))


def _read_copies(scratch: Scratch, what: str, part: int) -> Copies:
    rows = scratch.read_table(f"{what}/{part_name(part)}.arrow").to_pylist()
    return {row["id"]: (Copy(row["of"], row["by"], row["similarity"]), row["of_part"]) for row in rows}


def _seen_table(there: Mapping[str, Seen]) -> pa.Table:
    rows = [
        {"image_id": image, "object_id": name, "kind": kind, "box": box}
        for image, on in there.items()
        for name, kind, box in zip(on.ids, on.kinds, on.boxes.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, _SEEN)


def _read_seen(scratch: Scratch, part: int, images: set[str]) -> dict[str, Seen]:
    table = scratch.read_table(f"met/{part_name(part)}.arrow")
    table = table.filter(pc.is_in(table["image_id"], value_set=pa.array(sorted(images), pa.string())))
    names = table["image_id"].to_pylist()
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows[name].append(row)
    ids, kinds, boxes = table["object_id"].to_pylist(), table["kind"].to_pylist(), matrix(table["box"])
    return {
        name: Seen([ids[row] for row in here], [kinds[row] for row in here], boxes[here]) for name, here in rows.items()
    }


PASSES = (
    Pass("gather", "picture", _plan_gather, _gather),
    Pass("pictures", "picture", _plan_pictures, _pictures),
    Pass("embed", "object", _plan_embed, _embed),
    *search_passes(_searches, ("gather", "embed")),
    Pass("propose", "pair", lambda context: plan_propose(context, _searches), _propose),
    Pass("look", "pair", plan_look, look),
    Pass("settle", "pair", _plan_settle, _settle),
    Pass("meet", "picture", _plan_meet, _meet),
    Pass("write", "picture", StageContext.planned_tasks_of_units, _write),
)
