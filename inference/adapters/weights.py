"""Tensors in and out of files: safetensors and configs of our own, pickles of others without their code.

Loading is strict: every key is accounted for, and what is not is reported by name.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from schemas import strict
from schemas.errors import Refused
from schemas.storage import full_disk_stops

WEIGHTS_FILE = "adapter.safetensors"
FROZEN_FILE = "frozen.safetensors"
"""In checkpoints of a run: what is not trained, the same file in all of them."""
CONFIG_FILE = "config.json"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class KeyReport:
    """How the keys of a file and of a module differ.

    Attributes:
        missing: the module has them, the file does not.
        unknown: the file has them, the module does not.
        misshapen: both have them, with other shapes: `key: (file) is not (module)`.
    """

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.unknown or self.misshapen)

    def __str__(self) -> str:
        parts = [("missing", self.missing), ("unknown", self.unknown), ("of another shape", self.misshapen)]
        return "; ".join(f"{len(keys)} {what}: {_some(keys)}" for what, keys in parts if keys) or "all keys fit"


def compare(module: nn.Module, tensors: Mapping[str, Tensor]) -> KeyReport:
    """The keys of a module's state dict against those of a file."""
    expected = module.state_dict()
    shapes = {key: (tuple(tensors[key].shape), tuple(expected[key].shape)) for key in expected if key in tensors}
    return KeyReport(
        missing=tuple(key for key in expected if key not in tensors),
        unknown=tuple(key for key in tensors if key not in expected),
        misshapen=tuple(f"{key}: {of_file} is not {own}" for key, (of_file, own) in shapes.items() if of_file != own),
    )


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
    report = compare(module, tensors)
    if not report.clean:
        raise Refused(f"{source} does not fit: {report}" + (f"; {hint}" if hint else ""))
    # clone: a tensor of a file may be a view of a larger one, or share memory with another
    module.load_state_dict({key: tensor.clone() for key, tensor in tensors.items()}, strict=True, assign=True)


def read_safetensors(file: Path, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Args:
        file: to read.
        wanted: tells by its key whether a tensor is read; the others cost nothing.

    Raises:
        Refused: there is no such file or it is damaged.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            return {key: tensors.get_tensor(key) for key in tensors.keys() if wanted(key)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise Refused(f"{file} cannot be read as safetensors: {str(error)[:200]}") from error


def safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a safetensors file, from its header alone.

    Raises:
        Refused: there is no such file or it is damaged.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise Refused(f"{file} cannot be read as safetensors: {str(error)[:200]}") from error


def read_pickled(file: Path) -> dict[str, Any]:
    """A checkpoint that `torch.save` wrote: a mapping of tensors and mappings. None of its code is run.

    Raises:
        Refused: there is no such file, it is damaged, or holds something else than tensors and plain values.
    """
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise Refused(f"{file} cannot be read as tensors: {str(error)[:200]}") from error
    if not isinstance(loaded, dict):
        raise Refused(f"{file} holds a {type(loaded).__name__}, not a mapping of tensors")
    return loaded


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
        Refused: a file is not there, is damaged, or two have the same tensor.
    """
    tensors = read_safetensors(folder / WEIGHTS_FILE)
    if (folder / FROZEN_FILE).is_file():
        frozen = read_safetensors(folder / FROZEN_FILE)
        if twice := sorted(set(tensors) & set(frozen)):
            raise Refused(f"{folder} has {twice[0]} in both {WEIGHTS_FILE} and {FROZEN_FILE}: it is of two runs")
        tensors |= frozen
    return tensors


def join(folder: Path) -> None:
    """Put what an adapter's folder has in two files into one, so that it can be given away."""
    if (folder / FROZEN_FILE).is_file():
        write_safetensors(folder / WEIGHTS_FILE, read_folder(folder))
        (folder / FROZEN_FILE).unlink()


def share(file: Path, place: Path) -> None:
    """Put a file into another place of the same run: by a hard link, or a copy where the store has none."""
    place.unlink(missing_ok=True)
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)


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
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{file} cannot be read: {error}; {folder} must be what `save_pretrained` wrote") from error
    if not isinstance(config, dict):
        raise Refused(f"{file} must hold a mapping, not a {type(config).__name__}")
    return config


def _some(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
