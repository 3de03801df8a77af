"""Who is where: the truth that the formats do not tell, for tests and benchmarks (`identities.json`)."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from refloom.ingest.sampledata import cutouts, subjects
from refloom.ingest.sampledata.subjects import Toy


@dataclass(slots=True)
class Identities:
    """Identity numbers by the ids that an ingest will give.

    Attributes:
        objects: object id of COCO and SA-1B to identity.
        tracks: track id to identity.
        folders: subject folder to identity.
    """

    objects: dict[str, int] = field(default_factory=dict)
    tracks: dict[str, int] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The file's bytes."""
        numbers = sorted({*self.objects.values(), *self.tracks.values(), *self.folders.values()})
        subjects_ = {str(number): _describe(number) for number in numbers}
        document = {
            "subjects": subjects_,
            "objects": self.objects,
            "tracks": self.tracks,
            "folders": self.folders,
        }
        return orjson.dumps(document)


def _describe(number: int) -> dict[str, Any]:
    real = cutouts.real().get(number)
    if real is not None:
        return {"kind": real.kind, "real": True, "held_out": real.held_out, "name": real.name}
    toy: Toy = subjects.toy(number)
    return {
        "kind": toy.kind,
        "real": False,
        "held_out": subjects.is_held_out(number),
        "pattern": toy.materials[0].pattern,
        "colours": [[round(value, 3) for value in colour] for colour in toy.materials[0].colours],
    }
