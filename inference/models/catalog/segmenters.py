"""Segmenters: masks for boxes and for bare pictures."""

from inference.models.entry import Entry

ENTRIES: tuple[Entry, ...] = ()
