"""Directed records that name files: which images they name, in which units these lie, and what is said of each.

A unit is a run of records with the images that no record before names, so that an image is taken once however many
records name it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from refloom.ingest import jsons
from refloom.ingest.annotationfile import texts_of
from refloom.ingest.files import PictureFile, safe_name, table_name, weigh
from refloom.ingest.naming import of_names
from refloom.ingest.source import Asked, Group, Picture, Record, Score, UnitPlan
from refloom.ingest.sources.pairs.layouts import Directed
from refloom.schemas import ids
from refloom.schemas.errors import Rejected
from refloom.schemas.storage import Folder

SOURCE = "pairs"
Numbered = tuple[int, Directed | Rejected]
"""Number of a record in its file, and the record, or what is wrong with it."""


@dataclass(slots=True)
class _Named:
    """What all records together say of one file."""

    unit: int
    captions: list[str] = field(default_factory=list)
    phrase: str | None = None
    category: str | None = None


def file_names(record: Directed, folder: Folder) -> list[str]:
    """Paths below the folder of a record's references, in order, and of its target last.

    A full path that lies in the folder, as many sets are published with, is one below it.

    Raises:
        Rejected: `bad_record` or `unsafe_path`.
    """
    root = folder.root.rstrip("/") + "/"
    names = []
    for name in (*record.references, record.target):
        is_full = folder.is_local and isinstance(name, str) and name.startswith(root)
        names.append(safe_name(name[len(root) :] if is_full else name))
    return names


def units(records: Iterable[Numbered], key: str, stem: str, folder: Folder, prefix: str, size: int) -> list[UnitPlan]:
    """Cut records into units of `size`.

    Args:
        records: of the file.
        key: begins the names of units.
        stem: of the file, for ids.
        folder: that the names of files are relative to, with `prefix` before them.
        prefix: a subfolder, or empty.
        size: records in a unit.
    """
    named: dict[str, _Named] = {}
    read = []
    for place, (number, record) in enumerate(records):
        sound, names = _with_names(record, folder)
        if isinstance(sound, Directed):
            _note(named, names, sound, place // size)
        read.append((number, sound, names))
    called = of_names(list(named), lambda name: ids.image_id(SOURCE, name))
    image_ids = {name: one.identity for name, one in zip(named, called, strict=True)}
    by_unit: dict[int, list[list[Any]]] = {}
    for name, said in named.items():
        row = [_joined(prefix, name), image_ids[name], texts_of(said.captions), said.phrase, said.category]
        by_unit.setdefault(said.unit, []).append(row)
    made = []
    for unit, start in enumerate(range(0, len(read), size)):
        rows = [
            _group(group_id(stem, number), record, [image_ids[name] for name in names])
            for number, record, names in read[start : start + size]
        ]
        made.append(_unit(f"{key}-{unit:05d}", by_unit.get(unit, []), rows, folder))
    return made


def _with_names(record: Directed | Rejected, folder: Folder) -> tuple[Directed | Rejected, list[str]]:
    """A record and the names of its files, or what is wrong with it or with one of them."""
    if isinstance(record, Rejected):
        return record, []
    try:
        return record, file_names(record, folder)
    except Rejected as problem:
        return problem, []


def _note(named: dict[str, _Named], names: list[str], record: Directed, unit: int) -> None:
    for index, name in enumerate(names):
        said = named.setdefault(name, _Named(unit))
        said.captions += record.captions[index] if index < len(record.captions) else []
        said.phrase, said.category = said.phrase or record.phrase, said.category or record.category


def _unit(name: str, pictures: list[list[Any]], groups: list[list[Any]], folder: Folder) -> UnitPlan:
    weight, digest = weigh(folder, [row[0] for row in pictures])
    captions = sum(len(row[2]) for row in pictures)
    return UnitPlan(
        name=name,
        task={},
        items={"image": len(pictures), "whole": len(pictures), "caption": captions, "group": len(groups)},
        size=weight,
        identity={"files": digest},
        image_ids=tuple(row[1] for row in pictures),
        group_ids=tuple(row[0] for row in groups),
        payload=jsons.dumps({"pictures": pictures, "groups": groups}, plain=False),
    )


def group_id(stem: str, number: int) -> str:
    """What a record is called."""
    return f"{SOURCE}/{ids.encode(stem)}#{number}"


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name


def _group(identity: str, record: Directed | Rejected, named: list[str]) -> list[Any]:
    """A row for `read`: id, what is wrong, and of a sound record its images, texts, scores and the rest."""
    if isinstance(record, Rejected):
        return [identity, [record.reason, record.detail]]
    scores = [[score.name, score.value, score.model] for score in record.scores]
    return [identity, None, named, record.instructions, scores, record.rest]


def read(unit: UnitPlan, folder: Folder, root: str) -> Iterator[Record]:
    """The images of one unit, then its records as groups.

    Args:
        unit: one of `units`.
        folder: of the files.
        root: its name, for links.
    """
    slice_ = jsons.loads(unit.payload)
    for path, identity, captions, phrase, category in slice_["pictures"]:
        file = PictureFile(folder, path, root)
        yield Picture(
            image_id=identity,
            file=table_name(path),
            load=file.load,
            link=file.linker,
            captions=[(f"{identity}#caption{number}", text) for number, text in enumerate(captions)],
            whole=True,
            whole_phrase=phrase,
            whole_category=category,
        )
    for identity, wrong, *more in slice_["groups"]:
        if wrong is not None:
            yield Group(identity, "record", [], problem=Rejected(*wrong))
            continue
        named, texts, scores, rest = more
        yield group(identity, named[:-1], named[-1], texts, [Score(*score) for score in scores], rest)


def group(
    identity: str,
    references: list[str],
    target: str | None,
    texts: list[str],
    scores: list[Score],
    rest: dict[str, Any],
) -> Group:
    """A record as a group: its references in order, and its target.

    Args:
        identity: of the record.
        references: image ids in the order that its texts count them; of a record without target, all its images.
        target: image id.
        texts: instructions.
        scores, rest: as in `Directed`.
    """
    members = [*references, target] if target is not None else references
    return Group(
        group_id=identity,
        kind="record",
        members=list(dict.fromkeys(members)),
        target=target,
        texts=texts,
        instructions=[Asked(text, tuple(references)) for text in texts] if target is not None else [],
        scores=scores,
        source_fields=rest,
    )
