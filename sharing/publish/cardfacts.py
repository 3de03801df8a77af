"""What a card says of a publication: pictures by source and license, faces, the funnel, models, settings. Numbers only:
no id of anything.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from refloom.inference.models import registry
from refloom.schemas import tables
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.fingerprint import of_json
from refloom.schemas.status import stage_state
from refloom.schemas.wording import quoted
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.redaction import Redaction
from refloom.sharing.publish.redistribution import Licensed, terms
from refloom.sharing.publish.rows import Files, Hashes, hash_ids, scalars

_WITH_PICTURES = ("images", "faces", "samples")


@dataclass(slots=True)
class Survey:
    """What a look at the rows without their pictures finds.

    Attributes:
        pictures: source and license to the number of pictures, each counted once.
        faces_blurred: pictures of sources that blur faces.
        faces: marked faces in the published rows.
        rows: `<table>/<split>` to rows, of tables with pictures.
    """

    pictures: Counter[Licensed] = field(default_factory=Counter)
    faces_blurred: int = 0
    faces: int = 0
    rows: Counter[str] = field(default_factory=Counter)


class _Known:
    """Source, license and blurring of every picture of a dataset, by the hash of its id."""

    def __init__(self, dataset: Dataset) -> None:
        self.kinds: dict[tuple[str, str | None, bool], int] = {}
        hashes, codes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for unit in dataset.units():
            rows = dataset.read("images", ["image_id", "source", "license", "faces_blurred"], unit=unit).to_pydict()
            kinds = zip(rows["source"], rows["license"], rows["faces_blurred"], strict=True)
            hashes.append(hash_ids(rows["image_id"]))
            codes.append(np.array([self.kinds.setdefault(kind, len(self.kinds)) for kind in kinds], np.int64))
        order = np.argsort(np.concatenate(hashes), kind="stable")
        self._hashes, self._codes = np.concatenate(hashes)[order], np.concatenate(codes)[order]

    def count(self, wanted: Hashes) -> dict[tuple[str, str | None, bool], int]:
        """Pictures by kind; ids that the dataset does not hold are left out."""
        places = np.searchsorted(self._hashes, wanted)
        inside = places < len(self._hashes)
        hit = places[inside][self._hashes[places[inside]] == wanted[inside]]
        numbers = np.bincount(self._codes[hit], minlength=len(self.kinds))
        return {kind: int(numbers[code]) for kind, code in self.kinds.items() if numbers[code]}


def survey(dataset: Dataset, files: list[Files], redaction: Redaction) -> Survey:
    """Look at the rows that would be published, without their pictures.

    Args:
        dataset: opened.
        files: of the tables.
        redaction: what is left out; its counts are those of this look.
    """
    found = Survey()
    seen: list[Hashes] = [np.empty(0, np.uint64)]
    for one in files:
        if one.table not in _WITH_PICTURES:
            continue
        for batch in scalars(dataset, one):
            kept = redaction.apply(one.table, batch)
            found.rows[f"{one.table}/{one.split}"] += kept.num_rows
            ids = kept.column("pictures").flatten().field("image_id") if one.table == "samples" else None
            seen.append(np.unique(hash_ids((ids if ids is not None else kept.column("image_id")).to_pylist())))
            found.faces += _faces(one.table, kept)
    for (source, license_text, blurred), count in _Known(dataset).count(np.unique(np.concatenate(seen))).items():
        found.pictures[source, license_text] += count
        found.faces_blurred += count * blurred
    return found


def _faces(table: str, batch: pa.RecordBatch) -> int:
    if table == "faces":
        return int(batch.num_rows)
    if table != "samples":
        return 0
    appearances = batch.column("subjects").flatten().field("appearances")
    return int(pc.sum(appearances.flatten().field("face").is_valid()).as_py() or 0)


def check_ready(dataset: Dataset, files: list[Files]) -> None:
    """Refuse a dataset that is out of date or half done.

    Raises:
        Refused: names the stages and the remedy.
    """
    stale = [stage for stage in STAGES if stage_state(dataset, stage) == "stale"]
    if stale:
        raise Refused(
            f"{dataset.url} is out of date: {', '.join(stale)} were made from inputs that have changed since; "
            f"run `refloom curate {quoted(dataset.url)}`, then publish"
        )
    units = set(dataset.units())
    for stage in dict.fromkeys(tables.TABLES[one.table].stage for one in files):
        done = dataset.manifests(stage).keys() & units
        if done and done != units:
            raise Refused(
                f"{dataset.url} is half done: {stage} was done for {len(done)} of {len(units)} units; "
                f"run `refloom curate {quoted(dataset.url)}`, then publish"
            )


def facts(dataset: Dataset, found: Survey, options: Publish) -> dict[str, Any]:
    """What MANIFEST.json and the card say beyond files and rows; plain json without ids, clocks or paths.

    Raises:
        Refused: without images, if units were made with different settings for re-encoding.
    """
    withheld = sorted({source for source, text in found.pictures if not terms(source, text).allows})
    return {
        "pictures": [
            {
                "source": source,
                "license": text,
                "pictures": count,
                "permission": terms(source, text, options.accept_licenses).permission,
                "conditions": list(terms(source, text).conditions),
            }
            for (source, text), count in sorted(found.pictures.items(), key=lambda item: (item[0][0], item[0][1] or ""))
        ],
        "withheld": [source for source in withheld if not _accepted(found, source, options)],
        "faces_blurred": found.faces_blurred,
        "faces": found.faces,
        "funnel": {
            stage: {kind: counts.to_json() for kind, counts in sorted(dataset.counts(stage).items())}
            for stage in STAGES
            if dataset.manifests(stage)
        },
        "models": _models(dataset),
        "settings": _settings(dataset),
        "made": _made(dataset),
    }


def _accepted(found: Survey, source: str, options: Publish) -> bool:
    own = [text for other, text in found.pictures if other == source]
    return all(terms(source, text, options.accept_licenses).allows for text in own)


def _models(dataset: Dataset) -> list[dict[str, Any]]:
    """Every model that any unit was made with: its role, what and which revision it is, and its license."""
    seen: set[tuple[str, str]] = set()
    for stage in STAGES:
        for manifest in dataset.manifests(stage).values():
            seen.update(manifest.models.items())
    return [{"role": role, "model": model, "license": _license(role, model)} for role, model in sorted(seen)]


def _license(role: str, model: str) -> str | None:
    """Of the registry's entry of that name; null for a model that is not in it."""
    entries = registry.ENTRIES.get(role, ())
    return next((entry.license for entry in entries if entry.name == model.split("@")[0]), None)


def _settings(dataset: Dataset) -> dict[str, Any]:
    """Stage to its settings; a list of them where units were made with different ones. Ingest's are of its source."""
    settings = {}
    for stage in STAGES[1:]:
        own: list[dict[str, Any]] = []
        for manifest in dataset.manifests(stage).values():
            if manifest.config not in own:
                own.append(manifest.config)
        if any(own):
            settings[stage] = own[0] if len(own) == 1 else sorted(own, key=of_json)
    return settings


def _made(dataset: Dataset) -> dict[str, Any]:
    """How bytes that are not the source's own were made from it."""
    wanted = {"compose": ("max_side_px", "jpeg_quality"), "face": ("crop_max_side_px", "crop_quality")}
    made = {}
    for stage, names in wanted.items():
        found = [manifest.config.get(stage, {}) for manifest in dataset.manifests(stage).values()]
        values = {tuple(config.get(name) for name in names) for config in found}
        if len(values) > 1:
            raise Refused(
                f"units of {stage} were made with different {' and '.join(names)}: "
                f"`refloom curate {quoted(dataset.url)} --replace` makes them alike"
            )
        made[stage] = dict(zip(names, *values, strict=True)) if values else None
    return made
