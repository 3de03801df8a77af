"""The benchmarks by name."""

from collections.abc import Callable

from refloom.inference.evaluation.cases import Benchmark
from refloom.schemas.plugins import Registry

READERS: Registry[Callable[[str], Benchmark]] = Registry(
    "benchmarks",
    "benchmark",
    {
        "concept101": "refloom.inference.evaluation.concept101:read",
        "ms-bench": "refloom.inference.evaluation.msbench:read",
        "dreambench": "refloom.inference.evaluation.dreambench:read",
        "dreamedit": "refloom.inference.evaluation.dreamedit:read",
        "groups": "refloom.inference.evaluation.groups:read",
        "cross": "refloom.inference.evaluation.cross:read",
    },
)
"""Name to what reads it from a folder."""


def read(name: str, folder: str) -> Benchmark:
    """A benchmark from its files.

    Args:
        name: a key of `READERS`.
        folder: of the published files; of `groups` a dataset.

    Raises:
        Refused: there is no such benchmark, or its files are not all there or of another form.
    """
    return READERS.find(name)(folder)
