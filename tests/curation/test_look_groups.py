"""Look groups: one thing on different pictures, not the same picture again, and nothing that only resembles."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grouptruth import things
from helpers import HERE, ingest
from hypothesis import given, settings
from hypothesis import strategies as st
from maderows import FINE, Rows, digest, made, rows_after, rows_of, scattered

from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.group.looks import Looks
from refloom.curation.job import curate
from refloom.inference.models import registry
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.subjects import Subjects

MARKS = registry.by_name("image_embedding", "efficientnet-lite0").thresholds
SIMILAR, NEAR_COPY = MARKS["similar"], MARKS["near_copy"]
WIDTH = 32
AS_MADE = {"strictness": 0.0, "cut_out_margin": 0.0, "max_cosine": None}
"""Made vectors lie between the model's own marks, whatever they stand for."""


def unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def thing(seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal(WIDTH))


def view(of: np.ndarray, seed: int, away: float = 0.5) -> np.ndarray:
    """Another view: cosine with other views about 1 / (1 + away^2)."""
    return unit(of + away * unit(np.random.default_rng(1000 + seed).standard_normal(WIDTH)))


def sight(name: str, vector: np.ndarray, **given: Any) -> dict[str, Any]:
    """An object on a picture, `<name>#1`; `at` numbers further ones."""
    row = {"image": name, "at": 1, "video": None, "category": None, "kind": "object", "side": 384, "vector": vector}
    return row | {"quality": 0.5, "area": 100} | given


def tables(rows: list[dict[str, Any]], source_groups: dict[str, list[str]] | None = None) -> Rows:
    """What the stages before match say of objects, of groups of the source, and of a bare picture."""
    images = {row["image"]: {"image_id": row["image"], "video_id": row["video"]} for row in rows}
    own = [{"image_id": row["image"], "object_id": f"{row['image']}#{row['at']}"} for row in rows]
    known = list(zip(own, rows, strict=True))
    return {
        "images": [image | {"sha256": digest(image["image_id"])} for image in (*images.values(), {"image_id": "bare"})],
        "source_groups": [{"group_id": name, "members": members} for name, members in (source_groups or {}).items()],
        "objects": [
            ids
            | {
                "category": row["category"],
                "kind": row["kind"],
                "area": row["area"],
                "box": [64, 48, 576, 48 + row["side"]],
            }
            for ids, row in known
        ],
        "object_scores": [ids | {"quality": row["quality"]} for ids, row in known],
        "embeddings": [ids | {"embedding": row["vector"]} for ids, row in known],
        "selection": [{"object_id": ids["object_id"]} for ids in own],
    }


def config_of(**options: Any) -> Curation:
    return Curation(models=Models(face="none"), looks=Looks(**(AS_MADE | options)))


def groups(rows: list[dict[str, Any]], **options: Any) -> list[list[str]]:
    source_groups = options.pop("source_groups", None)
    return [row["members"] for row in rows_of("match", tables(rows, source_groups), config_of(**options))]


def test_views_of_one_thing_are_a_group_named_after_its_smallest_member():
    rows = [sight(f"t{what}/{n}", view(thing(what), 10 * what + n)) for what in (1, 2) for n in (2, 0, 1)]
    made = rows_of("match", tables(rows), config_of())
    assert [row["members"] for row in made] == [[f"t{what}/{n}#1" for n in range(3)] for what in (1, 2)]
    assert [row["group_id"] for row in made] == ["look/t1/0#1", "look/t2/0#1"]
    assert all(0.5 < row["min_similarity"] <= row["max_similarity"] < NEAR_COPY for row in made)


def test_near_copies_are_never_in_one_group():
    rows = [sight("a", thing(1)), sight("b", view(thing(1), 1, 0.1), quality=0.9), sight("c", view(thing(1), 2))]
    assert groups(rows[:2]) == []
    assert groups(rows) == [["b#1", "c#1"]]


def test_what_dedup_has_left_may_be_nearer_than_copies_are():
    rows = [sight("a", thing(1)), sight("b", view(thing(1), 1, 0.25))]
    assert NEAR_COPY < rows[0]["vector"] @ rows[1]["vector"] < 0.99
    assert groups(rows) == []
    assert groups(rows, max_cosine=Looks().max_cosine) == [["a#1", "b#1"]]
    assert groups([rows[0], rows[0] | {"image": "c"}], max_cosine=Looks().max_cosine) == []


def test_classes_agree_where_both_are_known():
    rows = [sight("a", thing(1), category="giant_panda"), sight("b", view(thing(1), 1), category="dog")]
    assert groups(rows) == []
    assert groups([rows[0], rows[1] | {"category": "Giant Panda"}]) == [["a#1", "b#1"]]
    unnamed = sight("c", view(thing(1), 2))
    for members in groups([*rows, unnamed]):
        assert not {"a#1", "b#1"} <= set(members)


def test_a_cut_out_must_be_nearer_than_two_whole_photographs_are_to_each_other():
    near = [thing(1), unit(thing(1) + 1.02 * unit(thing(2) - (thing(2) @ thing(1)) * thing(1)))]
    cosine = float(near[0] @ near[1])
    assert SIMILAR < cosine < SIMILAR + 0.1 < NEAR_COPY
    wholes = [sight(name, vector, kind="whole") for name, vector in zip("ab", near, strict=True)]
    cut_outs = [sight(name, vector) for name, vector in zip("ab", near, strict=True)]
    assert groups(wholes, cut_out_margin=0.1) == [["a#1", "b#1"]]
    assert groups(cut_outs, cut_out_margin=0.1) == groups([wholes[0], cut_outs[1]], cut_out_margin=0.1) == []
    assert groups(cut_outs, cut_out_margin=cosine - SIMILAR - 0.01) == [["a#1", "b#1"]]
    with pytest.raises(ValueError, match="cut_out_margin"):
        Looks(cut_out_margin=-0.1)


def test_what_is_small_is_no_member():
    rows = [sight("a", thing(1), side=128), sight("b", view(thing(1), 1), side=127)]
    assert groups(rows) == []
    assert groups(rows, min_side_px=127.0) == [["a#1", "b#1"]]


def test_persons_are_left_to_their_faces():
    rows = [sight("a", thing(1), category="person"), sight("b", view(thing(1), 1), category="person")]
    assert groups(rows) == []
    assert groups(rows, without=()) == [["a#1", "b#1"]]


def test_two_of_one_picture_or_one_video_are_never_in_one_group():
    rows = [sight("a", view(thing(1), 0)), sight("a", view(thing(1), 1), at=2), sight("c", view(thing(1), 2))]
    (members,) = groups(rows)
    assert len({"a#1", "a#2"} & set(members)) == 1
    frames = [sight(f"v/{n}", view(thing(1), n), video="v") for n in range(3)]
    assert groups(frames) == []
    assert [len(members) for members in groups([*frames, sight("x", view(thing(1), 9))])] == [2]


def test_what_the_source_groups_already_is_not_grouped_again():
    rows = [sight(name, view(thing(1), n)) for n, name in enumerate("ab")]
    folder = {"folder": ["a", "b"]}
    assert groups(rows) == [["a#1", "b#1"]]
    assert groups(rows, source_groups=folder) == []
    assert groups([*rows, sight("c", view(thing(1), 9))], source_groups=folder) == [["a#1", "b#1", "c#1"]]


def test_what_was_not_kept_has_no_embedding_or_holds_a_face_is_no_member():
    known = tables([sight(name, view(thing(1), n)) for n, name in enumerate("abcde")])
    changed = {
        "selection": [
            row | {"verdict": "reject" if row["object_id"] == "c#1" else "keep"} for row in known["selection"]
        ],
        "embeddings": [row for row in known["embeddings"] if row["object_id"] != "d#1"],
        "faces": [{"face_id": "e@0", "image_id": "e", "object_id": "e#1"}],
    }
    assert [row["members"] for row in rows_of("match", {**known, **changed}, config_of())] == [["a#1", "b#1"]]


def test_a_bridge_joins_nothing():
    one, other = np.zeros(WIDTH), np.zeros(WIDTH)
    one[0], other[:2] = 1, (0.2, np.sqrt(1 - 0.04))
    rows = [sight(f"a{n}", view(one, n, 0.4)) for n in range(3)] + [
        sight(f"b{n}", view(other, 9 + n, 0.4)) for n in range(3)
    ]
    rows.append(sight("x", unit(one + other)))  # cosine 0.77 with both
    made = groups(rows)
    assert len(made) == 2
    assert not [members for members in made if {member[0] for member in members} >= {"a", "b"}]


def test_sizes_are_limited_and_the_best_stay():
    rows = [sight(f"a{n}", view(thing(1), n), quality=n / 10) for n in range(6)]
    assert groups(rows, max_members=3) == [["a3#1", "a4#1", "a5#1"]]
    assert groups(rows, min_members=7) == []
    with pytest.raises(ValueError, match="min_members"):
        Looks(strictness=0.0, min_members=1)
    assert groups([]) == []


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_groups_are_the_true_ones_keep_their_bounds_and_order_and_units_do_not_matter(seed: int):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(int(rng.integers(20, 70))):
        vector = view(thing(int(rng.integers(0, 4))), int(rng.integers(0, 10_000)), float(rng.uniform(0.05, 0.9)))
        category = rng.choice(["cat", "dog", ""]) or None
        row = {"quality": float(rng.random()), "category": category and str(category)}
        row["kind"] = str(rng.choice(["object", "whole"]))
        rows.append(sight(f"p{number:02d}", vector, video=f"v{number % 7}" if rng.random() < 0.3 else None, **row))
    with made(tables(rows)) as dataset:
        config = config_of(cut_out_margin=0.1)
        expected = rows_after(dataset, "match", config)
        truth = things(dataset, config.looks, SIMILAR, NEAR_COPY)
    assert [row["group_id"] for row in expected] == [row["group_id"] for row in truth]
    for row, true in zip(expected, truth, strict=True):
        assert row["members"] == true["members"]
        for name in ("min_similarity", "mean_similarity", "max_similarity"):
            assert row[name] == pytest.approx(true[name], abs=1e-6)
    known = {f"{row['image']}#1": row for row in rows}
    taken = [member for row in expected for member in row["members"]]
    assert len(taken) == len(set(taken))
    for group in expected:
        members = [known[name] for name in group["members"]]
        assert group["max_similarity"] < NEAR_COPY + 1e-6
        places = [row["video"] or row["image"] for row in members]
        assert len(places) == len(set(places))
        assert len({row["category"] for row in members} - {None}) <= 1
    shuffled = tables([rows[place] for place in rng.permutation(len(rows))])
    assert rows_of("match", shuffled, config) == expected
    cut = rows_of("match", shuffled, replace(config, grain=FINE), scattered)
    assert [row | {"units": None} for row in cut] == expected


@pytest.mark.shared
def test_real_subjects_are_grouped_without_a_wrong_pair(shared: Path, tmp_path: Path):
    dataset = ingest(PlainPictures(path=str(shared / "subjects")), tmp_path / "data")
    curate(dataset.url, Curation(models=Models(face="none")), HERE, until="match")
    dataset.refresh()
    made = dataset.read("matches").to_pylist()
    truth = json.loads((shared / "groups.json").read_text())
    subject = {file: group["group_id"] for group in truth for file in group["files"]}
    subject["subjects/msbench/living/cat.jpg"] = "dreambooth/cat"

    def what(member: str) -> str:
        path = "subjects/" + member.removeprefix("folder/").split("#")[0]
        return subject.get(path, path)

    pairs = [pair for row in made for pair in combinations(row["members"], 2)]
    assert all(what(one) == what(other) for one, other in pairs)
    assert len(pairs) >= 55  # of 83, of which 3 are near-copies


@pytest.mark.shared
def test_subject_folders_are_not_found_again(shared: Path, tmp_path: Path):
    dataset = ingest(Subjects(directory=str(shared / "subjects" / "dreambooth"), limit=12), tmp_path / "data")
    curate(dataset.url, config_of(), HERE, until="match")
    dataset.refresh()
    assert dataset.read("matches").num_rows == 0
