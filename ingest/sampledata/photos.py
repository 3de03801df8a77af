"""The photographs that lie inside installed wheels: where they are, whose they are, and what of them can be a place.

`photos.json` names the files, their licenses, and the regions that make walls and floors. Files are read from the
package folders as they were installed; nothing is fetched.
"""

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from refloom.schemas import pictures
from refloom.schemas.errors import Refused
from refloom.schemas.pictures import Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One photograph of an installed package.

    Attributes:
        name: ours.
        package, file: where it lies.
        license, author, url: as the package states them.
    """

    name: str
    package: str
    file: str
    license: str
    author: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of a photograph that shows no subject and can be a wall or a floor.

    Attributes:
        photo: its name.
        region: xyxy, pixels.
        gain: of red, green and blue; tints the grey textures.
        turned: by a quarter.
        words: for captions: where something in front of it is.
        outdoors: a floor that lies before walls outdoors only, or such a wall.
        table: a floor with an edge, behind which people sit.
        texels: a floor's photo pixels per picture pixel at the lower edge of a picture 480 px high.
    """

    photo: str
    region: tuple[int, int, int, int]
    gain: tuple[float, float, float]
    words: tuple[str, ...]
    outdoors: bool
    turned: bool = False
    table: bool = False
    texels: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A whole photograph as a place, with its own subjects in it.

    Attributes:
        photo: its name.
        ground: rows (first, last) of the photograph on which something can stand; None if there are none.
        horizon: row of the photograph at which the ground would vanish.
        words: for captions.
    """

    photo: str
    ground: tuple[int, int] | None
    horizon: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A floor and a wall that always go together, and so can be named.

    Attributes:
        floor, wall: these.
        words: what captions call it.
    """

    floor: Region
    wall: Region
    words: str


@cache
def data(name: str) -> Any:
    """One of the json files beside this module."""
    return json.loads(Path(__file__).with_name(name).read_bytes())


@cache
def catalogue() -> dict[str, Photo]:
    """Photographs by name."""
    return {entry["name"]: Photo(**entry) for entry in data("photos.json")["photos"]}


@cache
def walls() -> tuple[Region, ...]:
    """What can stand behind a floor."""
    return tuple(_region(entry) for entry in data("photos.json")["walls"])


@cache
def floors() -> tuple[Region, ...]:
    """What subjects can stand on."""
    return tuple(_region(entry) for entry in data("photos.json")["floors"])


@cache
def views() -> tuple[View, ...]:
    """Photographs that are places as they are."""
    return tuple(
        View(
            photo=entry["photo"],
            ground=tuple(entry["ground"]) if entry["ground"] else None,
            horizon=entry["horizon"],
            words=tuple(entry["words"]),
        )
        for entry in data("photos.json")["views"]
    )


@cache
def places() -> tuple[Place, ...]:
    """The places of albums."""
    listed = data("photos.json")["places"]
    return tuple(
        Place(floor=floors()[entry["floor"]], wall=walls()[entry["wall"]], words=entry["words"]) for entry in listed
    )


def _region(entry: dict[str, Any]) -> Region:
    listed = {key: tuple(entry[key]) for key in ("region", "gain", "words")}
    return Region(**(entry | listed))


@cache
def pixels(name: str) -> Pixels:
    """A photograph, (H, W, 3) uint8 RGB; read-only, kept in memory.

    Raises:
        Refused: the package is not installed, or its version has no such file.
    """
    photo = catalogue()[name]
    spec = importlib.util.find_spec(photo.package)  # finds the folder without importing the package
    path = Path(spec.origin).parent / photo.file if spec is not None and spec.origin is not None else None
    if path is None or not path.is_file():
        raise Refused(
            f"sample data needs {photo.file} of the package {photo.package}: install the versions in constraints.txt"
        )
    return _frozen(pictures.decode(path.read_bytes()))


@cache
def texture(region: Region) -> Pixels:
    """The pixels of a region, turned and tinted; read-only, kept in memory."""
    x0, y0, x1, y1 = region.region
    part = pixels(region.photo)[y0:y1, x0:x1]
    if region.turned:
        part = np.rot90(part)
    return _frozen(np.clip(part * np.array(region.gain, np.float32), 0, 255).astype(np.uint8))


def _frozen(array: Pixels) -> Pixels:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def license_id(names: set[str]) -> int:
    """Position in `licenses` of the photograph with the most demanding license among those of one picture."""
    order = list(catalogue())
    return 1 + max((_demand(catalogue()[name].license), order.index(name)) for name in names)[1]


def _demand(license_name: str) -> int:
    return 2 if license_name.startswith("CC BY") else 0 if license_name.startswith(("CC0", "public")) else 1


def licenses() -> list[dict[str, Any]]:
    """The `licenses` list of COCO json: one entry a photograph."""
    return [
        {"id": number, "name": f"{photo.license} (photograph `{photo.name}` by {photo.author})", "url": photo.url}
        for number, photo in enumerate(catalogue().values(), 1)
    ]
