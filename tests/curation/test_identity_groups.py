"""Identity groups: persons are found, a bridge and an outlier join nobody, tracks join where their faces agree."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grouptruth import people
from helpers import HERE, ingest
from hypothesis import given, settings
from hypothesis import strategies as st
from maderows import FINE, Rows, digest, made, rows_after, rows_of, scattered

from refloom.curation.annotate.settings import Models
from refloom.curation.config import Curation
from refloom.curation.group.identities import Identities, agreeing
from refloom.curation.job import curate
from refloom.ingest.sources.folder import PlainPictures

SAME = 0.9
WIDTH = 32


def unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def person(seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal(WIDTH))


def shot(who: np.ndarray, seed: int, away: float = 0.25) -> np.ndarray:
    """Another photograph of a person: about 1 - away^2 / 2 from the person, 1 - away^2 from each other."""
    return unit(who + away * unit(np.random.default_rng(1000 + seed).standard_normal(WIDTH)))


def face(name: str, vector: np.ndarray, **given: Any) -> dict[str, Any]:
    """A face on a picture, and the object that holds it: `<name>@0` on `<name>#1`; `at` numbers further ones."""
    row = {"image": name, "at": 0, "video": None, "track": None, "verdict": "keep", "vector": vector, "score": None}
    return row | {"side": 100.0, "quality": 0.5, "area": 100} | given


def tables(rows: list[dict[str, Any]], tracks: dict[str, set[str]] | None = None) -> Rows:
    """What the stages before match say of faces, of tracks that are seen on further pictures, and of a bare picture."""
    video_of: dict[str, str | None] = {name: "v" for seen in (tracks or {}).values() for name in sorted(seen)}
    video_of |= {row["image"]: row["video"] for row in rows} | {"bare": None}
    held = [(row, {"image_id": row["image"], "object_id": f"{row['image']}#{row['at'] + 1}"}) for row in rows]
    unseen = [
        {"image_id": name, "object_id": f"{name}#{track}", "track_id": track}
        for track, seen in (tracks or {}).items()
        for name in sorted(seen)
    ]
    return {
        "images": [{"image_id": name, "sha256": digest(name), "video_id": video} for name, video in video_of.items()],
        "objects": [own | {"track_id": row["track"], "area": row["area"]} for row, own in held] + unseen,
        "object_scores": [own | {"quality": row["quality"]} for row, own in held],
        "selection": [{"object_id": own["object_id"], "verdict": row["verdict"]} for row, own in held],
        "faces": [
            own
            | {"face_id": f"{row['image']}@{row['at']}", "embedding": row["vector"], "det_score": row["score"]}
            | {"box": [10, 10, 10 + row["side"], 10 + 1.5 * row["side"]]}
            for row, own in held
        ],
    }


def config_of(**options: Any) -> Curation:
    """The scores of the faces are dlib's, from 0.3 to 0.9 and more."""
    return Curation(
        models=Models(face="dlib", image_embedding="none", classifier="none"),
        identities=Identities(**({"min_cosine": SAME} | options)),
    )


def groups(rows: list[dict[str, Any]], tracks: dict[str, set[str]] | None = None, **options: Any) -> list[list[str]]:
    return [row["members"] for row in rows_of("match", tables(rows, tracks), config_of(**options))]


def test_photographs_of_one_person_are_a_group_named_after_its_smallest_member():
    rows = [face(f"p{who}/{n}", shot(person(who), 10 * who + n)) for who in (1, 2) for n in (2, 0, 1)]
    made = rows_of("match", tables(rows), config_of())
    assert [row["members"] for row in made] == [[f"p{who}/{n}#1" for n in range(3)] for who in (1, 2)]
    assert [row["group_id"] for row in made] == ["identity/p1/0#1", "identity/p2/0#1"]
    assert all(row["kind"] == "identity" and row["video_id"] is None for row in made)
    assert all(SAME < row["min_similarity"] <= row["mean_similarity"] <= row["max_similarity"] < 1 for row in made)
    assert all(row["area_ratio"] == 1 for row in made)


def test_a_bridge_face_does_not_join_two_persons():
    one, other = np.zeros(WIDTH), np.zeros(WIDTH)
    one[0], other[:2] = 1, (np.cos(0.8), np.sin(0.8))  # cosine 0.70
    rows = [face(f"a{n}", shot(one, n, 0.1)) for n in range(3)] + [
        face(f"b{n}", shot(other, 9 + n, 0.1)) for n in range(3)
    ]
    rows.append(face("x", unit(one + other)))  # cosine 0.92 with both
    made = groups(rows)
    assert len(made) == 2
    assert not [members for members in made if {member[0] for member in members} >= {"a", "b"}]


def test_a_member_beyond_eight_sigma_goes():
    rows = [face(f"a{n}", shot(person(1), n, 0.08)) for n in range(9)]
    beside = person(2) - (person(2) @ person(1)) * person(1)
    rows.append(face("odd", unit(0.8 * person(1) + 0.6 * unit(beside))))  # above the bound, far from their spread
    assert groups(rows, min_cosine=0.7) == [[f"a{n}#1" for n in range(9)]]
    assert "odd#1" in groups(rows, min_cosine=0.7, max_sigma=1e6)[0]


def test_a_face_that_is_hardly_seen_must_be_nearer():
    one, other = person(1), unit(person(1) + 0.35 * unit(person(2) - (person(2) @ person(1)) * person(1)))
    assert 0.94 < one @ other < 0.95
    rows = [face("a", one), face("b", other)]
    assert groups(rows) == groups([rows[0] | {"score": 0.9}, rows[1] | {"score": 1.5}]) == [["a#1", "b#1"]]
    assert groups([rows[0], rows[1] | {"score": 0.3}], poor_margin=0.6) == []  # 0.96 is asked
    assert groups([rows[0], rows[1] | {"score": 0.3}], poor_margin=0.4) == [["a#1", "b#1"]]
    assert groups([rows[0], rows[1] | {"score": 0.6}], poor_margin=0.6) == [["a#1", "b#1"]]  # half of it, 0.93


def test_a_group_of_several_agrees_by_more_than_one_pair():
    axes = np.eye(WIDTH)
    rows = [face(f"a{n}", unit(axes[0] + 0.1 * axes[n + 1])) for n in range(3)]
    beside = face("b", unit(axes[0] + 0.5 * axes[1]))  # near to a0, which leans the same way, and to no other
    cosines = [float(row["vector"] @ beside["vector"]) for row in rows]
    assert [cosine >= SAME for cosine in cosines] == [True, False, False]
    assert np.mean(cosines) >= SAME
    assert groups([*rows, beside], min_agreeing=1, min_cosine=SAME) == [["a0#1", "a1#1", "a2#1", "b#1"]]
    assert "b#1" not in groups([*rows, beside])[0]


def test_two_faces_of_one_picture_are_two_persons():
    rows = [face("a", person(1)), face("a", shot(person(1), 1), at=1), face("c", shot(person(1), 2))]
    (members,) = groups(rows)
    assert len({"a#1", "a#2"} & set(members)) == 1


def test_near_copies_go_and_the_better_stays():
    rows = [face("a", person(1)), face("b", shot(person(1), 1, 0.01), quality=0.9), face("c", shot(person(1), 2))]
    assert groups(rows) == [["b#1", "c#1"]]
    assert groups(rows[:2]) == []
    assert groups(rows, max_cosine=1.1) == [["a#1", "b#1", "c#1"]]


def test_sizes_are_limited_and_the_best_stay():
    rows = [face(f"a{n}", shot(person(1), n), quality=n / 10) for n in range(6)]
    assert groups(rows, max_members=3) == [["a3#1", "a4#1", "a5#1"]]
    assert groups(rows, min_members=7) == []
    assert groups([row | {"side": 20.0} for row in rows]) == []


def frames(track: str, vectors: list[np.ndarray]) -> list[dict[str, Any]]:
    video = track.split("#")[0]
    return [face(f"{video}/{n:02d}", vector, video=video, track=track) for n, vector in enumerate(vectors)]


def test_tracks_of_different_videos_join_where_their_faces_agree():
    one = frames("v1#1", [shot(person(1), n, 0.2) for n in range(4)])
    two = frames("v2#1", [shot(person(1), 50 + n, 0.2) for n in range(4)])
    three = frames("v3#1", [shot(person(2), 90 + n, 0.2) for n in range(4)])
    made = groups([*one, *two, *three])
    assert len(made) == 1
    assert {member.split("/")[0] for member in made[0]} == {"v1", "v2"}
    assert groups(one) == []  # one track alone is a group of its own already
    assert len(groups([*one, *two], max_per_video=2)[0]) == 4


def test_a_track_whose_faces_disagree_joins_nobody():
    mixed = frames("v1#1", [shot(person(1 + n % 2), n, 0.1) for n in range(6)])
    assert groups([*mixed, face("a", person(1)), face("b", shot(person(2), 40))]) == []
    one_wrong = frames("v1#1", [shot(person(1), n, 0.1) for n in range(5)] + [person(2)])
    (members,) = groups([*one_wrong, face("a", person(1))])
    assert "v1/05#1" not in members
    assert {"a#1", "v1/00#1"} <= set(members)
    assert agreeing(np.stack([person(1), person(2)]), [0, 1], 0.9, 0.6) == []


def test_tracks_that_are_seen_together_are_two_persons():
    one, two = frames("v#1", [person(1), shot(person(1), 1)]), frames("v#2", [shot(person(1), 2), shot(person(1), 3)])
    for row, name in zip(two, ("v/10", "v/11"), strict=True):
        row |= {"image": name, "at": 1}
    assert len(groups([*one, *two])) == 1  # came back later
    together = {"v#1": {"v/00", "v/01", "v/05"}, "v#2": {"v/10", "v/11", "v/05"}}  # no face to be seen on v/05
    assert groups([*one, *two], together) == []


def test_a_face_that_can_be_no_member_is_left_out():
    rows = [face("a", person(1)), face("b", shot(person(1), 1), verdict="reject"), face("c", shot(person(1), 2))]
    assert groups(rows) == [["a#1", "c#1"]]
    assert groups([]) == []


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_groups_are_the_true_ones_disjoint_and_pure_and_order_and_units_do_not_matter(seed: int):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(int(rng.integers(20, 70))):
        who, video = int(rng.integers(0, 5)), int(rng.integers(0, 4))
        vector = shot(person(who), int(rng.integers(0, 10_000)), 0.3)
        inside = {"video": f"v{video}", "track": f"v{video}#{who}"} if rng.random() < 0.5 else {}
        seen = {"quality": float(rng.random()), "score": float(rng.uniform(0.2, 1.5))}
        rows.append(face(f"p{who}/{number:02d}", vector, **seen, **inside))
    with made(tables(rows)) as dataset:
        expected = rows_after(dataset, "match", config_of())
        truth = people(dataset, Identities(), SAME)
    assert [row["group_id"] for row in expected] == [row["group_id"] for row in truth]
    for row, true in zip(expected, truth, strict=True):
        assert row["members"] == true["members"]
        for name in ("min_similarity", "mean_similarity", "max_similarity"):
            assert row[name] == pytest.approx(true[name], abs=1e-6)
    members = [member for row in expected for member in row["members"]]
    assert len(members) == len(set(members))
    for row in expected:
        assert len({member.split("/")[0] for member in row["members"]}) == 1
        assert row["group_id"] == f"identity/{min(row['members'])}"
    shuffled = tables([rows[place] for place in rng.permutation(len(rows))])
    assert rows_of("match", shuffled, config_of()) == expected
    cut = rows_of("match", shuffled, replace(config_of(), grain=FINE), scattered)
    assert [row | {"units": None} for row in cut] == expected


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="min_members"):
        Identities(min_members=1)
    with pytest.raises(ValueError, match="poor_margin"):
        Identities(poor_margin=1.0)


def test_members_are_objects_else_faces_and_only_what_was_kept():
    one, other = person(1), person(2)
    faces = {
        ("a", 0): (one, "a#whole"),
        ("b", 0): (shot(one, 1), "b#whole"),  # two faces on one whole picture: each stands for itself
        ("b", 1): (other, "b#whole"),
        ("c", 0): (shot(one, 2), None),
        ("d", 0): (shot(one, 3), "d#whole"),  # on an object that was not selected
        ("e", 0): (shot(other, 4), "e#whole"),
        ("f", 0): (shot(one, 5), None),  # on a copy of another picture
    }
    wholes = [{"image_id": name, "object_id": f"{name}#whole", "kind": "whole"} for name in "abde"]
    known: Rows = {
        "images": [{"image_id": name, "sha256": digest(name)} for name in "abcdef"],
        "objects": wholes,
        "selection": [
            {"object_id": row["object_id"], "verdict": "reject" if row["image_id"] == "d" else "keep"} for row in wholes
        ],
        "duplicates": [{"id": "f", "kind": "image", "of": "c", "by": "bytes"}],
        "faces": [
            {"face_id": f"{name}@{at}", "image_id": name, "object_id": held, "embedding": vector}
            for (name, at), (vector, held) in faces.items()
        ],
    }
    made = rows_of("match", known, config_of())
    assert [row["members"] for row in made] == [["a#whole", "b@0", "c@0"], ["b@1", "e#whole"]]


@pytest.mark.shared
def test_real_people_are_grouped_without_a_wrong_or_a_missed_pair(shared: Path, tmp_path: Path):
    dataset = ingest(PlainPictures(path=str(shared / "faces")), tmp_path / "data")
    curate(dataset.url, Curation(models=Models(image_embedding="none", classifier="none")), HERE, until="match")
    dataset.refresh()
    made = dataset.read("matches").to_pylist()
    truth = json.loads((shared / "groups.json").read_text())
    people = {file: group["label"] for group in truth if group["kind"] == "person" for file in group["files"]}

    def who(member: str) -> str | None:
        return people.get("faces/" + member.removeprefix("folder/").split("#")[0].split("@")[0])

    pairs = [pair for row in made for pair in combinations(row["members"], 2) if all(map(who, pair))]
    expected = sum(len(group["files"]) * (len(group["files"]) - 1) // 2 for group in truth if group["kind"] == "person")
    assert all(who(one) == who(other) for one, other in pairs)
    assert len(pairs) == expected
    on_group_photo = {member for row in made for member in row["members"] if "identification1" in member}
    assert len(on_group_photo) == 4  # the family of four, each with their own photographs
