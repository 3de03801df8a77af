"""All that can be trained, by name: adapters, and the tiny bases. Each is imported when it is asked for."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from refloom.inference.adapters import kinds
from refloom.schemas.plugins import imported
from refloom.training.methods.method import Method
from refloom.training.methods.trainable import Trainable

T = TypeVar("T")

BASES = {
    "clip": "refloom.training.tinymodels.clip:TASK",
    "pipeline": "refloom.training.tinymodels.pipeline:TASK",
    "qwen2vl": "refloom.training.tinymodels.qwen:TASK",
}


class _Trained(Mapping[str, T]):
    """Kind to what trains it: the methods that `inference.adapters.kinds` declares, and maybe the tiny bases."""

    def __init__(self, bases: Mapping[str, str]) -> None:
        self._bases = bases

    def __getitem__(self, kind: str) -> T:
        found: T = imported(self._bases[kind] if kind in self._bases else kinds.METHODS[kind].trainer)
        if found is None:
            raise KeyError(kind)
        return found

    def __iter__(self) -> Iterator[str]:
        yield from (kind for kind in kinds.METHODS if kinds.METHODS[kind].trainer is not None)
        yield from self._bases

    def __len__(self) -> int:
        return sum(1 for _ in self)


METHODS: Mapping[str, Method] = _Trained({})
TASKS: Mapping[str, Trainable] = _Trained(BASES)
