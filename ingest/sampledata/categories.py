"""The category lists of COCO and YouTube-VIS 2019 with ours after them, and which category a kind of subject is of."""

from typing import Any

from refloom.ingest.sampledata import photos


def _data() -> dict[str, Any]:
    data: dict[str, Any] = photos.data("categories.json")
    return data


def coco() -> list[dict[str, Any]]:
    """The `categories` of COCO json: the 80 official ones, ours from 101."""
    return [{"supercategory": above, "id": number, "name": name} for number, above, name in _data()["coco"]]


def ytvis() -> list[dict[str, Any]]:
    """The `categories` of YouTube-VIS 2019 json: the 40 official ones, ours from 41."""
    return [{"supercategory": "object", "id": number, "name": name} for number, name in _data()["ytvis"]]


def of(kind: str, release: str) -> int:
    """Category id of a kind of subject in `coco` or `ytvis`."""
    number: int = _data()["kinds"][kind][release]
    return number


def nouns(kind: str) -> list[tuple[str, str]]:
    """What people call a kind's COCO category: (one, many), the most usual first."""
    return [(one, many) for one, many in _data()["nouns"][str(of(kind, "coco"))]]
