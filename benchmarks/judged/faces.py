"""Faces that are found on real photographs, against labels by eye.

The labels are `tests/truth/faces.tsv`; its README says how they were made.
"""

import csv
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.judged import photographs as places
from benchmarks.judged.section import Line, Section
from refloom.curation.annotate.fit import Estimate, over_images
from refloom.curation.annotate.settings import Face as Settings
from refloom.inference.models import registry
from refloom.inference.models.faces import FaceModel, Pixels
from refloom.schemas import boxes, pictures

Floats = npt.NDArray[np.float64]

TRUTH = Path(__file__).parents[2] / "tests" / "truth" / "faces.tsv"
COUNTED = ("frontal", "turned", "tilted", "covered")
"""Of the labels; `small` ones are below 24 px, `unclear` ones from behind: finding them is neither right nor wrong."""
_SAME_FACE = 0.3
"""IoU of a label and a detection; low, because every detector draws its boxes otherwise, and faces lie far apart."""
_FOLDS, _DRAWS = 5, 2000
_NOVEMBER = ("dlib", 24.0)
"""The face model of November 2026, and the least side of its faces."""
_LEAST_SCORE = 0.3
"""Of faces that a threshold is chosen among."""


@dataclass(frozen=True, slots=True)
class Label:
    """A face by eye.

    Attributes:
        box: xyxy, pixels, from forehead to chin.
        size_px: distance of the eyes times 2.2, of turned heads as they would have from the front.
        visibility: frontal, turned, tilted, covered, small or unclear.
    """

    box: tuple[float, float, float, float]
    size_px: float
    visibility: str


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a model made of one picture.

    Attributes:
        found: visibility of each label that counts, and the score with which it was found; -inf where it was not.
        false: scores of detections that are no label's.
    """

    found: Sequence[tuple[str, float]]
    false: Sequence[float]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What a model found on labelled photographs.

    Attributes:
        pictures: by name.
        least: score from which a detection counts, by picture.
    """

    pictures: Mapping[str, Seen]
    least: Mapping[str, float]

    def recall(self, *kinds: str, draw: Sequence[str] | None = None) -> float:
        """Share of labels of these visibilities that were found."""
        names = list(self.pictures) if draw is None else draw
        hits = [score >= self.least[n] for n in names for kind, score in self.pictures[n].found if kind in kinds]
        return float(np.mean(hits)) if hits else float("nan")

    def precision(self, *, draw: Sequence[str] | None = None) -> float:
        """Share of detections that are a label's."""
        names = list(self.pictures) if draw is None else draw
        right = sum(score >= self.least[n] for n in names for _, score in self.pictures[n].found)
        wrong = sum(score >= self.least[n] for n in names for score in self.pictures[n].false)
        return right / (right + wrong) if right + wrong else float("nan")


def truth() -> dict[str, list[Label]]:
    """Picture to its labels."""
    labels: dict[str, list[Label]] = {}
    with TRUTH.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            x0, y0, x1, y1 = (float(row[edge]) for edge in ("x0", "y0", "x1", "y1"))
            found = Label((x0, y0, x1, y1), float(row["size_px"]), row["visibility"])
            labels.setdefault(row["image"], []).append(found)
    return labels


def photographs(shared: Path) -> Iterator[tuple[str, Pixels]]:
    """Every picture that was labelled, those without a face among them, and the subjects, which have none.

    Args:
        shared: the folder of real photographs.
    """
    files = sorted((shared / "coco").glob("*/*.jpg")) + sorted((shared / "faces" / "_groups").glob("*.jpg"))
    for video in sorted((shared / "ytvis" / "JPEGImages").iterdir()):
        files += [file for file in sorted(video.glob("*.jpg")) if int(file.stem) % 10 == 0]
    files += sorted((shared / "subjects").rglob("*.jpg"))
    for file in files:
        yield file.relative_to(shared).as_posix(), pictures.decode(file.read_bytes())
    for archive in sorted((shared / "sa1b").glob("*.tar")):
        with tarfile.open(archive) as tar:
            for member in sorted(tar.getmembers(), key=lambda one: one.name):
                if member.name.endswith(".jpg") and (stream := tar.extractfile(member)) is not None:
                    with stream:
                        yield f"sa1b/{Path(member.name).name}", pictures.decode(stream.read())


def measured(
    model: FaceModel,
    shared: Path,
    labels: Mapping[str, Sequence[Label]],
    *,
    min_side_px: float = Settings().min_side_px,
    least: float | None = None,
) -> Measured:
    """What a model finds on `photographs`.

    Args:
        model: a face model.
        shared: the folder of real photographs.
        labels: by picture.
        min_side_px: of a face's box.
        least: score from which detections are kept; None takes the model's own threshold.
    """
    seen = {}
    for name, pixels in photographs(shared):
        faces = model.find(pixels, min_det_score=least, min_side_px=min_side_px)
        found = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
        seen[name] = compared(found, [face.det_score for face in faces], labels.get(name, ()))
    return Measured(seen, dict.fromkeys(seen, -1e9 if least is None else least))


def compared(found: Floats, scores: Sequence[float], labels: Sequence[Label]) -> Seen:
    """Detections of one picture against its labels: the best detection takes the label that it covers best.

    Args:
        found: (N, 4) xyxy, by descending score.
        scores: (N,).
        labels: of the picture.
    """
    overlaps = boxes.iou(found, np.array([label.box for label in labels], np.float64).reshape(-1, 4))
    hits: dict[int, float] = {}
    false = []
    for row, score in zip(overlaps, scores, strict=True):
        free = [at for at in np.argsort(-row, kind="stable") if row[at] >= _SAME_FACE and at not in hits]
        if free:
            hits[int(free[0])] = score
        else:
            false.append(score)
    counted = [
        (label.visibility, hits.get(at, -np.inf)) for at, label in enumerate(labels) if label.visibility in COUNTED
    ]
    return Seen(counted, false)


def chosen(found: Measured, names: Sequence[str]) -> float:
    """The threshold with the best F1 on some pictures; the middle of the range where several are as good.

    Args:
        found: with a low `least`.
        names: of the pictures that it is chosen on.
    """
    right = np.array([score for name in names for _, score in found.pictures[name].found])
    wrong = np.array([score for name in names for score in found.pictures[name].false])
    grid = np.round(np.arange(_LEAST_SCORE, 0.96, 0.01), 2)
    f1 = np.array(
        [2 * (right >= at).sum() / max(1, len(right) + (right >= at).sum() + (wrong >= at).sum()) for at in grid]
    )
    return float(np.median(grid[f1 >= f1.max() - 1e-12]))


def held_out(found: Measured) -> Measured:
    """Each picture at the threshold that the pictures of the other folds choose."""
    names = sorted(found.pictures)
    order = np.random.default_rng(0).permutation(len(names))
    fold = {names[at]: number % _FOLDS for number, at in enumerate(order)}
    least = {part: chosen(found, [name for name in names if fold[name] != part]) for part in range(_FOLDS)}
    return Measured(found.pictures, {name: least[fold[name]] for name in names})


def run(quick: bool) -> Section:
    """What is found; `quick` changes nothing: there are few photographs."""
    shared = places.shared()
    labels = truth()
    name, side = _NOVEMBER
    before = measured(registry.by_name("face", name).load(), shared, labels, min_side_px=side)
    model = registry.by_name("face", "yunet").load()
    every = measured(model, shared, labels, least=_LEAST_SCORE)
    now = held_out(every)
    sets = {
        "recall of frontal and turned faces": ("frontal", "turned"),
        "recall of tilted faces": ("tilted",),
        "recall of all faces of 24 px and more": COUNTED,
    }
    lines = [Line(what, _recall(before, *kinds), _recall(now, *kinds)) for what, kinds in sets.items()]
    lines.append(Line("precision", _precision(before), _precision(now)))
    old, new = (_portraits(registry.by_name("face", one).load(), shared) for one in (name, "yunet"))
    lines.append(Line("portraits that are found", f"{old[0]} of {old[1]}", f"{new[0]} of {new[1]}"))
    times = [_milliseconds(registry.by_name("face", one).load(), shared) for one in (name, "yunet")]
    lines.append(Line("CPU ms a COCO photograph, one thread", *(f"{each:.0f}" for each in times)))
    checks = [
        (
            f"recall {now.recall('frontal', 'turned'):.2f} of frontal and turned, asked 0.8",
            now.recall("frontal", "turned") >= 0.8,
        ),
        (f"recall {now.recall(*COUNTED):.2f} of all, asked 0.6", now.recall(*COUNTED) >= 0.6),
        (f"precision {now.precision():.2f}, asked 0.95", now.precision() >= 0.95),
        (f"{new[0]} of {new[1]} portraits", new[0] == new[1]),
    ]
    kinds = [label.visibility for of in labels.values() for label in of]
    picked = sorted(set(now.least.values()))
    taken = [s >= now.least[n] for n, seen in now.pictures.items() for s in (*seen.false, *(s for _, s in seen.found))]
    notes = (
        f"{sum(kind in COUNTED for kind in kinds)} labelled faces on {len(now.pictures)} photographs "
        f"({', '.join(f'{kinds.count(kind)} {kind}' for kind in COUNTED)}); 95 % by drawing photographs again. The "
        f"threshold of each photograph was chosen on the other {_FOLDS - 1} of {_FOLDS} folds "
        f"({', '.join(f'{least:.2f}' for least in picked)}); the default is "
        f"{registry.by_name('face', 'yunet').thresholds['min_det_score']}. Precision is of {sum(taken)} detections. "
        f"2026-11 is {name}, {side:.0f} px and more."
    )
    return Section(lines, checks, notes)


def _recall(found: Measured, *kinds: str) -> Estimate:
    return _over_photographs(found, lambda draw: found.recall(*kinds, draw=draw))


def _precision(found: Measured) -> Estimate:
    return _over_photographs(found, lambda draw: found.precision(draw=draw))


def _over_photographs(found: Measured, measure: Callable[[list[str]], float]) -> Estimate:
    names = sorted(found.pictures)
    rows = np.arange(len(names))
    return over_images(lambda drawn: measure([names[at] for at in drawn]), rows, _DRAWS, np.random.default_rng(0))


def _portraits(model: FaceModel, shared: Path) -> tuple[int, int]:
    files = [file for file in sorted((shared / "faces").glob("*/*")) if file.parent.name != "_groups"]
    side = Settings().min_side_px
    found = [model.find(pictures.decode(file.read_bytes()), min_side_px=side, max_faces=1) for file in files]
    return sum(map(bool, found)), len(files)


def _milliseconds(model: FaceModel, shared: Path) -> float:
    """Median over the COCO photographs, of CPU seconds: what a core has to do, whatever else the machine does."""
    spent = []
    for file in sorted((shared / "coco" / "val2017").glob("*.jpg")):
        pixels = pictures.decode(file.read_bytes())
        began = time.process_time()
        model.find(pixels, min_side_px=Settings().min_side_px)
        spent.append(1000 * (time.process_time() - began))
    return float(np.median(spent))
