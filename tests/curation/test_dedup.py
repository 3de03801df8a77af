"""Dedup: what is planted is found, what differs stays, the best copy stays, and `of` always names what stays."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import HERE, ingest, ledger
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.candidates import Pictures, Things, read_items
from curation.config import Curation, Models
from curation.dedup import Dedup
from curation.duplicates import duplicates
from curation.evaluation import Evaluation, read_evaluation
from curation.imagecopies import meaningful
from curation.job import curate
from curation.neighbours.phash import mirrored
from inference.models import registry
from ingest.sampledata import photos
from ingest.sources.folder import PlainPictures
from ingest.sources.subjects import Subjects
from schemas import pictures
from schemas.dataset import Dataset
from schemas.errors import Refused

EMBEDDER = registry.by_name("image_embedding", "efficientnet-lite0")
NEAR_COPY = EMBEDDER.thresholds["near_copy"]
HASH = 0x5A3C96E10F2DB487 & ~(1 << 63)  # 31 bits set


def hashed(*flipped: int) -> int:
    """A hash with structure, and some bits turned."""
    value = HASH
    for bit in flipped:
        value ^= 1 << bit
    return value


def picture(name: str, **given: Any) -> dict[str, Any]:
    row = {"id": name, "sha": name, "size": (640, 480), "phash": 0, "light": (0.5, 0.2), "quality": 0.5}
    return row | {"video": None, "groups": frozenset()} | given


def columns(rows: list[dict[str, Any]]) -> Pictures:
    return Pictures(
        [row["id"] for row in rows],
        [row["sha"] for row in rows],
        np.array([row["size"] for row in rows], np.int64).reshape(-1, 2),
        np.array([row["phash"] for row in rows], np.uint64),
        np.array([row["light"] for row in rows], np.float64).reshape(-1, 2),
        np.array([row["quality"] for row in rows], np.float64),
        [row["video"] for row in rows],
        [row["groups"] for row in rows],
    )


def things(rows: list[dict[str, Any]]) -> Things:
    """One thing per row: `on` (a place), and what else is not usual."""
    vectors = [row["vector"] for row in rows if row.get("vector") is not None]
    numbers = iter(range(len(vectors)))
    return Things(
        [row["id"] for row in rows],
        np.array([row["on"] for row in rows], np.int64),
        [row.get("kind", "object") for row in rows],
        np.array([row.get("box", (0.2, 0.2, 0.8, 0.8)) for row in rows], np.float32).reshape(-1, 4),
        np.array([row.get("quality", 0.5) for row in rows], np.float64),
        np.array([-1 if row.get("vector") is None else next(numbers) for row in rows], np.int64),
        np.array([v / np.linalg.norm(v) for v in vectors], np.float32).reshape(len(vectors), 3 if vectors else 0),
    )


def find_duplicates(
    dataset: Dataset, config: Dedup, near_copy: float | None, evaluation: Evaluation | None = None
) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in duplicates(*read_items(dataset), config, near_copy, evaluation)}


def gone(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {row["id"]: (row["of"], row["by"]) for row in rows}


def judge(found: list[dict[str, Any]], on: list[dict[str, Any]] | None = None, **options: Any) -> dict[str, Any]:
    evaluation = options.pop("evaluation", None)
    near = 0.9 if on else None
    return gone(duplicates(columns(found), things(on or []), Dedup(**options), near, evaluation))


# -- pictures ----------------------------------------------------------------------------------------------------


def test_the_same_bytes_are_one_picture_and_the_best_copy_stays():
    assert judge([picture("a", sha="x"), picture("b", sha="x"), picture("c")]) == {"b": ("a", "bytes")}
    assert judge([picture("a", sha="x", quality=0.3), picture("b", sha="x")]) == {"a": ("b", "bytes")}
    assert judge([picture("a", sha="x", quality=np.nan), picture("b", sha="x")]) == {"a": ("b", "bytes")}


def test_of_about_equal_quality_the_larger_stays_then_the_smaller_id():
    near = {"phash": hashed()}
    assert judge([picture("a", size=(320, 240), quality=0.55, **near), picture("b", quality=0.51, **near)]) == {
        "a": ("b", "phash")
    }
    assert judge([picture("b", **near), picture("a", **near)]) == {"b": ("a", "phash")}


@pytest.mark.parametrize(("bits", "copy"), [((3, 9), True), ((3, 9, 20, 41), True), ((3, 9, 20, 41, 50), False)])
def test_hashes_of_copies_differ_in_at_most_four_bits(bits: tuple[int, ...], copy: bool):
    found = judge([picture("a", phash=hashed()), picture("b", phash=hashed(*bits))])
    assert found == ({"b": ("a", "phash")} if copy else {})
    assert judge([picture("a", phash=hashed()), picture("b", phash=hashed(*bits))], max_hamming=None) == {}


def test_a_mirror_image_is_a_copy():
    turned = int(mirrored(np.array([hashed(3)], np.uint64))[0])
    assert judge([picture("a", phash=hashed()), picture("b", phash=turned)]) == {"b": ("a", "phash")}


@pytest.mark.parametrize(
    "other", [{"size": (480, 640)}, {"light": (0.8, 0.2)}, {"light": (0.5, 0.4)}, {"light": (np.nan, np.nan)}]
)
def test_equal_hashes_of_other_shape_or_light_are_no_copies(other: dict[str, Any]):
    assert judge([picture("a", phash=hashed()), picture("b", phash=hashed(), **other)]) == {}


def test_flat_pictures_have_hashes_that_mean_nothing():
    flat = {"phash": hashed(), "light": (0.5, 0.01)}
    assert judge([picture("a", **flat), picture("b", **flat)]) == {}
    assert judge([picture("a", phash=0), picture("b", phash=0)]) == {}  # one term stands out, or none
    assert meaningful(np.array([hashed()], np.uint64), np.array([0.2]), Dedup()).all()


def test_nothing_is_compared_inside_a_video_or_a_source_group():
    assert judge([picture("a", sha="x", video="v"), picture("b", sha="x", video="v")]) == {}
    groups = [frozenset({"one"}), frozenset({"one", "two"}), frozenset({"two"})]
    three = [picture(name, sha="x", groups=group) for name, group in zip("abc", groups, strict=True)]
    assert judge(three) == {"c": ("a", "bytes")}  # a and c share pictures with b, but are in no group together
    frames = [picture(f"{video}{frame}", sha="x", video=video) for video in "vw" for frame in range(3)]
    assert judge(frames) == {f"w{frame}": ("v0", "bytes") for frame in range(3)}


def test_a_chain_loses_only_its_middle():
    chain = [
        picture("a", phash=hashed()),
        picture("b", phash=hashed(3, 9, 20)),
        picture("c", phash=hashed(3, 9, 20, 41, 50)),
    ]
    assert judge(chain) == {"b": ("a", "phash")}
    best = [replace_quality(row, quality) for row, quality in zip(chain, (0.3, 0.9, 0.3), strict=True)]
    assert judge(best) == {"a": ("b", "phash"), "c": ("b", "phash")}


def replace_quality(row: dict[str, Any], quality: float) -> dict[str, Any]:
    return row | {"quality": quality}


# -- objects -----------------------------------------------------------------------------------------------------


def test_objects_go_with_their_picture_as_copies_of_the_same_object():
    found = [picture("a", sha="x"), picture("b", sha="x", quality=0.1)]
    on = [
        {"id": "a#1", "on": 0},
        {"id": "a#2", "on": 0, "box": (0, 0, 0.2, 0.2)},
        {"id": "b#7", "on": 1, "box": (0.21, 0.2, 0.8, 0.8)},
        {"id": "b#8", "on": 1, "box": (0.9, 0.9, 1, 1)},
    ]
    assert judge(found, on) == {"b": ("a", "bytes"), "b#7": ("a#1", "bytes"), "b#8": ("a", "bytes")}


def test_objects_that_look_the_same_on_different_pictures_are_copies():
    one, other = np.array([1, 0.1, 0]), np.array([1, 0, 0.1])
    found = [picture("a"), picture("b"), picture("c", video="v"), picture("d", video="v")]
    on = [
        {"id": "a#1", "on": 0, "vector": one},
        {"id": "a#2", "on": 0, "vector": other},  # of the same picture as a#1
        {"id": "b#1", "on": 1, "vector": other, "quality": 0.9},
        {"id": "c#1", "on": 2, "vector": np.array([0, 1, 0])},
        {"id": "d#1", "on": 3, "vector": np.array([0, 1, 0])},
    ]
    assert judge(found, on) == {"a#1": ("b#1", "embedding"), "a#2": ("b#1", "embedding")}
    assert judge(found, on, min_cosine=0.9999) == {"a#2": ("b#1", "embedding")}


def test_a_whole_picture_takes_its_picture_along_where_the_hashes_allow_it():
    vector, wide = np.array([1.0, 0, 0]), {"kind": "whole", "box": (0, 0, 1, 1)}
    on = [
        {"id": "a#whole", "on": 0, "vector": vector, **wide},
        {"id": "b#whole", "on": 1, "vector": vector, **wide},
        {"id": "b#1", "on": 1},
    ]
    crop = hashed(0, 1, 2, 3, 4, 5)
    assert judge([picture("a", phash=hashed()), picture("b", phash=crop)], on) == {
        "b": ("a", "embedding"),
        "b#whole": ("a#whole", "embedding"),
        "b#1": ("a", "embedding"),
    }
    sitting = hashed(*range(0, 24, 2))
    assert judge([picture("a", phash=hashed()), picture("b", phash=sitting)], on) == {}


def test_leaks_go_first_and_nobody_is_a_copy_of_them():
    bad = columns([picture("eval/e", sha="x", phash=hashed(), quality=np.nan)])
    vectors = np.array([[0, 0, 1]], np.float32)
    on = [
        {"id": "a#1", "on": 0},
        {"id": "c#1", "on": 2, "vector": np.array([0, 0.05, 1])},
        {"id": "d#whole", "on": 3, "kind": "whole", "vector": np.array([0, 0.1, 1])},
        {"id": "d#2", "on": 3},
    ]
    found = [picture("a", sha="x", quality=0.9), picture("b", phash=hashed(3)), picture("c"), picture("d")]
    evaluation = Evaluation(bad, ["eval/e"], vectors)
    leaked = judge(found, on, evaluation=evaluation)
    assert leaked.keys() == {"a", "a#1", "b", "c#1", "d", "d#whole", "d#2"}
    assert set(leaked.values()) == {("eval/e", "leak")}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_of_is_always_kept_nothing_repeats_and_order_does_not_matter(seed: int):
    rng = np.random.default_rng(seed)
    found, on = [], []
    for number in range(int(rng.integers(1, 25))):
        bits = rng.integers(0, 60, int(rng.integers(0, 5))).tolist()
        video = f"v{rng.integers(0, 3)}" if rng.random() < 0.3 else None
        groups = frozenset(f"g{g}" for g in rng.integers(0, 4, int(rng.integers(0, 2))))
        row = {"sha": f"s{rng.integers(0, 12)}", "phash": hashed(*bits), "quality": float(rng.random())}
        found.append(picture(f"p{number:02d}", video=video, groups=groups, **row))
        for part in range(int(rng.integers(0, 3))):
            kind = "whole" if part == 0 and rng.random() < 0.5 else "object"
            vector = rng.standard_normal(3) if rng.random() < 0.9 else None
            row = {"id": f"p{number:02d}#{part}", "on": number, "kind": kind, "vector": vector}
            on.append(row | {"quality": float(rng.random())})
    expected = duplicates(columns(found), things(on), Dedup(), 0.9)
    out = gone(expected)
    kept = ({row["id"] for row in found} | {row["id"] for row in on}) - set(out)
    video_of = {row["id"]: row["video"] or row["id"] for row in found}
    assert len(out) == len(expected)
    for name, (of, _) in out.items():
        assert of in kept
        assert ("#" in name) or "#" not in of
    for row in found:
        if row["id"] in out and out[row["id"]][1] == "bytes":
            assert video_of[row["id"]] != video_of[out[row["id"]][0]]
    order = rng.permutation(len(found))
    where = {int(old): new for new, old in enumerate(order)}
    moved = [row | {"on": where[row["on"]]} for row in on]
    shuffled = things([moved[place] for place in rng.permutation(len(moved))])
    assert duplicates(columns([found[place] for place in order]), shuffled, Dedup(), 0.9) == expected


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"max_hamming": 40}, {"quality_step": 0.0}):
        with pytest.raises(ValueError):
            Dedup(**wrong)


# -- photographs -------------------------------------------------------------------------------------------------


def crop(pixels: np.ndarray, share: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    y, x = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    return np.ascontiguousarray(pixels[y : height - y, x : width - x])


COPIES = {
    "q40": lambda pixels: pictures.encode_jpeg(pixels, 40),
    "quarter": lambda pixels: pictures.encode_jpeg(
        cv2.resize(pixels, (pixels.shape[1] // 4, pixels.shape[0] // 4), interpolation=cv2.INTER_AREA), 92
    ),
    "crop": lambda pixels: pictures.encode_jpeg(crop(pixels, 0.95), 92),
    "mirror": lambda pixels: pictures.encode_jpeg(np.ascontiguousarray(pixels[:, ::-1]), 92),
}
NAMES = ("astronaut", "chelsea", "coffee", "china", "flower")


@pytest.fixture(scope="module")
def originals() -> dict[str, np.ndarray]:
    known = [name for name in photos.catalogue() if any(name.startswith(part) for part in NAMES)][:5]
    assert len(known) >= 4
    return {name: photos.pixels(name) for name in known}


@pytest.fixture(scope="module")
def planted(originals: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Photographs and four copies of each, as separate pictures."""
    root = tmp_path_factory.mktemp("planted")
    (root / "in").mkdir()
    for name, pixels in originals.items():
        (root / "in" / f"{name}.png").write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
        for kind, change in COPIES.items():
            (root / "in" / f"{name}_{kind}.jpg").write_bytes(change(pixels))
    dataset = ingest(PlainPictures(path=str(root / "in")), root / "data")
    curate(dataset.url, Curation(models=Models(face="none")), HERE, until="quality")
    dataset.refresh()
    return dataset


def test_planted_copies_are_found_and_different_photographs_are_not(planted: Dataset, originals: dict[str, np.ndarray]):
    rows = find_duplicates(planted, Dedup(), NEAR_COPY)
    assert {row["by"] for row in rows.values()} <= {"phash", "embedding"}
    missed = []
    for name in originals:
        mine = {image for image in planted.read("images", ["image_id"])["image_id"].to_pylist() if f"/{name}" in image}
        left = sorted(mine - set(rows))
        missed += left[1:]
        assert all(rows[image]["of"] in left for image in mine & set(rows))
        assert {f"{image}#whole" for image in mine & set(rows)} <= set(rows)
    assert len(missed) <= 0.05 * 4 * len(originals)


def test_without_a_model_hashes_find_what_they_can(planted: Dataset):
    rows = find_duplicates(planted, Dedup(), None)
    assert {row["by"] for row in rows.values()} == {"phash"}
    found = [name for name in rows if "_q40" in name or "_quarter" in name]
    assert found


def test_copies_in_one_source_group_stay(originals: dict[str, np.ndarray], tmp_path: Path):
    for folder, name in (("one", "a"), ("one", "b"), ("two", "c")):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        data = pictures.encode_jpeg(next(iter(originals.values())), 90)
        (tmp_path / "in" / folder / f"{name}.jpg").write_bytes(data)
    dataset = ingest(Subjects(directory=str(tmp_path / "in")), tmp_path / "data")
    rows = find_duplicates(dataset, Dedup(), None)
    assert [(name, row["of"]) for name, row in rows.items() if row["kind"] == "image"] == [
        ("subjects/two/c.jpg", "subjects/one/a.jpg")
    ]


def test_leaks_of_a_folder_and_of_a_dataset_are_found(
    planted: Dataset, originals: dict[str, np.ndarray], tmp_path: Path
):
    first, second, *_ = originals
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "x.jpg").write_bytes(pictures.encode_jpeg(originals[first], 70))
    (tmp_path / "bench" / "notes.txt").write_text("no picture")
    (tmp_path / "bench" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    evaluation = read_evaluation([str(tmp_path / "bench")], EMBEDDER.load())
    rows = find_duplicates(planted, Dedup(), NEAR_COPY, evaluation)
    leaked = {name for name, row in rows.items() if row["by"] == "leak"}
    assert {row["of"] for row in rows.values() if row["by"] == "leak"} == {"bench/x.jpg"}
    assert len([name for name in leaked if name.endswith("#whole")]) >= 5
    assert all(f"/{first}" in name for name in leaked)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "y.jpg").write_bytes(COPIES["mirror"](originals[second]))
    other = ingest(PlainPictures(path=str(tmp_path / "other")), tmp_path / "set")
    rows = find_duplicates(planted, Dedup(), None, read_evaluation([other.url]))
    assert {row["of"] for row in rows.values() if row["by"] == "leak"} == {"folder/y.jpg"}
    assert read_evaluation([]) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="no picture"):
        read_evaluation([str(tmp_path / "empty")])


def test_every_item_of_a_unit_is_settled_and_its_rows_are_those_of_the_pure_function(planted: Dataset, tmp_path: Path):
    out = Dataset(shutil.copytree(planted.url, tmp_path / "data"))
    curate(out.url, Curation(models=Models(face="none")), HERE, until="dedup")
    out.refresh()
    expected = find_duplicates(planted, Dedup(), NEAR_COPY)
    rows = {row["id"]: row for row in out.read("duplicates").to_pylist()}
    assert rows.keys() == expected.keys()
    for name, row in rows.items():
        assert row == expected[name] | {"similarity": pytest.approx(expected[name]["similarity"], abs=1e-7)}
    assert out.counts("dedup")["object"].kept == out.counts("dedup")["image"].kept == 5 * len(NAMES)
    assert ledger(out, "dedup") == {}
    assert not (tmp_path / "data" / "work").exists()


@pytest.mark.shared
def test_msbench_copies_of_dreambooth_are_found_and_subjects_are_not_merged(shared: Path, tmp_path: Path):
    dataset = ingest(PlainPictures(path=str(shared / "subjects")), tmp_path / "data")
    curate(dataset.url, Curation(models=Models(face="none")), HERE, until="quality")
    dataset.refresh()
    rows = find_duplicates(dataset, Dedup(), NEAR_COPY)
    assert {(row["id"], row["of"]) for row in rows.values() if row["kind"] == "image"} == {
        ("folder/msbench/living/cat.jpg", "folder/dreambooth/cat/03.jpg")
    }
