"""The shared photographs as datasets, made once and kept in the benchmarks' folder."""

import os
from pathlib import Path

from benchmarks.data import folder
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest import job
from refloom.ingest.engine.pool import Pool
from refloom.ingest.source import Source
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.dataset import Dataset


def shared() -> Path:
    """The folder of real photographs: $REFLOOM_PHOTOGRAPHS, else `shared/data` beside the checkout."""
    given = os.environ.get("REFLOOM_PHOTOGRAPHS")
    return Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"


def sources() -> dict[str, Source]:
    """The sets of photographs by name; `faces` and `subjects` without what their folders say."""
    root = shared()
    return {
        "subjects": PlainPictures(path=str(root / "subjects"), name="subjects"),
        "coco_train": Coco(
            images=str(root / "coco/train2017"), instances=str(root / "coco/annotations/instances_train2017.json")
        ),
        "coco_val": Coco(
            images=str(root / "coco/val2017"), instances=str(root / "coco/annotations/instances_val2017.json")
        ),
        "sa1b": Sa1b(tars=tuple(str(root / "sa1b" / f"sa_00000{n}.tar") for n in (0, 1))),
        "ytvis": YouTubeVis(
            frames=str(root / "ytvis/JPEGImages"), annotations=str(root / "ytvis/instances.json"), frame_rate=0
        ),
        "faces": PlainPictures(path=str(root / "faces"), name="faces"),
    }


def curated(name: str, *sets: str, config: Curation, until: str) -> Dataset:
    """A dataset of some sets, curated up to a stage; an older one of that name goes on where it was.

    Args:
        name: of the dataset.
        sets: of `sources`.
        config: settings of the curation.
        until: the last stage.
    """
    url, here = str(folder() / f"photographs-{name}"), Pool(workers=0)
    for one in sets:
        job.ingest(sources()[one], url, job.Options(), here)
    curate(url, config, here, until=until, replace=True)  # what other settings or versions have left is done again
    return Dataset(url)
