"""The families of scores that a report shows, and the running account of their rows."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from refloom.curation.objects import float_array
from refloom.schemas import tables
from refloom.schemas.components import COMPONENTS
from refloom.schemas.dataset import Dataset
from refloom.schemas.fields import metadata_of
from refloom.viewing.report.sampling import LowestHashes

SAMPLE_ROWS = 200_000
"""Rows of a score that quantiles and histograms are made of; more are sampled."""
CANDIDATES = 50_000
"""Rows that the sheets of one kind choose from."""


@dataclass(frozen=True, slots=True)
class Family:
    """Scores of one kind of item.

    Attributes:
        name: as in the figures.
        title: for people.
        table: that holds them.
        columns: scores, in the order of the page.
        log: those that spread over orders of magnitude.
        docs: of columns that are made here and are in no schema.
    """

    name: str
    title: str
    table: str
    columns: tuple[str, ...]
    log: frozenset[str] = frozenset()
    docs: dict[str, str] = field(default_factory=dict)

    def doc(self, column: str) -> dict[str, str]:
        """Doc, unit, range and model of a column."""
        if column in self.docs:
            return {"doc": self.docs[column]}
        schema = tables.TABLES[self.table].schema
        if column in schema.names:
            return metadata_of(schema.field(column))
        return metadata_of(schema.field("scores").type.field(column))


_OBJECT_LOG = frozenset({"area_share", "short_side_px", "aspect"})

FAMILIES: tuple[Family, ...] = (
    Family(
        "objects",
        "Objects",
        "object_scores",
        ("quality", *COMPONENTS.own, "phrase_cosine"),
        _OBJECT_LOG,
    ),
    Family(
        "wholes",
        "Whole pictures and faces as objects",
        "object_scores",
        ("quality", "short_side_px", "aspect", "sharpness", "contrast", "exposure"),
        _OBJECT_LOG,
    ),
    Family(
        "sizes",
        "Sizes of pictures",
        "images",
        ("shorter_px", "longer_px", "width_over_height"),
        frozenset({"width_over_height"}),
        {
            "shorter_px": "shorter side of the upright picture, pixels",
            "longer_px": "longer side of the upright picture, pixels",
            "width_over_height": "1 is a square",
        },
    ),
    Family(
        "pictures",
        "Pictures",
        "image_scores",
        ("sharpness", "brightness", "contrast", "colorfulness"),
        frozenset({"sharpness"}),
    ),
    Family(
        "faces",
        "Faces",
        "faces",
        ("det_score", "side_px", "sharpness"),
        frozenset({"side_px", "sharpness"}),
        {"side_px": "shorter side of the face's box, pixels"},
    ),
    Family("phrases", "Phrases", "phrases", ("probability", "margin", "cosine")),
    Family(
        "groups",
        "Groups",
        "groups",
        (
            "min_similarity",
            "mean_similarity",
            "max_similarity",
            "frame_gap",
            "area_ratio",
            "pose_change",
            "head_turn",
            "sharpness_ratio",
            "members",
        ),
        frozenset({"members"}),
        {"members": "objects in the group"},
    ),
    Family("samples", "Samples", "samples", ("min_quality", "mip_s")),
)
FAMILY = {family.name: family for family in FAMILIES}


def families(dataset: Dataset) -> dict[str, Family]:
    """The families by name, with the columns that plugins have added in this dataset."""
    found = dict(FAMILY)
    for name in ("objects", "pictures"):
        family = FAMILY[name]
        contract = set(tables.TABLES[family.table].schema.names)
        added = [field for field in dataset.schema(family.table) if field.name not in contract]
        said = {field.name: metadata_of(field) for field in added}
        docs = {column: f"{one.get('doc', '')} (plugin {one.get('plugin')})" for column, one in said.items()}
        found[name] = replace(family, columns=(*family.columns, *docs), docs=family.docs | docs)
    return found


class Tally:
    """The rows of one family: exact counts, and samples of the rows themselves."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.rows = 0
        self.nulls: Counter[str] = Counter()
        self.filtered = 0
        self._sample = LowestHashes(SAMPLE_ROWS)
        self._candidates = LowestHashes(CANDIDATES)

    def add(self, rows: pa.Table, is_shown: npt.NDArray[np.bool_]) -> None:
        """Add the rows of a unit.

        Args:
            rows: `id`, the family's columns, and what the sheets need.
            is_shown: (N,) whether the sheets may show them.
        """
        self.rows += len(rows)
        for column in self.family.columns:
            self.nulls[column] += int(np.isnan(float_array(rows[column])).sum())
        if "filtered" in rows.schema.names:
            self.filtered += len(rows) - rows["filtered"].null_count
        self._sample.add(rows)
        self._candidates.add(rows.filter(pa.array(is_shown)))

    def sample(self) -> pa.Table | None:
        """At most `SAMPLE_ROWS` rows by rising hash, all of them if there are no more; None without any."""
        return self._sample.rows()

    def candidates(self) -> pa.Table | None:
        """Rows that the sheets choose from, by rising hash; None without any."""
        return self._candidates.rows()
