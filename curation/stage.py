"""What a stage is: what it reads, what its output depends on. Each is declared beside its rules, in its own folder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refloom.curation.config import Curation
from refloom.schemas.components import added_settings
from refloom.schemas.dataset import ADDED_KEY, Dataset
from refloom.schemas.settings import to_dict


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


def section(*names: str) -> Callable[[Curation], dict[str, Any]]:
    """The settings of a stage that depends on whole sections of the configuration, by their names."""
    return lambda config: {name: to_dict(getattr(config, name)) for name in names}


def with_added(table: str, settings: Callable[[Curation], dict[str, Any]]) -> Callable[[Curation], dict[str, Any]]:
    """Settings, and where plugins add columns to a table of the stage, whose they are and in which version."""

    def of(config: Curation) -> dict[str, Any]:
        added = added_settings(table)
        return settings(config) | ({ADDED_KEY: added} if added else {})

    return of


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
