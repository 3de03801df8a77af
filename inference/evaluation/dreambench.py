"""DreamBench: 30 subjects, 25 prompts each, four pictures of each prompt (Ruiz et al. 2023, arXiv 2208.12242).

FOLDER/
  prompts_and_classes.txt     subjects with classes, prompts of objects, prompts of live subjects
  <subject>/*                 photographs
"""

import re
from pathlib import Path

from refloom.inference.evaluation.cases import Benchmark, Case, FilePicture, Subject, refuse_count, refuse_missing
from refloom.inference.evaluation.folders import photographs, read_lines

NAME = "dreambench"
SUBJECTS = 30
PROMPTS = 750
IMAGES = 4
SHEET = "prompts_and_classes.txt"
_TITLE = "DreamBench"
_LIVE = ("cat", "dog")
_TEMPLATE = re.compile(r"""['"](?P<text>.*\{0\}.*\{1\}.*)['"]\.format""")
_ROW = re.compile(r"(?P<name>\w+),(?P<kind>[\w ]+)")


def read(folder: str) -> Benchmark:
    """The benchmark from its published files.

    Adapters see the first photograph of a subject unless told otherwise; results are compared with all of them. Prompts
    are without the rare token of tuned methods: `a dog in the snow`.

    Raises:
        Refused: files are missing or of another form, or there are not 750 prompts.
    """
    root = Path(folder)
    refuse_missing(_TITLE, folder, [] if (root / SHEET).is_file() else [SHEET])
    classes, things, live = read_sheet(root / SHEET)
    refuse_count(_TITLE, "subjects", len(classes), SUBJECTS)
    found = {name: photographs(root / name) for name in classes}
    refuse_missing(_TITLE, folder, [f"{name}/*" for name, files in found.items() if not files])
    cases: list[Case] = []
    for name, kind in classes.items():
        pictures = tuple(FilePicture(str(file)) for file in found[name])
        subject = Subject(kind, pictures, pictures)
        for index, template in enumerate(live if kind in _LIVE else things):
            prompt = " ".join(template.replace("{0}", "").replace("{1}", kind).split())
            cases.append(Case(f"{name}/{index:02d}", name, prompt, (subject,)))
    refuse_count(_TITLE, "prompts", len(cases), PROMPTS)
    return Benchmark(NAME, _TITLE, tuple(cases), IMAGES, "pairs", 1)


def read_sheet(file: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Subjects with their classes, and the templates of objects and of live subjects, with {0} and {1}.

    Raises:
        Refused: it cannot be read.
    """
    classes: dict[str, str] = {}
    prompts: dict[str, list[str]] = {"Object": [], "Live": []}
    section = ""
    for line in read_lines(file):
        if line.split()[0] in ("Classes", "Prompts", *prompts):
            section = line.split()[0]
        elif section == "Classes" and (row := _ROW.fullmatch(line)) and row["name"] != "subject_name":
            classes[row["name"]] = row["kind"]
        elif section in prompts and (template := _TEMPLATE.search(line)):
            prompts[section].append(template["text"])
    return classes, prompts["Object"], prompts["Live"]
