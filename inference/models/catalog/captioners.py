"""Captioners."""

from inference.models.entry import Entry

ENTRIES: tuple[Entry, ...] = ()
