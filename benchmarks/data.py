"""Input of the benchmarks: sample data, written once per size into a folder that outlives the run."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2

from refloom.ingest import sampledata
from refloom.schemas import masks
from refloom.schemas.errors import Rejected


def folder() -> Path:
    """Where benchmark data lies: $REFLOOM_BENCH, else a folder below the system's temporary one."""
    path = Path(os.environ.get("REFLOOM_BENCH") or Path(tempfile.gettempdir()) / "refloom-bench")
    path.mkdir(parents=True, exist_ok=True)
    return path


def sample(images: int, videos: int) -> Path:
    """A sample-data tree of that size."""
    out = folder() / f"sample-{images}-{videos}"
    sampledata.write(str(out), images=images, videos=videos, seed=0)
    return out


COCO_DENSITY = 3
_OUTLINE_PX = 1.5


def coco_like(instances: Path) -> Path:
    """Sample annotations made like train2017's; beside the original.

    Sample pictures have 2.5 exact annotations of 1.7 kB each, train2017 has 7.3 of 0.5 kB, drawn by hand. So outlines
    are thinned, and each annotation is listed three times under ids of its own.
    """
    out = instances.with_name(f"like_{instances.name}")
    if not out.exists():
        document = json.loads(instances.read_text())
        sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
        own = [annotation for annotation in document["annotations"] if not annotation["iscrowd"]]
        for annotation in own:
            annotation["segmentation"] = _outlines(annotation["segmentation"], *sizes[annotation["image_id"]])
        document["annotations"] = [
            {**annotation, "id": annotation["id"] * COCO_DENSITY + copy}
            for annotation in own
            for copy in range(COCO_DENSITY)
        ]
        partial = out.with_suffix(".partial")
        partial.write_text(json.dumps(document))
        partial.rename(out)
    return out


def _outlines(segmentation: Any, height: int, width: int) -> list[list[float]]:
    """Polygons of a few dozen points around the parts of a mask."""
    (mask,), _ = masks.read([segmentation], height, width)
    if isinstance(mask, Rejected):
        raise mask
    contours, _ = cv2.findContours(masks.decode(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    thinned = [cv2.approxPolyDP(contour, _OUTLINE_PX, True).reshape(-1) + 0.5 for contour in contours]
    return [outline.tolist() for outline in thinned if len(outline) >= 6]
