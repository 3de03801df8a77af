"""Stages over the whole dataset in passes: the true rows, however they are cut, killed or shared."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import curatedata
import numpy as np
import pytest
from copytruth import copies
from grouptruth import people, things
from helpers import HERE
from hypothesis import given, settings
from hypothesis import strategies as st
from maderows import FINE, Row, Rows, committed, digest
from places import REFLOOM
from searching import all_pairs, searched

from refloom.curation.config import Curation
from refloom.curation.dedup.evaluationsets import read_evaluation
from refloom.curation.dedup.settings import Dedup
from refloom.curation.group.identities import Identities
from refloom.curation.group.looks import Looks
from refloom.curation.job import curate
from refloom.curation.neighbours.chunks import chunks_of
from refloom.curation.neighbours.search import Bounds
from refloom.curation.passes.scratch import Scratch
from refloom.curation.passes.sizes import TaskSizes
from refloom.inference.models import registry
from refloom.ingest.engine.pool import Pool, Status
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.storage import Folder
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.schemas.upkeep import collect_garbage

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


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    most=st.sampled_from([None, 2]),
    upper=st.sampled_from([None, 0.999]),
    slab_mb=st.sampled_from([0.003, 0.02, 1.0]),
    chunk_mb=st.sampled_from([0.001, 0.01, 1.0]),
    chunk_gflop=st.sampled_from([1e-6, 1e-4, 1.0]),
    near_cells=st.sampled_from([6, 400, None]),
)
def test_however_it_is_cut_the_search_finds_the_same_pairs_and_bits_and_all_where_no_row_is_cut_off(
    seed, cuts, most, upper, slab_mb, chunk_mb, chunk_gflop, near_cells
):
    vectors, rng = clustered(400, seed), np.random.default_rng(seed)
    ids = [f"p{number:04d}" for number in rng.permutation(400)]
    places = [f"v{number}" for number in rng.integers(0, 120, 400)]
    bounds = Bounds(lower=0.8, upper=upper, most=most)
    cells = {"exact_below": 10_000} if near_cells is None else {"exact_below": 2, "near_cells": near_cells}
    whole = searched(ids, vectors, bounds, places=places, **cells)
    grain = TaskSizes(slab_mb=slab_mb, chunk_mb=chunk_mb, chunk_gflop=chunk_gflop)
    cut = searched(ids, vectors, bounds, places=places, edges=cuts, grain=grain, backwards=True, **cells)
    assert cut.pairs == whole.pairs
    true = all_pairs(ids, vectors, bounds, places=places)
    if near_cells == 6:
        assert len(cut.pairs.keys() & true.keys()) >= 0.99 * len(true)
    else:
        assert cut.cut == 0
        assert cut.pairs == true
    assert len(true) > 30


def test_a_cell_too_large_for_a_task_comes_in_parts_and_no_pair_is_lost():
    """Half of the vectors are one picture again and again, which k-means cannot part."""
    vectors = clustered(600, 1)
    vectors[np.random.default_rng(0).permutation(600)[:300]] = vectors[0]
    ids, bounds = [f"p{number:04d}" for number in range(600)], Bounds(lower=0.9)
    grain = TaskSizes(slab_mb=0.01, chunk_mb=0.005, chunk_gflop=1e-5)
    result = searched(ids, vectors, bounds, near_cells=8, exact_below=2, edges=(200, 450), grain=grain)
    assert max(chunk[3] for chunk in result.chunks) > 3
    assert result.pairs == all_pairs(ids, vectors, bounds)
    assert len(result.pairs) > 300 * 299 / 2


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

EMBEDDER = registry.by_name("image_embedding", "efficientnet-lite0").thresholds
FACES = registry.by_name("face", "dlib").thresholds
SEEN = Curation(
    dedup=Dedup(exact_below=2, near_cells=16),
    identities=Identities(exact_below=2, near_cells=16),
    looks=Looks(exact_below=2, near_cells=24, strictness=0.0, max_cosine=None, without=()),
)
NAMES = ("cat", "dog", "man")
HASH = 0x5A3C96E10F2DB487 & ~(1 << 63)


def planted_rows() -> Rows:
    """60 pictures of three objects and 6 folders of three subjects; made hashes, embeddings and faces, some copies."""
    rng = np.random.default_rng(3)
    scenes = [f"coco/{number:02d}" for number in range(60)]
    folders = {f"subjects/thing{n}": [f"subjects/thing{n}/{m}" for m in range(3)] for n in range(6)}
    pictures = [*scenes, *(name for members in folders.values() for name in members)]
    hashes = HASH ^ rng.integers(0, 1 << 62, len(pictures), np.uint64)
    copied = rng.choice(60, (2, 8), replace=False)
    hashes[copied[1]] = hashes[copied[0]] ^ (np.uint64(1) << rng.integers(0, 60, 8).astype(np.uint64))
    bytes_of = dict(zip(pictures, pictures, strict=True)) | {scenes[7]: scenes[40]}
    objects: list[Row] = [
        {"object_id": f"{name}#{place}", "category": word, "box": [200 * place, 100, 200 * place + 180, 400]}
        for name in scenes
        for place, word in enumerate(NAMES)
    ]
    objects += [
        {"object_id": f"{name}#whole", "kind": "whole", "box": [0, 0, 640, 480]} for name in pictures[len(scenes) :]
    ]
    objects = [row | {"image_id": image_of(row["object_id"]), "area": int(rng.integers(100, 9000))} for row in objects]
    own = [{name: row[name] for name in ("object_id", "image_id")} for row in objects]
    kinds, people = unit(rng.standard_normal((30, WIDTH))), unit(rng.standard_normal((8, WIDTH)))
    away = rng.choice([0.02, 0.45, 0.6, 0.9], (len(own), 1))
    vectors = unit(kinds[rng.integers(0, 30, len(own))] + away * unit(rng.standard_normal((len(own), WIDTH))))
    faces = unit(people[rng.integers(0, 8, len(own))] + 0.25 * unit(rng.standard_normal((len(own), WIDTH))))
    return {
        "images": [{"image_id": name, "sha256": digest(bytes_of[name])} for name in pictures],
        "image_scores": [{"image_id": name, "phash": int(one)} for name, one in zip(pictures, hashes, strict=True)],
        "source_groups": [{"group_id": name, "members": members} for name, members in folders.items()],
        "objects": objects,
        "object_scores": [row | {"quality": float(rng.random())} for row in own],
        "embeddings": [row | {"embedding": vector} for row, vector in zip(own, vectors, strict=True)],
        "selection": [{"object_id": row["object_id"]} for row in own],
        "faces": [
            ids | {"face_id": f"{row['image_id']}@0", "embedding": face}
            for ids, row, face in zip(own, objects, faces, strict=True)
            if row.get("category") == "man"
        ],
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    """The planted rows in units of a few pictures."""
    known = planted_rows()
    place = {row["image_id"]: number for number, row in enumerate(known["images"])}
    root = tmp_path_factory.mktemp("planted") / "data"
    committed(str(root), known, lambda image: f"u{place[image['image_id']] // 7:02d}")
    return root


def staged(planted: Path, out: Path, grain: TaskSizes, pool: Pool = HERE, *, until: str = "split") -> Path:
    data = Path(shutil.copytree(planted, out / "data"))
    for stage in ("dedup", "match", "group", "split"):
        curate(str(data), replace(SEEN, grain=grain), pool, only=stage)
        if stage == until:
            break
    return data


@pytest.fixture(scope="module")
def fine(planted, tmp_path_factory) -> Path:
    return staged(planted, tmp_path_factory.mktemp("fine"), FINE)


def test_stages_cut_finely_write_the_true_rows(fine):
    dataset = Dataset(str(fine))
    rows = sorted(dataset.read("duplicates").to_pylist(), key=lambda row: row["id"])
    true = copies(dataset, SEEN.dedup, EMBEDDER["near_copy"])
    assert rows == [row | {"similarity": pytest.approx(row["similarity"], abs=1e-6)} for row in true]
    assert {row["kind"] for row in rows} == {"image", "object"}
    assert {row["by"] for row in rows} == {"bytes", "phash", "embedding"}

    groups = people(dataset, SEEN.identities, SEEN.identities.lower(FACES["same_identity"]))
    groups += things(dataset, SEEN.looks, EMBEDDER["similar"], EMBEDDER["near_copy"])
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


@pytest.mark.parametrize("grain", [TaskSizes(), replace(FINE, part_rows=40, chunk_mb=1.0)], ids=["whole", "halves"])
def test_the_grain_changes_no_byte(planted, fine, tmp_path, grain):
    assert rows_of(staged(planted, tmp_path, grain)) == rows_of(fine)


@pytest.mark.processes
def test_workers_change_no_byte(ray_session, planted, tmp_path):
    """Of the two stages that search, in the hands of two real workers."""
    grain = replace(FINE, part_rows=60, chunk_gflop=1e-3, batch_pairs=60)
    shared = rows_of(staged(planted, tmp_path / "shared", grain, Pool(workers=2), until="match"))
    assert shared == rows_of(staged(planted, tmp_path / "here", FINE, until="match"))
    assert {path.split("/")[0] for path in shared} >= {"duplicates", "matches"}


def test_leaks_and_what_goes_with_them_are_the_true_ones(planted, tmp_path, jpeg):
    """An evaluation set that has a picture of the dataset by its bytes, and another by its hash."""
    (tmp_path / "judged").mkdir()
    for name in ("e", "f"):
        (tmp_path / "judged" / f"{name}.jpg").write_bytes(jpeg(160, 120, ord(name)))
    judged = str(tmp_path / "judged")
    known = read_evaluation([judged])
    assert known is not None
    rows = planted_rows()
    rows["images"][5]["sha256"] = known.pictures.sha256[0]
    light = dict(zip(("brightness", "contrast"), known.pictures.light[1].tolist(), strict=True))
    rows["image_scores"][9].update({"phash": int(known.pictures.phash[1]) ^ 4} | light)
    dedup = replace(SEEN.dedup, by=("bytes", "phash"), evaluation=(judged,))
    dataset = committed(str(tmp_path / "data"), rows, lambda image: f"u{image['image_id'][-1]}")
    curate(dataset.url, replace(SEEN, grain=FINE, dedup=dedup), HERE, only="dedup")
    dataset.refresh()
    found = sorted(dataset.read("duplicates").to_pylist(), key=lambda row: row["id"])
    true = copies(dataset, dedup, None, known)
    assert found == [row | {"similarity": pytest.approx(row["similarity"], abs=1e-6)} for row in true]
    leaks = {(row["id"], row["of"]) for row in found if row["by"] == "leak" and row["kind"] == "image"}
    assert leaks == {("coco/05", "judged/e.jpg"), ("coco/09", "judged/f.jpg")}


# -- interruptions ---------------------------------------------------------------------------------------------------


def settings_of(config: Curation) -> list[str]:
    """`--set` for what the tests change."""
    said = [f"dedup.exact_below={config.dedup.exact_below}", f"dedup.near_cells={config.dedup.near_cells}"]
    agreement = config.dedup.min_agreement
    said.append(f"dedup.min_agreement={'null' if agreement is None else agreement}")
    said += [f"grain.{field.name}={getattr(config.grain, field.name)}" for field in fields(config.grain)]
    return [word for each in said for word in ("--set", each)]


def test_a_kill_among_the_chunks_costs_the_chunks_that_were_not_done(planted, tmp_path):
    hashed = replace(SEEN.dedup, min_agreement=None)  # one search
    config = replace(Curation(), grain=replace(FINE, chunk_gflop=1e-6), dedup=hashed)
    killed, whole = (Path(shutil.copytree(planted, tmp_path / name)) for name in ("killed", "whole"))
    command = [*REFLOOM, "curate", str(killed), "--only", "dedup", "--workers", "0", *settings_of(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(done := list(killed.glob("work/dedup/*/results/compare/*.json"))) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = list(killed.glob("work/dedup/*/results/compare/*.json"))
    (result,) = killed.glob("work/dedup/*/results/chunk/*.json")
    chunks = len(json.loads(result.read_text())["chunks"])
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


def stop_at(one_pass: str) -> Any:
    def show(title: str, item: str) -> Any:
        def note(status: Status) -> None:
            if title == f"dedup {one_pass}":
                raise Enough

        return note

    return show


def test_scratch_lasts_as_long_as_the_inputs_and_the_settings(planted, tmp_path):
    data = Path(shutil.copytree(planted, tmp_path / "data"))
    with pytest.raises(Enough):
        curate(str(data), SEEN, HERE, only="dedup", show=stop_at("settle"))
    (state,) = data.glob("work/dedup/*")
    assert collect_garbage(Dataset(str(data))) == []
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
    assert [path.rsplit("/", 1)[0] for path in collect_garbage(Dataset(str(data)))] == ["work/dedup"]
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
