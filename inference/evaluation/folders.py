"""Files of a benchmark: photographs of a folder, json, lines; each error names the file."""

from pathlib import Path
from typing import Any

from refloom.ingest.files import picture_names
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder


def photographs(folder: Path) -> list[Path]:
    """Pictures in a folder, in the order of their names; none if there is no such folder."""
    return [folder / name for name in picture_names(Folder(folder))[0]] if folder.is_dir() else []


def read_json(file: Path) -> Any:
    """The value in a json file.

    Raises:
        Refused: it cannot be read, or is none.
    """
    try:
        return strict.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise Refused(f"{file} is no json ({error}): get it again") from error


def read_lines(file: Path) -> list[str]:
    """Lines of a text that are not empty, without spaces around them.

    Raises:
        Refused: it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{file} cannot be read as text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
