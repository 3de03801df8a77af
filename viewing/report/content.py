"""What a dataset is made of, counted unit by unit: categories, kinds of samples, subjects in them, mentions."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refloom.schemas import parquet, tables
from refloom.schemas.dataset import Dataset

_MOST_NAMES = 50_000
"""Categories that are told apart; those that come later are counted together."""
_SHOWN_CATEGORIES = 40
_SAMPLE_COLUMNS = (
    "kind",
    "pictures.list.element.source",
    "subjects.list.element.subject_id",
    "subjects.list.element.mentions.list.element.picture",
)
_VERDICTS = ("kept", "rejected", "undecided")


@dataclass(slots=True)
class Content:
    """Counters.

    Attributes:
        categories: category or None to its objects by verdict: kept, rejected, undecided.
        others: objects of categories beyond those that are told apart, by verdict.
        samples: (kind, source, split) to its samples; the source is that of the first picture.
        subjects: (kind, subjects) to the samples with so many.
        mentioned: (kind, whether a caption names it) to its subjects.
    """

    categories: dict[str | None, Counter[str]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    samples: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    subjects: Counter[tuple[str, int]] = field(default_factory=Counter)
    mentioned: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def add_objects(self, rows: pa.Table, kept: str) -> None:
        """Count objects.

        Args:
            rows: with `kind`, `category` and `reason`, where null is undecided.
            kept: the word for kept in `reason`.
        """
        rows = rows.filter(pc.equal(rows["kind"], "object"))
        verdict = pc.if_else(pc.equal(rows["reason"], kept), "kept", "rejected")
        counted = pa.table({"category": rows["category"], "verdict": pc.fill_null(verdict, "undecided")})
        for row in counted.group_by(["category", "verdict"]).aggregate([([], "count_all")]).to_pylist():
            name, room = row["category"], len(self.categories) < _MOST_NAMES
            mine = self.categories.setdefault(name, Counter()) if room or name in self.categories else self.others
            mine[row["verdict"]] += row["count_all"]

    def add_samples(self, dataset: Dataset, unit: str) -> None:
        """Count the samples of a unit."""
        manifest = dataset.manifest("compose", unit)
        schema = tables.TABLES["samples"].schema
        for directory in sorted(manifest.tables) if manifest is not None else []:
            if not directory.startswith("samples/") or manifest is None:
                continue
            files = manifest.files_of(directory)
            for batch in parquet.batches(dataset.folder, files, list(_SAMPLE_COLUMNS), schema):
                self._add(batch, directory.split("/")[1])

    def _add(self, batch: pa.RecordBatch, split: str) -> None:
        kinds = batch.column("kind").to_pylist()
        sources = pc.struct_field(pc.list_element(batch.column("pictures"), 0), "source").to_pylist()
        self.samples.update(zip(kinds, (str(one) for one in sources), [split] * len(kinds), strict=True))
        sizes = pc.list_value_length(batch.column("subjects")).to_pylist()
        self.subjects.update(zip(kinds, sizes, strict=True))
        mentions = pc.struct_field(pc.list_flatten(batch.column("subjects")), "mentions")
        is_named = np.array(pc.greater(pc.fill_null(pc.list_value_length(mentions), 0), 0), bool).tolist()
        self.mentioned.update(zip(np.repeat(kinds, sizes).tolist(), is_named, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Plain values, the most frequent first; categories beyond those that are shown are counted together."""
        ordered = sorted(self.categories.items(), key=lambda item: (-item[1].total(), str(item[0])))
        others = Counter(self.others)
        for _, counts in ordered[_SHOWN_CATEGORIES:]:
            others.update(counts)
        return {
            "categories": [{"category": name} | _verdicts(counts) for name, counts in ordered[:_SHOWN_CATEGORIES]],
            "other_categories": {"categories": max(0, len(ordered) - _SHOWN_CATEGORIES)} | _verdicts(others),
            "samples": [
                {"kind": kind, "source": source, "split": split, "samples": count}
                for (kind, source, split), count in sorted(self.samples.items())
            ],
            "subjects_per_sample": [
                {"kind": kind, "subjects": subjects, "samples": count}
                for (kind, subjects), count in sorted(self.subjects.items())
            ],
            "mentions": [
                {"kind": kind, "subjects": sum(self.mentioned[kind, named] for named in (False, True))}
                | {"mentioned": self.mentioned[kind, True]}
                for kind in sorted({kind for kind, _ in self.mentioned})
            ],
        }


def _verdicts(counts: Counter[str]) -> dict[str, int]:
    return {"objects": counts.total()} | {verdict: counts[verdict] for verdict in _VERDICTS}
