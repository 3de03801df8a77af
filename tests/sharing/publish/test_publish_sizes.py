"""Files of a publication: of the target size, cut evenly, with every picture where it is said to be."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from publishing import CONFIG, build

from refloom.schemas import tables
from refloom.schemas.errors import Refused
from refloom.schemas.fields import IMAGE
from refloom.sharing.publish import publication, shards
from refloom.sharing.publish.addresses import chunk_of, locate
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.sizes import array_sizes


def test_files_are_of_the_target_size_but_for_the_last(tmp_path):
    # without stills of the videos, whose rows beside samples of several pictures are too coarse for these bounds
    config = replace(CONFIG, compose=replace(CONFIG.compose, images_per_video=0))
    dataset = build(tmp_path, count=100, size=(320, 240), unit_size=20, config=config)
    for target in (300_000, 400_000):
        publish(dataset, str(tmp_path / str(target)), Publish(tables=("samples", "images"), shard_bytes=target))
        for table, split in (("samples", "train"), ("images", "train")):
            files = sorted((tmp_path / str(target) / "data" / table).glob(f"{split}-*.parquet"))
            sizes = [file.stat().st_size for file in files]
            assert len(sizes) > 3
            assert all(0.8 * target <= size <= 1.2 * target for size in sizes[:-1]), sizes
            assert sizes[-1] <= 1.2 * target
            assert [file.name for file in files] == [
                f"{split}-{number:05d}-of-{len(files):05d}.parquet" for number in range(len(files))
            ]


def test_tables_without_pictures_are_cut_by_their_compressed_size(tmp_path):
    rng = np.random.default_rng(0)
    spill = tmp_path / "spill"
    spill.mkdir()
    writer = publication.SpillWriter(spill, "embeddings", "train")
    for start in range(0, 4000, 500):
        ids = [f"coco/{number:06d}#1" for number in range(start, start + 500)]
        vectors = rng.normal(size=(500, 128)).astype(np.float32)
        columns = {"object_id": ids, "image_id": [one[:-2] for one in ids], "embedding": list(vectors)}
        schema = publication.spill_schema("embeddings")
        arrays = [pa.array(columns[name], schema.field(name).type) for name in schema.names[:-1]]
        writer.add(pa.RecordBatch.from_arrays([*arrays, pa.nulls(500, schema.types[-1])], schema=schema))
    writer.close()
    from refloom.schemas.storage import Folder
    from refloom.sharing.publish.spill import Spill

    opened = Spill(spill, "embeddings", "train")
    listed = shards.plan(opened, 300_000, images=True)
    sizes = [shards.write(one, opened, Folder(tmp_path / "out"), None, lambda rows, size: None).bytes for one in listed]
    assert len(sizes) > 4
    assert all(0.8 * 300_000 <= size <= 1.2 * 300_000 for size in sizes[:-1]), sizes


def test_cut_is_complete_and_even():
    rng = np.random.default_rng(0)
    for target in (1, 50, 1000, 10**9):
        weights = rng.integers(0, 100, 500)
        parts = shards.cut(weights, target)
        assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
        assert parts[-1][1] == 500
        assert all(stop > start for start, stop in parts)
        if target == 1000:
            sums = [int(weights[start:stop].sum()) for start, stop in parts[:-1]]
            assert all(900 <= one <= 1100 for one in sums)


def test_sizes_of_rows_do_not_depend_on_batches():
    for table in ("samples", "objects", "faces"):
        schema = tables.TABLES[table].schema
        for field in schema:
            assert array_sizes(pa.nulls(3, field.type)).tolist() == [0, 0, 0]
    kind = pa.list_(pa.struct([("text", pa.string()), ("box", pa.list_(pa.float32(), 4))]))
    values = [[{"text": "ab", "box": [0, 0, 1, 1]}, {"text": None, "box": None}], None, [], [{"text": "", "box": None}]]
    whole = array_sizes(pa.array(values, kind))
    assert whole.tolist() == [4 + 6 + 16, 0, 4, 4 + 4]
    assert [array_sizes(pa.array(values, kind).slice(index, 1)).tolist()[0] for index in range(4)] == whole.tolist()
    assert [array_sizes(pa.array([value], kind)).tolist()[0] for value in values] == whole.tolist()


def test_pictures_are_found_in_their_files_even_if_they_look_alike(tmp_path):
    rng = np.random.default_rng(0)
    same = rng.bytes(100)
    data = [same, same, same[:64] + b"x" * 36, b"", rng.bytes(3 << 20), same]
    path = tmp_path / "one.parquet"
    table = pa.table({"image": pa.array([{"bytes": one, "path": "p"} for one in data], IMAGE)})
    pq.write_table(table, path, compression="NONE", use_dictionary=False)
    with pq.ParquetFile(path) as reader:
        start, length = chunk_of(reader, 0, "image.bytes")
    raw = path.read_bytes()
    values = table.to_batches()[0].column("image")
    offsets = locate(values.field("bytes"), pa.py_buffer(raw[start : start + length]), start, "one")
    assert [raw[offset : offset + len(one)] for offset, one in zip(offsets, data, strict=True)] == data
    with pytest.raises(Refused, match="not stored as they are"):
        locate(values.field("bytes"), pa.py_buffer(raw[start : start + 50]), start, "one")
