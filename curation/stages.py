"""The stages of curation: what each reads, what its output depends on, and whether it is current."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from refloom.curation.annotate import masks as masking
from refloom.curation.annotate import measure, quality
from refloom.curation.annotate import phrases as words
from refloom.curation.compose import samples as compose
from refloom.curation.config import Curation
from refloom.curation.dedup import settings as dedup
from refloom.curation.group import groups
from refloom.curation.group import matches as matching
from refloom.curation.select import choices, split
from refloom.curation.select import objects as select
from refloom.inference.models.phrases import Vocabulary
from refloom.ingest import files
from refloom.schemas.dataset import Dataset
from refloom.schemas.manifest import Manifest, differing, flatten
from refloom.schemas.settings import to_dict
from refloom.schemas.storage import Folder

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
        roles: model roles that it uses.
        runs_without: also where no model of its roles is there; others need at least one.
        over: unit, or dataset for a stage that looks at all units at once.
        across: it reads other units too, so the stages before it must be done everywhere first.
        needs: stages without which it has nothing to decide on.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    settings: Callable[[Curation], dict[str, Any]]
    roles: tuple[str, ...] = ()
    runs_without: bool = False
    over: str = "unit"
    across: bool = False
    needs: tuple[str, ...] = ()


def _section(*names: str) -> Callable[[Curation], dict[str, Any]]:
    return lambda config: {name: to_dict(getattr(config, name)) for name in names}


def _phrasing(config: Curation) -> dict[str, Any]:
    names = vocabulary(config.phrase.vocabulary).fingerprint
    return {"phrase": to_dict(config.phrase) | {"vocabulary": names}, "filter": to_dict(config.filter)}


def _balancing(config: Curation) -> dict[str, Any]:
    """The settings, and where there is any limit those that say what a candidate is."""
    names = ("frames_per_sample", "samples_per_video", "min_face_px")
    own = {"balance": to_dict(config.balance), "pairs": to_dict(config.pairs)}
    if not (config.balance.is_set or config.pairs.is_set):
        return own
    return own | {"compose": {name: getattr(config.compose, name) for name in names}}


def _deduplication(config: Curation) -> dict[str, Any]:
    """The settings, and what the evaluation sets hold."""
    return {
        "dedup": to_dict(config.dedup) | {"evaluation_content": [_content(place) for place in config.dedup.evaluation]}
    }


@cache
def _content(place: str) -> str:
    """What an evaluation set holds, without reading its pictures."""
    folder = Folder(place)
    if folder.exists("dataset.json"):
        return Dataset(place).fingerprint("images")
    return files.weigh(folder, files.picture_names(folder)[0])[1]


@cache
def vocabulary(file: str | None) -> Vocabulary:
    """The names of a file, or those that ship; read once per process."""
    return Vocabulary.read(Path(file)) if file else Vocabulary.read()


_PIXELS = ("images", "objects", "masks")

ALL: tuple[Stage, ...] = (
    Stage("measure", measure.VERSION, ("images",), _section()),
    Stage("mask", masking.VERSION, ("images", "objects"), _section("mask"), roles=("segmenter",)),
    Stage("face", FACE_VERSION, _PIXELS, _section("face"), roles=("face",)),
    Stage("embed", EMBED_VERSION, _PIXELS, _section("filter"), roles=("image_embedding",)),
    Stage("phrase", words.VERSION, _PIXELS, _phrasing, roles=("text_embedding", "captioner")),
    Stage("quality", quality.VERSION, (*_PIXELS, "phrases"), _section("quality", "filter")),
    Stage(
        "dedup",
        dedup.VERSION,
        ("images/*", "objects/*", "source_groups/*", "image_scores/*", "object_scores/*", "embeddings/*"),
        _deduplication,
        roles=("image_embedding",),
        runs_without=True,
        over="dataset",
        needs=("measure", "quality"),
    ),
    Stage(
        "select",
        select.VERSION,
        ("objects", "masks", "object_scores", "duplicates"),
        _section("select"),
        needs=("quality",),
    ),
    Stage(
        "match",
        matching.VERSION,
        (
            "images/*",
            "objects/*",
            "source_groups/*",
            "masks/*",
            "faces/*",
            "embeddings/*",
            "object_scores/*",
            "duplicates/*",
            "selection/*",
        ),
        _section("identities", "looks"),
        roles=("face", "image_embedding"),
        runs_without=True,
        over="dataset",
        needs=("select",),
    ),
    Stage(
        "group",
        groups.VERSION,
        (
            "images",
            "objects",
            "masks",
            "source_groups",
            "selection",
            "object_scores",
            "faces",
            "embeddings",
            "matches",
        ),
        _section("group"),
        across=True,
        needs=("select",),
    ),
    Stage(
        "split",
        split.VERSION,
        ("images/*", "source_groups/*", "groups/*", "duplicates/*"),
        _section("split"),
        over="dataset",
        needs=("group",),
    ),
    Stage(
        "balance",
        choices.VERSION,
        (
            "images/*",
            "objects/*",
            "masks/*",
            "selection/*",
            "object_scores/*",
            "faces/*",
            "groups/*",
            "duplicates/*",
            "splits/*",
        ),
        _balancing,
        over="dataset",
        needs=("select", "group", "split"),
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
            "choices",
            "phrases",
            "captions",
            "duplicates",
        ),
        _section("compose"),
        needs=("select", "group", "split", "balance"),
    ),
)
BY_NAME = {stage.name: stage for stage in ALL}
PIXEL_STAGES = ("measure", "face", "embed", "phrase", "quality")
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
