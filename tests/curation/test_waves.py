"""Stages over the whole dataset in waves: the rows of the pure functions, however they are cut, killed or shared."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import curatedata
import numpy as np
import pytest
from curating import LOOSE, coco, curated, embed, folders
from helpers import HERE
from hypothesis import given, settings
from hypothesis import strategies as st
from places import REFLOOM

from curation.candidates import read_items, source_groups
from curation.config import Curation, Models
from curation.dedup import Dedup
from curation.duplicates import duplicates
from curation.evaluation import read_evaluation
from curation.identities import identity_groups, read_portraits
from curation.job import curate
from curation.looks import look_groups, read_sights
from curation.matching import new_groups
from curation.neighbours.search import Bounds, Codes, codes_of, cosine_pairs
from curation.stages import BY_NAME, Recipe
from curation.waves.chunks import chunks_of
from curation.waves.grain import Grain
from curation.waves.scratch import Scratch
from curation.waves.search import Search, begin, found, marks_of, search_waves
from curation.waves.wave import Desk
from inference.models import registry
from ingest.engine import Pool, Status
from ingest.sources.subjects import Subjects
from ingest.watch import Watch
from schemas.dataset import Dataset
from schemas.ids import image_of
from schemas.storage import Folder
from schemas.unit import UnitKey, UnitWriter

FINE = Grain(part_rows=1, slab_mb=0.02, chunk_mb=0.02, chunk_gflop=1e-5, batch_pairs=3)
"""Nearly everything in a task of its own."""
WIDTH = 24


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(rows: int, seed: int, per: int = 6, away: float = 0.5) -> np.ndarray:
    """Vectors around one centre for every `per` of them, an eighth of them exact copies of others."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((max(1, rows // per), WIDTH)))
    noise = unit(rng.standard_normal((rows, WIDTH)))
    vectors = unit(centres[rng.integers(0, len(centres), rows)] + rng.uniform(0, away, (rows, 1)) * noise)
    copies = rng.integers(0, rows, rows // 8)
    vectors[rng.permutation(rows)[: len(copies)]] = vectors[copies]
    return vectors


# -- the search ------------------------------------------------------------------------------------------------------


def searched(url: str, search: Search, grain: Grain, parts: list[tuple[list[str], np.ndarray, list[str]]]) -> Desk:
    """Put parts (ids, vectors, places) through the waves of a search; returns the desk that they were done at."""
    recipe = Recipe(replace(Curation(), grain=grain), {}, ())
    desk = Desk(Dataset(url, create=True), recipe, BY_NAME["dedup"], "state")
    for number, (ids, vectors, places) in enumerate(parts):
        # in two batches, as row groups come
        half = len(ids) // 2
        batches = [
            (marks_of(ids[some], places[some], part=number, first=some.start), vectors[some])
            for some in (slice(0, half), slice(half, len(ids)))
        ]
        desk.scratch.sign("begin", f"part-{number}", begin(desk.scratch, search.name, number, batches))
    for wave in search_waves(lambda desk: [search], ("begin",)):
        for order in wave.plan(desk):
            receipt = wave.work(desk, order.args, Watch(order.name, timeout_s=0))
            assert receipt is not None
            desk.scratch.sign(wave.name, order.name, receipt)
    return desk


def named_pairs(desk: Desk, search: Search, parts: list[tuple[list[str], np.ndarray, list[str]]]) -> dict[Any, float]:
    rows, pairs, _ = found(desk, search)
    names = [parts[row >> 32][0][row & 0xFFFFFFFF] for row in rows.tolist()]
    ends = zip(pairs.i.tolist(), pairs.j.tolist(), pairs.cosine.tolist(), strict=True)
    return {tuple(sorted((names[i], names[j]))): cosine for i, j, cosine in ends}


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    most=st.sampled_from([None, 2]),
    upper=st.sampled_from([None, 0.999]),
    slab_mb=st.sampled_from([0.003, 0.02, 1.0]),
    chunk_mb=st.sampled_from([0.001, 0.01, 1.0]),
    chunk_gflop=st.sampled_from([1e-6, 1e-4, 1.0]),
    exact_below=st.sampled_from([2, 10_000]),
)
def test_however_it_is_cut_the_search_finds_the_pairs_and_bits_of_the_pure_function(
    seed, cuts, most, upper, slab_mb, chunk_mb, chunk_gflop, exact_below
):
    vectors, rng = clustered(400, seed), np.random.default_rng(seed)
    ids = [f"p{number:04d}" for number in rng.permutation(400)]
    places = [f"v{number}" for number in rng.integers(0, 120, 400)]
    edges = [0, *sorted(cuts), 400]
    parts = [(ids[a:b], vectors[a:b], places[a:b]) for a, b in pairwise(edges)]
    search = Search("things", Bounds(lower=0.8, upper=upper, most=most), near_cells=6, exact_below=exact_below)
    grain = Grain(slab_mb=slab_mb, chunk_mb=chunk_mb, chunk_gflop=chunk_gflop)
    url = f"memory://waves-{seed}-{time.monotonic_ns()}"
    try:
        result = named_pairs(searched(url, search, grain, parts), search, parts)
    finally:
        Folder(url).remove_tree("")
    expected = cosine_pairs(
        ids,
        vectors,
        0.8,
        upper,
        codes=Codes(apart=codes_of(places)),
        near_cells=6,
        exact_below=exact_below,
        most=most,
    )
    ends = zip(expected.i.tolist(), expected.j.tolist(), expected.cosine.tolist(), strict=True)
    assert result == {tuple(sorted((ids[i], ids[j]))): cosine for i, j, cosine in ends}
    assert len(result) > 30


def test_a_cell_too_large_for_a_task_comes_in_parts_and_no_pair_is_lost(tmp_path):
    """Half of the vectors are one picture again and again, which k-means cannot part."""
    vectors = clustered(600, 1)
    vectors[np.random.default_rng(0).permutation(600)[:300]] = vectors[0]
    ids = [f"p{number:04d}" for number in range(600)]
    parts = [(ids[a:b], vectors[a:b], ids[a:b]) for a, b in ((0, 200), (200, 450), (450, 600))]
    search = Search("things", Bounds(lower=0.9), near_cells=8, exact_below=2)
    desk = searched(str(tmp_path), search, Grain(slab_mb=0.01, chunk_mb=0.005, chunk_gflop=1e-5), parts)
    chunks = desk.scratch.receipt("chunk", "things")["chunks"]
    assert max(chunk[3] for chunk in chunks) > 3
    expected = cosine_pairs(ids, vectors, 0.9, near_cells=8, exact_below=2)
    assert len(named_pairs(desk, search, parts)) == len(expected) > 300 * 299 / 2


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 90)), min_size=1, max_size=40),
    st.integers(2, 80),
    st.integers(1, 2000),
)
def test_chunks_hold_every_cell_with_work_once_and_no_more_rows_than_they_may(cells, most_rows, least):
    residents, guests = (np.array(column, np.int64) for column in zip(*cells, strict=True))
    work = residents * (residents - 1) // 2 + residents * guests
    held = np.zeros(len(cells), np.int64)
    for chunk in chunks_of(residents, guests, most_rows=most_rows, least_products=least):
        inside = residents[chunk.first : chunk.last]
        assert -(-inside.sum() // chunk.parts) <= most_rows
        assert chunk.parts == 1 or chunk.last == chunk.first + 1
        assert chunk.products > 0
        held[chunk.first : chunk.last] += chunk.part == 0
    assert (held <= 1).all()
    assert (held[work > 0] == 1).all()


@pytest.mark.parametrize("scheme", ["memory://rows", "file://{}", "{}"])
def test_rows_are_read_by_ranges_wherever_they_lie(tmp_path, scheme):
    scratch = Scratch(Folder(scheme.format(tmp_path)), "dedup", "state")
    array = np.arange(40_000, dtype=np.float32).reshape(-1, 4)
    with scratch.rows("some.bin") as write:
        write(array[:3000])
        write(array[3000:])
    rows = scratch.array("some.bin", np.float32, 4)
    assert np.array_equal(rows.all(), array)
    assert np.array_equal(rows.read(17, 4000), array[17:4000])
    places = np.sort(np.random.default_rng(0).choice(10_000, 50, replace=False))
    assert np.array_equal(rows.take(places), array[places])
    assert rows.take(places[:0]).shape == rows.read(5, 5).shape == (0, 4)
    with pytest.raises(EOFError, match="ends before"):
        rows.read(9_999, 10_001)
    scratch.remove()


# -- whole stages ----------------------------------------------------------------------------------------------------

EMBEDDER = registry.by_name("image_embedding", "efficientnet-lite0")
FACES = registry.by_name("face", "dlib")
SEEN = replace(
    LOOSE,
    models=Models(),
    dedup=Dedup(exact_below=2, near_cells=3),
    identities=replace(LOOSE.identities, exact_below=2, near_cells=3),
    looks=replace(LOOSE.looks, exact_below=2, near_cells=6, without=()),
)
NAMES = ("cat", "dog", "man")


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """60 pictures and 6 folders of subjects in units of a few; objects and faces with made embeddings, some copies."""
    root = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(3)
    scenes = [{name: (8 + 20 * place, 10, 26 + 20 * place, 60) for place, name in enumerate(NAMES)} for _ in range(60)]
    dataset = curated(
        root,
        coco(root / "coco", scenes, unit_size=7),
        Subjects(directory=str(folders(root / "subjects", {f"thing{n}": 3 for n in range(6)})), unit_size=4),
        config=LOOSE,
        until="quality",
    )
    ids = dataset.read("objects", ["object_id"])["object_id"].to_pylist()
    things = unit(rng.standard_normal((30, WIDTH)))
    away = rng.choice([0.02, 0.45, 0.6, 0.9], len(ids))
    vectors = things[rng.integers(0, 30, len(ids))] + away[:, None] * unit(rng.standard_normal((len(ids), WIDTH)))
    embed(dataset, dict(zip(ids, vectors.tolist(), strict=True)))
    people = unit(rng.standard_normal((8, WIDTH)))
    for name in dataset.units():
        objects = dataset.read("objects", ["object_id", "image_id", "category"], unit=name).to_pylist()
        with UnitWriter(dataset.folder, UnitKey("face", name, "made")) as out:
            for row in objects:
                if row["category"] == "man":
                    vector = unit(people[rng.integers(0, 8)] + 0.25 * unit(rng.standard_normal(WIDTH)))
                    face = {"face_id": f"{row['image_id']}@0", "box": [0, 0, 40, 50], "crop_box": [0, 0, 50, 50]}
                    face |= {"image_id": row["image_id"], "object_id": row["object_id"], "embedding": vector}
                    out.expect("image")
                    out.add("faces", face)
                    out.keep("image")
    return Path(dataset.url)


def staged(planted: Path, out: Path, grain: Grain, pool: Pool = HERE, config: Curation = SEEN) -> Path:
    data = Path(shutil.copytree(planted, out / "data"))
    for stage in ("dedup", "select", "match", "group", "split"):
        curate(str(data), replace(config, grain=grain), pool, only=stage)
    return data


@pytest.fixture(scope="module")
def fine(planted, tmp_path_factory) -> Path:
    return staged(planted, tmp_path_factory.mktemp("fine"), FINE)


def test_stages_cut_finely_write_the_rows_of_the_pure_functions(fine):
    dataset = Dataset(str(fine))
    expected = duplicates(*read_items(dataset), SEEN.dedup, EMBEDDER.thresholds["near_copy"])
    rows = sorted(dataset.read("duplicates").to_pylist(), key=lambda row: row["id"])
    assert [(row["id"], row["of"], row["by"]) for row in rows] == [
        (row["id"], row["of"], row["by"]) for row in expected
    ]
    assert {row["kind"] for row in rows} == {"image", "object"}
    assert {row["by"] for row in rows} >= {"phash", "embedding"}

    groups = identity_groups(read_portraits(dataset), SEEN.identities, FACES.thresholds["same_identity"])
    groups += look_groups(
        read_sights(dataset), SEEN.looks, EMBEDDER.thresholds["similar"], EMBEDDER.thresholds["near_copy"]
    )
    images = {image_of(member) for row in groups for member in row["members"]}
    groups = new_groups(groups, source_groups(dataset, images))
    made = {row["group_id"]: row for row in dataset.read("matches").to_pylist()}
    assert {name: row["members"] for name, row in made.items()} == {row["group_id"]: row["members"] for row in groups}
    assert {row["kind"] for row in groups} == {"identity", "look"}
    for row in groups:
        for name in ("min_similarity", "mean_similarity", "max_similarity"):
            assert made[row["group_id"]][name] == pytest.approx(row[name], abs=1e-6)
    unit_of = {
        image: name
        for name in dataset.units()
        for image in dataset.read("images", ["image_id"], unit=name)["image_id"].to_pylist()
    }
    for name in dataset.units():
        for row in dataset.read("matches", unit=name).to_pylist():
            first, *others = dict.fromkeys(unit_of[image_of(member)] for member in row["members"])
            assert (first, row["units"]) == (name, sorted(others) or None)


def rows_of(dataset: Path) -> dict[str, str]:
    return {
        path: digest for path, digest in curatedata.contents(dataset).items() if not path.startswith("dataset.json")
    }


@pytest.mark.parametrize("grain", [Grain(), replace(FINE, part_rows=40, chunk_mb=1.0)], ids=["whole", "halves"])
def test_the_grain_changes_no_byte(planted, fine, tmp_path, grain):
    assert rows_of(staged(planted, tmp_path, grain)) == rows_of(fine)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_byte(ray_session, planted, fine, tmp_path, workers):
    assert rows_of(staged(planted, tmp_path, FINE, Pool(workers=workers))) == rows_of(fine)


def test_leaks_and_what_goes_with_them_are_those_of_the_pure_function(planted, tmp_path):
    """Of an evaluation set that is a part of the dataset itself: the same ids, the same bytes."""
    judged = tmp_path / "judged" / "000000000007.jpg"
    judged.parent.mkdir()
    judged.write_bytes((planted.parent / "coco/val2017/000000000007.jpg").read_bytes())
    config = replace(SEEN, dedup=replace(SEEN.dedup, by=("bytes", "phash"), evaluation=(str(judged.parent),)))
    data = Path(shutil.copytree(planted, tmp_path / "data"))
    curate(str(data), replace(config, grain=FINE), HERE, only="dedup")
    dataset = Dataset(str(data))
    expected = duplicates(*read_items(dataset), config.dedup, None, read_evaluation([str(judged.parent)]))
    rows = sorted(dataset.read("duplicates").to_pylist(), key=lambda row: row["id"])
    assert [(row["id"], row["of"], row["by"]) for row in rows] == [
        (row["id"], row["of"], row["by"]) for row in expected
    ]
    assert ("coco/000000000007", "judged/000000000007.jpg", "leak") in {
        (row["id"], row["of"], row["by"]) for row in rows
    }


# -- interruptions ---------------------------------------------------------------------------------------------------


def settings_of(config: Curation) -> list[str]:
    """`--set` for what the tests change."""
    said = [f"dedup.exact_below={config.dedup.exact_below}", f"dedup.near_cells={config.dedup.near_cells}"]
    said += [f"grain.{field.name}={getattr(config.grain, field.name)}" for field in fields(config.grain)]
    return [word for each in said for word in ("--set", each)]


def test_a_kill_among_the_chunks_costs_the_chunks_that_were_not_done(planted, tmp_path):
    config = replace(Curation(), grain=replace(FINE, chunk_gflop=1e-6), dedup=SEEN.dedup)
    killed, whole = (Path(shutil.copytree(planted, tmp_path / name)) for name in ("killed", "whole"))
    command = [*REFLOOM, "curate", str(killed), "--only", "dedup", "--workers", "0", *settings_of(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(done := list(killed.glob("work/dedup/*/receipts/compare/*.json"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = list(killed.glob("work/dedup/*/receipts/compare/*.json"))
    (receipt,) = killed.glob("work/dedup/*/receipts/chunk/*.json")
    chunks = len(json.loads(receipt.read_text())["chunks"])
    assert 3 <= len(done) < chunks
    assert not Dataset(str(killed)).manifests("dedup")

    units: dict[str, int] = {}

    def show(title: str, item: str) -> Any:
        def note(status: Status) -> None:
            units[title] = status.units

        return note

    curate(str(killed), config, HERE, only="dedup", show=show)
    assert units["dedup compare"] == chunks - len(done)
    assert not {"dedup gather", "dedup pictures", "dedup embed", "dedup centroids", "dedup place"} & units.keys()
    curate(str(whole), config, HERE, only="dedup")
    assert rows_of(killed) == rows_of(whole)
    assert not (killed / "work").exists()


class Enough(Exception):
    pass


def stop_at(wave: str) -> Any:
    def show(title: str, item: str) -> Any:
        def note(status: Status) -> None:
            if title == f"dedup {wave}":
                raise Enough

        return note

    return show


def test_scratch_lasts_as_long_as_the_inputs_and_the_settings(planted, tmp_path):
    data = Path(shutil.copytree(planted, tmp_path / "data"))
    with pytest.raises(Enough):
        curate(str(data), SEEN, HERE, only="dedup", show=stop_at("settle"))
    (state,) = data.glob("work/dedup/*")
    assert Dataset(str(data)).collect_garbage() == []
    with pytest.raises(Enough):
        curate(str(data), replace(SEEN, grain=FINE), HERE, only="dedup", show=stop_at("settle"))
    assert not state.exists(), "another state of the same stage took its place"
    dataset = Dataset(str(data))
    first = dataset.units()[0]
    vectors = dict.fromkeys(dataset.read("objects", ["object_id"], unit=first)["object_id"].to_pylist(), [1.0] * WIDTH)
    with UnitWriter(dataset.folder, UnitKey("embed", first, "made")) as out:
        for name in vectors:
            out.expect("object")
            out.add("embeddings", {"object_id": name, "image_id": image_of(name), "embedding": [WIDTH**-0.5] * WIDTH})
            out.keep("object")
    assert [path.rsplit("/", 1)[0] for path in Dataset(str(data)).collect_garbage()] == ["work/dedup"]
    assert not list(data.glob("work/dedup/*"))


def test_a_unit_that_was_written_before_a_kill_is_not_written_again(planted, tmp_path):
    data = Path(shutil.copytree(planted, tmp_path / "data"))

    def show(title: str, item: str) -> Any:
        def note(status: Status) -> None:
            if title == "dedup write" and status.done == 2:
                raise Enough

        return note

    with pytest.raises(Enough):
        curate(str(data), replace(SEEN, grain=FINE), HERE, only="dedup", show=show)
    before = {path.name: path.stat().st_mtime_ns for path in (data / "manifests/dedup").glob("*.json")}
    assert 0 < len(before) < len(Dataset(str(data)).units())
    curate(str(data), replace(SEEN, grain=FINE), HERE, only="dedup")
    after = {path.name: path.stat().st_mtime_ns for path in (data / "manifests/dedup").glob("*.json")}
    assert {name: after[name] for name in before} == before
    assert len(after) == len(Dataset(str(data)).units())
