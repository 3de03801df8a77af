"""What a dataset was made of, where it was made of other datasets: the record that dataset.json and the card repeat.

lineage.json   version, how (subset or merge), asked: what was asked for, sources: each with its address, tag, the
               fingerprint of every table then, and a lineage of its own where it has one
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from refloom.schemas import strict
from refloom.schemas.errors import Damaged
from refloom.schemas.fingerprint import of_json
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder
from refloom.schemas.wording import shown

PATH = "lineage.json"
_VERSION = 1
_SOURCE = {"dataset": str, "tag": (str, None), "tables": {"*": str}, "lineage": (dict, None)}
_SHAPE = {"version": int, "how": str, "asked": dict, "sources": [_SOURCE]}
_SHOWN = 12
"""Characters of a fingerprint that the card shows."""


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset that another was made of.

    Attributes:
        dataset: its address then.
        tag: of which state; None for the one that it was in.
        tables: table to its fingerprint.
        lineage: of the source itself, json; None where it was made of no other dataset.
    """

    dataset: str
    tag: str | None
    tables: dict[str, str]
    lineage: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The last part of its address, which names no place on anybody's disk, and its tag."""
        base = self.dataset.rstrip("/").rpartition("/")[2] or "dataset"
        return f"{base}, tag {self.tag}" if self.tag else base


@dataclass(frozen=True, slots=True)
class Lineage:
    """How a dataset was made of others.

    Attributes:
        how: subset or merge.
        asked: settings of that, json without lists of ids, which count by their number and hash.
        sources: in their order.
    """

    how: str
    asked: dict[str, Any]
    sources: tuple[Source, ...]

    @classmethod
    def load(cls, folder: Folder) -> "Lineage | None":
        """The record of a dataset; None where it was made of no other.

        Raises:
            Damaged: the file is.
        """
        try:
            value = strict.loads(folder.read(PATH))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Damaged(f"{folder.url}/{PATH} is not json ({error}): {_REMEDY}") from error
        if (wrong := misfit(value, _SHAPE)) is not None:
            raise Damaged(f"{folder.url}/{PATH} is no record of a lineage ({wrong}): {_REMEDY}")
        sources = tuple(Source(one["dataset"], one["tag"], one["tables"], one["lineage"]) for one in value["sources"])
        return cls(value["how"], value["asked"], sources)

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        sources = [{name: getattr(one, name) for name in _SOURCE} for one in self.sources]
        return {"version": _VERSION, "how": self.how, "asked": self.asked, "sources": sources}

    def save(self, folder: Folder) -> None:
        """Write it into a dataset."""
        folder.write(PATH, strict.dumps(self.to_json(), indent=1, sort_keys=True).encode() + b"\n")

    @property
    def fingerprint(self) -> str:
        """Of all that it says but where the sources lay: a source that has moved is the same."""
        value = self.to_json()
        for one in value["sources"]:
            one["dataset"] = ""
        return of_json(value)

    def lines(self) -> Iterator[str]:
        """Sentences for the card, in Markdown; addresses stay out of it."""
        yield f"Made by `refloom {_plain(self.how)}` of {_of(self.sources)}."
        for key, value in sorted(self.asked.items()):
            if value not in (None, [], {}):
                yield f"- {_plain(key)}: `{_plain(strict.dumps(value, sort_keys=True, ensure_ascii=False))}`"
        for one in self.sources:
            known = one.tables.get("samples") or one.tables.get("images", "")
            yield f"- `{_plain(one.name)}`, fingerprint `{_plain(known)[:_SHOWN]}`"


_REMEDY = "put it back from a copy, or remove it: it says what the dataset was made of, and nothing depends on it"


def _plain(text: str) -> str:
    """A text inside a span of code: on one line, and without what would end the span."""
    return shown(text, 300).replace("`", "'").replace("|", "/")


def _of(sources: tuple[Source, ...]) -> str:
    return "one dataset" if len(sources) == 1 else f"{len(sources)} datasets"
