"""Writes the reference of the Python side from its docstrings: `python docs/reference.py OUT`, as `make docs` does."""

import importlib
import sys
from pathlib import Path

import refloom

MODULES = (
    "refloom",
    "refloom.schemas.errors",
    "refloom.schemas.dataset",
    "refloom.schemas.tables",
    "refloom.ingest.api",
    "refloom.ingest.source",
    "refloom.ingest.sources",
    "refloom.ingest.engine.showing",
    "refloom.ingest.engine.tasks",
    "refloom.curation.api",
    "refloom.curation.config",
    "refloom.sharing.datasets.diff",
    "refloom.sharing.datasets.merge",
    "refloom.sharing.datasets.subset",
    "refloom.sharing.datasets.tag",
    "refloom.sharing.datasets.where",
    "refloom.sharing.export.api",
    "refloom.sharing.publish.api",
    "refloom.training.api",
    "refloom.training.data.loader",
    "refloom.training.recipes.book",
    "refloom.training.recipes.recipe",
    "refloom.training.views.example",
    "refloom.inference.adapters.adapter",
    "refloom.inference.adapters.reference",
    "refloom.inference.evaluation.api",
    "refloom.inference.evaluation.outcome",
    "refloom.inference.models.entry",
    "refloom.inference.pipeline",
)
"""What has a page: the public names, and the modules that they take from and give to."""


def write(out: Path) -> None:
    """Write a page for each of `MODULES`, and the index of them."""
    import pdoc

    for name in refloom.__all__:
        getattr(refloom, name)  # pdoc does not ask for what is imported on first use
    for module in MODULES:
        importlib.import_module(module)
    vars(refloom)["ingest"] = importlib.import_module("refloom.ingest.api").ingest  # the function, not the package
    pdoc.render.configure(docformat="google", search=False)
    first, *others = MODULES
    pdoc.pdoc(first, "!refloom.ingest", *others, output_directory=out)  # else each of its modules gets a page


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    write(Path(sys.argv[1]))
