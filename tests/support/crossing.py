"""Six drawn photographs of which groups by look know a cat, a dog and a tie, and the cross samples of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from curating import LOOSE, coco, curated, match, samples

from refloom.curation.select.settings import Split
from refloom.schemas.dataset import Dataset

SQUARE, WIDE, TALL, FLAT = (10, 10, 50, 50), (10, 10, 70, 40), (10, 10, 30, 70), (10, 10, 90, 26)
RIGHT = (52, 12, 92, 72)
SCENES = [
    {"cat": SQUARE, "dog": RIGHT},  # 1: the target
    {"cat": WIDE},  # 2
    {"cat": FLAT, "tie": RIGHT},  # 3
    {"dog": (20, 20, 60, 60)},  # 4
    {"dog": RIGHT, "tie": (5, 5, 20, 70)},  # 5
    {"bird": SQUARE},  # 6: nobody's
]
CAT, DOG = "look/coco/000000000001#100", "look/coco/000000000001#101"
TIE = "look/coco/000000000003#301"


def image(number: int) -> str:
    return f"coco/{number:012d}"


def thing(number: int, place: int = 0) -> str:
    return f"{image(number)}#{100 * number + place}"


GROUPS = {
    CAT: [thing(1), thing(2), thing(3)],
    DOG: [thing(1, 1), thing(4), thing(5)],
    TIE: [thing(3, 1), thing(5, 1)],
}
ALL_TRAIN = replace(LOOSE, split=Split(validation_share=0.0))


def crossed(root: Path, **options: Any) -> Dataset:
    """The photographs as a dataset with groups and samples; options are of `Coco`."""
    plain = curated(root, coco(root / "coco", SCENES, **options), config=ALL_TRAIN)
    return match(plain, GROUPS, ALL_TRAIN)


def crosses(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Its cross samples by id."""
    return {name: row for name, row in samples(dataset).items() if row["kind"] == "cross"}


def shown(sample: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Subject to the pictures and objects that show it."""
    ids = [picture["image_id"] for picture in sample["pictures"]]
    return {
        subject["subject_id"]: [(ids[one["picture"]], one["object_id"]) for one in subject["appearances"]]
        for subject in sample["subjects"]
    }
