"""Configs of `accelerate launch`: how many processes on how many machines, and what each of them holds.

Batches, accumulation, clipping and precision are the recipe's and not here: the same recipe trains the same under each.
"""

import difflib
from pathlib import Path

from refloom.schemas.errors import Refused

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Of the configs, such as `zero2-8`."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def config_file(name: str) -> Path:
    """The file of a config.

    Raises:
        Refused: there is none of this name.
    """
    known = names()
    if name in known:
        return FOLDER / f"{name}.yaml"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise Refused(f"there is no config {name!r} to launch with; {hint}")
