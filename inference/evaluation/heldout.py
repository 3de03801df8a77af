"""Samples of a dataset as cases: those of its validation split, what they ask for, and the benchmark they make."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from refloom.inference.evaluation.cases import UNNAMED, Benchmark, Case, SamplePicture, held_out
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused

Row = dict[str, Any]
_COLUMNS = ["sample_id", "kind", "target", "pictures", "subjects"]


def benchmark(
    name: str,
    kind: str,
    title: str,
    url: str,
    case_of: Callable[[Row, list[SamplePicture]], Case | None],
    notes: Sequence[str],
) -> Benchmark:
    """The benchmark of a dataset's samples of one kind, by their ids.

    Args:
        name: on the command line.
        kind: of the samples.
        title: of the outcome.
        url: of the dataset.
        case_of: makes a case of a row and its pictures; None where nothing says what to make, or what shows it.
        notes: what a reader should know.

    Raises:
        Refused: it is no dataset, or no sample of it makes a case.
    """
    dataset = Dataset(url)
    rows = [(unit, row) for unit in dataset.manifests("compose") for row in _rows(dataset, unit, kind)]
    found = [case_of(row, _pictures(url, unit, row)) for unit, row in rows]
    cases = sorted((case for case in found if case is not None), key=lambda case: case.case_id)
    if not cases:
        raise Refused(
            f"{url} has no {kind} sample of two pictures and more in its validation split: `refloom curate` it with "
            "more pictures, or with a larger split.validation"
        )
    if len(cases) < len(rows):
        notes = [*notes, f"{len(rows) - len(cases)} samples are left out: nothing says what they show, or where."]
    return Benchmark(name, title, tuple(cases), 1, "samples", None, tuple(notes), dataset.fingerprint("samples"))


def _rows(dataset: Dataset, unit: str, kind: str) -> Iterator[Row]:
    for batch in held_out(dataset, unit, _COLUMNS):
        yield from (row for row in batch.to_pylist() if row["kind"] == kind and len(row["pictures"]) > 1)


def _pictures(url: str, unit: str, row: Row) -> list[SamplePicture]:
    return [SamplePicture(url, unit, row["sample_id"], index) for index in range(len(row["pictures"]))]


def seen(subject: Mapping[str, Any], pictures: Sequence[SamplePicture]) -> dict[int, SamplePicture]:
    """What shows a subject, by the number of the picture.

    Args:
        subject: of `samples`.
        pictures: of its sample.
    """
    found: dict[int, SamplePicture] = {}
    for appearance in subject["appearances"]:
        found.setdefault(appearance["picture"], pictures[appearance["picture"]].part(appearance, subject["kind"]))
    return found


def phrase(subject: Mapping[str, Any]) -> str:
    """What a subject is called."""
    return subject["phrase"] or subject["category"] or UNNAMED


def prompt(picture: Mapping[str, Any], phrases: Sequence[str]) -> str:
    """What asks for a picture: its first caption, else the subjects on it; empty where nothing says what it shows.

    Args:
        picture: of `samples`.
        phrases: of the subjects.
    """
    if picture["captions"]:
        return str(picture["captions"][0])
    named = [f"a {one}" for one in phrases if one != UNNAMED]
    return f"a photo of {' and '.join(named)}" if named else ""
