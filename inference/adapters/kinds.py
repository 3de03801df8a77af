"""The kinds of adapters by name, and the one that a folder holds. Importing this imports no model library."""

import difflib
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import Refused

if TYPE_CHECKING:
    from inference.adapters.adapter import Adapter

KINDS = {
    "ezigen": "inference.adapters.ezigen:EZIGen",
    "ip_adapter": "inference.adapters.ip_adapter:IPAdapter",
    "mip": "inference.adapters.mip:MIPAdapter",
    "ms_diffusion": "inference.adapters.ms_diffusion:MSDiffusion",
    "easyref": "inference.adapters.easyref:EasyRef",
}


def adapter_class(kind: str) -> Any:
    """The class of a kind.

    Raises:
        Refused: there is no such kind.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        raise Refused(f"unknown adapter {kind!r}; " + (f"did you mean {near[0]}?" if near else f"known: {list(KINDS)}"))
    module, _, name = KINDS[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def from_pretrained(folder: str | Path, **options: Any) -> "Adapter":
    """The adapter in a folder that `save_pretrained` wrote; options as for `Adapter.from_pretrained`.

    Raises:
        Refused: the folder holds none.
    """
    file = Path(folder) / "config.json"
    try:
        kind = json.loads(file.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{folder} holds no adapter: {file.name} must name its kind, as save_pretrained writes"
        ) from error
    adapter: Adapter = adapter_class(str(kind)).from_pretrained(folder, **options)
    return adapter
