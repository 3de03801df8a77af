"""Text embedders, each in the space of an image embedder."""

from inference.models.entry import Entry

ENTRIES: tuple[Entry, ...] = ()
