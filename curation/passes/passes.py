"""A pass: tasks that can be done in any order, anywhere, and the context at which each of them works."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from refloom.curation.config import Curation
from refloom.curation.passes.scratch import Scratch, TaskResult
from refloom.curation.stage import Stage
from refloom.curation.stages import CurationRun
from refloom.inference.models import registry
from refloom.ingest.engine.watch import Watch
from refloom.schemas.dataset import Dataset
from refloom.schemas.fingerprint import of_json
from refloom.schemas.settings import to_dict
from refloom.schemas.unit import UnitWriter

_LAYOUT = 3
"""Hand-bumped when passes leave other files for each other, so that none reads those of an older refloom."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What a worker is told of one task of a pass.

    Attributes:
        stage, pass: whose.
        fingerprint: of the scratch folder.
        args: what it is about, plain values.
    """

    stage: str
    pass_name: str
    fingerprint: str
    args: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task as a pass plans it.

    Attributes:
        name: of the task, unique in its pass.
        args: as in `TaskSpec`.
        weight: its share of the pass's work.
    """

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of a stage.

    Attributes:
        name: what it does.
        item: what its tasks count.
        plan: its tasks, on the driver, from manifests and results.
        work: does one task, in a worker; its result, or None where the manifest of a unit says that it is done.
    """

    name: str
    item: str
    plan: Callable[["StageContext"], list[PlannedTask]]
    work: Callable[["StageContext", dict[str, Any], Watch], TaskResult | None]


@dataclass(frozen=True, slots=True)
class Part:
    """Units that one task reads, in order; parts are numbered through the dataset."""

    number: int
    units: tuple[str, ...]
    rows: int


class StageContext:
    """What a pass is planned and worked on with: one stage of one dataset in one state.

    Attributes:
        dataset: its manifests may be kept in memory: nobody changes the stage's inputs while it runs.
        recipe: settings and models of the run.
        stage: the stage.
        scratch: what its passes leave for each other.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: CurationRun,
        stage: Stage,
        fingerprint: str,
        *,
        due: Sequence[str] = (),
        model: Callable[[str], Any] | None = None,
        writer: Callable[[Stage, Dataset, str, Watch], UnitWriter] | None = None,
    ) -> None:
        """Set up, on the driver or in a worker.

        Args:
            dataset, recipe, stage: see the class.
            fingerprint: of the scratch folder.
            due: units that are to be written; for planning.
            model: loads the model of a role; for working.
            writer: opens the unit of a stage; for working.
        """
        self.dataset, self.recipe, self.stage = dataset, recipe, stage
        self.scratch = Scratch(dataset.folder, stage.name, fingerprint)
        self._due, self._model, self._writer = due, model, writer

    @property
    def config(self) -> Curation:
        """All settings."""
        return self.recipe.config

    def threshold(self, role: str, name: str) -> float | None:
        """A threshold of the model of a role; None without one."""
        if role not in self.recipe.models:
            return None
        return registry.by_name(role, self.recipe.models[role].split("@")[0]).thresholds[name]

    def mark(self, role: str, name: str) -> float | None:
        """A mark of the model of a role; None without one, or where the model has no such mark."""
        if role not in self.recipe.models:
            return None
        return registry.by_name(role, self.recipe.models[role].split("@")[0]).marks.get(name)

    def model(self, role: str) -> Any:
        """The model of a role; None without one."""
        if self._model is None:
            raise RuntimeError("models are for workers")
        return self._model(role) if role in self.recipe.models else None

    def unit(self, unit: str, watch: Watch) -> UnitWriter:
        """A unit of the stage, to be written and committed."""
        if self._writer is None:
            raise RuntimeError("units are written by workers")
        return self._writer(self.stage, self.dataset, unit, watch)

    @cached_property
    def parts(self) -> list[Part]:
        """The dataset's units in runs of about `grain.part_rows` pictures and objects."""
        rows = {
            unit: sum(manifest.tables[name].rows for name in ("images", "objects") if name in manifest.tables)
            for unit, manifest in self.dataset.manifests("ingest").items()
        }
        parts: list[Part] = []
        units: list[str] = []
        held = 0
        for unit, count in rows.items():
            if units and held + count > self.config.grain.part_rows:
                parts.append(Part(len(parts), tuple(units), held))
                units, held = [], 0
            units.append(unit)
            held += count
        return [*parts, Part(len(parts), tuple(units), held)] if units else parts

    def planned_tasks(self) -> list[PlannedTask]:
        """A task for every part."""
        return [PlannedTask(f"part-{part.number:06d}", _of(part), max(1, part.rows)) for part in self.parts]

    def planned_tasks_of_units(self) -> list[PlannedTask]:
        """A task for every unit that is due."""
        due = set(self._due)
        manifests = self.dataset.manifests("ingest")
        return [
            PlannedTask(unit, {"part": part.number, "unit": unit}, max(1, manifests[unit].tables["images"].rows))
            for part in self.parts
            for unit in part.units
            if unit in due
        ]


def _of(part: Part) -> dict[str, Any]:
    return {"part": part.number, "units": list(part.units), "rows": part.rows}


def fingerprint_of(dataset: Dataset, recipe: CurationRun, stage: Stage) -> tuple[str, dict[str, str]]:
    """The name of a stage's scratch folder, and its inputs: all that its rows and its layout depend on."""
    inputs = {name: dataset.fingerprint_of(name) or "absent" for name in stage.reads}
    of = {
        "inputs": inputs,
        "settings": recipe.settings(stage),
        "models": recipe.models_of(stage),
        "version": stage.version,
        "grain": to_dict(recipe.config.grain),
        "layout": _LAYOUT,
    }
    return of_json(of)[:16], inputs
