"""What a source is: a plan of units, and for each unit a stream of records. Nothing here knows a format.

A source reads what its format says and judges only what needs the format (duplicates, crowds, unknown categories);
`refloom.ingest.admission` judges what all formats share (bytes, boxes, masks, captions).
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from refloom.ingest import jsons
from refloom.schemas.errors import Failed, Rejected

Problem = Rejected | Failed


@dataclass(slots=True)
class Annotation:
    """One annotation as its source has it.

    Attributes:
        object_id: id of the object it becomes.
        segmentation: the source's polygons or RLE, or a Mask; None if it has none.
        bbox: the source's box as it stands in the json; None if it has none.
        box_is_xyxy: how to read `bbox`; COCO's xywh otherwise.
        box_px_short: what the source's width and height lack against the covered pixels (SA-1B: 1).
        area: the source's area as it stands in the json; None if it has none.
        declared_size: (width, height) that this one is in, where its record is not the picture's only one.
        needs_mask, needs_box: whether the lack of one is a defect; a box that is not needed comes from the mask.
        source_fields: what else the source says of it, kept for exports.
        problem: what the source itself found wrong.
        occurrence: 0 for the first annotation of this id.
    """

    object_id: str
    segmentation: Any = None
    bbox: Any = None
    box_is_xyxy: bool = False
    box_px_short: float = 0.0
    area: Any = None
    declared_size: tuple[Any, Any] | None = None
    kind: str = "object"
    category: str | None = None
    phrase: str | None = None
    track_id: str | None = None
    confidence: Any = None
    predicted_iou: Any = None
    stability_score: Any = None
    needs_mask: bool = True
    needs_box: bool = True
    source_fields: dict[str, Any] = field(default_factory=dict)
    problem: Problem | None = None
    occurrence: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """Where a picture's bytes lie in its source: a whole file, or a stretch of a tar."""

    root: str
    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The larger image that a picture was cut out of.

    Attributes:
        sha256: of the bytes of the larger one, hexadecimal.
        box: x0, y0, x1, y1, whole pixels of the larger one.
    """

    sha256: str
    box: tuple[int, int, int, int]


@dataclass(slots=True)
class Picture:
    """One picture as its source has it.

    Attributes:
        image_id: id it gets.
        file: name in the source, relative.
        load: gives its bytes; raises Rejected or Failed. It may fill `declared_size`, `annotations` and `cut`, which
            are read only after it.
        link: where the bytes lie, known once they are loaded; called only under --link.
        declared_size: (width, height) that the annotations are in; None if the source does not say.
        captions: (id, text as it stands in the json).
        whole: the picture itself is a subject, of this category and phrase.
        cut: what it was cut out of, where the source holds it as a part of a larger one.
        problem: what the source itself found wrong.
        occurrence: 0 for the first picture of this id.
    """

    image_id: str
    file: str
    load: Callable[[], bytes]
    link: Callable[[], Link] | None = None
    declared_size: tuple[Any, Any] | None = None
    original_size: tuple[int, int] | None = None
    captions: list[tuple[str, Any]] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    whole: bool = False
    whole_category: str | None = None
    whole_phrase: str | None = None
    cut: Cut | None = None
    split: str | None = None
    video_id: str | None = None
    frame_index: int | None = None
    time_s: float | None = None
    license: str | None = None
    source_url: str | None = None
    faces_blurred: bool = False
    problem: Problem | None = None
    occurrence: int = 0


@dataclass(slots=True)
class Track:
    """The end of one instance's annotations in a unit; kept if any of them was."""

    track_id: str
    problem: Problem | None = None
    occurrence: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """An instruction as its source has it.

    Attributes:
        text: may name references by number.
        references: image ids in the order that the text counts them.
    """

    text: str
    references: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """A number by which somebody judged a record.

    Attributes:
        name: what was judged.
        value: in the scale of whoever gave it.
        model: who gave it.
    """

    name: str
    value: float
    model: str


@dataclass(slots=True)
class Group:
    """A group that the source itself makes.

    Attributes:
        group_id, kind: its id; folder or record.
        members: image ids, in the source's order.
        target: the member that the source makes of the others.
        texts: the source's texts for it.
        instructions, scores: what it asks for the target with, and how good it calls the record.
        source_fields: what else it says, kept for exports.
        problem: what the source itself found wrong.
    """

    group_id: str
    kind: str
    members: list[str]
    target: str | None = None
    texts: list[str] | None = None
    problem: Problem | None = None
    instructions: list[Asked] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    source_fields: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """A row of `source_groups`."""
        return {
            "group_id": self.group_id,
            "kind": self.kind,
            "members": self.members,
            "target": self.target,
            "texts": self.texts,
            "instructions": [{"text": one.text, "references": list(one.references)} for one in self.instructions]
            or None,
            "scores": [asdict(score) for score in self.scores] or None,
            "source_json": jsons.compact(self.source_fields) if self.source_fields else None,
        }


@dataclass(slots=True)
class Item:
    """An item without a row of its own: a video, an annotation of an unknown image, a tar member that is no file ...

    It is kept if `problem` is None.
    """

    kind: str
    item_id: str
    problem: Problem | None = None
    file: str | None = None
    occurrence: int = 0


Record = Picture | Track | Group | Item


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """One unit of work.

    Attributes:
        name: unit name, `[a-z0-9._-]{1,80}`.
        task: what `Source.read` needs to know, small.
        payload: the slice of an annotation file that it needs, json text; empty where it reads its own.
        items: item kind to number of items that the plan found; kinds that only reading shows are absent.
        size: bytes of the input, as far as the plan knows.
        identity: json that changes when the input changes.
        image_ids, group_ids, video_ids: the ids it will hold, for the check against other keys.
    """

    name: str
    task: dict[str, Any]
    items: dict[str, int]
    size: int
    identity: dict[str, Any]
    image_ids: tuple[str, ...] = ()
    group_ids: tuple[str, ...] = ()
    video_ids: tuple[str, ...] = ()
    payload: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """All units of one ingest.

    Attributes:
        key: names the ingest; unit names begin with it.
        units: in order.
        config: settings that the output depends on, json.
        notes: what a person should know, e.g. files that were passed over.
    """

    key: str
    units: tuple[UnitPlan, ...]
    config: dict[str, Any]
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """A kind of input. Instances travel to workers, so they hold plain values only."""

    @property
    def kind(self) -> str:
        """The value of the `source` column."""
        ...

    @property
    def name(self) -> str:
        """What a person calls the set, `--name`; the kind by default."""
        ...

    def plans(self) -> list[Plan]:
        """The work to do, one plan per key (one per tar or annotation file). Runs on the driver."""
        ...

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """The records of one unit, in plan order. Runs on a worker."""
        ...

    def roots(self) -> dict[str, str]:
        """Root name to folder or URL, for --link."""
        ...
