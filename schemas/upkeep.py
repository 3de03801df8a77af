"""What lies in a dataset and belongs to nothing: files that no manifest names, units without their ingest, scratch."""

from collections.abc import Iterator

from refloom.schemas import exchange, strict, tables, tags
from refloom.schemas.dataset import INPUTS, LABEL, STAGES, WORK, Dataset
from refloom.schemas.storage import TEMPORARY
from refloom.schemas.unit import settle_names


def strays(dataset: Dataset) -> list[str]:
    """Parquet files of tables and ledgers that no manifest names, not even of a unit that waits.

    Those of units with a damaged manifest are left out.
    """
    manifests = [manifest for stage in STAGES for manifest in dataset.manifests(stage).values()]
    manifests += exchange.waiting(dataset.folder, "ingest").values()
    named = {file.path for manifest in manifests for file in manifest.files}
    doubtful = tuple(f"unit-{unit}-" for _, unit in dataset.damaged)
    return [
        path
        for path in _found_files(dataset)
        if path.endswith(".parquet") and path not in named and not path.rpartition("/")[2].startswith(doubtful)
    ]


def orphans(dataset: Dataset) -> list[tuple[str, str]]:
    """Stage and unit of what was made of a unit that ingest no longer holds."""
    held = set(dataset.units()) | {unit for stage, unit in dataset.damaged if stage == "ingest"}
    made = [stage for stage in STAGES[1:] if stage != LABEL]
    return [(stage, unit) for stage in made for unit in dataset.manifests(stage) if unit not in held]


def drop_orphans(dataset: Dataset) -> None:
    """Remove what was made of units that ingest no longer holds. Only for the holder of the lease."""
    for stage, unit in orphans(dataset):
        dataset.drop(stage, unit)


def collect_garbage(dataset: Dataset) -> list[str]:
    """End an exchange of units that was cut off; remove what no manifest names, and scratch of other inputs.

    Returns their paths. Of what lies under `tags/` only tags that were never finished go: each has its own manifests.

    Only for the holder of the lease.
    """
    exchange.end(dataset.folder, "ingest")
    dataset.refresh()
    exchange.drop_damaged(dataset.folder, "ingest")
    waiting = exchange.waiting(dataset.folder, "ingest")
    for stage in STAGES:
        for unit, manifest in dataset.manifests(stage).items():
            if stage != "ingest" or unit not in waiting:  # else the usual names may be those of what waits
                dataset.manifests(stage)[unit] = settle_names(dataset.folder, manifest)
    removed = [*strays(dataset), *(path for path in _found_files(dataset) if path.endswith(TEMPORARY))]
    for path in removed:
        dataset.folder.remove(path)
    for path in tags.unfinished(dataset.folder):
        dataset.folder.remove_tree(path)
        removed.append(path)
    for stage in dataset.folder.folders(WORK):
        for state in dataset.folder.folders(f"{WORK}/{stage}"):
            if not _is_current(dataset, f"{WORK}/{stage}/{state}"):
                dataset.folder.remove_tree(f"{WORK}/{stage}/{state}")
                removed.append(f"{WORK}/{stage}/{state}")
    return removed


def _found_files(dataset: Dataset) -> Iterator[str]:
    folder = dataset.folder
    for top in (*tables.TABLES, "ledger", "manifests"):
        for directory in (top, *(f"{top}/{name}" for name in folder.folders(top))):
            yield from (f"{directory}/{name}" for name in folder.names(directory))


def _is_current(dataset: Dataset, scratch: str) -> bool:
    """Whether the inputs of a scratch folder are still what they were."""
    try:
        inputs = strict.object_in(dataset.folder.read(f"{scratch}/{INPUTS}"))
    except (FileNotFoundError, ValueError):
        return False
    return all((dataset.fingerprint_of(name) or "absent") == then for name, then in inputs.items())
