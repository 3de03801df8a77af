"""What the source of a directed record says of it, carried into the record's sample: instructions and scores."""

from collections.abc import Iterable
from typing import Any

from refloom.curation.compose.samples import Draft
from refloom.schemas import ids

Row = dict[str, Any]


def by_group(source_groups: Iterable[Row]) -> dict[str, Row]:
    """Records of a source by their encoded ids.

    Args:
        source_groups: rows of that table.
    """
    return {ids.encode(row["group_id"]): row for row in source_groups if row["kind"] == "record"}


def said_of(record: Row, image_ids: list[str]) -> Row:
    """Instructions and scores of a record as its sample has them.

    A text that counts an image that is not at hand is left out, for its numbers would mean other images.

    Args:
        record: a row of `source_groups`.
        image_ids: of the sample's pictures, in order.

    Returns:
        `instructions` and `named`, the scores.
    """
    places = {image_id: place for place, image_id in enumerate(image_ids)}
    instructions = [
        {"text": one["text"], "from": "source", "references": [places[image_id] for image_id in one["references"]]}
        for one in record["instructions"] or []
        if record["target"] in places and all(image_id in places for image_id in one["references"])
    ]
    return {"instructions": instructions, "named": record["scores"] or []}


def with_record(draft: Draft, record: Row | None) -> Draft:
    """The sample of a record with what its source says of it; other samples as they are."""
    if record is None:
        return draft
    said = said_of(record, draft.image_ids)
    scores = draft.row["scores"] | {"named": said["named"]}
    return Draft(draft.row | {"scores": scores, "instructions": said["instructions"]}, draft.image_ids)
