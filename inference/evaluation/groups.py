"""Groups that were held out: the validation split of a refloom dataset, in the way of EasyRef's MRBench (spec A5).

MRBench itself, its sizes and its choice of pictures, are not published. Here each group is one case: its first picture,
or the one that its source says is made of the others, is left out, its caption is the prompt, and the other pictures
are the references.
"""

from refloom.inference.evaluation.cases import MAX_REFERENCES, Benchmark, Case, SamplePicture, Subject
from refloom.inference.evaluation.heldout import Row, benchmark, phrase, prompt, seen

NAME = "groups"
_TITLE = "Held-out groups"
_NOTE = (
    "MRBench is not published: these are this dataset's own groups; the paper's numbers beside them are for "
    "orientation only."
)


def read(url: str) -> Benchmark:
    """The group samples of a dataset's validation split.

    Raises:
        Refused: it is no dataset, or has no such sample.
    """
    return benchmark(NAME, "group", _TITLE, url, _case, [_NOTE])


def _case(row: Row, pictures: list[SamplePicture]) -> Case | None:
    """A case, or None where nothing says what the picture shows."""
    target, subject = row["target"] or 0, row["subjects"][0]
    name = phrase(subject)
    asked = prompt(row["pictures"][target], [name])
    if not asked:
        return None
    references = tuple(picture for picture in pictures if picture.index != target)[:MAX_REFERENCES]
    shown = seen(subject, pictures)
    crops = tuple(shown[picture.index] for picture in references if picture.index in shown)
    only = Subject(name, references, references, None, crops, shown.get(target))
    return Case(row["sample_id"], row["sample_id"].split("/")[1], asked, (only,), target=pictures[target])
