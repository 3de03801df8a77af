"""The curation worker: one pass over a unit's pictures for all pixel stages, then the stages that read tables only."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from curation import select
from curation.annotators import Annotator, Embeddings, Faces, Measure, Quality, lose
from curation.composer import compose_unit
from curation.decoded import Decoded
from curation.groups import foreign_units, group_unit, owning_units
from curation.masking import mask_unit
from curation.objects import Objects, ObjectStream
from curation.stages import BY_NAME, PIXEL_STAGES, Recipe, Stage, inputs, vocabulary
from curation.waves import stages as waves
from curation.waves.wave import Desk, Errand
from curation.words import Captions, Phrases
from inference.models import registry
from inference.models.entry import Entry
from inference.models.phrases import PhraseFinder
from inference.models.phrases import load as load_finder
from ingest.engine import Task
from ingest.watch import Watch
from schemas import pictures
from schemas.dataset import Dataset
from schemas.errors import Failed, JobStopped, RefloomError, Rejected
from schemas.lease import holds
from schemas.storage import Folder
from schemas.unit import UnitKey, UnitWriter

_IMAGE_COLUMNS = ("image_id", "sha256", "captions", "faces_blurred", "link", "image")


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
        self._at: tuple[tuple[str, str], Desk] | None = None

    def run(self, task: Task, watch: Watch) -> None:
        """One unit, or one task of a stage over the whole dataset."""
        if isinstance(task.payload, Errand):
            waves.work(self._desk(task.payload), task.payload, task.unit, watch)
            return
        dataset = Dataset(self._job.url)
        stages = [BY_NAME[name] for name in task.payload]
        if "mask" in task.payload and self._recipe.is_due(BY_NAME["mask"], dataset, task.unit):
            self._mask(BY_NAME["mask"], dataset, task.unit, watch)
        pixel = [stage for stage in stages if stage.name in PIXEL_STAGES]
        due = [stage for stage in pixel if self._recipe.is_due(stage, dataset, task.unit)]
        if due:
            self._look(due, dataset, task.unit, watch)
        for stage in stages:
            if stage.name != "mask" and stage not in pixel and self._recipe.is_due(stage, dataset, task.unit):
                self._tabulate(stage, dataset, task.unit, watch)

    # -- pixel stages --------------------------------------------------------------------------------------------

    def _mask(self, stage: Stage, dataset: Dataset, unit: str, watch: Watch) -> None:
        """Masks come first and are committed, so that all others see the same objects."""
        with self._writer(stage, dataset, unit, watch) as out:
            mask_unit(dataset, unit, self._recipe.config.mask, self._model("segmenter"), out, watch)

    def _look(self, due: list[Stage], dataset: Dataset, unit: str, watch: Watch) -> None:
        """Decode every picture once and show it to every annotator."""
        objects = ObjectStream(dataset, unit)
        with ExitStack() as stack:
            # left in the order of the stages, so that quality is committed after the phrases it has read
            outs = {
                stage.name: stack.enter_context(self._writer(stage, dataset, unit, watch)) for stage in reversed(due)
            }
            shown = self._annotators(due, outs, dataset, unit)
            for batch in dataset.batches("images", _IMAGE_COLUMNS, unit=unit):
                for position in range(batch.num_rows):
                    (image,) = batch.slice(position, 1).to_pylist()
                    self._show(image, objects.take(image["image_id"]), dataset, shown, watch)
            objects.finish()
            for annotator, out in shown:
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
        asked = []
        for annotator, out in annotators:
            count = annotator.count(image, objects)
            out.expect(annotator.kind, count)
            if count:
                asked.append((annotator, out))
        try:
            watch.begin(image_id)
            data = dataset.checked_picture(image)
            watch.read_bytes(len(data))
            picture = Decoded(pictures.decode(data))
        except (Rejected, Failed) as problem:
            for annotator, out in asked:
                lose(annotator, image_id, objects, problem, out)
            return
        for annotator, out in asked:
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

    def _annotators(
        self, due: list[Stage], outs: dict[str, UnitWriter], dataset: Dataset, unit: str
    ) -> list[tuple[Annotator, UnitWriter]]:
        """The annotators of the stages that are due, each with its stage's writer."""
        config, models = self._recipe.config, self._recipe.models
        phrases = Phrases(config, self._finder()) if "phrase" in outs and "text_embedding" in models else None
        made: dict[str, list[Annotator]] = {}
        if "measure" in outs:
            made["measure"] = [Measure()]
        if "face" in outs:
            made["face"] = [Faces(config.face, self._model("face"))]
        if "embed" in outs:
            made["embed"] = [Embeddings(config, self._model("image_embedding"))]
        if "phrase" in outs:
            captions = [Captions(self._model("captioner"))] if "captioner" in models else []
            made["phrase"] = [*([phrases] if phrases else []), *captions]
        if "quality" in outs:

            def cosines(object_ids: list[str]) -> list[float | None]:
                if phrases is None:
                    return [known.get(object_id) for object_id in object_ids]
                phrases.finish(outs["phrase"])
                return [phrases.cosines.pop(object_id, None) for object_id in object_ids]

            known = self._known_cosines(dataset, unit) if phrases is None else {}
            made["quality"] = [Quality(config, cosines)]
        return [(annotator, outs[stage.name]) for stage in due for annotator in made[stage.name]]

    def _known_cosines(self, dataset: Dataset, unit: str) -> dict[str, float]:
        """Cosines of phrases that an earlier run has found."""
        table = dataset.read("phrases", ["object_id", "cosine"], unit=unit)
        return dict(zip(table["object_id"].to_pylist(), table["cosine"].to_pylist(), strict=True))

    def _finder(self) -> PhraseFinder:
        if "phrases" not in self._models:
            config = self._recipe.config
            self._models["phrases"] = load_finder(
                self._entry("text_embedding"),
                config.models.device,
                config.models.precision,
                vocabulary(config.phrase.vocabulary),
            )
        finder: PhraseFinder = self._models["phrases"]
        return finder

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
            matched = [row["units"] or [] for row in dataset.read("groups", ["units"], unit=unit).to_pylist()]
            near = (
                *foreign_units(dataset, unit),
                *owning_units(dataset, unit),
                *(name for row in matched for name in row),
            )
            others = tuple(dict.fromkeys(near))
            with self._writer(stage, dataset, unit, watch, others) as out:
                compose_unit(dataset, unit, others, config.compose, out, watch)
        else:
            raise KeyError(stage.name)

    def _desk(self, errand: Errand) -> Desk:
        """The desk of a stage; kept, with the manifests that it has read, until the worker is sent to another."""
        key = errand.stage, errand.fingerprint
        if self._at is None or self._at[0] != key:
            desk = Desk(
                Dataset(self._job.url),
                self._recipe,
                BY_NAME[errand.stage],
                errand.fingerprint,
                model=self._model,
                writer=self._writer,
            )
            self._at = key, desk
        return self._at[1]

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
        )
        return UnitWriter(
            dataset.folder,
            key,
            on_verdict=watch.verdict,
            before_commit=self._fence,
            inputs=lambda: inputs(stage, dataset, unit, others),
        )

    def _fence(self) -> None:
        if not holds(Folder(self._job.url), self._job.lease_id):
            raise JobStopped(f"another writer took over {self._job.url}; run again to resume")
