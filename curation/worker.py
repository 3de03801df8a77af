"""The curation worker: one pass over a unit's pictures for all pixel stages, then the stages that read tables only."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from curation import select
from curation.annotators import Annotator, Embeddings, Faces, Measure, Quality, expect, lose
from curation.composer import compose_unit
from curation.decoded import Decoded
from curation.groups import foreign_units, group_unit, owning_units
from curation.objects import Objects, ObjectStream
from curation.split import split_dataset, write_splits
from curation.stages import BY_NAME, PIXEL_STAGES, Recipe, Stage, inputs
from inference.models import registry
from inference.models.entry import Entry
from ingest.engine import Task
from ingest.watch import Watch
from schemas import pictures
from schemas.dataset import Dataset
from schemas.errors import Failed, JobStopped, RefloomError, Rejected
from schemas.lease import holds
from schemas.storage import Folder
from schemas.unit import UnitKey, UnitWriter

_IMAGE_COLUMNS = ("image_id", "sha256", "faces_blurred", "link", "image")


@dataclass(frozen=True, slots=True)
class CurateJob:
    """What curation workers do; travels to them.

    Attributes:
        url: of the dataset.
        recipe: stages and settings.
        lease_id: checked before every commit.
    """

    url: str
    recipe: Recipe
    lease_id: str

    def start(self) -> "CurateWorker":
        """One worker per process."""
        return CurateWorker(self)


class CurateWorker:
    """Does the stages that are due for one unit after another; loads a model when the first unit needs it."""

    def __init__(self, job: CurateJob) -> None:
        self._job = job
        self._recipe = job.recipe
        self._models: dict[str, Any] = {}

    def run(self, task: Task, watch: Watch) -> None:
        """One unit; a task of the whole dataset has an empty unit name."""
        dataset = Dataset(self._job.url)
        stages = [BY_NAME[name] for name in task.payload]
        pixel = [stage for stage in stages if stage.name in PIXEL_STAGES]
        due = [stage for stage in pixel if self._recipe.is_due(stage, dataset, task.unit)]
        if due:
            self._look(due, dataset, task.unit, watch)
        for stage in stages:
            if stage.over == "dataset":
                self._split(stage, dataset, watch)
            elif stage not in pixel and self._recipe.is_due(stage, dataset, task.unit):
                self._tabulate(stage, dataset, task.unit, watch)

    # -- pixel stages --------------------------------------------------------------------------------------------

    def _look(self, due: list[Stage], dataset: Dataset, unit: str, watch: Watch) -> None:
        """Decode every picture once and show it to every annotator."""
        annotators = [self._annotator(stage) for stage in due]
        objects = ObjectStream(dataset, unit)
        with ExitStack() as stack:
            outs = [stack.enter_context(self._writer(stage, dataset, unit, watch)) for stage in due]
            for batch in dataset.batches("images", _IMAGE_COLUMNS, unit=unit):
                for position in range(batch.num_rows):
                    (image,) = batch.slice(position, 1).to_pylist()
                    found = objects.take(image["image_id"])
                    self._show(image, found, dataset, list(zip(annotators, outs, strict=True)), watch)
            objects.finish()
            for annotator, out in zip(annotators, outs, strict=True):
                annotator.finish(out)

    def _show(
        self,
        image: dict[str, Any],
        objects: Objects,
        dataset: Dataset,
        annotators: list[tuple[Annotator, UnitWriter]],
        watch: Watch,
    ) -> None:
        image_id = image["image_id"]
        for annotator, out in annotators:
            expect(annotator, objects, out)
        try:
            watch.begin(image_id)
            data = dataset.checked_picture(image)
            watch.read_bytes(len(data))
            picture = Decoded(pictures.decode(data))
        except (Rejected, Failed) as problem:
            for annotator, out in annotators:
                lose(annotator, image_id, objects, problem, out)
            return
        for annotator, out in annotators:
            try:
                looked = annotator.look(image, picture, objects)
            except (Rejected, Failed) as problem:
                lose(annotator, image_id, objects, problem, out)
            except RefloomError:
                raise  # a full disk or a lost lease is not the picture's fault
            except Exception as error:  # costs this picture in this stage and not the unit; the traceback goes to runs/
                lose(annotator, image_id, objects, watch.unexpected(image_id, error), out)
            else:
                annotator.write(image, objects, looked, out)

    def _annotator(self, stage: Stage) -> Annotator:
        config = self._recipe.config
        builders: dict[str, Callable[[], Annotator]] = {
            "measure": Measure,
            "quality": lambda: Quality(config),
            "face": lambda: Faces(config.face, self._model("face")),
            "embed": lambda: Embeddings(config, self._model("image_embedding")),
        }
        return builders[stage.name]()

    def _entry(self, role: str) -> Entry:
        return registry.by_name(role, self._recipe.models[role].split("@")[0])

    def _model(self, role: str) -> Any:
        if role not in self._models:
            models = self._recipe.config.models
            self._models[role] = self._entry(role).load(models.device, models.precision)
        return self._models[role]

    # -- stages that read tables ---------------------------------------------------------------------------------

    def _tabulate(self, stage: Stage, dataset: Dataset, unit: str, watch: Watch) -> None:
        config = self._recipe.config
        if stage.name == "select":
            with self._writer(stage, dataset, unit, watch) as out:
                select.select_unit(dataset, unit, config.select, out)
        elif stage.name == "group":
            others = foreign_units(dataset, unit)
            with self._writer(stage, dataset, unit, watch, others) as out:
                group_unit(dataset, unit, others, config.group, out)
        elif stage.name == "compose":
            others = foreign_units(dataset, unit)
            others += tuple(other for other in owning_units(dataset, unit) if other not in others)
            with self._writer(stage, dataset, unit, watch, others) as out:
                compose_unit(dataset, unit, others, config.compose, out, watch)
        else:
            raise KeyError(stage.name)

    def _split(self, stage: Stage, dataset: Dataset, watch: Watch) -> None:
        """One look at the whole dataset, written unit by unit so that `compose` needs its own unit only."""
        splits = split_dataset(dataset, self._recipe.config.split)
        for unit in dataset.units():
            with self._writer(stage, dataset, unit, watch) as out:
                write_splits(dataset, unit, splits, out)

    def _writer(
        self, stage: Stage, dataset: Dataset, unit: str, watch: Watch, others: tuple[str, ...] = ()
    ) -> UnitWriter:
        manifest = dataset.manifest("ingest", unit)
        key = UnitKey(
            stage=stage.name,
            unit=unit,
            key=manifest.key if manifest else "",
            config=self._recipe.settings(stage),
            stage_version=stage.version,
            models=self._recipe.models_of(stage),
            inputs=inputs(stage, dataset, unit, others),
        )
        return UnitWriter(dataset.folder, key, on_verdict=watch.verdict, before_commit=self._fence)

    def _fence(self) -> None:
        if not holds(Folder(self._job.url), self._job.lease_id):
            raise JobStopped(f"another writer took over {self._job.url}; run again to resume")
