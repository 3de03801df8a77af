"""Making the pictures of a benchmark: a job of the engine whose unit is some cases, one pipeline a worker."""

import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any

from refloom.inference import ranges
from refloom.inference.adapters.adapter import Adapter
from refloom.inference.adapters.reference import Reference
from refloom.inference.assembly import Assembly, memory_suffices
from refloom.inference.basefacts import BaseFacts
from refloom.inference.evaluation import gallery
from refloom.inference.evaluation.cases import Case, Subject
from refloom.inference.evaluation.gallery import Exhibit
from refloom.inference.pipeline import ReferencePipeline, ReferenceWarning
from refloom.inference.request import Request
from refloom.ingest.engine.tasks import Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas.errors import Failed, JobStopped, Refused, StoreDenied
from refloom.schemas.lease import holds
from refloom.schemas.ranges import Whole, check_fields
from refloom.schemas.storage import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How pictures are made; all of it decides them, but for `batch`, which may change their last digits.

    Attributes:
        seed: from which the seed of every picture follows.
        steps, guidance_scale, height, width, negative_prompt: as for `ReferencePipeline.generate`; None for its own.
        references: most pictures of a subject that the adapter sees; None for all.
        batch: pictures made at once.
    """

    seed: Annotated[int, ranges.SEED] = 0
    steps: Annotated[int | None, ranges.STEPS] = None
    guidance_scale: Annotated[float | None, ranges.GUIDANCE] = None
    height: Annotated[int | None, ranges.SIDE_PX] = None
    width: Annotated[int | None, ranges.SIDE_PX] = None
    negative_prompt: str | None = None
    references: Annotated[int | None, Whole(1, none=True)] = None
    batch: Annotated[int, Whole(1)] = 1

    def __post_init__(self) -> None:
        check_fields(self)

    def arguments(self) -> dict[str, Any]:
        """Of `generate` and `edit`."""
        return {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "height": self.height,
            "width": self.width,
            "negative_prompt": self.negative_prompt,
        }


@dataclass(frozen=True, slots=True)
class GenerateJob:
    """What workers make pictures with; travels to them.

    Attributes:
        url: of the evaluation's folder.
        lease_id: checked before every unit.
        assembly: the models.
        making: the rest.
        edits: whether the benchmark edits pictures.
    """

    url: str
    lease_id: str
    assembly: Assembly
    making: Making
    edits: bool

    def start(self) -> "GenerateWorker":
        """One worker per process."""
        return GenerateWorker(self)


class GenerateWorker:
    """Makes the pictures of some cases."""

    def __init__(self, job: GenerateJob) -> None:
        self._job, self._folder = job, Folder(job.url)
        self._stack = ExitStack()
        self._pipeline, self._options = self._stack.enter_context(job.assembly.open())
        self._set: tuple[Subject, ...] | None = None
        _check(self._pipeline, job, self._options)

    def run(self, task: Task, watch: Watch) -> None:
        """One unit: `task.payload` is its exhibits. What cannot be made costs its case."""
        if not holds(self._folder, self._job.lease_id):
            raise JobStopped(f"another run took over {self._job.url}; run again to resume")
        for exhibit in task.payload:
            wanted = gallery.missing(self._folder, exhibit)
            try:
                watch.begin(exhibit.case.case_id)
                self._make(exhibit, wanted)
            except (JobStopped, StoreDenied):
                raise  # it would be the same for every case
            except (Failed, Refused) as problem:
                self._fail(exhibit, str(problem), len(wanted), watch)
            except Exception as error:  # whatever it is, it costs this case; the traceback goes to runs/
                self._set = None
                self._fail(exhibit, str(watch.unexpected(exhibit.case.case_id, error)), len(wanted), watch)
            else:
                self._folder.remove(f"{exhibit.folder}/{gallery.FAILED}")
                watch.verdict("picture", "kept", len(wanted))

    def _fail(self, exhibit: Exhibit, reason: str, count: int, watch: Watch) -> None:
        gallery.write_failure(self._folder, exhibit, reason)
        watch.verdict("picture", "failed", count)

    def _make(self, exhibit: Exhibit, wanted: tuple[int, ...]) -> None:
        making, case = self._job.making, exhibit.case
        with warnings.catch_warnings(), memory_suffices():
            warnings.simplefilter("ignore", ReferenceWarning)  # the same for every case: docs say what has no effect
            if self._set != case.subjects:
                self._set = None
                self._pipeline.set_references([reference(subject, making.references) for subject in case.subjects])
                self._set = case.subjects
            for start in range(0, len(wanted), making.batch):
                numbers = wanted[start : start + making.batch]
                seeds = [exhibit.seed(making.seed, number) for number in numbers]
                for number, seed, made in zip(numbers, seeds, self._call(case, seeds), strict=True):
                    picture = gallery.as_image(made)
                    record = {
                        "case": case.case_id,
                        "prompt": case.prompt,
                        "phrases": [subject.phrase for subject in case.subjects],
                        "boxes": [subject.box for subject in case.subjects],
                        "seed": seed,
                        "width": picture.width,
                        "height": picture.height,
                    }
                    gallery.write_picture(self._folder, exhibit, number, picture, record)

    def _call(self, case: Case, seeds: list[int]) -> Any:
        arguments = self._job.making.arguments() | self._options
        arguments |= {"seed": seeds, "num_images_per_prompt": len(seeds)}
        if case.source is None:
            return self._pipeline.generate(case.prompt, **arguments).images
        source = case.source.pixels()
        return self._pipeline.edit(source, case.area(source), case.prompt, **arguments).images


def reference(subject: Subject, limit: int | None) -> Reference:
    """What an adapter is given of a subject: its first pictures, or all."""
    return Reference([picture.pixels() for picture in subject.references[:limit]], subject.phrase, subject.box)


def _check(pipeline: ReferencePipeline, job: GenerateJob, options: dict[str, Any]) -> None:
    """Refuse at once what every case would be refused for."""
    request = Request(prompt="a photo", **job.making.arguments(), options=options, seed=0)
    adapter = pipeline.adapter
    if job.edits and type(adapter).edit is Adapter.edit:
        raise Refused(f"the {adapter.kind} adapter has no editing of its own: use one that has (ezigen)")
    request.arguments(adapter.edit if job.edits else adapter.generate, BaseFacts.of(pipeline.pipe))
