"""What a publication holds and how it is cut: the settings that its bytes depend on."""

from dataclasses import dataclass, fields
from typing import Any

from refloom.schemas import tables
from refloom.schemas.errors import Refused
from refloom.schemas.ranges import Whole

SHARD_BYTES = 400 << 20
"""Target of a file: within 20 % of it files lie between 320 and 480 MiB, inside the 256 to 500 MB that viewers like."""

PICTURES = "pictures"
"""Config of a publication without bytes that says which bytes belong to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Settings of a publication.

    Attributes:
        tables: which tables; `("all",)` for every table that has rows but `labels`, which people made.
        images: whether the bytes of pictures and of face crops are published.
        face_embeddings: whether identity embeddings of faces are published.
        shard_bytes: target size of a file, bytes, at least 64 KiB.
        only_sources: sources to publish, e.g. `("coco",)`; all if empty. A sample with a picture of another one is left
            out.
        accept_licenses: licenses that are not known to allow redistribution and are accepted all the same, as the
            `license` column has them; `none` for pictures without one.
        takedown: entries to leave out, see `refloom.sharing.publish.takedown.resolve`.
        ignore_unknown: go on where an entry names nothing.
        keep_metadata: pictures keep what their files say beside the pixels: places, names, thumbnails.
    """

    tables: tuple[str, ...] = ("samples",)
    images: bool = True
    face_embeddings: bool = False
    shard_bytes: int = SHARD_BYTES
    only_sources: tuple[str, ...] = ()
    accept_licenses: tuple[str, ...] = ()
    takedown: tuple[str, ...] = ()
    ignore_unknown: bool = False
    keep_metadata: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.tables if name not in tables.TABLES and name != "all"]
        if unknown or not self.tables:
            raise Refused(f"no table {(unknown or [''])[0]!r}; tables: all, {', '.join(tables.TABLES)}")
        if not Whole(64 << 10).takes(self.shard_bytes):
            raise Refused(f"a shard of {self.shard_bytes} bytes is too small: give at least 65,536, usual are 256e6 on")

    def to_json(self) -> dict[str, Any]:
        """As MANIFEST.json has them: the ids of a takedown are not among them."""
        private = ("takedown", "ignore_unknown")
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in private}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}


def picture_column(table: str) -> str | None:
    """The column of a table that holds pictures."""
    return {"images": "image", "faces": "crop", "samples": "images"}.get(table)
