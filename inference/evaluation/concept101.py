"""Concept101 in MIP-Adapter's selection: 101 pairs of concepts, twelve prompts each (spec B3.5 and B5).

FOLDER/
  dataset_multiconcept.json               pairs [A, B, {prompt_filename_compose}]
  <prompt_filename_compose>               twelve templates with {0} and {1}
  benchmark_dataset/<concept>/*           photographs
  json_data/<concept>/<stem>.json         boxes, in pixels of the photograph with its short side at 800
"""

import math
from pathlib import Path, PurePosixPath
from typing import Any

from refloom.inference.evaluation.cases import (
    Benchmark,
    Case,
    FilePicture,
    Subject,
    fields,
    refuse_count,
    refuse_missing,
)
from refloom.inference.evaluation.folders import photographs, read_json, read_lines
from refloom.schemas.errors import Refused

NAME = "concept101"
PAIRS = 101
PROMPTS = 1212
_BOX_SHORT_PX = 800.0
_SHEET = "dataset_multiconcept.json"
_TITLE = "Concept101, two concepts"


def read(folder: str) -> Benchmark:
    """The benchmark from its published files.

    Adapters see the box of each photograph, background kept, on a white square; results are compared with the whole
    photographs. Prompts are taken as they are written, unlike in the published evaluation, which lost some full stops
    and overwrote two repeated ones.

    Raises:
        Refused: files are missing or of another form, or there are not 1,212 prompts.
    """
    root = Path(folder)
    refuse_missing(_TITLE, folder, [name for name in (_SHEET,) if not (root / name).is_file()])
    pairs = read_json(root / _SHEET)
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 3 for pair in pairs):
        raise Refused(f"{root / _SHEET} is no list of [concept, concept, prompts]: it is not of the published form")
    _refuse_gaps(root, pairs)
    cases: list[Case] = []
    subjects: dict[tuple[str, str], Subject] = {}
    for index, pair in enumerate(pairs):
        concepts = [_concept(one) for one in pair[:2]]
        for concept in concepts:
            subjects.setdefault(concept, _subject(root, *concept))
        names = "+".join(name for name, _ in concepts)
        for line, template in enumerate(read_lines(root / _prompts_of(pair))):
            prompt = template.replace("{0}", concepts[0][1]).replace("{1}", concepts[1][1])
            both = tuple(subjects[concept] for concept in concepts)
            cases.append(Case(f"{index:03d}-{names}/{line:02d}", f"{index:03d}-{names}", prompt, both))
    refuse_count(_TITLE, "pairs", len(pairs), PAIRS)
    refuse_count(_TITLE, "prompts", len(cases), PROMPTS)
    notes = (
        "The pair with index 4 says sofa and shows a chair, as published.",
        "MIP-Adapter's own evaluation scores 18 prompts with a file name's ending behind them; here they are clean.",
    )
    return Benchmark(NAME, _TITLE, tuple(cases), 1, "parts", None, notes)


def _refuse_gaps(root: Path, pairs: list[Any]) -> None:
    missing: list[str] = []
    for pair in pairs:
        if not (root / (sheet := _prompts_of(pair))).is_file():
            missing.append(sheet)
        for name, _ in map(_concept, pair[:2]):
            found = photographs(root / "benchmark_dataset" / name)
            if not found:
                missing.append(f"benchmark_dataset/{name}/*")
            marks = [f"json_data/{name}/{file.stem}.json" for file in found]
            missing += [mark for mark in marks if not (root / mark).is_file()]
    refuse_missing(_TITLE, root, list(dict.fromkeys(missing)))


def _concept(values: Any) -> tuple[str, str]:
    """Folder name and class of one of a pair."""
    directory, phrase = fields(values, "instance_data_dir", "class_prompt", where=_SHEET)
    name = PurePosixPath(str(directory)).name
    if not name or name == "..":
        raise Refused(f"{_SHEET} has the folder {directory!r}: it is not of the published form")
    return name, str(phrase)


def _prompts_of(pair: list[Any]) -> str:
    (name,) = fields(pair[2], "prompt_filename_compose", where=_SHEET)
    path = PurePosixPath(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise Refused(f"{_SHEET} has the prompts {name!r}, which lie outside the folder")
    return str(path)


def _subject(root: Path, name: str, phrase: str) -> Subject:
    files = photographs(root / "benchmark_dataset" / name)
    parts = tuple(_boxed(root / "json_data" / name / f"{file.stem}.json", file) for file in files)
    return Subject(phrase, parts, tuple(FilePicture(str(file)) for file in files), crops=parts)


def _boxed(mark: Path, file: Path) -> FilePicture:
    (found,) = fields(read_json(mark), "mask", where=str(mark))
    try:
        x1, y1, x2, y2 = (float(edge) for edge in found[1]["box"])  # after the background, the surest one comes first
        if not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2):
            raise ValueError("an empty box")
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise Refused(f"{mark} has no box of an object: it is not of the published form") from error
    return FilePicture(str(file), (x1, y1, x2, y2), _BOX_SHORT_PX)
