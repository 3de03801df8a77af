"""Mending a dataset: what verify finds is made again, with the settings and models of then, to the same bytes."""

from typing import Any

from refloom.curation.annotate.settings import ROLES, quality_section
from refloom.curation.annotate.stages import vocabulary
from refloom.curation.config import Curation
from refloom.curation.job import Show, curate
from refloom.curation.stage import Stage
from refloom.curation.stages import ALL
from refloom.ingest.engine.pool import Pool
from refloom.schemas import card, commands
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Damaged
from refloom.schemas.findings import Findings
from refloom.schemas.lease import Lease
from refloom.schemas.manifest import Manifest
from refloom.schemas.settings import build
from refloom.schemas.tables import TABLES
from refloom.schemas.upkeep import collect_garbage, drop_orphans, strays
from refloom.schemas.verify import verify
from refloom.schemas.wording import quoted

_PRECISIONS = ("bf16", "fp16")


def mend(url: str, pool: Pool, show: Show | None = None) -> tuple[Findings, Findings]:
    """Make again what is damaged, remove what belongs to nothing, and derive dataset.json and the card.

    Args:
        url: of the dataset.
        pool: workers.
        show: for progress.

    Returns:
        What verify found before and after.

    Raises:
        Damaged: units of ingest are damaged, which can only come from their source: names the command.
        Refused: the settings of then cannot be told from the manifests.
    """
    dataset = Dataset(url, lenient=True)
    found = verify(dataset, decode_per_unit=0, derived=True)
    if found.sound:
        return found, found
    lost = sorted(unit for stage, unit in found.damaged if stage == "ingest")
    if lost:
        raise Damaged(
            f"{len(lost)} units of ingest are damaged, and come from their source alone: "
            + "; ".join([*commands.again(dataset, lost), f"then `refloom mend {quoted(url)}` mends the rest"])
        )
    names = _stages(dataset)
    if names:
        curate(url, settings_of(dataset), pool, names=names, show=show)
    with Lease(dataset.folder):
        collect_garbage(dataset)
        drop_orphans(dataset)
        card.write(dataset)
        dataset.write_index()
    return found, verify(Dataset(url, lenient=True), decode_per_unit=0, derived=True)


def _stages(dataset: Dataset) -> set[str]:
    """The stages that were done, though nothing but files may be left of some."""
    held = {stage.name for stage in ALL if dataset.manifests(stage.name)}
    held |= {stage for stage, _ in dataset.damaged}
    held |= {needed for stage in ALL if stage.name in held for needed in stage.needs}
    for path in strays(dataset):
        top, _, below = path.partition("/")
        held.add(below.partition("/")[0] if top == "ledger" else TABLES[top].stage)
    return held & {stage.name for stage in ALL}


def settings_of(dataset: Dataset) -> Curation:
    """The settings that a dataset was curated with, out of its manifests.

    Raises:
        Refused: they are of another refloom.
    """
    values = commands.settings(dataset.folder)  # of the last run; where all manifests of a stage are lost, there only
    models: dict[str, str] = {}
    for stage in ALL:
        for manifest in list(dataset.manifests(stage.name).values())[:1]:
            values |= _sections(stage, manifest)
        for manifest in dataset.manifests(stage.name).values():
            models |= manifest.models
    chosen = {role: identity.split("@")[0] for role, identity in models.items()}
    values["models"] = dict.fromkeys(ROLES, "none") | values.get("models", {}) | chosen
    for identity in models.values():
        if identity.rpartition(":")[2] in _PRECISIONS:
            values["models"]["precision"] = identity.rpartition(":")[2]
    return build(Curation, values)


def _sections(stage: Stage, manifest: Manifest) -> dict[str, Any]:
    """The sections of the settings that a manifest holds whole."""
    sections = {name: dict(section) for name, section in manifest.config.items() if isinstance(section, dict)}
    if stage.name == "balance":
        sections.pop("compose", None)  # a part of it; compose's own manifest has all
    if "quality" in sections:
        sections["quality"] = quality_section(sections["quality"])
    if "dedup" in sections:
        sections["dedup"].pop("evaluation_content", None)
    if "phrase" in sections and sections["phrase"].get("vocabulary") == vocabulary(None).fingerprint:
        sections["phrase"]["vocabulary"] = None
    return sections
