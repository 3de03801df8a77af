"""An evaluation from plan to outcome: what is left to do, making it, measuring it, and writing down what came of it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from refloom.inference.assembly import Assembly
from refloom.inference.evaluation import gallery, instances, outcome, report, scoring
from refloom.inference.evaluation.cases import Benchmark, Case, FilePicture, Picture
from refloom.inference.evaluation.encoders import Chosen
from refloom.inference.evaluation.gallery import Exhibit
from refloom.inference.evaluation.generation import GenerateJob, Making
from refloom.inference.evaluation.instances import Finder
from refloom.inference.evaluation.metrics import Metric
from refloom.inference.evaluation.outcome import Outcome
from refloom.ingest.engine import pool as engine
from refloom.ingest.engine.pool import Pool, Status, Task
from refloom.schemas.fingerprint import of_json
from refloom.schemas.lease import Lease
from refloom.schemas.ranges import Whole, check_fields
from refloom.schemas.storage import Folder

UNIT_CASES = 8
"""Cases in a unit: the grain of scheduling, and of what is measured anew when one of its pictures is."""

_HASH_BYTES = 1 << 22

Show = Callable[[str, str], Callable[[Status], None]]
"""Makes the progress display of some tasks, given their title and what they count."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for.

    Attributes:
        benchmark: to evaluate on.
        assembly: the models that make pictures.
        making: how.
        metrics: to measure.
        chosen: encoders to measure with.
        device: of the encoders.
        limit: the first cases only; None for all.
    """

    benchmark: Benchmark
    assembly: Assembly
    making: Making
    metrics: tuple[Metric, ...]
    chosen: dict[str, Chosen]
    device: str
    limit: Annotated[int | None, Whole(1, none=True)] = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def encoders(self) -> dict[str, Chosen]:
        """Those that the metrics need."""
        needed: set[str] = {metric.encoder for metric in self.metrics}
        if any(metric.view == "found" for metric in self.metrics):
            needed.add("detector")
        return {kind: one for kind, one in self.chosen.items() if kind in needed}

    @property
    def finder(self) -> Finder:
        """What says where the subjects are on the made pictures."""
        return instances.finder(self.benchmark, self.chosen["detector"])

    @property
    def exhibits(self) -> tuple[Exhibit, ...]:
        """The cases to do."""
        cases = self.benchmark.cases[: self.limit]
        return tuple(Exhibit(number, case, self.benchmark.images) for number, case in enumerate(cases))

    def settings(self) -> dict[str, Any]:
        """What decides the pictures; one folder holds one of these."""
        models = asdict(self.assembly) | {"settings": list(self.assembly.settings)}
        del models["face_model"], models["device"]  # no reference of a benchmark is cropped; a GPU differs in digits
        making = asdict(self.making)
        del making["batch"]
        return {
            "benchmark": self.benchmark.name,
            "cases": fingerprint(self.benchmark),
            "models": models,
            "weights": {"adapter": content(self.assembly.adapter), "base": sizes(self.assembly.base)},
            "making": making,
        }


@dataclass(frozen=True, slots=True)
class Left:
    """What is left to do.

    Attributes:
        making: units with pictures to make.
        scoring: units to measure.
        pictures: to make.
        asked: pictures of all cases that are asked for.
    """

    making: dict[str, tuple[Exhibit, ...]]
    scoring: dict[str, tuple[Exhibit, ...]]
    pictures: int
    asked: int


def look_ahead(plan: Plan, folder: Folder) -> Left:
    """What a run would do in a folder.

    Args:
        plan: what is asked for.
        folder: of the evaluation; may be new.
    """
    making: dict[str, tuple[Exhibit, ...]] = {}
    due: dict[str, tuple[Exhibit, ...]] = {}
    names = [metric.name for metric in plan.metrics]
    pictures = asked = 0
    for unit, exhibits in gallery.chunks(plan.exhibits, UNIT_CASES).items():
        asked += sum(exhibit.images for exhibit in exhibits)
        gone = [exhibit for exhibit in exhibits if gallery.missing(folder, exhibit)]
        pictures += sum(len(gallery.missing(folder, exhibit)) for exhibit in gone)
        if gone:
            making[unit] = tuple(gone)
        if gone or scoring.is_due(folder, unit, plan.encoders, names, exhibits):
            due[unit] = exhibits
    return Left(making, due, pictures, asked)


def evaluate(plan: Plan, url: str, pool: Pool, show: Show | None = None) -> Outcome:
    """Make what is missing, measure what is new, and write the outcome; resumes what an earlier run left.

    Args:
        plan: what is asked for.
        url: of the evaluation's folder; local, or an object store.
        pool: workers.
        show: for progress.

    Raises:
        Refused: the folder holds another evaluation, or a worker refuses the models or their settings.
        JobStopped: see `engine.run`.
    """
    folder = Folder(url)
    settings = plan.settings()
    gallery.claim(folder, settings)
    with Lease(folder) as lease:
        notes = folder.below(f"runs/{lease.id[:12]}")

        def run(title: str, item: str, job: Any, tasks: Sequence[Task]) -> None:
            shown = show(title, item) if show is not None else None

            def watch_lease(status: Status) -> None:
                lease.check()
                if shown is not None:
                    shown(status)

            engine.run(title, job, tasks, pool=pool, notes=notes.below(title), on_status=watch_lease)

        left = look_ahead(plan, folder)
        if left.making:
            edits = plan.benchmark.cases[0].source is not None
            job = GenerateJob(url, lease.id, plan.assembly, plan.making, edits)
            run("pictures", "case", job, _tasks(left.making))
        due = look_ahead(plan, folder).scoring
        if due:
            names = tuple(metric.name for metric in plan.metrics)
            weight = {unit: sum(one.images for one in exhibits) for unit, exhibits in due.items()}
            tasks = [replace(task, weight=weight[task.unit]) for task in _tasks(due)]
            scores = scoring.ScoreJob(url, lease.id, plan.encoders, names, plan.device, plan.finder)
            run("scores", "picture", scores, tasks)
        found = _collect(plan, folder, settings)
        report.write(folder, plan.benchmark, plan.exhibits, found)
        return found


def _tasks(units: dict[str, tuple[Exhibit, ...]]) -> list[Task]:
    return [Task(unit, exhibits, len(exhibits)) for unit, exhibits in units.items()]


def _collect(plan: Plan, folder: Folder, settings: dict[str, Any]) -> Outcome:
    units = gallery.chunks(plan.exhibits, UNIT_CASES)
    asked = sum(exhibit.images for exhibit in plan.exhibits)
    made, failures, rows = 0, {}, []
    for unit, exhibits in units.items():
        made += len(scoring.pictures_of(folder, exhibits))
        for exhibit in exhibits:
            if gallery.missing(folder, exhibit):
                failures[exhibit.case.case_id] = gallery.failure(folder, exhibit) or "it killed its worker"
        rows += scoring.read_scores(folder, unit)["rows"]
    failures |= {f"{row['case']}/{row['image']}": row["failed"] for row in rows if "failed" in row}
    measured = [row for row in rows if "failed" not in row]
    limit = plan.making.references
    references = "all" if limit is None else str(limit)
    lines = outcome.summarise(plan.benchmark, plan.metrics, measured, plan.chosen, references)
    tables = outcome.by_references(plan.benchmark, plan.metrics, measured, plan.chosen, limit)
    whole = len(measured) == asked and len(plan.exhibits) == len(plan.benchmark.cases)
    return Outcome(settings, lines, rows, failures, asked, made, len(measured), whole, tables)


def fingerprint(benchmark: Benchmark) -> str:
    """Of all cases, wherever their files lie: words, places, names of files and their sizes."""

    def picture(one: Picture | None) -> Any:
        if isinstance(one, FilePicture):
            file = Path(one.file)
            return [file.parent.name, file.name, file.stat().st_size, one.box]
        return None if one is None else [one.unit, one.sample_id, one.index, *([one.box] if one.box else [])]

    def case(one: Case) -> Any:
        subjects = [
            [s.phrase, s.box, [picture(p) for p in s.references], [picture(p) for p in s.photographs]]
            for s in one.subjects
        ]
        mask = None if one.mask is None else picture(FilePicture(one.mask))
        return [one.case_id, one.part, one.prompt, subjects, picture(one.source), mask, picture(one.target)]

    return of_json([benchmark.name, benchmark.identity, benchmark.images, [case(one) for one in benchmark.cases]])


def content(place: str) -> str:
    """What identifies weights: the sha256 over a local file, or over all files of a folder; else the name itself."""
    path = Path(place).expanduser()
    if not path.exists():
        return place
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
        digest.update(file.relative_to(path.parent if path.is_file() else path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(_HASH_BYTES):
                digest.update(block)
    return digest.hexdigest()


def sizes(place: str) -> str:
    """As `content`, by names and sizes of files alone: a base has gigabytes, and changes seldom."""
    path = Path(place).expanduser()
    if not path.is_dir():
        return place
    listed = sorted((one.relative_to(path).as_posix(), one.stat().st_size) for one in path.rglob("*") if one.is_file())
    return of_json(listed)
