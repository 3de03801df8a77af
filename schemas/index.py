"""dataset.json: what a dataset is, in one small file, derived from the manifests.

Nothing depends on it but the roots of linked pictures that a person changed there: where it is missing or damaged, the
manifests say the same.
"""

from typing import Any

from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.fields import VERSION
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder

INDEX = "dataset.json"
UNFINISHED = "unfinished"
"""In dataset.json while a subset or merge is being made: the command. Nobody else opens it until then."""
_SHAPE = {
    "version": int,
    "roots?": {"*": str},
    "tables?": dict,
    "stages?": dict,
    "lineage?": dict,
    f"{UNFINISHED}?": str,
}


def read_index(folder: Folder) -> tuple[dict[str, Any] | None, str | None]:
    """The file's content, and what is wrong with it; no content where it is missing or damaged.

    Raises:
        Refused: it is of another version, or the folder is a file.
    """
    try:
        value = strict.loads(folder.read(INDEX))
    except FileNotFoundError:
        return None, f"{INDEX} is missing"
    except NotADirectoryError as error:
        raise Refused(f"{folder.url} is a file: give the folder of a dataset") from error
    except IsADirectoryError:
        return None, f"{INDEX} is a folder"
    except ValueError as error:
        return None, f"{INDEX} is not json ({error})"
    version = value.get("version") if isinstance(value, dict) else None
    if type(version) is int and version != VERSION:
        raise Refused(
            f"{folder.url} is of dataset version {version}; "
            f"this refloom reads version {VERSION}: "
            "use the refloom that wrote it, or build the dataset anew"
        )
    wrong = misfit(value, _SHAPE)
    return (value, None) if wrong is None else (None, f"{INDEX} is not what refloom writes ({wrong})")


def is_dataset(folder: Folder) -> bool:
    """Whether a folder holds a dataset: its dataset.json, or manifests from which that is derived."""
    return folder.exists(INDEX) or bool(folder.folders("manifests"))


def dumped(value: dict[str, Any]) -> bytes:
    """The file's bytes."""
    return strict.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
