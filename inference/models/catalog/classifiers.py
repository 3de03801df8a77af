"""Image classifiers."""

from dataclasses import replace

from refloom.inference.models.catalog.images import EFFICIENTNET_LITE0
from refloom.inference.models.entry import Entry

ENTRIES: tuple[Entry, ...] = (replace(EFFICIENTNET_LITE0, role="classifier", thresholds={}),)
