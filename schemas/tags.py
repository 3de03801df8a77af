"""Tags: a state of a dataset that is kept under a name, as a dataset of its own whose files share their bytes with it.

    tags/<name>/tag.json     the commit: version, name, rows and fingerprint of every table when the tag was made
    tags/<name>/...          manifests, tables, ledgers, dataset.json, takedown.json and card, as of any dataset

Nothing that works on the dataset looks below `tags/`, so that curation, garbage collection and readers of `samples/*`
leave them alone; only a takedown reaches in. What makes and removes tags is `refloom.sharing.datasets.tag`.
"""

import re
from dataclasses import dataclass
from typing import Any

from refloom.schemas import strict
from refloom.schemas.errors import Damaged, Refused
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder
from refloom.schemas.wording import quoted, shown, some

FOLDER = "tags"
RECORD = "tag.json"
NOW = "now"
"""What the present state is called beside tags; no tag has this name."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_VERSION = 1
_SHAPE = {"version": int, "name": str, "tables": {"*": {"rows": int, "fingerprint": str}}}


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag as it was made.

    Attributes:
        name: of the tag.
        tables: table to its `rows` and `fingerprint` then; a takedown since has left fewer.
    """

    name: str
    tables: dict[str, dict[str, Any]]

    def to_json(self) -> bytes:
        """The bytes of its record."""
        value = {"version": _VERSION, "name": self.name, "tables": self.tables}
        return strict.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def check_name(name: str) -> str:
    """The name, if a tag may have it.

    Raises:
        Refused: it may not: names become folders.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.casefold() == NOW:
        raise Refused(
            f"{shown(str(name))!r} cannot be the name of a tag: give 1 to 80 of the letters a-z, digits and . _ -, "
            f"beginning with a letter or digit, and not `{NOW}`, which is the dataset as it is"
        )
    return name


def path_of(name: str) -> str:
    """The folder of a tag in its dataset; raises as `check_name`."""
    return f"{FOLDER}/{check_name(name)}"


def names(folder: Folder) -> list[str]:
    """Names of the tags of a dataset, sorted; one that was never finished is none."""
    return [name for name in _folders(folder) if folder.exists(f"{FOLDER}/{name}/{RECORD}")]


def unfinished(folder: Folder) -> list[str]:
    """Folders of tags that were cut off while they were made or removed: garbage, which holds pictures all the same."""
    return [f"{FOLDER}/{name}" for name in _folders(folder) if not folder.exists(f"{FOLDER}/{name}/{RECORD}")]


def _folders(folder: Folder) -> list[str]:
    return [name for name in folder.folders(FOLDER) if _NAME.fullmatch(name)]


def read(folder: Folder, name: str) -> Tag:
    """A tag of a dataset.

    Raises:
        Refused: there is none of that name; says which there are.
        Damaged: its record is.
    """
    path = f"{path_of(name)}/{RECORD}"
    try:
        value = strict.loads(folder.read(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        held = names(folder)
        listed = f"its tags are {some(held)}" if held else "it has none"
        raise Refused(
            f"{folder.url} has no tag {name}: {listed}; `refloom tag {quoted(folder.url)} {name}` makes one"
        ) from error
    except ValueError as error:
        raise Damaged(f"{folder.url}/{path} is not json ({error}): {_remedy(folder, name)}") from error
    if (wrong := misfit(value, _SHAPE)) is not None:
        raise Damaged(f"{folder.url}/{path} is not the record of a tag ({wrong}): {_remedy(folder, name)}")
    return Tag(name, value["tables"])


def _remedy(folder: Folder, name: str) -> str:
    return f"put it back from a copy, or remove the tag with `refloom tag {quoted(folder.url)} --delete {name}`"


def place(url: str, tag: str | None) -> str:
    """The address of a state of a dataset: of the dataset itself without a tag; raises as `read`."""
    if tag is None:
        return url
    folder = Folder(url)
    read(folder, tag)
    return folder.below(path_of(tag)).url


def owner(url: str) -> tuple[str, str | None]:
    """The dataset behind an address, and the name of its tag if the address is that of one."""
    above, _, name = url.rstrip("/").rpartition(f"/{FOLDER}/")
    if above and _NAME.fullmatch(name) and is_tag(Folder(url)):
        return above, name
    return url, None


def is_tag(folder: Folder) -> bool:
    """Whether a folder is that of a tag, which nothing but a takedown may change."""
    return folder.exists(RECORD)


def refuse_change(folder: Folder) -> None:
    """Raise Refused if a folder is that of a tag, for whoever is about to write into it."""
    if is_tag(folder):
        raise Refused(
            f"{folder.url} is a tag, which stays as it is: work on its dataset, or make another dataset of it with "
            f"`refloom subset {quoted(folder.url)} DEST`"
        )
