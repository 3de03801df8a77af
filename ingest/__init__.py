"""From sources to images, objects and source groups, and the engine that runs units of work.

The package is also the function: `refloom.ingest("coco", "DATASET", images=...)`, see `refloom.ingest.api.ingest`.
"""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """After `import refloom.ingest.sources`, `refloom.ingest` is this module; the function is meant: so it is both."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `refloom.ingest.api.ingest`."""
        from refloom.ingest.api import ingest  # reads Parquet and starts Ray, which `refloom --help` does without

        return ingest(*arguments, **options)

    def __reduce__(self) -> Any:
        """By name, as other modules are pickled: a task of Ray may hold the function that a script imported."""
        return importlib.import_module, (self.__name__,)

    @property
    def __signature__(self) -> inspect.Signature:
        """For `inspect` and what completes names."""
        from refloom.ingest.api import ingest

        return inspect.signature(ingest)


sys.modules[__name__].__class__ = _Callable
