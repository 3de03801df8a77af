"""Masks: what storing and measuring one costs, at 720x1280."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import sample
from benchmarks.table import Result
from refloom.ingest import jsons
from refloom.schemas import masks, tables
from refloom.schemas.fields import MASK
from refloom.schemas.parquet import options

_HEIGHT, _WIDTH = 720, 1280


def run(quick: bool) -> Result:
    """Milliseconds and bytes per mask, one at a time and many at once."""
    document = jsons.load(str(sample(60 if quick else 600, 4 if quick else 30) / "ytvis/train/instances.json")).value
    found = _resized(document, 60 if quick else 400)
    boxes = [masks.tight_boxes([mask])[0].astype(int).tolist() for mask in found]
    single = found[0]
    texts = sum(len(mask["counts"]) for mask in found) / len(found)
    stored = _stored(found) / len(found)
    timed: list[tuple[str, Callable[[], Any], int]] = [
        ("area + box, one mask", lambda: (masks.areas([single]), masks.tight_boxes([single])), 1),
        ("area + box, all at once", lambda: (masks.areas(found), masks.tight_boxes(found)), len(found)),
        ("check, all at once", lambda: masks.check(found), len(found)),
        ("IoU of 60 x 60", lambda: masks.iou(found[:60], found[:60]), 1),
        ("decode, whole picture", lambda: [masks.decode(mask) for mask in found[:60]], 60),
        ("decode, inside the box", lambda: masks.decode_boxes(found[:60], [tuple(box) for box in boxes[:60]]), 60),
        ("crop to the box", lambda: [masks.crop(mask, tuple(box)) for mask, box in zip(found[:60], boxes)], 60),  # noqa: B905
        ("resize to half", lambda: [masks.resize(mask, 360, 640) for mask in found[:60]], 60),
    ]
    rows = [[name, f"{_milliseconds(what) / count:.4f}"] for name, what, count in timed]
    rows += [["bytes, compressed RLE", f"{texts:.0f}"], ["bytes, in Parquet (zstd)", f"{stored:.0f}"]]
    one = float(rows[0][1])
    return Result(
        f"Masks at {_HEIGHT}x{_WIDTH}",
        ("what", "ms or bytes per mask"),
        rows,
        f"{len(found)} masks of sample videos, resized. Wall time, best of several.",
        [(f"area + box of one mask {one:.4f} ms, asked 0.05", one <= 0.05)],
    )


def _resized(document: dict[str, Any], count: int) -> list[masks.Mask]:
    sizes = {video["id"]: (video["height"], video["width"]) for video in document["videos"]}
    out: list[masks.Mask] = []
    for track in document["annotations"]:
        segmentations = [mask for mask in track["segmentations"] if mask is not None]
        read, pixels = masks.read(segmentations, *sizes[track["video_id"]])
        for mask, area in zip(read, pixels.tolist(), strict=True):
            if isinstance(mask, dict) and area > 500 and len(out) < count:
                out.append(masks.resize(mask, _HEIGHT, _WIDTH))
    return out


def _stored(found: list[masks.Mask]) -> int:
    schema = pa.schema([tables.TABLES["objects"].schema.field("mask")])
    sink = io.BytesIO()
    pq.write_table(pa.table({"mask": pa.array(found, MASK)}, schema=schema), sink, **options(schema))
    return sink.tell()


def _milliseconds(what: Callable[[], Any]) -> float:
    best = np.inf
    for _ in range(7):
        rounds = 0
        start = time.perf_counter()
        while time.perf_counter() - start < 0.05:
            what()
            rounds += 1
        best = min(best, (time.perf_counter() - start) / rounds)
    return float(best) * 1e3
