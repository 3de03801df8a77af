"""The closed list of words for what a stage settled by itself and a person may want to know: nothing was lost by it.

A manifest counts them per unit, beside its items.
"""

NOTES: dict[str, str] = {
    "area_differs": "objects whose area in the source is not that of their mask; the mask's was stored",
    "frame_by_boxes": "pictures whose boxes fit only the frame that their size does not name; the boxes were believed",
    "frame_by_unit": "pictures whose boxes fit both frames; taken as the others of their unit, not as their size says",
    "frame_undecided": "turned pictures whose boxes fit both frames, taken as their size says: look at some",
}
"""Word to a sentence that begins behind its number."""
