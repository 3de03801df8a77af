"""Groups that were held out: the validation split of a refloom dataset, in the way of EasyRef's MRBench (spec A5).

MRBench itself, its sizes and its choice of pictures, are not published. Here each group is one case: its first picture
is left out, its caption is the prompt, and the other pictures are the references.
"""

from collections.abc import Iterator
from typing import Any

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

NAME = "groups"
_TITLE = "Held-out groups"
_COLUMNS = ["sample_id", "kind", "pictures", "subjects"]


def read(url: str) -> Benchmark:
    """The group samples of a dataset's validation split.

    Raises:
        Refused: it is no dataset, or has no such sample.
    """
    dataset = Dataset(url)
    rows = [(unit, row) for unit in dataset.manifests("compose") for row in _groups(dataset, unit)]
    found = [_case(url, unit, row) for unit, row in rows]
    cases = sorted((case for case in found if case is not None), key=lambda case: case.case_id)
    if not cases:
        raise Refused(
            f"{url} has no group of two pictures and more in its validation split: `refloom curate` it with more "
            "pictures, or with a larger split.validation"
        )
    notes = [
        "MRBench is not published: these are this dataset's own groups; the paper's numbers beside them are for "
        "orientation only."
    ]
    if len(cases) < len(rows):
        notes.append(f"{len(rows) - len(cases)} groups have neither caption nor phrase and are left out.")
    return Benchmark(NAME, _TITLE, tuple(cases), 1, "samples", None, tuple(notes), dataset.fingerprint("samples"))


def _groups(dataset: Dataset, unit: str) -> Iterator[dict[str, Any]]:
    for batch in held_out(dataset, unit, _COLUMNS):
        yield from (row for row in batch.to_pylist() if row["kind"] == "group" and len(row["pictures"]) > 1)


def _case(url: str, unit: str, row: dict[str, Any]) -> Case | None:
    """A case, or None where nothing says what the picture shows."""
    captions, subject = row["pictures"][0]["captions"], row["subjects"][0]
    phrase = subject["phrase"] or subject["category"] or ""
    prompt = captions[0] if captions else (f"a photo of a {phrase}" if phrase else "")
    if not prompt:
        return None
    pictures = [SamplePicture(url, unit, row["sample_id"], index) for index in range(len(row["pictures"]))]
    references = tuple(pictures[1 : 1 + MAX_REFERENCES])
    seen = {one["picture"]: pictures[one["picture"]].part(one, subject["kind"]) for one in subject["appearances"]}
    crops = tuple(seen[picture.index] for picture in references if picture.index in seen)
    only = Subject(phrase or UNNAMED, references, references, None, crops, seen.get(0))
    return Case(row["sample_id"], row["sample_id"].split("/")[1], prompt, (only,), target=pictures[0])
