"""Benchmarks of their true structure with tiny pictures, and adapters to evaluate on them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from drawing import gradient
from loading import Row, appearance, picture, sample_row, subject
from PIL import Image

from refloom.inference.evaluation import msbench
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter

TEMPLATES = [f"photo number {n} of a {{0}} and a {{1}}." for n in range(11)] + ["a {0} on top of a {1} "]
CLASSES = {
    **dict.fromkeys(("dog", "dog2", "dog3", "dog5", "dog6", "dog7", "dog8"), "dog"),
    **dict.fromkeys(("cat", "cat2"), "cat"),
    "backpack": "backpack",
    "backpack_dog": "backpack",
    "bear_plushie": "stuffed animal",
    **{f"thing_{n}": "toy" for n in range(18)},
}
"""Thirty, as published; the rest are called otherwise, which nothing looks at."""
Drawn = tuple[Row, list[np.ndarray]]
"""A row of `samples` and its pictures (48, 64, 3)."""
_WHOLE = np.ones((48, 64), np.uint8)
_MIDDLE = np.pad(np.ones((32, 32), np.uint8), ((8, 8), (16, 16)))


def photo(file: Path, seed: int, width: int = 64, height: int = 48) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gradient(width, height, seed)).save(file)
    return file


def concept101(root: Path, templates: list[str] = TEMPLATES, pairs: int = 101) -> Path:
    """Twenty concepts of one photograph each, in pairs; boxes in the pixels of a short side of 800."""
    for n in range(20):
        photo(root / f"benchmark_dataset/toy_{n}/img.1.jpg", n)
        marks = [{"value": 0, "label": "background"}, {"label": "toy", "logit": 0.5, "box": [200, 100, 600, 700]}]
        folder = root / f"json_data/toy_{n}"
        folder.mkdir(parents=True)
        (folder / "img.1.json").write_text(json.dumps({"caption": "", "mask": marks}))
    (root / "prompts").mkdir()
    (root / "prompts/toys.txt").write_text("\n".join(templates) + "\n")
    names = [(first, second) for first in range(20) for second in range(first)][:pairs]
    sheet = [
        [_concept(a, "wooden pot"), _concept(b, "cat"), {"prompt_filename_compose": "prompts/toys.txt"}]
        for a, b in names
    ]
    (root / "dataset_multiconcept.json").write_text(json.dumps(sheet))
    return root


def _concept(number: int, phrase: str) -> dict[str, str]:
    return {"instance_data_dir": f"./benchmark_dataset/toy_{number}", "class_prompt": phrase}


def ms_bench(root: Path) -> Path:
    seed = 0
    for kind, names in msbench._KINDS.items():
        for name in names:
            photo(root / kind / (f"{name}.png" if name == "dress" else f"{name}.jpg"), seed := seed + 1)
    return root


def dreambench(root: Path) -> Path:
    """Three photographs of each subject, of the cat one."""
    root.mkdir(parents=True, exist_ok=True)
    things = [f"'a {{0}} {{1}} in place {n}'.format(unique_token, class_token)," for n in range(25)]
    live = [f"'a {{0}} {{1}} wearing hat {n}'.format(unique_token, class_token)," for n in range(25)]
    rows = [f"{name},{kind}" for name, kind in CLASSES.items()]
    text = ["Classes", "", "subject_name,class", *rows, "", "Prompts", "", "Object Prompts", "", "prompt_list = ["]
    text += [*things, "]", "", "Live Subject Prompts", "", "prompt_list = [", *live, "]"]
    (root / "prompts_and_classes.txt").write_text("\n".join(text))
    for at, name in enumerate(CLASSES):
        for n in range(1 if name == "cat" else 3):
            photo(root / name / f"0{n}.jpg", 10 * at + n)
    return root


def dreamedit(root: Path) -> Path:
    """Sources are shared by subjects of a class; boxes are in pixels of 512x512."""
    dreambench(root / "subjects")
    own = ["dog", "cat", "backpack", *(name for name, kind in CLASSES.items() if kind in ("toy", "stuffed animal"))]
    for task in ("replacement_source", "addition_source"):
        for at, name in enumerate(own):
            for n in range(10):
                photo(root / f"data/{task}/{name}/found{n}.jpg", 1000 + 10 * at + n, 64, 32)
                if task == "replacement_source":
                    mask = np.zeros((32, 64), np.uint8)
                    mask[8:24, 16:48] = 255
                    (root / "masks" / task / name).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(root / "masks" / task / name / f"found{n}.png")
            if task == "addition_source":
                boxes = {f"found{n}.jpg": [128, 256, 384, 512] for n in range(10)}
                (root / f"data/{task}/{name}/bbox.json").write_text(json.dumps(boxes))
    return root


def groups(root: Path, sizes: tuple[int, ...] = (3, 4)) -> str:
    """A dataset whose validation split has groups of these sizes, and a sample that is none."""
    rows = []
    for number, size in enumerate((1, *sizes)):
        kind = "group" if number else "image"
        listed = [picture(f"p/{number}-{n}", 64, 48, [f"A dog, number {number}-{n}"]) for n in range(size)]
        seen = [appearance(n, _WHOLE) for n in range(size)]
        row = sample_row(f"{kind}/look/{number}", kind, listed, [subject(f"look/{number}", "dog", seen)])
        rows.append((row, [gradient(64, 48, 10 * number + n) for n in range(size)]))
    return held_out(root, rows)


def cross_row(number: int, references: Sequence[int], captions: Sequence[str] = ("A cat and a dog",)) -> Drawn:
    """A cross sample: subjects side by side on the second picture, each on so many others, and one on none."""
    target = 1
    listed = [picture(f"c/{number}-{n}", 64, 48, captions if n == target else ()) for n in range(1 + sum(references))]
    others = iter(n for n in range(len(listed)) if n != target)
    subjects = []
    for at, count in enumerate(references):
        half = np.zeros((48, 64), np.uint8)
        half[8:40, 32 * at : 32 * at + 24] = 1
        seen = [appearance(target, half), *(appearance(next(others), _MIDDLE) for _ in range(count))]
        subjects.append(subject(f"look/{number}-{at}", ("cat", "dog")[at % 2], seen))
    subjects.append(subject(f"p#{number}", "sofa", [appearance(target, _WHOLE)]))
    row = sample_row(f"cross/c/{number}", "cross", listed, subjects) | {"target": target}
    return row, [gradient(64, 48, 100 * number + n) for n in range(len(listed))]


def held_out(root: Path, rows: Iterable[Drawn]) -> str:
    """A dataset whose validation split has these samples."""
    dataset = Dataset(str(root), create=True)
    with UnitWriter(dataset.folder, UnitKey("compose", "u0", "test")) as out:
        for row, drawn in rows:
            data = [pictures.encode_jpeg(one, 95) for one in drawn]
            out.expect(row["kind"])
            out.add("samples", row | {"images": [{"bytes": one, "path": None} for one in data]}, below="validation")
            out.keep(row["kind"])
    return str(root)
