"""refloom: grouped reference data from public image and video sets, and reference adapters trained on it."""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Dataset": "refloom.schemas.dataset",
    "Reference": "refloom.inference.adapters.reference",
    "ReferencePipeline": "refloom.inference.pipeline",
}


def __getattr__(name: str) -> Any:
    """Public names, imported on first use."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"refloom has no {name!r}")
