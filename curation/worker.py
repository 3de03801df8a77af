"""The curation worker: one pass over a unit's pictures for all pixel stages, then the stages that read tables only."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from refloom.curation import datasetstages as passes
from refloom.curation.annotate import rescore
from refloom.curation.annotate.annotators import Annotator, Embeddings, Faces, Measure, Quality, Row, lose
from refloom.curation.annotate.decoded import Decoded
from refloom.curation.annotate.isolate import unforeseen
from refloom.curation.annotate.masks import mask_unit, rows_of
from refloom.curation.annotate.phrases import Captions, Phrases
from refloom.curation.annotate.prefetch import prefetched
from refloom.curation.annotate.recognition import Recognition
from refloom.curation.annotate.scene import Scene
from refloom.curation.annotate.stages import QUALITY, vocabulary
from refloom.curation.compose.memberships import nearby
from refloom.curation.compose.unit import compose_unit
from refloom.curation.group.groups import Ties, group_unit
from refloom.curation.group.members import matched_units
from refloom.curation.objects import Objects, ObjectStream
from refloom.curation.passes.passes import StageContext, TaskSpec
from refloom.curation.select import objects as select
from refloom.curation.stage import Stage, inputs
from refloom.curation.stages import BY_NAME, PIXEL_STAGES, CurationRun
from refloom.inference.models import registry
from refloom.inference.models.embedders import TextEmbedder
from refloom.inference.models.entry import Entry
from refloom.inference.models.phrases import PhraseFinder
from refloom.ingest.engine.pool import Task
from refloom.ingest.engine.watch import Watch
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Failed, JobStopped, Refused, Rejected
from refloom.schemas.lease import holds
from refloom.schemas.storage import Folder
from refloom.schemas.unit import UnitKey, UnitWriter

Pixels = npt.NDArray[np.uint8]

_IMAGE_COLUMNS = ("image_id", "sha256", "width", "height", "captions", "faces_blurred", "link", "image")


@dataclass(frozen=True, slots=True)
class CurateJob:
    """What curation workers do; travels to them.

    Attributes:
        url: of the dataset.
        recipe: stages and settings.
        lease_id: checked before every commit.
    """

    url: str
    recipe: CurationRun
    lease_id: str

    def start(self) -> "CurateWorker":
        """One worker per process."""
        return CurateWorker(self)


@dataclass(frozen=True, slots=True)
class Visit:
    """What a worker is told of one unit.

    Attributes:
        stages: to do where they are due, in order.
        ties: other units that share source groups with it, for the stages that follow them there.
    """

    stages: tuple[str, ...]
    ties: Ties


class CurateWorker:
    """Does the stages that are due for one unit after another; loads a model when the first unit needs it."""

    def __init__(self, job: CurateJob) -> None:
        self._job = job
        self._recipe = job.recipe
        self._models: dict[str, Any] = {}
        self._loaded: list[tuple[Entry, Any]] = []
        self._at: tuple[tuple[str, str], StageContext] | None = None

    def run(self, task: Task, watch: Watch) -> None:
        """One unit, or one task of a stage over the whole dataset."""
        if isinstance(task.payload, TaskSpec):
            passes.work(self._desk(task.payload), task.payload, task.unit, watch)
            return
        dataset = Dataset(self._job.url)
        visit: Visit = task.payload
        stages = [BY_NAME[name] for name in visit.stages]
        if "mask" in visit.stages and self._recipe.is_due(BY_NAME["mask"], dataset, task.unit):
            self._mask(BY_NAME["mask"], dataset, task.unit, watch)
        pixel = [stage for stage in stages if stage.name in PIXEL_STAGES]
        due = [stage for stage in pixel if self._recipe.is_due(stage, dataset, task.unit)]
        if due and not self._rescored(due, dataset, task.unit, watch):
            self._look(due, dataset, task.unit, watch)
        for stage in stages:
            if stage.name != "mask" and stage not in pixel and self._recipe.is_due(stage, dataset, task.unit):
                self._tabulate(stage, dataset, task.unit, visit.ties, watch)

    # -- pixel stages --------------------------------------------------------------------------------------------

    def _mask(self, stage: Stage, dataset: Dataset, unit: str, watch: Watch) -> None:
        """Masks come first and are committed, so that all others see the same objects."""
        with self._writer(stage, dataset, unit, watch) as out:
            images = partial(self._pictures, dataset, watch)
            mask_unit(dataset, unit, self._recipe.config.mask, self._model("segmenter"), images, out, watch)

    def _rescored(self, due: list[Stage], dataset: Dataset, unit: str, watch: Watch) -> bool:
        """Whether the unit was due for another mean of its components alone, and has it now."""
        manifest = dataset.manifest(QUALITY.name, unit)
        if due != [QUALITY] or manifest is None or dataset.is_stale(manifest) or not dataset.is_whole(manifest):
            return False
        again = self._recipe.retry_failed and manifest.failed > 0
        if again or not rescore.is_enough(self._recipe.differences(QUALITY, manifest)):
            return False
        with self._writer(QUALITY, dataset, unit, watch) as out:
            rescore.rescore_unit(dataset, manifest, self._recipe.config.quality, out)
        return True

    def _look(self, due: list[Stage], dataset: Dataset, unit: str, watch: Watch) -> None:
        """Decode every picture once and show it to every annotator."""
        objects = ObjectStream(dataset, unit)
        with ExitStack() as stack:
            # left in the order of the stages, so that quality is committed after the phrases it has read
            outs = {
                stage.name: stack.enter_context(self._writer(stage, dataset, unit, watch)) for stage in reversed(due)
            }
            shown = self._annotators(due, outs, dataset, unit, watch)
            for image, decode in self._pictures(dataset, watch, rows_of(dataset, unit, _IMAGE_COLUMNS)):
                self._show(image, decode, objects.take(image["image_id"]), shown, watch)
            objects.finish()
            for annotator, out in shown:
                annotator.finish(out)

    def _pictures(
        self, dataset: Dataset, watch: Watch, images: Iterable[Row]
    ) -> Iterator[tuple[Row, Callable[[], Pixels]]]:
        """Pictures, each with a function that gives its pixels; decoded ahead so that a GPU does not wait for them."""

        def decode(image: Row) -> Pixels:
            data = dataset.checked_picture(image)
            watch.read_bytes(len(data))
            return pictures.decode(data)

        models = self._recipe.config.models
        ahead = models.device == "cuda" if models.prefetch is None else models.prefetch
        if ahead and not watch.again:
            return prefetched(images, decode)
        return ((image, partial(decode, image)) for image in images)

    def _show(
        self,
        image: Row,
        decode: Callable[[], Pixels],
        objects: Objects,
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
            scene = Scene(Decoded(decode()), objects, self._recipe.config.filter)
        except (Rejected, Failed) as problem:
            for annotator, out in asked:
                lose(annotator, image_id, objects, problem, out)
            return
        for annotator, out in asked:
            try:
                looked = annotator.look(image, scene)
            except (Rejected, Failed) as problem:
                lose(annotator, image_id, objects, problem, out)
            except Exception as error:  # costs this picture in this stage and not the unit
                lose(annotator, image_id, objects, unforeseen(watch, image_id, error), out)
            else:
                annotator.write(image, objects, looked, out)

    def _annotators(
        self, due: list[Stage], outs: dict[str, UnitWriter], dataset: Dataset, unit: str, watch: Watch
    ) -> list[tuple[Annotator, UnitWriter]]:
        """The annotators of the stages that are due, each with its stage's writer."""
        config, models = self._recipe.config, self._recipe.models
        names = "phrase" in outs and "text_embedding" in models
        phrases = Phrases(config.phrase, self._finder(), watch) if names else None
        made: dict[str, list[Annotator]] = {}
        if "measure" in outs:
            made["measure"] = [Measure()]
        if "face" in outs:
            made["face"] = [Faces(config.face, self._model("face"))]
        if "embed" in outs:
            made["embed"] = [Embeddings(self._model("image_embedding"), watch)]
        if "phrase" in outs:
            captions = [Captions(self._model("captioner"), watch)] if "captioner" in models else []
            made["phrase"] = [*([phrases] if phrases else []), *captions]
        if "quality" in outs:

            def cosines(object_ids: list[str]) -> list[float | None]:
                if phrases is None:
                    return [known.get(object_id) for object_id in object_ids]
                phrases.finish(outs["phrase"])
                return [phrases.cosines.pop(object_id, None) for object_id in object_ids]

            known = self._known_cosines(dataset, unit) if phrases is None else {}
            made["quality"] = [Quality(config, cosines, self._recognition(watch))]
        return [(annotator, outs[stage.name]) for stage in due for annotator in made[stage.name]]

    def _recognition(self, watch: Watch) -> Recognition | None:
        """What asks a classifier; None where there is none."""
        present = "classifier" in self._recipe.models
        return Recognition(self._model("classifier"), watch) if present else None

    def _known_cosines(self, dataset: Dataset, unit: str) -> dict[str, float]:
        """Cosines of phrases that an earlier run has found."""
        table = dataset.read("phrases", ["object_id", "cosine"], unit=unit)
        return dict(zip(table["object_id"].to_pylist(), table["cosine"].to_pylist(), strict=True))

    def _finder(self) -> PhraseFinder:
        if "phrases" not in self._models:
            texts: TextEmbedder = self._model("text_embedding")
            images = self._load(registry.by_name("image_embedding", texts.image_model))
            names = vocabulary(self._recipe.config.phrase.vocabulary)
            self._models["phrases"] = PhraseFinder(texts, images, names)
        finder: PhraseFinder = self._models["phrases"]
        return finder

    def _entry(self, role: str) -> Entry:
        return registry.by_name(role, self._recipe.models[role].split("@")[0])

    def _model(self, role: str) -> Any:
        """The model of a role; loaded when it is first needed.

        Raises:
            Refused: it cannot be loaded, or is not the one that the driver has seen.
        """
        if role not in self._models:
            entry, wanted = self._entry(role), self._recipe.models[role]
            found = entry.identity_at(self._recipe.config.models.precision)
            if found != wanted:
                raise Refused(f"the {role} model of this worker is {found}, that of the driver {wanted}")
            self._models[role] = self._load(entry)
        return self._models[role]

    def _load(self, entry: Entry) -> Any:
        """A model, which serves several roles where their entries differ in the role alone."""
        models = self._recipe.config.models
        wanted = entry.in_batches_of(models.batch_size.get(entry.role))
        same = replace(wanted, role="", thresholds={}, marks={})
        for other, loaded in self._loaded:
            if other == same:
                return loaded
        self._loaded.append((same, wanted.load(models.device, models.precision)))
        return self._loaded[-1][1]

    # -- stages that read tables ---------------------------------------------------------------------------------

    def _tabulate(self, stage: Stage, dataset: Dataset, unit: str, ties: Ties, watch: Watch) -> None:
        config = self._recipe.config
        if stage.name == "select":
            with self._writer(stage, dataset, unit, watch) as out:
                select.select_unit(dataset, unit, config.select, out)
        elif stage.name == "group":
            others = tuple(dict.fromkeys((*ties.lenders, *matched_units(dataset, unit))))
            with self._writer(stage, dataset, unit, watch, others) as out:
                group_unit(dataset, unit, others, config.group, out)
        elif stage.name == "compose":
            near = nearby(dataset, unit, (*ties.lenders, *ties.borrowers))
            with self._writer(stage, dataset, unit, watch, near.all) as out:
                compose_unit(dataset, unit, near, config.compose, out, watch)
        else:
            raise KeyError(stage.name)

    def _desk(self, spec: TaskSpec) -> StageContext:
        """The context of a stage; kept, with the manifests that it has read, until the worker is sent to another."""
        key = spec.stage, spec.fingerprint
        if self._at is None or self._at[0] != key:
            context = StageContext(
                Dataset(self._job.url),
                self._recipe,
                BY_NAME[spec.stage],
                spec.fingerprint,
                model=self._model,
                writer=self._writer,
            )
            self._at = key, context
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
