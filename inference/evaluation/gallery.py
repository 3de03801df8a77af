"""The folder of one evaluation: which picture lies where, and which are there.

OUT/
  evaluation.json                  what it is of; written first
  pictures/<case>/<n>.png, .json   the json is written last: without it there is no picture
  pictures/<case>/failed.json      why a case could not be made; the next run tries again
  scores/<unit>.json               of the pictures of some cases
  results.json .md .html           written last
  runs/                            notes, leases, errors
"""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from refloom.inference.adapters.reading import Pixels, read_picture
from refloom.inference.evaluation.cases import Case
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.manifest import differing, flatten
from refloom.schemas.storage import Folder
from refloom.schemas.wording import some

SETTINGS = "evaluation.json"
FAILED = "failed.json"
_UNSAFE = re.compile(r"[^a-z0-9.+_-]+")


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A case with its place in the benchmark.

    Attributes:
        number: from 0, in the whole benchmark.
        case: itself.
        images: pictures of it.
    """

    number: int
    case: Case
    images: int

    @property
    def folder(self) -> str:
        """Where its pictures lie."""
        slug = _UNSAFE.sub("-", self.case.case_id.lower())[:60]
        return f"pictures/{self.number:05d}-{slug}"

    def seed(self, base: int, image: int) -> int:
        """Of a picture: it depends on the case alone, not on its company, and not on who makes it."""
        digest = hashlib.sha256(f"{base}/{self.case.case_id}/{image}".encode()).digest()
        return int.from_bytes(digest[:4], "big")


def claim(folder: Folder, settings: dict[str, Any]) -> None:
    """Take a folder for an evaluation, or go on with the same one.

    Raises:
        Refused: the folder holds something else, or an evaluation with other settings.
    """
    if folder.exists(SETTINGS):
        try:
            held = strict.object_in(folder.read(SETTINGS))
        except ValueError as error:
            raise Refused(f"{folder.url}/{SETTINGS} is damaged: give a new folder") from error
        if found := differing(flatten(held), flatten(settings)):
            raise Refused(
                f"{folder.url} holds an evaluation with other settings ({some(found, between='; ')}): use the same, or "
                "another --out"
            )
        return
    if set(folder.names()) or set(folder.folders()) - {"runs"}:
        raise Refused(f"{folder.url} holds other files: give a new or empty folder")
    folder.write(SETTINGS, _json(settings))


def missing(folder: Folder, exhibit: Exhibit) -> tuple[int, ...]:
    """Numbers of the pictures that are not there yet."""
    names = set(folder.names(exhibit.folder))
    return tuple(n for n in range(exhibit.images) if not {f"{n}.json", f"{n}.png"} <= names)


def write_picture(folder: Folder, exhibit: Exhibit, image: int, picture: Image.Image, record: dict[str, Any]) -> None:
    """Write a picture, then what it is."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    folder.write(f"{exhibit.folder}/{image}.png", file.getvalue())
    folder.write(f"{exhibit.folder}/{image}.json", _json(record))


def write_failure(folder: Folder, exhibit: Exhibit, reason: str) -> None:
    """Say why a case could not be made."""
    folder.write(f"{exhibit.folder}/{FAILED}", _json({"case": exhibit.case.case_id, "reason": reason}))


def failure(folder: Folder, exhibit: Exhibit) -> str | None:
    """Why the last try to make a case failed; None if it did not."""
    try:
        return str(strict.object_in(folder.read(f"{exhibit.folder}/{FAILED}"))["reason"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError):
        return "its note is damaged"


def read_made(folder: Folder, exhibit: Exhibit, image: int) -> Pixels:
    """A picture that was made, (H, W, 3) uint8.

    Raises:
        Refused: it is damaged.
    """
    return read_picture(folder.read(f"{exhibit.folder}/{image}.png"))


def as_image(made: Any) -> Image.Image:
    """What a pipeline gives as a Pillow picture."""
    return made if isinstance(made, Image.Image) else Image.fromarray(np.asarray(made))


def chunks(exhibits: Sequence[Exhibit], size: int) -> dict[str, tuple[Exhibit, ...]]:
    """Units of cases by name: the same cases are in the same unit, however many are asked for."""
    units: dict[str, tuple[Exhibit, ...]] = {}
    for exhibit in exhibits:
        name = f"cases-{exhibit.number // size:05d}"
        units[name] = (*units.get(name, ()), exhibit)
    return units


def _json(value: Any) -> bytes:
    return (strict.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
