"""The formats of exports by name: what writes each, what it depends on, and how it is taken in again."""

from collections.abc import Callable
from dataclasses import dataclass

from refloom.schemas.plugins import Registry, imported
from refloom.sharing.export.folder import Written


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        write: `(dataset, place, choice, show)` -> what was written, by word; or `module:function`.
        tables: that it reads: when one changes, the export is another one.
        item: what it counts.
        again: the `refloom ingest` that takes it in again, with {0} for its folder; None if there is none.
        pooled: several workers write it together.
    """

    write: str | Callable[..., Written]
    tables: tuple[str, ...]
    item: str = "sample"
    again: str | None = None
    pooled: bool = False

    @property
    def writer(self) -> Callable[..., Written]:
        """The function."""
        found: Callable[..., Written] = imported(self.write)
        return found


FORMATS: Registry[Format] = Registry(
    "exports",
    "format of exports",
    {
        "coco": Format(
            "refloom.sharing.export.coco:write_coco",
            ("images", "objects", "masks", "phrases", "selection", "splits"),
            item="picture",
            again="refloom ingest coco --images {0}/images --instances {0}/instances.json --captions {0}/captions.json",
        ),
        "easyref": Format(
            "refloom.sharing.export.easyref:write_easyref",
            ("samples", "source_groups", "images"),
            again="refloom ingest easyref {0}/records.json --images {0}/images",
        ),
        "subject10k": Format(
            "refloom.sharing.export.subject10k:write_subject10k",
            ("samples", "images"),
            again="refloom ingest subject10k {0}",
        ),
        "edit": Format("refloom.sharing.export.edit.write:write_edit", ("samples", "images"), pooled=True),
        "bbox": Format(
            "refloom.sharing.export.bbox:write_bbox",
            ("images", "objects", "masks", "phrases", "selection", "splits"),
            item="image",
            pooled=True,
        ),
        "webdataset": Format("refloom.sharing.export.webdataset:write_webdataset", ("samples", "images")),
    },
    of=Format,
)
