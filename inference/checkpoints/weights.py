"""Tensors in and out of files of our own: safetensors and configs. What others made is read by `tensors`.

Loading is strict: every key is accounted for, and what is not is reported by name.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from refloom.inference.checkpoints.keyreport import compare
from refloom.inference.checkpoints.tensors import check_values, read_safetensors
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.storage import link
from refloom.schemas.storeerrors import full_disk_stops

WEIGHTS_FILE = "adapter.safetensors"
FROZEN_FILE = "frozen.safetensors"
"""In checkpoints of a run: what is not trained, the same file in all of them."""
CONFIG_FILE = "config.json"


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: str, hint: str = "") -> None:
    """Give the module the file's tensors, in the file's precision; it may be on the meta device before.

    Args:
        module: what is filled.
        tensors: its whole state dict.
        source: the file, for messages.
        hint: what to do if they do not fit.

    Raises:
        Refused: any key is missing, unknown or of another shape.
    """
    report = compare(module, {key: tuple(tensor.shape) for key, tensor in tensors.items()})
    if not report.clean:
        raise Refused(f"{source} does not fit: {report}" + (f"; {hint}" if hint else ""))
    # clone: a tensor of a file may be a view of a larger one, or share memory with another
    module.load_state_dict({key: tensor.clone() for key, tensor in tensors.items()}, strict=True, assign=True)


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `adapter.safetensors`; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS_FILE, tensors)
    temporary = folder / f"{CONFIG_FILE}.part"
    with full_disk_stops(str(folder)):
        temporary.write_text(strict.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / CONFIG_FILE)


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of an adapter's folder.

    Raises:
        Refused: a file is not there, is damaged, has values that are no numbers, or two have the same tensor.
    """
    tensors = read_safetensors(folder / WEIGHTS_FILE)
    if (folder / FROZEN_FILE).is_file():
        frozen = read_safetensors(folder / FROZEN_FILE)
        if twice := sorted(set(tensors) & set(frozen)):
            raise Refused(f"{folder} has {twice[0]} in both {WEIGHTS_FILE} and {FROZEN_FILE}: it is of two runs")
        tensors |= frozen
    check_values(tensors, str(folder))
    return tensors


def join(folder: Path) -> None:
    """Put what an adapter's folder has in two files into one, so that it can be given away."""
    if (folder / FROZEN_FILE).is_file():
        write_safetensors(folder / WEIGHTS_FILE, read_folder(folder))
        (folder / FROZEN_FILE).unlink()


def share(file: Path, place: Path) -> None:
    """Put a file into another place of the same run: by a hard link, or a copy where the store has none."""
    place.unlink(missing_ok=True)
    link(file, place)


def write_safetensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file; it appears whole or not at all.

    Raises:
        JobStopped: the disk is full.
    """
    temporary = file.with_name(f"{file.name}.part")
    try:
        with full_disk_stops(str(file)):
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, file)


def read_config(folder: Path) -> dict[str, Any]:
    """The mapping in a folder's `config.json`.

    Raises:
        Refused: there is none, or it is damaged.
    """
    file = folder / CONFIG_FILE
    try:
        config = strict.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{file} cannot be read: {error}; {folder} must be what `save_pretrained` wrote") from error
    if not isinstance(config, dict):
        raise Refused(f"{file} must hold a mapping, not a {type(config).__name__}")
    return config
