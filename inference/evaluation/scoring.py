"""Scores of the pictures of a benchmark: a job of the engine whose unit is some cases, one set of encoders a worker."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from refloom.inference.adapters.reading import Pixels
from refloom.inference.evaluation import gallery, metrics
from refloom.inference.evaluation.cases import Case, Picture
from refloom.inference.evaluation.copying import Compared, compare_subjects, score
from refloom.inference.evaluation.encoders import Chosen, Encoders
from refloom.inference.evaluation.gallery import Exhibit
from refloom.inference.evaluation.instances import MOST, WHOLE, Finder, best_instances
from refloom.inference.evaluation.look import Look
from refloom.inference.evaluation.metrics import Floats, Metric, Score
from refloom.inference.evaluation.photographs import Photographs
from refloom.ingest.engine.tasks import Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas import strict
from refloom.schemas.errors import Failed, JobStopped, Refused, StoreDenied
from refloom.schemas.fingerprint import of_json
from refloom.schemas.lease import holds
from refloom.schemas.storage import Folder

VERSION = 2
"""Hand-bumped when a score changes that neither an encoder's name nor a metric's says."""

Remarks = dict[str, dict[str, int]]
"""Metric to what befell subjects of a picture, and how many: why they have no value, or that they count 0."""


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """What workers measure with; travels to them.

    Attributes:
        url: of the evaluation's folder.
        lease_id: checked before every unit.
        chosen: the encoders.
        names: of the metrics.
        device: of the encoders.
        finder: says where the subjects are.
    """

    url: str
    lease_id: str
    chosen: dict[str, Chosen]
    names: tuple[str, ...]
    device: str
    finder: Finder

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
        encoders, wanted = Encoders(job.chosen, job.device), [metrics.BY_NAME[name] for name in job.names]
        self._measurer = Measurer(encoders, wanted, job.finder)

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
                remarks: Remarks = {}
                picture = gallery.read_made(self._folder, exhibit, number)
                row |= {"scores": self._measurer.scores(case, picture, remarks), "remarks": remarks}
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
        finder: says where the subjects are.
    """

    def __init__(self, encoders: Encoders, wanted: Sequence[Metric], finder: Finder = WHOLE) -> None:
        self._encoders, self._finder = encoders, finder
        self._wanted = [metric for metric in wanted if encoders.has(metric.encoder)]
        self._photographs = Photographs(encoders)

    def scores(self, case: Case, picture: Pixels, remarks: Remarks | None = None) -> dict[str, Score | None]:
        """What is measured of one picture; None where there is nothing to compare, such as no face to know again.

        Args:
            case: it was made for.
            picture: (H, W, 3) uint8.
            remarks: what is to be said of single subjects is added to it.

        Raises:
            Refused: a photograph of the case cannot be read, or a score is not finite.
        """
        wanted = [metric for metric in self._wanted if metrics.applies(metric, case)]
        look = Look(self._encoders, case, picture, self._finder)
        said: Remarks = {} if remarks is None else remarks
        found = {metric.name: self._score(metric, look, said) for metric in wanted}
        for name, one in found.items():
            if one is not None and not math.isfinite(one[0]):
                raise Refused(
                    f"its {name} is {one[0]}, no number to average: look at the picture, or leave the metric out"
                )
        return found

    def _score(self, metric: Metric, look: Look, remarks: Remarks) -> Score | None:
        case, kind, seen = look.case, metric.encoder, self._photographs
        match metric.name:
            case "clip_t" | "clip_score":
                cosine = metrics.mean_cosine(look.whole("clip"), self._encoders.text(case.prompt)[None])
                return (cosine if metric.name == "clip_t" else metrics.clip_score(cosine)), 1
            case "face_sim":
                every = [one for subject in case.subjects for one in subject.photographs]
                return metrics.face_similarity(look.faces, seen.of("best-face", kind, every))
            case "clip_i" | "dino":
                return metrics.over_subjects(look.whole(kind), seen.subjects("whole", kind, case))
            case "m_dino":
                return metrics.product_over_subjects(
                    [look.whole(kind)] * len(case.subjects), seen.subjects("whole", kind, case)
                )
            case "dino_box":
                return metrics.mean_over_parts(look.boxes(kind), seen.subjects("whole", kind, case))
            case "m_dino_box":
                return metrics.product_over_subjects(look.boxes(kind), seen.subjects("whole", kind, case))
            case "clip_i_target" | "dino_target":
                return metrics.over_subjects(look.whole(kind), [seen.of("whole", kind, _there(case.target))])
            case "clip_i_source" | "dino_source":
                return metrics.over_subjects(look.whole(kind), [seen.of("whole", kind, _there(case.source))])
            case "clip_i_fg" | "dino_fg":
                return metrics.over_subjects(look.foreground(kind), seen.subjects("whole", kind, case))
            case "clip_i_bg" | "dino_bg":
                return metrics.mean_cosine(*look.backgrounds(kind)), 1
            case "clip_i_inst" | "dino_inst" | "face_inst":
                return self._instances(metric, look, remarks)
            case name if name in metrics.PARTS:
                found, remarks[name] = score(self._between(kind, look), metrics.PARTS[name])
                return found
        raise ValueError(f"nothing computes {metric.name}")

    def _instances(self, metric: Metric, look: Look, remarks: Remarks) -> Score | None:
        case = look.case
        if metric.encoder == "face":
            subjects = self._photographs.subjects("best-face", "face", case)
            found: list[Floats | None] = [look.faces[: MOST * len(subjects)]] * len(subjects)
        elif look.finder.why is not None:
            return None
        else:
            subjects = [self._photographs.of("fitted", metric.encoder, one.closest) for one in case.subjects]
            found = look.instances(metric.encoder)
        score, remarks[metric.name] = best_instances(found, subjects)
        return score

    def _between(self, kind: str, look: Look) -> list[Compared | str]:
        known = self._photographs.known(kind, look.case, look.finder)
        if kind == "face":
            return compare_subjects(known, [look.faces] * len(known), shared=True)
        return compare_subjects(known, look.instances(kind), shared=False)


def _there(picture: Picture | None) -> tuple[Picture, ...]:
    return () if picture is None else (picture,)
