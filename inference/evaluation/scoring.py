"""Scores of the pictures of a benchmark: a job of the engine whose unit is some cases, one set of encoders a worker."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from refloom.inference.adapters.reading import Mask, Pixels
from refloom.inference.evaluation import gallery, metrics
from refloom.inference.evaluation.cases import Case, Picture, pixel_box
from refloom.inference.evaluation.encoders import Chosen, Encoders, area_box, without
from refloom.inference.evaluation.gallery import Exhibit
from refloom.inference.evaluation.metrics import Floats, Metric, Score
from refloom.ingest.engine.tasks import Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas import strict
from refloom.schemas.errors import Failed, JobStopped, Refused, StoreDenied
from refloom.schemas.fingerprint import of_json
from refloom.schemas.lease import holds
from refloom.schemas.storage import Folder

VERSION = 1
"""Hand-bumped when a score changes that neither an encoder's name nor a metric's says."""

_PHOTOGRAPHS = 4096
"""Vectors of photographs that a worker keeps."""


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """What workers measure with; travels to them.

    Attributes:
        url: of the evaluation's folder.
        lease_id: checked before every unit.
        chosen: the encoders.
        names: of the metrics.
        device: of the encoders.
    """

    url: str
    lease_id: str
    chosen: dict[str, Chosen]
    names: tuple[str, ...]
    device: str

    def start(self) -> "ScoreWorker":
        """One worker per process."""
        return ScoreWorker(self)


def key_of(chosen: dict[str, Chosen], names: Sequence[str], pictures: Sequence[str]) -> str:
    """What the scores of a unit follow from; other scores are made anew.

    Args:
        chosen: the encoders.
        names: of the metrics.
        pictures: that are there.
    """
    wanted = [asdict(metrics.BY_NAME[name]) for name in names]
    return of_json([VERSION, {kind: one.identity for kind, one in chosen.items()}, wanted, list(pictures)])


def pictures_of(folder: Folder, exhibits: Sequence[Exhibit]) -> list[tuple[Exhibit, int]]:
    """The pictures of some cases that are there."""
    found: list[tuple[Exhibit, int]] = []
    for exhibit in exhibits:
        gone = gallery.missing(folder, exhibit)
        found += [(exhibit, number) for number in range(exhibit.images) if number not in gone]
    return found


def is_due(
    folder: Folder, unit: str, chosen: dict[str, Chosen], names: Sequence[str], exhibits: Sequence[Exhibit]
) -> bool:
    """Whether a unit is to be measured: it was not with these encoders and pictures, or not all of it could be."""
    found = read_scores(folder, unit)
    failed = any("failed" in row for row in found["rows"])
    return failed or found["key"] != unit_key(folder, chosen, names, exhibits)


def unit_key(folder: Folder, chosen: dict[str, Chosen], names: Sequence[str], exhibits: Sequence[Exhibit]) -> str:
    """`key_of` the pictures that are there now."""
    return key_of(chosen, names, [f"{one.folder}/{number}" for one, number in pictures_of(folder, exhibits)])


def path_of(unit: str) -> str:
    """Where the scores of a unit lie."""
    return f"scores/{unit}.json"


def read_scores(folder: Folder, unit: str) -> dict[str, Any]:
    """The scores of a unit: `key` and `rows`; none if there are none."""
    try:
        found = strict.object_in(folder.read(path_of(unit)))
    except (FileNotFoundError, ValueError):
        return {"key": None, "rows": []}
    rows = found.get("rows")
    if "key" not in found or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return {"key": None, "rows": []}
    return found


class ScoreWorker:
    """Measures the pictures of some cases."""

    def __init__(self, job: ScoreJob) -> None:
        self._job, self._folder = job, Folder(job.url)
        self._measurer = Measurer(Encoders(job.chosen, job.device), [metrics.BY_NAME[name] for name in job.names])

    def run(self, task: Task, watch: Watch) -> None:
        """One unit: `task.payload` is its exhibits. A picture that cannot be measured costs its row."""
        if not holds(self._folder, self._job.lease_id):
            raise JobStopped(f"another run took over {self._job.url}; run again to resume")
        rows: list[dict[str, Any]] = []
        for exhibit, number in pictures_of(self._folder, task.payload):
            case = exhibit.case
            row: dict[str, Any] = {"case": case.case_id, "part": case.part, "number": exhibit.number, "image": number}
            try:
                watch.begin(f"{case.case_id}/{number}")
                row["scores"] = self._measurer.scores(case, gallery.read_made(self._folder, exhibit, number))
                watch.verdict("picture", "kept")
            except (JobStopped, StoreDenied):
                raise  # it would be the same for every picture
            except (Failed, Refused) as problem:
                row |= {"scores": {}, "failed": str(problem)}
                watch.verdict("picture", "failed")
            except Exception as error:  # whatever it is, it costs this row; the traceback goes to runs/
                row |= {"scores": {}, "failed": str(watch.unexpected(case.case_id, error))}
                watch.verdict("picture", "failed")
            rows.append(row)
        key = unit_key(self._folder, self._job.chosen, self._job.names, task.payload)
        self._folder.write(path_of(task.unit), strict.dumps({"key": key, "rows": rows}, indent=1).encode() + b"\n")


class Measurer:
    """Scores pictures of cases.

    Args:
        encoders: loaded.
        wanted: metrics; those whose encoder is absent are left out of what `scores` gives.
    """

    def __init__(self, encoders: Encoders, wanted: Sequence[Metric]) -> None:
        self._encoders = encoders
        self._wanted = [metric for metric in wanted if encoders.has(metric.encoder)]
        self._photograph = lru_cache(_PHOTOGRAPHS)(self._look)

    def scores(self, case: Case, picture: Pixels) -> dict[str, Score | None]:
        """What is measured of one picture; None where there is nothing to compare, such as no face to know again.

        Args:
            case: it was made for.
            picture: (H, W, 3) uint8.

        Raises:
            Refused: a photograph of the case cannot be read, or a score is not finite.
        """
        wanted = [metric for metric in self._wanted if metrics.applies(metric, case)]
        look = _Look(self._encoders, case, picture)
        found = {metric.name: self._score(metric, look) for metric in wanted}
        for name, score in found.items():
            if score is not None and not math.isfinite(score[0]):
                raise Refused(
                    f"its {name} is {score[0]}, no number to average: look at the picture, or leave the metric out"
                )
        return found

    def _score(self, metric: Metric, look: "_Look") -> Score | None:
        case, kind = look.case, metric.encoder
        match metric.name:
            case "clip_t" | "clip_score":
                cosine = metrics.mean_cosine(look.whole("clip"), self._encoders.text(case.prompt)[None])
                return (cosine if metric.name == "clip_t" else metrics.clip_score(cosine)), 1
            case "face_sim":
                known = [self._photograph("face", one) for subject in case.subjects for one in subject.photographs]
                faces = [found for found in known if len(found)]
                return metrics.face_similarity(look.faces(), np.concatenate(faces) if faces else np.zeros((0, 1)))
            case "clip_i" | "dino":
                return metrics.over_subjects(look.whole(kind), self._subjects(kind, case))
            case "m_dino":
                return metrics.product_over_subjects(
                    [look.whole(kind)] * len(case.subjects), self._subjects(kind, case)
                )
            case "dino_box":
                return metrics.mean_over_parts(look.boxes(kind), self._subjects(kind, case))
            case "m_dino_box":
                return metrics.product_over_subjects(look.boxes(kind), self._subjects(kind, case))
            case "clip_i_target" | "dino_target":
                return metrics.over_subjects(look.whole(kind), [self._known(kind, case.target)])
            case "clip_i_source" | "dino_source":
                return metrics.over_subjects(look.whole(kind), [self._known(kind, case.source)])
            case "clip_i_fg" | "dino_fg":
                return metrics.over_subjects(look.foreground(kind), self._subjects(kind, case))
            case "clip_i_bg" | "dino_bg":
                return metrics.mean_cosine(*look.backgrounds(kind)), 1
        raise ValueError(f"nothing computes {metric.name}")

    def _subjects(self, kind: str, case: Case) -> list[Floats]:
        return [np.concatenate([self._photograph(kind, one) for one in each.photographs]) for each in case.subjects]

    def _known(self, kind: str, picture: Picture | None) -> Floats:
        assert picture is not None  # `applies` has asked
        return self._photograph(kind, picture)

    def _look(self, kind: str, picture: Picture) -> Floats:
        """Vectors (N, D) of a photograph: one, or of its best face if it has any."""
        if kind == "face":
            return self._encoders.faces(picture.pixels(), only_best=True)
        return self._encoders.pictures(kind, [picture.pixels()])


class _Look:
    """One picture, looked at once for each encoder."""

    def __init__(self, encoders: Encoders, case: Case, picture: Pixels) -> None:
        self.case, self._encoders, self._picture = case, encoders, picture
        self._whole: dict[str, Floats] = {}
        self._boxes: dict[str, list[Floats]] = {}

    def whole(self, kind: str) -> Floats:
        if kind not in self._whole:
            self._whole[kind] = self._encoders.pictures(kind, [self._picture])[0]
        return self._whole[kind]

    def faces(self) -> Floats:
        return self._encoders.faces(self._picture)

    def boxes(self, kind: str) -> list[Floats]:
        """Of the part in each subject's box."""
        if kind not in self._boxes:
            height, width = self._picture.shape[:2]
            places = [pixel_box(subject.box or (0, 0, 1, 1), width, height) for subject in self.case.subjects]
            self._boxes[kind] = [self._encoders.in_box(kind, self._picture, place) for place in places]
        return self._boxes[kind]

    def foreground(self, kind: str) -> Floats:
        return self._encoders.in_box(kind, self._picture, area_box(self._area()[0]))

    def backgrounds(self, kind: str) -> tuple[Floats, Floats]:
        """Of the picture (D,) and of its source (1, D), both without what might change."""
        area, source = self._area()
        made, before = self._encoders.pictures(kind, [without(self._picture, area), without(source, area)])
        return made, before[None]

    def _area(self) -> tuple[Mask, Pixels]:
        """Where the picture may differ from its source, and the source.

        Raises:
            Refused: the picture is of another size.
        """
        assert self.case.source is not None  # `applies` has asked
        source = self.case.source.pixels()
        if source.shape != self._picture.shape:
            sizes = [f"{one.shape[1]}x{one.shape[0]}" for one in (self._picture, source)]
            raise Refused(f"the edited picture is {sizes[0]}, its source {sizes[1]}: no background to compare")
        return self.case.area(source), source
