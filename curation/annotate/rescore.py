"""Quality out of stored components, where only what is made of them has changed: no picture is decoded."""

from refloom.curation.annotate.quality import quality
from refloom.curation.annotate.settings import Quality
from refloom.curation.objects import float_array, read_objects
from refloom.schemas.components import COMPONENTS
from refloom.schemas.dataset import Dataset
from refloom.schemas.manifest import Manifest
from refloom.schemas.unit import UnitWriter

_OF_THE_MEAN = ("object_components", "optional_components", "whole_components", "ramps", "weights", "fitted_on")
"""Settings of `quality` that the stored components do not depend on."""


def is_enough(differences: list[str]) -> bool:
    """Whether what differs between a unit and a run, as `key: old -> new`, leaves its components as they are.

    Nothing that differs is not enough: then the unit is due for another reason.
    """
    keys = [difference.partition(":")[0].split(".") for difference in differences]
    return bool(keys) and all(key[0] == "quality" and key[1:2] and key[1] in _OF_THE_MEAN for key in keys)


def rescore_unit(dataset: Dataset, manifest: Manifest, config: Quality, out: UnitWriter) -> None:
    """Write the scores of a unit anew with another quality; all else stays, ledger and notes too.

    Args:
        dataset: where.
        manifest: of the unit as it is.
        config: the new settings.
        out: takes the unit.
    """
    unit = manifest.unit
    rows = dataset.read("object_scores", unit=unit)
    objects = read_objects(dataset, unit, ["object_id", "kind"])
    kinds = dict(zip(objects["object_id"].to_pylist(), objects["kind"].to_pylist(), strict=True))
    own = [kinds[name] for name in rows["object_id"].to_pylist()]
    components = {name: float_array(rows[name]) for name in COMPONENTS if name in rows.schema.names}
    columns = {name: rows[name] for name in rows.schema.names}
    ledger = dataset.ledger("quality", unit=unit).to_pylist()
    out.expect("object", len(rows) + len(ledger))
    out.add_columns("object_scores", columns | {"quality": quality(own, components, config)})
    out.keep("object", len(rows))
    for row in ledger:
        settle = out.fail if row["verdict"] == "failed" else out.reject
        more = {"file": row["file"], "occurrence": row["occurrence"]}
        settle(row["kind"], row["item_id"], row["reason"], row["detail"] or "", **more)
    for word, count in manifest.notes.items():
        out.note(word, count)
