"""How the tensors of a file and of a module differ, by name."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from refloom.schemas.wording import MOST_NAMED, some


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
        odd = [(what, keys) for what, keys in parts if keys]
        told = (f"{len(keys):,} {what}: {some(keys, MOST_NAMED // len(odd))}" for what, keys in odd)
        return "; ".join(told) or "all keys fit"


def compare(module: nn.Module, shapes_of_file: Mapping[str, tuple[int, ...]]) -> KeyReport:
    """The keys and shapes of a module's state dict against those of a file."""
    expected = module.state_dict()
    shapes = {key: (shapes_of_file[key], tuple(expected[key].shape)) for key in expected if key in shapes_of_file}
    return KeyReport(
        missing=tuple(key for key in expected if key not in shapes_of_file),
        unknown=tuple(key for key in shapes_of_file if key not in expected),
        misshapen=tuple(f"{key}: {of_file} is not {own}" for key, (of_file, own) in shapes.items() if of_file != own),
    )
