"""refloom: grouped reference data from public image and video sets, and reference adapters trained on it.

What the commands do, as functions and classes; each is imported on first use, so that `import refloom` costs nothing.

    import refloom

    refloom.ingest("folder", "DATASET", path="photographs")
    refloom.curate("DATASET")
    print(refloom.report("DATASET"))
    refloom.publish("DATASET", "PUBLISHED", accept_licenses=["none"])
    adapter = refloom.train("ip_adapter", "RUN", settings={"data.sources": [{"url": "DATASET"}], ...})
    with refloom.ReferencePipeline.from_pretrained("SDXL", adapter, image_encoder="CLIP") as pipeline:
        pipeline.set_references([refloom.Reference("cat.jpg", phrase="a cat")]).generate("a cat on the beach")

A function prints nothing unless it is asked to (`show=True`), returns what was done, and raises the errors of
`refloom.schemas.errors`: `Refused` when nothing was changed, `JobStopped` when the same call resumes.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refloom.curation.api import curate
    from refloom.inference.adapters.reference import Reference
    from refloom.inference.evaluation.api import evaluate
    from refloom.inference.pipeline import ReferencePipeline
    from refloom.ingest.api import ingest
    from refloom.schemas.dataset import Dataset
    from refloom.schemas.status import status
    from refloom.schemas.verify import verify
    from refloom.sharing.datasets.diff import diff
    from refloom.sharing.datasets.merge import merge
    from refloom.sharing.datasets.subset import subset
    from refloom.sharing.datasets.tag import tag
    from refloom.sharing.export.api import export
    from refloom.sharing.publish.api import publish
    from refloom.training.api import train
    from refloom.training.data.loader import Loader
    from refloom.viewing.report import report

__version__ = "0.1.0"

if os.path.isfile(__file__) and not os.path.isdir(os.path.join(os.path.dirname(__file__), "schemas")):
    raise ImportError(
        f"{os.path.dirname(__file__)} has lost its links to the folders beside it (refloom/schemas -> ../schemas ...): "
        "clone with `git config core.symlinks true`, or `pip install` a wheel"
    )

__all__ = [
    "Dataset",
    "Loader",
    "Reference",
    "ReferencePipeline",
    "curate",
    "diff",
    "evaluate",
    "export",
    "ingest",
    "merge",
    "publish",
    "report",
    "status",
    "subset",
    "tag",
    "train",
    "verify",
]

_HOMES = {
    "Dataset": "refloom.schemas.dataset",
    "Loader": "refloom.training.data.loader",
    "Reference": "refloom.inference.adapters.reference",
    "ReferencePipeline": "refloom.inference.pipeline",
    "curate": "refloom.curation.api",
    "diff": "refloom.sharing.datasets.diff",
    "evaluate": "refloom.inference.evaluation.api",
    "export": "refloom.sharing.export.api",
    "merge": "refloom.sharing.datasets.merge",
    "publish": "refloom.sharing.publish.api",
    "report": "refloom.viewing.report",
    "status": "refloom.schemas.status",
    "subset": "refloom.sharing.datasets.subset",
    "tag": "refloom.sharing.datasets.tag",
    "train": "refloom.training.api",
    "verify": "refloom.schemas.verify",
}
"""Public name to the module that has it, but for `ingest`: that package can be called, see there."""


if not TYPE_CHECKING:  # else every name would be one to them

    def __getattr__(name: str) -> Any:
        """Public names, imported on first use."""
        if name == "ingest":
            return importlib.import_module("refloom.ingest")
        if name not in _HOMES:
            raise AttributeError(f"module 'refloom' has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
        return found


def __dir__() -> list[str]:
    """The public names, whatever else was imported."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
