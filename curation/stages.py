"""The stages of curation: what each reads, what its output depends on, and whether it is current."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from curation import compose, groups, measure, quality, select, split
from curation.config import Curation
from schemas.dataset import Dataset
from schemas.manifest import Manifest, differing, flatten
from schemas.settings import to_dict

FACE_VERSION = 1
EMBED_VERSION = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        name: as in manifests.
        version: hand-bumped when the output changes for the same input and settings.
        reads: tables of the same unit; `table/*` is a whole table.
        settings: the part of the configuration that the output depends on.
        role: the model role it needs, or None.
        over: unit, or dataset for a stage that looks at all units at once.
        across: it reads other units too, so the stages before it must be done everywhere first.
        needs: stages without which it has nothing to decide on.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    settings: Callable[[Curation], dict[str, Any]]
    role: str | None = None
    over: str = "unit"
    across: bool = False
    needs: tuple[str, ...] = ()


def _section(*names: str) -> Callable[[Curation], dict[str, Any]]:
    return lambda config: {name: to_dict(getattr(config, name)) for name in names}


_PIXELS = ("images", "objects", "masks")

ALL: tuple[Stage, ...] = (
    Stage("measure", measure.VERSION, ("images",), _section()),
    Stage("face", FACE_VERSION, _PIXELS, _section("face"), role="face"),
    Stage("embed", EMBED_VERSION, _PIXELS, _section("filter"), role="image_embedding"),
    Stage("quality", quality.VERSION, _PIXELS, _section("quality", "filter")),
    Stage("select", select.VERSION, ("objects", "object_scores"), _section("select"), needs=("quality",)),
    Stage(
        "group",
        groups.VERSION,
        ("images", "objects", "source_groups", "selection", "embeddings"),
        _section("group"),
        across=True,
        needs=("select",),
    ),
    Stage(
        "split",
        split.VERSION,
        ("images/*", "source_groups/*", "groups/*"),
        _section("split"),
        over="dataset",
        needs=("group",),
    ),
    Stage(
        "compose",
        compose.VERSION,
        (
            "images",
            "objects",
            "masks",
            "selection",
            "object_scores",
            "embeddings",
            "faces",
            "groups",
            "splits",
            "phrases",
            "captions",
        ),
        _section("compose"),
        needs=("select", "group", "split"),
    ),
)
BY_NAME = {stage.name: stage for stage in ALL}
PIXEL_STAGES = ("measure", "face", "embed", "quality")
"""Stages that look at decoded pictures; one pass over a unit serves all of them."""


@dataclass(frozen=True, slots=True)
class Recipe:
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
        return {stage.role: self.models[stage.role]} if stage.role else {}

    def differences(self, stage: Stage, manifest: Manifest) -> list[str]:
        """Settings in which a committed unit differs from this run, as `key: old -> new`."""
        new = {**self.settings(stage), "stage_version": stage.version, "models": self.models_of(stage)}
        return differing(manifest.settings(), flatten(new))

    def is_due(self, stage: Stage, dataset: Dataset, unit: str) -> bool:
        """Whether a stage has to be done for a unit: never done, out of date, or asked for again.

        Reads the manifests as they are now.
        """
        manifest = dataset.manifest(stage.name, unit)
        return (
            manifest is None
            or dataset.is_stale(manifest)
            or (self.retry_failed and manifest.failed > 0)
            or (self.replace and bool(self.differences(stage, manifest)))
        )


def inputs(stage: Stage, dataset: Dataset, unit: str, others: tuple[str, ...] = ()) -> dict[str, str]:
    """Fingerprints of everything a stage reads for a unit, as its manifest keeps them.

    Args:
        stage: which.
        dataset: where.
        unit: whose.
        others: further units whose tables were read, for groups that cross units.
    """
    names = [name if name.endswith("/*") else f"{name}/{unit}" for name in stage.reads]
    names += [f"{name}/{other}" for other in others for name in stage.reads if not name.endswith("/*")]
    return {name: dataset.fingerprint_of(name) or "absent" for name in names}
