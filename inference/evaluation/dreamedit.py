"""DreamEditBench: DreamBench's subjects put into other pictures (Li et al. 2023, arXiv 2306.12624).

FOLDER/
  data/replacement_source/<subject or class>/found0.jpg ... found9.jpg
  data/addition_source/<subject or class>/found0.jpg ... found9.jpg, bbox.json
  masks/replacement_source/<subject or class>/found0.png ...      yours: white where the object is that is replaced
  subjects/                                                       DreamBench's folder

Boxes are xyxy in pixels of the source squashed to 512x512. What is to be replaced the authors find with a detector as
they go and do not publish, so masks of it are asked for.
"""

from pathlib import Path
from typing import Any

from refloom.inference.adapters.reference import Box
from refloom.inference.evaluation import dreambench
from refloom.inference.evaluation.cases import Benchmark, Case, FilePicture, Subject, refuse_count, refuse_missing
from refloom.inference.evaluation.folders import photographs, read_json
from refloom.schemas.errors import Refused

NAME = "dreamedit"
CASES = 600
_TITLE = "DreamEditBench"
_SOURCES = 10
_SIDE_PX = 512
_TASKS = ("replacement_source", "addition_source")


def read(folder: str) -> Benchmark:
    """The benchmark from its published files, 30 subjects with 10 sources in each of two tasks.

    Raises:
        Refused: files are missing or of another form.
    """
    root = Path(folder)
    sheet = root / "subjects" / dreambench.SHEET
    refuse_missing(_TITLE, folder, [] if sheet.is_file() else [f"subjects/{dreambench.SHEET}"])
    classes, _, _ = dreambench.read_sheet(sheet)
    found = {name: photographs(root / "subjects" / name) for name in classes}
    missing = [f"subjects/{name}/*" for name, files in found.items() if not files]
    missing += [name for task in _TASKS for name in _gaps(root, task, classes)]
    refuse_missing(_TITLE, folder, list(dict.fromkeys(missing)))
    cases: list[Case] = []
    for task in _TASKS:
        for name, kind in classes.items():
            place = _place(root, task, name, kind)
            marks = read_json(place / "bbox.json") if task == "addition_source" else {}
            pictures = tuple(FilePicture(str(file)) for file in found[name])
            for index in range(_SOURCES):
                stem = f"found{index}"
                box = _box(marks, stem, place) if task == "addition_source" else None
                mask = None if box else str(root / "masks" / task / place.name / f"{stem}.png")
                subject = Subject(kind, pictures, pictures, box)
                source = FilePicture(str(place / f"{stem}.jpg"))
                part = task.removesuffix("_source")
                cases.append(Case(f"{part}/{name}/{index}", part, f"a photo of a {kind}", (subject,), source, mask))
    refuse_count(_TITLE, "cases", len(cases), CASES)
    notes = ("Masks of what is replaced are the user's own: the benchmark publishes none.",)
    return Benchmark(NAME, _TITLE, tuple(cases), 1, "samples", 1, notes)


def _place(root: Path, task: str, name: str, kind: str) -> Path:
    """The folder of a subject's sources; subjects of one class share some of them."""
    parent = root / "data" / task
    own, base = parent / name, name.rstrip("0123456789")
    shared = [parent / other for other in (base, kind, kind.replace(" ", "_")) if (parent / other).is_dir()]
    return own if own.is_dir() or not shared else shared[0]


def _gaps(root: Path, task: str, classes: dict[str, str]) -> list[str]:
    wanted: list[Path] = []
    for name, kind in classes.items():
        place = _place(root, task, name, kind)
        wanted += [place / f"found{index}.jpg" for index in range(_SOURCES)]
        if task == "addition_source":
            wanted.append(place / "bbox.json")
        else:
            wanted += [root / "masks" / task / place.name / f"found{index}.png" for index in range(_SOURCES)]
    return [str(file.relative_to(root)) for file in wanted if not file.is_file()]


def _box(marks: Any, stem: str, place: Path) -> Box:
    try:
        given = marks[stem] if stem in marks else marks[f"{stem}.jpg"]
        x1, y1, x2, y2 = (min(max(float(edge) / _SIDE_PX, 0.0), 1.0) for edge in given)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise Refused(f"{place}/bbox.json has no box x1, y1, x2, y2 of {stem}: it is not of the known form") from error
    if not (x1 < x2 and y1 < y2):
        raise Refused(f"{place}/bbox.json has an empty box of {stem}")
    return x1, y1, x2, y2
