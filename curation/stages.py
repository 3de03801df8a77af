"""The stages of curation in their order, and what a run asks of them. Each is declared in its own folder."""

from dataclasses import dataclass
from typing import Any

from refloom.curation.annotate.stages import EMBED, FACE, MASK, MEASURE, PHRASE, QUALITY
from refloom.curation.compose.stage import COMPOSE
from refloom.curation.config import Curation
from refloom.curation.dedup.stage import DEDUP
from refloom.curation.group.stages import GROUP, MATCH
from refloom.curation.select.stages import BALANCE, SELECT, SPLIT
from refloom.curation.stage import Stage
from refloom.schemas.dataset import Dataset
from refloom.schemas.manifest import Manifest, differing, flatten

ALL: tuple[Stage, ...] = (
    *(MEASURE, MASK, FACE, EMBED, PHRASE, QUALITY),
    *(DEDUP, SELECT, MATCH, GROUP, SPLIT, BALANCE, COMPOSE),
)
BY_NAME = {stage.name: stage for stage in ALL}
PIXEL_STAGES = tuple(stage.name for stage in (MEASURE, FACE, EMBED, PHRASE, QUALITY))
"""Stages that look at decoded pictures; one pass over a unit serves all of them."""


@dataclass(frozen=True, slots=True)
class CurationRun:
    """What a run asks of the stages; travels to workers.

    Attributes:
        config: all settings.
        models: role to the identity of its model as resolved on the driver; a role without a model is absent.
        names: stages that this run may do, in order.
        replace: do units again whose settings differ.
        retry_failed: do units again that hold failed items.
    """

    config: Curation
    models: dict[str, str]
    names: tuple[str, ...]
    replace: bool = False
    retry_failed: bool = False

    def settings(self, stage: Stage) -> dict[str, Any]:
        """Settings of a stage as its manifests keep them."""
        return stage.settings(self.config)

    def models_of(self, stage: Stage) -> dict[str, str]:
        """Models of a stage as its manifests keep them."""
        return {role: self.models[role] for role in stage.roles if role in self.models}

    def differences(self, stage: Stage, manifest: Manifest) -> list[str]:
        """Settings in which a committed unit differs from this run, as `key: old -> new`."""
        new = {**self.settings(stage), "stage_version": stage.version, "models": self.models_of(stage)}
        return differing(manifest.settings(), flatten(new))

    def is_due(self, stage: Stage, dataset: Dataset, unit: str) -> bool:
        """Whether a stage has to be done for a unit: never done, out of date, damaged, or asked for again.

        Reads the manifests as they are now.
        """
        manifest = dataset.manifest(stage.name, unit)
        return (
            manifest is None
            or dataset.is_stale(manifest)
            or not dataset.is_whole(manifest)
            or (self.retry_failed and manifest.failed > 0)
            or (self.replace and bool(self.differences(stage, manifest)))
        )
