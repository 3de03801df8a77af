"""Cross samples that were held out: several subjects on one picture, each with references on other pictures.

The picture with all of them is left out and its caption is the prompt; where each subject stands on it is where the
adapter may put it. Of an adapter that has learned its subjects the made picture is nearer to this picture than to the
references; of one that pastes it is not.
"""

from collections.abc import Iterator
from typing import Any

from refloom.inference.adapters.reference import Box
from refloom.inference.evaluation.cases import (
    MAX_REFERENCES,
    UNNAMED,
    Benchmark,
    Case,
    SamplePicture,
    Subject,
    held_out,
)
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.wording import several

NAME = "cross"
_TITLE = "Held-out cross samples"
_COLUMNS = ["sample_id", "kind", "target", "pictures", "subjects"]


def read(url: str) -> Benchmark:
    """The cross samples of a dataset's validation split.

    Raises:
        Refused: it is no dataset, or has no such sample.
    """
    dataset = Dataset(url)
    rows = [(unit, row) for unit in dataset.manifests("compose") for row in _rows(dataset, unit)]
    found = [_case(url, unit, row) for unit, row in rows]
    cases = sorted((case for case in found if case is not None), key=lambda case: case.case_id)
    if not cases:
        raise Refused(
            f"{url} has no cross sample in its validation split: `refloom curate` it with cross samples, with more "
            "pictures, or with a larger split.validation"
        )
    notes = ["Adapters see each subject's boxes on white, and are told where it stands on the picture left out."]
    if len(cases) < len(rows):
        notes.append(f"{len(rows) - len(cases)} samples are left out: nothing says what they show, or where.")
    return Benchmark(NAME, _TITLE, tuple(cases), 1, "samples", None, tuple(notes), dataset.fingerprint("samples"))


def _rows(dataset: Dataset, unit: str) -> Iterator[dict[str, Any]]:
    for batch in held_out(dataset, unit, _COLUMNS):
        yield from (row for row in batch.to_pylist() if row["kind"] == "cross")


def _case(url: str, unit: str, row: dict[str, Any]) -> Case | None:
    """A case, or None where there is no target, no subject with a reference, or nothing to ask for."""
    target, listed = row.get("target"), row["pictures"]
    if target is None or not 0 <= target < len(listed):
        return None
    pictures = [SamplePicture(url, unit, row["sample_id"], index) for index in range(len(listed))]
    size = listed[target]["width"], listed[target]["height"]
    made = (_subject(pictures, subject, target, size) for subject in row["subjects"])
    subjects = tuple(subject for subject in made if subject is not None)
    phrases = [subject.phrase for subject in subjects if subject.phrase != UNNAMED]
    captions = listed[target]["captions"]
    prompt = (
        captions[0] if captions else (f"a photo of {' and '.join(f'a {one}' for one in phrases)}" if phrases else "")
    )
    if not subjects or not prompt:
        return None
    return Case(row["sample_id"], several(len(subjects), "subject"), prompt, subjects, target=pictures[target])


def _subject(
    pictures: list[SamplePicture], subject: dict[str, Any], target: int, size: tuple[int, int]
) -> Subject | None:
    """One that is seen on the target and elsewhere."""
    kind = subject["kind"]
    on_target = [one for one in subject["appearances"] if one["picture"] == target]
    elsewhere = [one for one in subject["appearances"] if one["picture"] != target][:MAX_REFERENCES]
    if not on_target or not elsewhere:
        return None
    truth = pictures[target].part(on_target[0], kind)
    crops = tuple(pictures[one["picture"]].part(one, kind) for one in elsewhere)
    phrase = subject["phrase"] or subject["category"] or UNNAMED
    place = _place(truth.box, *size)
    return None if place is None else Subject(phrase, crops, crops, place, crops, truth)


def _place(box: Box | None, width: int, height: int) -> Box | None:
    """A box in pixels as one in 0–1; None where nothing of it lies in the picture."""
    if box is None:
        return 0.0, 0.0, 1.0, 1.0
    x1, y1, x2, y2 = (min(max(edge / side, 0.0), 1.0) for edge, side in zip(box, (width, height) * 2, strict=True))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
