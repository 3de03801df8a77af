"""Manifests: the commit record of one unit of one stage.

    manifests/<stage>/<unit>.json   files with sha256, rows and fingerprints per table, counts per item kind, config,
                                    stage version, models, fingerprint of every input

A unit exists when its manifest does. A file that no manifest names is garbage.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from refloom.schemas import strict
from refloom.schemas.errors import Damaged, Refused
from refloom.schemas.fields import VERSION
from refloom.schemas.fingerprint import of_json, of_parts
from refloom.schemas.parquet import File
from refloom.schemas.shapes import misfit

_COUNTS = {"input": int, "kept": int, "rejected": {"*": int}, "failed": {"*": int}}
_SHAPE = {
    "version": int,
    "stage": str,
    "unit": str,
    "key": str,
    "config": dict,
    "source": dict,
    "stage_version": int,
    "models": {"*": str},
    "inputs": {"*": str},
    "tables": {"*": {"rows": int, "fingerprint": str}},
    "items": {"*": _COUNTS},
    "files": [{"path": str, "rows": int, "bytes": int, "sha256": str}],
    "roots": {"*": str},
    "notes?": {"*": int},
}


@dataclass(slots=True)
class Counts:
    """What became of the items of one kind: input = kept + rejected + failed."""

    input: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def balanced(self) -> bool:
        """Whether nothing was lost and nothing counted twice."""
        return self.input == self.kept + self.rejected.total() + self.failed.total()

    def add(self, other: "Counts") -> None:
        """Add the counts of another unit."""
        self.input += other.input
        self.kept += other.kept
        self.rejected.update(other.rejected)
        self.failed.update(other.failed)

    def to_json(self) -> dict[str, Any]:
        """As in `status --json`."""
        return {
            "input": self.input,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "failed": dict(sorted(self.failed.items())),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Counts":
        """The inverse of `to_json`."""
        return cls(value["input"], value["kept"], Counter(value["rejected"]), Counter(value["failed"]))


@dataclass(frozen=True, slots=True)
class TableEntry:
    """Rows and fingerprint of what a unit holds in one directory (`images`, `samples/train`, `ledger/measure`)."""

    rows: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One committed unit of one stage.

    Attributes:
        stage, unit: what was done, to what.
        key: the ingest key that the unit belongs to.
        config: the settings that the output depends on, json.
        source: identity of the input outside the dataset (ingest only), json.
        stage_version: hand-bumped when the stage's output changes.
        models: role to name and revision.
        inputs: `<directory>/<unit>` to the fingerprint that was read.
        tables: directory to rows and fingerprint.
        items: item kind to counts.
        files: all files of the unit.
        roots: name to folder of linked pictures.
        notes: word of `refloom.schemas.notes` to its number; not written where there is none.
    """

    stage: str
    unit: str
    key: str
    config: dict[str, Any]
    source: dict[str, Any]
    stage_version: int
    models: dict[str, str]
    inputs: dict[str, str]
    tables: dict[str, TableEntry]
    items: dict[str, Counts]
    files: tuple[File, ...]
    roots: dict[str, str]
    notes: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def path(stage: str, unit: str) -> str:
        """Where the manifest lies in the dataset."""
        return f"manifests/{stage}/{unit}.json"

    @property
    def failed(self) -> int:
        """Items that failed, of all kinds."""
        return sum(counts.failed.total() for counts in self.items.values())

    @property
    def fingerprint(self) -> str:
        """Of everything the unit holds, ledger included."""
        return of_parts({name: entry.fingerprint for name, entry in self.tables.items()})

    def settings(self) -> dict[str, Any]:
        """What decides whether a unit may be kept: config, stage version and models, flat with dotted keys."""
        return flatten({**self.config, "stage_version": self.stage_version, "models": self.models})

    def files_of(self, directory: str) -> list[File]:
        """The files in one directory and below it, in row order."""
        return [file for file in self.files if file.path.startswith(directory + "/")]

    def to_json(self) -> bytes:
        """Canonical json, so that equal units have equal manifests."""
        value = asdict(self) | {"items": {kind: counts.to_json() for kind, counts in sorted(self.items.items())}}
        value["version"] = VERSION
        if not self.notes:  # so that units without any are as they were before there were notes
            del value["notes"]
        return strict.dumps(value, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "Manifest":
        """Read a manifest.

        Raises:
            Refused: it is of another version.
            Damaged: it is not a manifest; names the file and what is wrong.
        """
        try:
            value = strict.loads(data)
        except ValueError as error:
            raise Damaged(f"{path} is not a manifest ({error})") from error
        version = value.get("version") if isinstance(value, dict) else None
        if type(version) is int and version != VERSION:
            raise Refused(
                f"{path} is of dataset version {version}; this refloom reads version {VERSION}: "
                "use the refloom that wrote it, or build the dataset anew"
            )
        if (wrong := misfit(value, _SHAPE)) is not None:
            raise Damaged(f"{path} is not a manifest ({wrong})")
        return cls(
            **{name: value[name] for name in ("stage", "unit", "key", "config", "source", "stage_version")},
            models=value["models"],
            inputs=value["inputs"],
            tables={name: TableEntry(entry["rows"], entry["fingerprint"]) for name, entry in value["tables"].items()},
            items={kind: Counts.from_json(counts) for kind, counts in value["items"].items()},
            files=tuple(File(file["path"], file["rows"], file["bytes"], file["sha256"]) for file in value["files"]),
            roots=value["roots"],
            notes=value.get("notes", {}),
        )


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one dict with dotted keys; an empty one has none."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat.update(flatten(item, f"{prefix}{key}."))
        else:
            flat[prefix + key] = item
    return flat


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The dotted keys whose values differ, each as `key: old -> new`, sorted."""
    keys = sorted(old.keys() | new.keys())
    return [
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in keys if of_json(old.get(key)) != of_json(new.get(key))
    ]
