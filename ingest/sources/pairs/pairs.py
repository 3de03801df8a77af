"""Directed records: N reference images and a text that asks for one image. See `layouts` for the layouts."""

import itertools
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace

from refloom.ingest.files import find_prefix
from refloom.ingest.source import Plan, Record, UnitPlan
from refloom.ingest.sources.pairs import files, recordfiles, tables
from refloom.ingest.sources.pairs.files import SOURCE
from refloom.ingest.sources.pairs.layouts import IN_PARQUET, LAYOUTS, Directed
from refloom.ingest.sources.pairs.recordfiles import Read, stem
from refloom.schemas import ids
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.storage import Folder

DEFAULT_UNIT_SIZE = 1000
_SUBFOLDERS = ("", "images")
"""Where the files of records lie below the folder; UNO-1M leaves `images` out of its paths."""
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A file of directed records, a folder of such Parquet files, or folders of targets and controls.

    Every image is a subject as a whole. A record is a group with a target. One that is not of its layout is a rejected
    group, and nothing in it is taken.

    Attributes:
        path: json, JSONL or CSV that names files; Parquet that holds images, or a folder of such; or, with `controls`,
            the folder of the targets.
        layout: a word of `LAYOUTS`; auto goes by the keys of the first record.
        images: folder that the paths of records are relative to; by default that of the file.
        controls: folders of images that the targets are made of, in the order that texts count them.
        name: first part of the key.
        unit_size: records in a unit.
        limit: only the first records.
    """

    path: str
    layout: str = "auto"
    images: str | None = None
    controls: tuple[str, ...] = ()
    name: str = SOURCE
    unit_size: int = DEFAULT_UNIT_SIZE
    limit: int | None = None
    kind: str = SOURCE

    def _key(self, path: str) -> str:
        """Names an ingest: `--name` and the stem of the file, or the name of the folder of targets."""
        return ids.unit_key(f"{self.name}.{stem(path)}")

    def roots(self) -> dict[str, str]:
        """The folder of files that records name; images that lie in Parquet cannot be linked."""
        return {} if self._parquet() else {self._key(self.path): self._folder().url}

    def plans(self) -> list[Plan]:
        """Read what the records say and cut them into units, a plan for each file.

        Raises:
            Refused: there are no records, none of their files is there, or the layout is not known.
        """
        if self.layout != "auto" and self.layout not in LAYOUTS:
            raise Refused(f"unknown layout {self.layout!r}: give auto or one of {', '.join(LAYOUTS)}")
        tables_ = self._parquet()
        if self.images is not None and (tables_ or self.controls):
            what = "folders of controls" if self.controls else "Parquet that holds the images"
            raise Refused(f"--images is for records that name files, not for {what}: leave it out")
        return self._plans_of_tables(tables_) if tables_ else [self._plan_of_files()]

    def read(self, unit: UnitPlan) -> Iterator[Record]:
        """The images of one unit and its records as groups."""
        if "file" in unit.task:
            return tables.read(unit, self._folder())
        return files.read(unit, self._folder(), self._key(self.path))

    def _parquet(self) -> list[str]:
        """Names of the Parquet files that were given; none for other files and for folders of targets."""
        if self.path.endswith(".parquet"):
            return [posixpath.basename(self.path)]
        if self.controls or not self._is_folder():
            return []
        return [name for name in Folder(self.path).names() if name.endswith(".parquet")]

    def _is_folder(self) -> bool:
        folder = Folder(self.path)
        if folder.is_local:
            return os.path.isdir(folder.root)
        return not self.path.removesuffix(".gz").endswith((".json", ".jsonl", ".ndjson", ".csv", ".parquet"))

    def _folder(self) -> Folder:
        """What the names of files are relative to."""
        if self.controls:
            return Folder(_common([self.path, *self.controls]))
        if self.images is not None:
            return Folder(self.images)
        return Folder(self.path if self._is_folder() else posixpath.dirname(self.path) or ".")

    def _plans_of_tables(self, names: list[str]) -> list[Plan]:
        folder = Folder(self.path if self._is_folder() else posixpath.dirname(self.path) or ".")
        left, plans = self.limit, []
        for name in names:
            table = tables.Table(folder, name, self.layout)
            rows = table.rows if left is None else min(left, table.rows)
            left = None if left is None else left - rows
            made = table.units(self._key(name), stem(name), name, self.unit_size, rows)
            if made:
                plans.append(Plan(self._key(name), tuple(made), self._config(table.layout)))
        if not plans:
            raise Refused(f"{self.path} has no rows: nothing to ingest")
        return plans

    def _plan_of_files(self) -> Plan:
        folder, prefix = self._folder(), ""
        if self.controls:
            if self.layout not in ("auto", "musubi"):
                raise Refused(f"folders of controls are of the layout musubi, not {self.layout}")
            found = self._of_folders(folder)
        elif self._is_folder():
            raise Refused(
                f"{self.path} is a folder without Parquet: give a file of records, or the folder of the targets with "
                "--controls"
            )
        elif self.layout in IN_PARQUET:
            raise Refused(f"{self.path} is not Parquet, which the layout {self.layout} is of")
        else:
            found = recordfiles.read(self.path, self.layout, self.limit)
            if found.layout in IN_PARQUET:
                raise Refused(f"{self.path} has keys of the layout {found.layout}, which is Parquet: give that")
            prefix = find_prefix(folder, _first_names(found, folder), _SUBFOLDERS, "--images")
        made = files.units(found.records, self._key(self.path), stem(self.path), folder, prefix, self.unit_size)
        units = tuple(replace(unit, identity=unit.identity | {"records": found.sha256}) for unit in made)
        notes = [f"no record of {self.path} is of the layout {found.layout}"] if not _sound(found) else []
        return Plan(self._key(self.path), units, self._config(found.layout) | {"prefix": prefix}, tuple(notes))

    def _of_folders(self, folder: Folder) -> Read:
        root = folder.url.rstrip("/")
        targets, *controls = (path.rstrip("/")[len(root) :].lstrip("/") for path in (self.path, *self.controls))
        return recordfiles.of_folders(folder, targets, controls, self.limit)

    def _config(self, layout: str) -> dict[str, object]:
        return {"source": self.kind, "layout": layout, "unit_size": self.unit_size, "limit": self.limit}


def _sound(found: Read) -> list[Directed]:
    return [record for _, record in found.records if isinstance(record, Directed)]


def _first_names(found: Read, folder: Folder) -> list[str]:
    names: list[str] = []
    for record in _sound(found):
        try:
            names += files.file_names(record, folder)
        except Rejected:
            continue
        if len(names) >= _SHOWN:
            break
    return names[:_SHOWN]


def _common(places: list[str]) -> str:
    """The folder that several places lie in.

    Raises:
        Refused: there is none, or one place lies in another.
    """
    parts = [place.rstrip("/").split("/") for place in places]
    common = [one[0] for one in itertools.takewhile(lambda one: len(set(one)) == 1, zip(*parts, strict=False))]
    place = "/".join(common) or "/"
    if not any(common) or place.endswith((":", ":/")) or any(len(common) == len(part) for part in parts):
        raise Refused(f"{places[0]} and {', '.join(places[1:])} must be different folders side by side in one folder")
    return place
