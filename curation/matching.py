"""Groups over the whole dataset: one person by faces, one thing by looks. Each lies in the unit of its first member."""

from collections import defaultdict
from typing import Any

from curation.config import Curation
from curation.identities import identity_groups, read_portraits
from curation.looks import look_groups, read_sights
from schemas.dataset import Dataset
from schemas.ids import image_of
from schemas.unit import UnitWriter

VERSION = 2

Row = dict[str, Any]


def match_dataset(
    dataset: Dataset, config: Curation, same_identity: float | None, looks: tuple[float, float] | None
) -> dict[str, list[Row]]:
    """Unit to rows of `matches`.

    Args:
        dataset: selected from.
        config: settings.
        same_identity: the face model's threshold; None without a face model.
        looks: the embedding model's `similar` and `near_copy`; None without one.
    """
    rows: list[Row] = []
    if same_identity is not None:
        rows += identity_groups(read_portraits(dataset), config.identities, same_identity)
    if looks is not None:
        rows += look_groups(read_sights(dataset), config.looks, *looks)
    rows = _new(rows, dataset)
    wanted = {image_of(member) for row in rows for member in row["members"]}
    unit_of = {
        image_id: unit
        for unit in dataset.units()
        for image_id in dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()
        if image_id in wanted
    }
    by_unit: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        units = list(dict.fromkeys(unit_of[image_of(member)] for member in row["members"]))
        by_unit[units[0]].append(row | {"units": sorted(units[1:]) or None})
    return dict(by_unit)


def _new(rows: list[Row], dataset: Dataset) -> list[Row]:
    """Groups that are not wholly inside a group of the source, which says the same already."""
    groups_of: dict[str, set[str]] = defaultdict(set)
    for row in dataset.read("source_groups", ["group_id", "members"]).to_pylist():
        for member in row["members"]:
            groups_of[member].add(row["group_id"])
    return [row for row in rows if not set.intersection(*(groups_of[image_of(member)] for member in row["members"]))]


def write_matches(rows: list[Row], out: UnitWriter) -> None:
    """The rows of one unit."""
    out.expect("group", len(rows))
    for row in rows:
        out.add("matches", row)
    out.keep("group", len(rows))
