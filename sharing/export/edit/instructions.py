"""Words that ask for an image by the numbers of its references: "the cat of image 2". Pure functions of a row."""

from collections.abc import Sequence

from refloom.sharing.export.draws import rank
from refloom.sharing.export.edit.settings import Reference, Row

_WITH_CAPTION = (
    "{caption} Take {things}.",
    "Make this image with {things}: {caption}",
    "Use {things} in an image of this: {caption}",
)
_WITHOUT = (
    "Make a new image of {things}.",
    "Show {things} in another scene.",
    "Create an image that shows {things}.",
)
_OTHERWISE = {"face": "person", "whole": "subject", "object": "object"}
"""What a subject without a phrase and a category is called, by its kind."""


def templated(row: Row, target: int, references: Sequence[Reference], seed: int) -> str:
    """An instruction made from the names of the subjects, the numbers of their references, and a caption of the target.

    Captions that are templates themselves say no more than the names, and are not used.

    Args:
        row: of `samples`.
        target: index of the image to be made.
        references: in their order; at least one.
        seed: of the export.
    """
    things = _things(row, references)
    picture = row["pictures"][target]
    captions = [one for one in map(_line, picture["captions"] or []) if one]
    if captions and picture["caption_from"] in ("source", "model"):
        caption = min(captions, key=lambda text: rank(seed, row["sample_id"], "caption", text))
        sentence = caption if caption.endswith((".", "!", "?")) else f"{caption}."
        return _drawn(_WITH_CAPTION, row, seed).format(caption=sentence, things=things)
    return _drawn(_WITHOUT, row, seed).format(things=things)


def own(text: str) -> str:
    """A sample's own instruction as one line."""
    return _line(text)


def name_of(subject: Row) -> str:
    """What a subject is called: its phrase, its category, else a word for its kind."""
    return _line(subject["phrase"] or subject["category"] or "") or _OTHERWISE[subject["kind"]]


def _things(row: Row, references: Sequence[Reference]) -> str:
    """The cat of images 1 and 3 and the dog of image 2."""
    numbers: dict[int, list[int]] = {}
    loose = []
    for number, reference in enumerate(references, 1):
        for subject in reference.subjects:
            numbers.setdefault(subject, []).append(number)
        if not reference.subjects:
            loose.append(number)
    parts = [f"the {name_of(row['subjects'][subject])} of {_images(own)}" for subject, own in numbers.items()]
    if loose:
        parts.append(f"what {_images(loose)} {'show' if len(loose) > 1 else 'shows'}")
    return _listed(parts)


def _images(numbers: Sequence[int]) -> str:
    return f"image{'s' if len(numbers) > 1 else ''} {_listed([str(number) for number in numbers])}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _drawn(templates: Sequence[str], row: Row, seed: int) -> str:
    return templates[rank(seed, row["sample_id"], "words") % len(templates)]


def _line(text: str) -> str:
    return " ".join(text.split())
