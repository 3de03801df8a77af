"""A folder of photographs to a published dataset.

    python examples/photographs_to_dataset.py PHOTOGRAPHS OUT

PHOTOGRAPHS holds pictures, in any folders. OUT/dataset becomes the dataset, with a page to look at, and OUT/published
what `datasets.load_dataset` reads and can be given to others. The same call again goes on where it was stopped.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import refloom


def build(
    photographs: Path, out: Path, settings: Mapping[str, Any], workers: int | None = None, show: bool = True
) -> Path:
    """Ingest, curate, check, report, publish.

    Args:
        photographs: folder of pictures.
        out: where everything goes.
        settings: of the curation that differ, such as `{"select.min_quality": 0.6}`.
        workers: processes; None for all cores, 0 for this one.
        show: whether progress is printed.

    Returns:
        The folder of the publication.
    """
    dataset = out / "dataset"
    taken = refloom.ingest("folder", dataset, path=photographs, workers=workers, show=show)
    curated = refloom.curate(dataset, settings=settings, workers=workers, show=show)
    if taken.failed or curated.failed:
        print(f"{taken.failed + curated.failed} items failed; the ledger of {dataset} says why")
    found = refloom.verify(dataset)
    if not found.sound:
        raise SystemExit("\n".join(found.problems))
    print("look at it:", refloom.report(dataset))
    # nobody has said under which license these pictures are: they are yours, so you may
    published = refloom.publish(dataset, out / "published", accept_licenses=["none"], show=show)
    for split, rows in published.manifest["rows"]["samples"].items():
        print(f"{split}: {rows} samples")
    return Path(published.folder)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    build(Path(sys.argv[1]), Path(sys.argv[2]), {})
