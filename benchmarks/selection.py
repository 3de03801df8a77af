"""Selecting a million objects again from their stored scores, with another bound, on one core."""

import shutil
import time

import numpy as np
import pyarrow as pa
from refloom.curation.select.settings import Select

from benchmarks.data import folder
from benchmarks.table import Result, seconds
from refloom.curation.annotate.quality import COMPONENTS
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest.engine.pool import Pool
from refloom.schemas.dataset import Dataset
from refloom.schemas.storage import Folder
from refloom.schemas.unit import UnitKey, UnitWriter

_ASKED_S = 10.0
_UNITS = 10
_PER_PICTURE = 10
_SIDE_PX = 640


def run(quick: bool) -> Result:
    """Seconds to select again, and what became of the objects."""
    objects = 20_000 if quick else 1_000_000
    url = str(folder() / f"selection-{objects}")
    _made(url, objects)
    here = Pool(workers=0)
    curate(url, Curation(), here, only="select", replace=True)
    rows = []
    for bound in (0.45, 0.55, 0.65):
        config = Curation(select=Select(min_quality=bound))
        start = time.perf_counter()
        cpu = seconds(lambda: curate(url, config, here, only="select", replace=True))  # noqa: B023
        wall = time.perf_counter() - start
        counts = Dataset(url).counts("select")["object"]
        if (counts.input, counts.failed) != (objects, {}):
            raise AssertionError(f"{counts.to_json()} does not account for {objects} objects")
        rows.append((bound, wall, cpu, counts.kept))
    worst = max(wall for _, wall, _, _ in rows)
    return Result(
        f"Selecting {objects:,} objects again",
        ("min_quality", "seconds", "CPU seconds", "kept"),
        [[f"{bound}", f"{wall:.2f}", f"{cpu:.2f}", f"{kept:,}"] for bound, wall, cpu, kept in rows],
        f"Made rows of `objects` and `object_scores` in {_UNITS} units, no pictures; `curate --only select --replace` "
        "in one process: manifests, reading, verdicts, `selection` with its fingerprints, manifests, the card.",
        [(f"{worst:.1f} s, asked {_ASKED_S:.0f} s", quick or worst <= _ASKED_S)],
    )


def _made(url: str, objects: int) -> None:
    """A dataset of made rows, unless it is there already."""
    if len(Folder(url).names("manifests/quality")) == _UNITS:
        return
    shutil.rmtree(url, ignore_errors=True)
    dataset = Dataset(url, create=True)
    share = objects // _UNITS
    for unit in range(_UNITS):
        rng = np.random.default_rng(unit)
        images = [f"made/{unit:02d}/{number:06d}" for number in range(share // _PER_PICTURE)]
        owners = np.repeat(np.arange(len(images)), _PER_PICTURE)
        image_ids = pa.array(images).take(pa.array(owners))
        object_ids = pa.array([f"{images[owner]}#{number}" for number, owner in enumerate(owners)])
        _ingest(dataset, unit, images, object_ids, image_ids, rng)
        _score(dataset, unit, object_ids, image_ids, rng)
    dataset.write_index()


def _ingest(
    dataset: Dataset,
    unit: int,
    images: list[str],
    object_ids: pa.Array,
    image_ids: pa.Array,
    rng: np.random.Generator,
) -> None:
    count = len(object_ids)
    words = pa.array(["cat", "dog", "person", None])
    corners = rng.uniform(0, _SIDE_PX / 2, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + rng.uniform(8, _SIDE_PX / 2, (count, 2)).astype(np.float32)], axis=1)
    with UnitWriter(dataset.folder, UnitKey("ingest", f"made-{unit:05d}", "made")) as out:
        out.expect("image", len(images))
        same = len(images)
        out.add_columns(
            "images",
            {
                "image_id": images,
                "source": ["folder"] * same,
                "sha256": ["0" * 64] * same,
                "width": [_SIDE_PX] * same,
                "height": [_SIDE_PX] * same,
                "orientation": [1] * same,
                "faces_blurred": [False] * same,
            },
        )
        out.keep("image", same)
        out.expect("annotation", count)
        out.add_columns(
            "objects",
            {
                "object_id": object_ids,
                "image_id": image_ids,
                "kind": ["object"] * count,
                "category": words.take(pa.array(rng.integers(0, 4, count))),
                "box": list(boxes),
                "area": rng.integers(100, 90_000, count),
            },
        )
        out.keep("annotation", count)


def _score(dataset: Dataset, unit: int, object_ids: pa.Array, image_ids: pa.Array, rng: np.random.Generator) -> None:
    """Components spread over their ranges; a tenth was spared by the decode-free filter and holds null."""
    count = len(object_ids)
    spared = rng.random(count) < 0.1
    high = {"short_side_px": 400.0, "aspect": 4.0, "sharpness": 4.0, "contrast": 0.5, "border_share": 0.6}
    columns = {name: rng.random(count) * high.get(name, 1.0) for name in (*COMPONENTS, "quality")}
    for name in ("border_share", "largest_part", "contained", "sharpness", "quality"):
        columns[name][spared] = np.nan
    with UnitWriter(dataset.folder, UnitKey("quality", f"made-{unit:05d}", "made")) as out:
        out.expect("object", count)
        filtered = pa.array(np.where(spared, "too_small", None))
        out.add_columns(
            "object_scores", {"object_id": object_ids, "image_id": image_ids, "filtered": filtered, **columns}
        )
        out.keep("object", count)
