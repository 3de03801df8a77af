"""Identity groups: persons are found, a bridge and an outlier join nobody, tracks join where their faces agree."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HERE, ingest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.config import Curation, Models
from curation.identities import Identities, Portraits, agreeing, identity_groups, read_portraits
from curation.job import curate
from inference.models import registry
from ingest.sources.folder import PlainPictures
from schemas.dataset import Dataset
from schemas.unit import UnitKey, UnitWriter

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
    row = {"id": f"{name}@0", "member": f"{name}#1", "image": name, "video": None, "track": None}
    return row | {"side": 100.0, "quality": 0.5, "area": 100.0, "vector": vector} | given


def portraits(rows: list[dict[str, Any]], tracks: dict[str, set[str]] | None = None) -> Portraits:
    return Portraits(
        [row["id"] for row in rows],
        [row["member"] for row in rows],
        [row["image"] for row in rows],
        [row["video"] for row in rows],
        [row["track"] for row in rows],
        np.array([row["side"] for row in rows], np.float64),
        np.array([row["quality"] for row in rows], np.float64),
        np.array([row["area"] for row in rows], np.float64),
        np.array([row["vector"] for row in rows], np.float32).reshape(len(rows), WIDTH),
        tracks or {},
    )


def groups(rows: list[dict[str, Any]], tracks: dict[str, set[str]] | None = None, **options: Any) -> list[list[str]]:
    return [row["members"] for row in identity_groups(portraits(rows, tracks), Identities(**options), SAME)]


def test_photographs_of_one_person_are_a_group_named_after_its_smallest_member():
    rows = [face(f"p{who}/{n}", shot(person(who), 10 * who + n)) for who in (1, 2) for n in (2, 0, 1)]
    made = identity_groups(portraits(rows), Identities(), SAME)
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


def test_two_faces_of_one_picture_are_two_persons():
    rows = [face("a", person(1)), face("b", shot(person(1), 1)), face("c", shot(person(1), 2))]
    rows[1]["image"] = rows[0]["image"]
    for members in groups(rows):
        assert not {"a#1", "b#1"} <= set(members)


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
        row |= {"image": name, "id": f"{name}@0", "member": f"{name}#2"}
    assert len(groups([*one, *two])) == 1  # came back later
    together = {"v#1": {"v/00", "v/01", "v/05"}, "v#2": {"v/10", "v/11", "v/05"}}  # no face to be seen on v/05
    assert groups([*one, *two], together) == []


def test_a_face_that_can_be_no_member_is_left_out():
    rows = [face("a", person(1)), face("b", shot(person(1), 1), member=None), face("c", shot(person(1), 2))]
    assert groups(rows) == [["a#1", "c#1"]]
    assert groups([]) == []


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_groups_are_pure_disjoint_and_the_order_of_rows_does_not_matter(seed: int):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(int(rng.integers(2, 40))):
        who, video = int(rng.integers(0, 5)), int(rng.integers(0, 4))
        vector = shot(person(who), int(rng.integers(0, 10_000)), 0.3)
        inside = {"video": f"v{video}", "track": f"v{video}#{who}"} if rng.random() < 0.5 else {}
        rows.append(face(f"p{who}/{number:02d}", vector, quality=float(rng.random()), **inside))
    expected = identity_groups(portraits(rows), Identities(), SAME)
    members = [member for row in expected for member in row["members"]]
    assert len(members) == len(set(members))
    for row in expected:
        assert len({member.split("/")[0] for member in row["members"]}) == 1
        assert row["group_id"] == f"identity/{min(row['members'])}"
    shuffled = [rows[place] for place in rng.permutation(len(rows))]
    assert identity_groups(portraits(shuffled), Identities(), SAME) == expected


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="min_members"):
        Identities(min_members=1)


def test_members_are_objects_else_faces_and_only_what_was_kept(tmp_path: Path, jpeg):
    (tmp_path / "in").mkdir()
    for seed, name in enumerate("abcd"):
        (tmp_path / "in" / f"{name}.jpg").write_bytes(jpeg(seed=seed))
    dataset = ingest(PlainPictures(path=str(tmp_path / "in")), tmp_path / "data")
    (where,) = dataset.units()
    held = {"a": ["#whole"], "b": ["#whole", "#whole"], "c": [None], "d": ["#whole"]}
    with UnitWriter(dataset.folder, UnitKey("face", where, "made")) as out:
        for name, objects in held.items():
            out.expect("image")
            for number, suffix in enumerate(objects):
                image = f"folder/{name}.jpg"
                row = {"face_id": f"{image}@{number}", "image_id": image, "object_id": suffix and image + suffix}
                out.add("faces", row | {"box": [0, 0, 40, 50], "crop_box": [0, 0, 50, 50], "embedding": person(1)})
            out.keep("image")
    with UnitWriter(dataset.folder, UnitKey("select", where, "made")) as out:
        for name in held:
            out.expect("object")
            verdict = "reject" if name == "d" else "keep"
            out.add("selection", {"object_id": f"folder/{name}.jpg#whole", "verdict": verdict, "reason": None})
            out.keep("object")
    faces = read_portraits(Dataset(dataset.url))
    assert faces.members == [
        "folder/a.jpg#whole",
        "folder/b.jpg@0",  # two faces on one whole picture: each stands for itself
        "folder/b.jpg@1",
        "folder/c.jpg@0",
        None,  # on an object that was not selected
    ]
    assert faces.sides.tolist() == [40] * 5
    assert faces.vectors.shape == (5, WIDTH)


@pytest.mark.shared
def test_real_people_are_grouped_without_a_wrong_or_a_missed_pair(shared: Path, tmp_path: Path):
    dataset = ingest(PlainPictures(path=str(shared / "faces")), tmp_path / "data")
    curate(dataset.url, Curation(models=Models(image_embedding="none")), HERE, until="select")
    dataset.refresh()
    same = registry.by_name("face", "dlib").thresholds["same_identity"]
    made = identity_groups(read_portraits(dataset), Identities(), same)
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
