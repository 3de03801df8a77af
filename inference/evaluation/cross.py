"""Cross samples that were held out: several subjects on one picture, each with references on other pictures.

The picture with all of them is left out and its caption is the prompt; where each subject stands on it is where the
adapter may put it. What an adapter makes that knows its subjects is nearer to this picture than to the references.
"""

from collections.abc import Mapping
from typing import Any

from refloom.inference.adapters.reference import FULL_PICTURE, Box
from refloom.inference.evaluation.cases import MAX_REFERENCES, Benchmark, Case, SamplePicture, Subject
from refloom.inference.evaluation.heldout import Row, benchmark, phrase, prompt, seen
from refloom.schemas.wording import several

NAME = "cross"
_TITLE = "Held-out cross samples"
_NOTE = "Adapters see each subject's boxes on white, and are told where it stands on the picture left out."


def read(url: str) -> Benchmark:
    """The cross samples of a dataset's validation split.

    Raises:
        Refused: it is no dataset, or has no such sample.
    """
    return benchmark(NAME, NAME, _TITLE, url, _case, [_NOTE])


def _case(row: Row, pictures: list[SamplePicture]) -> Case | None:
    """A case, or None where there is no target, no subject with a reference, or nothing to ask for."""
    target = row["target"]
    if target is None:
        return None
    made = (_subject(subject, pictures, target, row["pictures"][target]) for subject in row["subjects"])
    subjects = tuple(subject for subject in made if subject is not None)
    asked = prompt(row["pictures"][target], [subject.phrase for subject in subjects])
    if not subjects or not asked:
        return None
    return Case(row["sample_id"], several(len(subjects), "subject"), asked, subjects, target=pictures[target])


def _subject(
    subject: Mapping[str, Any], pictures: list[SamplePicture], target: int, listed: Mapping[str, Any]
) -> Subject | None:
    """One that is seen on the target and elsewhere."""
    shown = seen(subject, pictures)
    truth = shown.pop(target, None)
    place = None if truth is None else _place(truth.box, listed["width"], listed["height"])
    crops = tuple(shown.values())[:MAX_REFERENCES]
    if place is None or not crops:
        return None
    return Subject(phrase(subject), crops, crops, place, crops, truth)


def _place(box: Box | None, width: int, height: int) -> Box | None:
    """A box in pixels as one in 0–1; None where nothing of it lies in the picture."""
    if box is None:
        return FULL_PICTURE
    x1, y1, x2, y2 = (min(max(edge / side, 0.0), 1.0) for edge, side in zip(box, (width, height) * 2, strict=True))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
