"""The kinds of adapters by name, and the one that a folder holds. Importing this imports no model library."""

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refloom.schemas import strict
from refloom.schemas.errors import Refused

if TYPE_CHECKING:
    from refloom.inference.adapters.adapter import Adapter

KINDS = {
    "easyref": "refloom.inference.adapters.easyref.adapter:EasyRef",
    "ezigen": "refloom.inference.adapters.ezigen.adapter:EZIGen",
    "ip_adapter": "refloom.inference.adapters.ip_adapter.adapter:IPAdapter",
    "mip": "refloom.inference.adapters.mip.adapter:MIPAdapter",
    "ms_diffusion": "refloom.inference.adapters.ms_diffusion.adapter:MSDiffusion",
}

READERS = {
    "easyref": "refloom.inference.adapters.easyref.checkpoint:read_easyref",
    "ezigen": "refloom.inference.adapters.published:read_ezigen",
    "ip_adapter": "refloom.inference.adapters.published:read_ip_adapter",
    "mip": "refloom.inference.adapters.published:read_mip",
    "ms_diffusion": "refloom.inference.adapters.published:read_ms_diffusion",
}
"""What reads a published checkpoint of a kind: called with the file, the base's UNet and `dtype=`."""


def adapter_class(kind: str) -> Any:
    """The class of a kind.

    Raises:
        Refused: there is no such kind.
    """
    return _named(KINDS, kind)


def read_published(kind: str, file: str | Path, unet: Any, **options: Any) -> "Adapter":
    """An adapter from a checkpoint as its authors published it.

    Args:
        kind: the method.
        file: the checkpoint.
        unet: of the base that it was trained for; only its shapes are read, so it may be on the meta device.
        options: of the reader, such as `dtype`.

    Raises:
        Refused: there is no such kind, or the file is damaged, of another method, or does not fit the base.
    """
    adapter: Adapter = _named(READERS, kind)(file, unet, **options)
    return adapter


def from_pretrained(folder: str | Path, **options: Any) -> "Adapter":
    """The adapter in a folder that `save_pretrained` wrote; options as for `Adapter.from_pretrained`.

    Raises:
        Refused: the folder holds none.
    """
    file = Path(folder) / "config.json"
    try:
        kind = strict.loads(file.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"{folder} holds no adapter: {file.name} must name its kind, as save_pretrained writes"
        ) from error
    adapter: Adapter = adapter_class(str(kind)).from_pretrained(folder, **options)
    return adapter


def _named(known: Mapping[str, str], kind: str) -> Any:
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        raise Refused(f"unknown adapter {kind!r}; " + (f"did you mean {near[0]}?" if near else f"known: {list(known)}"))
    module, _, name = known[kind].partition(":")
    return getattr(importlib.import_module(module), name)
