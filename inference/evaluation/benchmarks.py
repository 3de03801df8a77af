"""The benchmarks by name."""

import difflib
import importlib

from refloom.inference.evaluation.cases import Benchmark
from refloom.schemas.errors import Refused

READERS = {
    "concept101": "refloom.inference.evaluation.concept101",
    "ms-bench": "refloom.inference.evaluation.msbench",
    "dreambench": "refloom.inference.evaluation.dreambench",
    "dreamedit": "refloom.inference.evaluation.dreamedit",
    "groups": "refloom.inference.evaluation.groups",
}
"""Name to the module whose `read(folder)` reads it."""


def read(name: str, folder: str) -> Benchmark:
    """A benchmark from its files.

    Args:
        name: a key of `READERS`.
        folder: of the published files; of `groups` a dataset.

    Raises:
        Refused: there is no such benchmark, or its files are not all there or of another form.
    """
    if name not in READERS:
        near = difflib.get_close_matches(name, READERS, n=1)
        raise Refused(f"unknown benchmark {name!r}; " + (f"did you mean {near[0]}?" if near else f"{list(READERS)}"))
    benchmark: Benchmark = importlib.import_module(READERS[name]).read(folder)
    return benchmark
