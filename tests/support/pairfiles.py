"""Small sets of directed records, written as each layout is published."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from drawing import encoded, gradient
from PIL import Image

from refloom.schemas import pictures

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def drawn(seed: int) -> bytes:
    """A small JPEG."""
    return pictures.encode_jpeg(gradient(80, 72, seed), 92)


def write_images(root: Path, names: Iterable[str]) -> Path:
    """Different small pictures of these names."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn(seed))
    return root


def write_lines(path: Path, records: Sequence[Any]) -> str:
    """JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def write_bagel(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> str:
    """Parquet of `image_list` and `instruction`, as BAGEL's own rows are."""
    kinds = pa.schema([("image_list", pa.list_(pa.binary())), ("instruction", pa.string())])
    pq.write_table(pa.Table.from_pylist(list(rows), kinds), path, **options)
    return str(path)


def diptych(seed: int, *, padding: int = 8, side: int = 64, kind: str = "JPEG", **options: Any) -> bytes:
    """Two squares side by side with a border around each, as Subjects200K has them."""
    size = side + 2 * padding
    halves = [gradient(size, size, seed), gradient(size, size, seed + 1000)]
    return encoded(Image.fromarray(np.concatenate(halves, axis=1)), kind, **options)


def subjects200k_row(data: bytes | None, collection: str = "collection_2", **more: Any) -> dict[str, Any]:
    """A row of Subjects200K, as its card describes it."""
    return {
        "image": {"bytes": data, "path": None},
        "collection": collection,
        "quality_assessment": {"compositeStructure": 5, "objectConsistency": 4, "imageQuality": 5},
        "description": {
            "item": "Eames Lounge Chair",
            "description_0": "The chair stands in a bright loft.",
            "description_1": "The chair stands on a terrace by the sea.",
            "category": "Furniture",
            "description_valid": True,
        },
    } | more


def write_subjects200k(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> str:
    """Parquet of such rows."""
    quality = pa.struct([(name, pa.int64()) for name in ("compositeStructure", "objectConsistency", "imageQuality")])
    words = [(name, pa.string()) for name in ("item", "description_0", "description_1", "category")]
    kinds = pa.schema(
        [
            ("image", HF_IMAGE),
            ("collection", pa.string()),
            ("quality_assessment", quality),
            ("description", pa.struct([*words, ("description_valid", pa.bool_())])),
        ]
    )
    pq.write_table(pa.Table.from_pylist(list(rows), kinds), path, **options)
    return str(path)


def pixels(data: bytes) -> np.ndarray:
    """(H, W, 3) whole numbers of a picture, for differences."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)
