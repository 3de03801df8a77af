"""Groups: spread of members, exchanged tracks, tracks of videos, subject folders and records."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from curating import LOOSE, Box, coco, curated, easyref, embed, folders, rectangle, ytvis
from helpers import HERE, ingest, ledger
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.curation.group.groups import Path, group_unit, switched, ties
from refloom.curation.group.members import matched_units
from refloom.curation.group.settings import Group
from refloom.curation.group.spread import pair_similarities, spread
from refloom.curation.job import curate
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter

CONFIG = Group()
WIDTH, HEIGHT = 96, 80


# -- spread ----------------------------------------------------------------------------------------------------------


def test_similarities_are_the_cosines_of_pairs_in_order():
    angles = np.radians([0, 60, 90])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert pair_similarities(vectors) == pytest.approx([0.5, 0.0, np.sqrt(3) / 2], abs=1e-6)  # (0,1), (0,2), (1,2)
    found = spread(vectors, np.array([100.0, 400.0, 200.0]))
    assert (found.min_similarity, found.max_similarity) == pytest.approx((0, np.sqrt(3) / 2), abs=1e-6)
    assert found.mean_similarity == pytest.approx((0.5 + np.sqrt(3) / 2) / 3, abs=1e-6)
    assert found.area_ratio == 0.25


def test_a_similarity_does_not_depend_on_the_other_members():
    vectors = np.random.default_rng(0).normal(size=(7, 1280)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = iter(pair_similarities(vectors))
    for first in range(7):
        for second in range(first + 1, 7):
            assert next(pairs) == pair_similarities(vectors[[first, second]])[0]
    assert pair_similarities(np.stack([vectors[0]] * 2)) <= 1


def test_what_is_not_known_of_every_member_is_null():
    assert spread(None, np.array([10.0, np.nan])) == spread(None, np.array([np.nan, np.nan]))
    assert spread(None, np.array([10.0, np.nan])).area_ratio is None
    assert spread(None, np.array([10.0, 20.0])).min_similarity is None


# -- exchanged tracks ------------------------------------------------------------------------------------------------


def path(name: str, boxes: list[Box | None]) -> Path:
    seen = [(frame, box) for frame, box in enumerate(boxes) if box is not None]
    return Path(name, [frame for frame, _ in seen], [rectangle(box, WIDTH, HEIGHT) for _, box in seen])


def square(x: float, y: float = 20, side: int = 20) -> Box:
    return (round(x), round(y), round(x) + side, round(y) + side)


LEFT, RIGHT = square(5), square(60)


def test_tracks_that_exchange_their_masks_are_found_on_both_sides():
    one, two = path("a", [LEFT, LEFT, RIGHT, RIGHT]), path("b", [RIGHT, RIGHT, LEFT, LEFT])
    other = path("c", [square(30, 50)] * 4)
    assert switched([one, other, two], CONFIG) == {"a": "b", "b": "a"}


def test_an_exchange_across_a_frame_that_one_of_them_lacks_is_found():
    assert switched([path("a", [LEFT, None, RIGHT]), path("b", [RIGHT, RIGHT, LEFT])], CONFIG)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([LEFT] * 3, [RIGHT] * 3),  # at rest
        ([square(x) for x in range(0, 70, 10)], [square(70 - x) for x in range(0, 70, 10)]),  # crossing
        ([square(20)] * 4, [square(24)] * 4),  # overlapping
        ([square(20)] * 4, [square(20)] * 4),  # the same masks twice
        ([LEFT, RIGHT], [RIGHT, RIGHT]),  # one jumps onto the other, which stays
        ([LEFT, RIGHT], [RIGHT, square(30, 50)]),  # one takes the place that the other leaves
        ([LEFT, None, None], [None, RIGHT, LEFT]),  # never seen together
        ([LEFT], [RIGHT]),
    ],
)
def test_tracks_that_only_meet_have_not_exchanged(first, second):
    assert switched([path("a", first), path("b", second)], CONFIG) == {}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.floats(-9, 9),
    st.floats(-9, 9),
    st.integers(0, 55),
    st.integers(0, 55),
)
def test_objects_that_move_less_than_half_their_size_a_frame_never_look_exchanged(x, u, dx, du, y, v):
    steps = range(6)
    one = path("a", [square(min(max(x + dx * step, 0), 76), y) for step in steps])
    two = path("b", [square(min(max(u + du * step, 0), 76), v) for step in steps])
    assert switched([one, two], CONFIG) == {}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.integers(48, 70), st.integers(-5, 5), st.integers(1, 4))
def test_objects_apart_whose_names_are_exchanged_once_are_always_found(x, u, step, when):
    one = [square(x + step * (frame % 2), 30) for frame in range(5)]
    two = [square(u - step * (frame % 2), 30) for frame in range(5)]
    first, second = one[:when] + two[when:], two[:when] + one[when:]
    inside = [(max(0, box[0]), *box[1:]) for box in first], [(max(0, box[0]), *box[1:]) for box in second]
    assert switched([path("a", inside[0]), path("b", inside[1])], CONFIG) == {"a": "b", "b": "a"}


def test_an_exchange_of_near_neighbours_is_found_by_their_motion():
    """Overlaps say nothing of what moves by half its size from frame to frame: where it was going does."""
    one = [square(9 * step, 18) for step in range(8)]
    two = [square(70 - 9 * step, 30) for step in range(8)]
    first, second = one[:3] + two[3:], two[:3] + one[3:]
    overlaps_alone = replace(CONFIG, switch_gain=None)
    assert switched([path("a", one), path("b", two)], CONFIG) == {}
    assert switched([path("a", first), path("b", second)], overlaps_alone) == {}
    assert switched([path("a", first), path("b", second)], CONFIG) == {"a": "b", "b": "a"}


def test_an_exchange_of_like_places_is_found_by_size_and_by_look():
    large, small = [square(20, 10, 40)] * 6, [square(25, 15, 20)] * 6
    assert switched([path("a", large), path("b", small)], CONFIG) == {}
    assert switched([path("a", large[:3] + small[3:]), path("b", small[:3] + large[3:])], CONFIG)
    axes = np.eye(8, dtype=np.float32)
    plain = path("a", [LEFT] * 4), path("b", [LEFT] * 4)
    looks = axes[[0, 0, 0, 0]], axes[[1, 1, 1, 1]]
    mixed = axes[[0, 0, 1, 1]], axes[[1, 1, 0, 0]]
    assert switched([replace(one, vectors=look) for one, look in zip(plain, looks, strict=True)], CONFIG) == {}
    assert switched([replace(one, vectors=look) for one, look in zip(plain, mixed, strict=True)], CONFIG)


# -- tracks of videos ------------------------------------------------------------------------------------------------


def groups(dataset: Dataset) -> dict[str, dict[str, Any]]:
    rows = dataset.read("groups").to_pylist()
    found = {row["group_id"]: row for row in rows}
    assert len(found) == len(rows), "two groups of one id"
    return found


def balanced(dataset: Dataset) -> tuple[int, int, dict[str, int]]:
    counts = dataset.counts("group")["group"]
    assert counts.input == counts.kept + counts.rejected.total() + counts.failed.total()
    assert counts.kept == dataset.read("groups", ["group_id"]).num_rows
    return counts.input, counts.kept, dict(counts.rejected)


VIDEOS = {
    "one": {"cat": [(10, 10, 50, 50), None, (10, 10, 30, 50), (20, 10, 60, 50)], "dog": [None, None, (40, 20, 90, 70)]},
    "two": {"dog": [LEFT, LEFT, RIGHT, RIGHT], "cat": [RIGHT, RIGHT, LEFT, LEFT], "bird": [square(30, 55)] * 4},
}


def test_a_track_is_a_group_of_its_kept_objects_by_time(tmp_path):
    dataset = curated(tmp_path, ytvis(tmp_path, {"one": VIDEOS["one"]}), until="group")
    (row,) = groups(dataset).values()
    sharpness = {one["object_id"]: one["sharpness"] for one in dataset.read("object_scores").to_pylist()}
    members = sorted(sharpness[name] for name in row["members"])
    assert row.pop("sharpness_ratio") == pytest.approx(members[0] / members[-1], rel=1e-6)
    assert row.pop("pose_change") == pytest.approx(1 / 3, rel=1e-6)  # two squares and one half as wide: 1/2, 0, 1/2
    assert row == {
        "group_id": "track/ytvis/one#1",
        "kind": "track",
        "members": ["ytvis/one/00000#1", "ytvis/one/00010#1", "ytvis/one/00015#1"],
        "units": None,
        "video_id": "ytvis/one",
        "frame_gap": 15,
        "area_ratio": 0.5,
        "min_similarity": None,
        "mean_similarity": None,
        "max_similarity": None,
        "head_turn": None,
    }
    assert ledger(dataset, "group") == {("group", "ytvis/one#2", 0): "too_few_members"}
    assert balanced(dataset) == (2, 1, {"too_few_members": 1})


def test_exchanged_tracks_are_rejected_and_the_others_of_the_video_are_kept(tmp_path):
    dataset = curated(tmp_path, ytvis(tmp_path, VIDEOS), until="group")
    assert set(groups(dataset)) == {"track/ytvis/one#1", "track/ytvis/two#5"}
    reasons = ledger(dataset, "group")
    assert reasons == {
        ("group", "ytvis/one#2", 0): "too_few_members",
        ("group", "ytvis/two#3", 0): "identity_switch",
        ("group", "ytvis/two#4", 0): "identity_switch",
    }
    assert balanced(dataset) == (5, 2, {"identity_switch": 2, "too_few_members": 1})


def test_rejected_objects_are_no_members(tmp_path):
    config = replace(LOOSE, select=replace(LOOSE.select, min_area_share=1000 / (WIDTH * HEIGHT)))
    dataset = curated(tmp_path, ytvis(tmp_path, {"one": VIDEOS["one"]}), config=config, until="group")
    (row,) = groups(dataset).values()
    assert row["members"] == ["ytvis/one/00000#1", "ytvis/one/00015#1"]
    assert row["area_ratio"] == 1


def test_a_group_needs_as_many_members_as_configured(tmp_path):
    dataset = curated(tmp_path, ytvis(tmp_path, {"one": VIDEOS["one"]}), until="group")
    for needed, kept in ((3, 1), (4, 0)):
        config = replace(LOOSE, group=Group(min_members=needed))
        curate(dataset.url, config, HERE, until="group", replace=True)
        assert balanced(Dataset(dataset.url))[:2] == (2, kept)


def test_similarity_is_that_of_the_embeddings_and_null_if_one_is_missing(tmp_path):
    dataset = curated(tmp_path, ytvis(tmp_path, {"one": VIDEOS["one"]}), until="select")
    vectors = {"ytvis/one/00000#1": (1, 0), "ytvis/one/00010#1": (1, 1), "ytvis/one/00015#1": (0, 1)}
    embed(dataset, vectors)
    curate(dataset.url, LOOSE, HERE, until="group")
    (row,) = groups(Dataset(dataset.url)).values()
    half = np.sqrt(0.5)
    names = ("min_similarity", "mean_similarity", "max_similarity")
    assert [row[name] for name in names] == pytest.approx([0, 2 * half / 3, half], abs=1e-6)
    embed(dataset, dict(list(vectors.items())[:2]))
    curate(dataset.url, LOOSE, HERE, until="group")
    (row,) = groups(Dataset(dataset.url)).values()
    assert [row[name] for name in names] == [None] * 3
    assert len(row["members"]) == 3


def test_groups_of_one_member_are_refused():
    """A group shows one subject more than once; one member has no pair to compare."""
    with pytest.raises(ValueError, match="min_members"):
        Group(min_members=1)


# -- how much members differ -----------------------------------------------------------------------------------------


def with_portraits(dataset: Dataset, poses: Mapping[str, Sequence[float] | None]) -> None:
    """Commit one face on each of some objects, of rising sharpness."""
    for unit in dataset.units():
        rows = dataset.read("objects", ["object_id", "image_id"], unit=unit).to_pylist()
        with UnitWriter(dataset.folder, UnitKey("face", unit, "made")) as out:
            for number, row in enumerate(row for row in rows if row["object_id"] in poses):
                face = {"face_id": f"{row['image_id']}@0", "box": [0, 0, 9, 9], "crop_box": [0, 0, 9, 9]}
                pose = poses[row["object_id"]]
                out.expect("image")
                out.add("faces", row | face | {"pose": pose, "sharpness": 10.0 ** (number + 1) - 1})
                out.keep("image")
    dataset.refresh()


def identity(dataset: Dataset, members: Sequence[str]) -> dict[str, Any]:
    """The row that an identity group of some objects has in `groups`; they may lie in any unit."""
    first, *others = dataset.units()
    with UnitWriter(dataset.folder, UnitKey("match", first, "made")) as out:
        row = {"group_id": f"identity/{members[0]}", "kind": "identity", "members": list(members)}
        out.expect("group")
        out.add("matches", row | {"units": others or None})
        out.keep("group")
    dataset.refresh()
    with UnitWriter(dataset.folder, UnitKey("group", first, "made")) as out:
        group_unit(dataset, first, matched_units(dataset, first), CONFIG, out)
    dataset.refresh()
    return groups(dataset)[f"identity/{members[0]}"]


def test_an_identity_is_compared_by_its_faces_and_outlines_whatever_units_they_lie_in(tmp_path):
    scenes = [{"person": (10, 10, 50, 50)}, {"person": (0, 0, 80, 80)}, {"person": (30, 10, 50, 50)}]
    dataset = curated(tmp_path, coco(tmp_path, scenes, unit_size=1), until="select")
    assert len(dataset.units()) == 3
    members = [f"coco/{number:012d}#{100 * number}" for number in (1, 2, 3)]
    with_portraits(dataset, dict(zip(members, ([0, 0, 0], [0, 90, 0], [0, 0, 0]), strict=True)))
    row = identity(dataset, members)
    assert row["head_turn"] == pytest.approx(60)  # 90, 0, 90
    assert row["pose_change"] == pytest.approx(1 / 3, rel=1e-6)  # the same square twice, nearer and farther
    assert row["sharpness_ratio"] == 1  # each face is the only one of its unit
    with_portraits(dataset, dict(zip(members, ([0, 0, 0], None, [0, 0, 0]), strict=True)))
    assert identity(dataset, members)["head_turn"] is None


def test_sharpness_of_an_identity_is_that_of_its_faces(tmp_path):
    dataset = curated(tmp_path, coco(tmp_path, [{"person": (10, 10, 50, 50)}] * 3), until="select")
    members = [f"coco/{number:012d}#{100 * number}" for number in (1, 2, 3)]
    with_portraits(dataset, dict.fromkeys(members))
    assert identity(dataset, members)["sharpness_ratio"] == pytest.approx(1 / 3)  # log10: 1, 2, 3
    assert identity(dataset, [*members[:2], "coco/000000000003@7"])["sharpness_ratio"] is None  # no such face


# -- groups of the source --------------------------------------------------------------------------------------------


def test_a_subject_folder_is_a_group_of_its_pictures(tmp_path):
    place = folders(tmp_path / "subjects", {"vase": 3, "lamp": 1, "bag": 2})
    dataset = curated(tmp_path, Subjects(directory=str(place)), until="group")
    found = groups(dataset)
    assert {name: row["members"] for name, row in found.items()} == {
        f"folder/subjects/{name}/00.jpg#whole": [f"subjects/{name}/{number:02d}.jpg#whole" for number in range(count)]
        for name, count in (("vase", 3), ("bag", 2))
    }
    assert {(row["kind"], row["video_id"], row["frame_gap"]) for row in found.values()} == {("folder", None, None)}
    assert ledger(dataset, "group") == {("group", "subjects/lamp", 0): "too_few_members"}
    assert balanced(dataset) == (3, 2, {"too_few_members": 1})


def test_a_record_is_a_group_and_the_same_pictures_again_are_a_duplicate(tmp_path):
    records = [("a.jpg", ["b.jpg", "c.jpg"]), ("a.jpg", ["c.jpg", "b.jpg"]), ("d.jpg", ["a.jpg"]), ("e.jpg", ["e.jpg"])]
    dataset = curated(tmp_path, easyref(tmp_path, records), until="group")
    assert sorted(row["members"] for row in groups(dataset).values()) == [
        [f"easyref/{name}.jpg#whole" for name in names] for names in ("abc", "ad")
    ]
    assert ledger(dataset, "group") == {
        ("group", "easyref/records#1", 0): "duplicate",
        ("group", "easyref/records#3", 0): "too_few_members",
    }
    assert balanced(dataset) == (4, 2, {"duplicate": 1, "too_few_members": 1})


def test_records_of_the_same_pictures_are_one_group_a_target_or_one_where_each_is_a_target(tmp_path):
    for number, (targets, count) in enumerate((("a", 1), ("ac", 2), ("abc", 1))):
        records = [(f"{one}.jpg", [f"{other}.jpg" for other in "abc" if other != one]) for one in targets]
        dataset = curated(tmp_path / str(number), easyref(tmp_path / str(number), records), until="group")
        assert [row["members"] for row in groups(dataset).values()] == [
            [f"easyref/{name}.jpg#whole" for name in "abc"]
        ] * count, targets
        assert balanced(dataset) == (len(records), count, {"duplicate": 2} if targets == "abc" else {})


def test_a_record_holds_its_pictures_whatever_units_they_lie_in(tmp_path):
    records = [("a.jpg", ["b.jpg", "c.jpg"]), ("d.jpg", ["e.jpg", "f.jpg"])]
    for size, units in ((100, 1), (2, 3), (1, 6)):
        dataset = curated(tmp_path / str(size), easyref(tmp_path, records, unit_size=size), until="group")
        assert len(dataset.units()) == units
        assert sorted(row["members"] for row in groups(dataset).values()) == [
            [f"easyref/{name}.jpg#whole" for name in names] for names in ("abc", "def")
        ]


def test_ties_are_the_units_that_share_groups_and_no_others(tmp_path):
    records = [("a.jpg", ["b.jpg", "c.jpg"]), ("d.jpg", ["a.jpg"]), ("e.jpg", ["f.jpg"])]
    dataset = ingest(easyref(tmp_path, records, unit_size=1), tmp_path / "data")
    ingest(coco(tmp_path, [{"cat": (10, 10, 50, 50)}]), tmp_path / "data")
    found = ties(Dataset(dataset.url))
    assert {unit: set(one.lenders) for unit, one in found.items() if one.lenders} == lent(dataset)
    assert all(unit.startswith("easyref.") for one in found.values() for unit in (*one.lenders, *one.borrowers))
    for unit, one in found.items():
        assert all(unit in found[lender].borrowers for lender in one.lenders)
        assert all(unit in found[borrower].lenders for borrower in one.borrowers)


def lent(dataset: Dataset) -> dict[str, set[str]]:
    """By its definition: unit to the others that hold members of its groups."""
    holds = {
        image_id: unit
        for unit in dataset.units()
        for image_id in dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()
    }
    made = {
        unit: {
            holds[member]
            for row in dataset.read("source_groups", unit=unit).to_pylist()
            for member in row["members"]
            if holds[member] != unit
        }
        for unit in dataset.units()
    }
    return {unit: others for unit, others in made.items() if others}


@pytest.mark.parametrize("source", ["folders", "coco"])
def test_what_is_read_for_a_unit_does_not_grow_with_the_number_of_units(tmp_path, monkeypatch, source):
    reads = []

    def noted(dataset: Dataset, table: str, columns: object = None, *, unit: str | None = None) -> object:
        reads.append(unit)
        return whole(dataset, table, columns, unit=unit)

    whole, per_unit = Dataset.read, []
    monkeypatch.setattr(Dataset, "read", noted)
    for units in (2, 6):
        root = tmp_path / str(units)
        if source == "coco":
            made = coco(root, [{"cat": (10, 10, 50, 50)}] * units, unit_size=1)
        else:
            tree = folders(root / "tree", {f"subject {number}": 2 for number in range(units)})
            made = Subjects(directory=str(tree), unit_size=1)
        dataset = curated(root, made)
        assert len(dataset.units()) == units
        curate(dataset.url, LOOSE, HERE, only="split", replace=True)
        reads.clear()
        curate(dataset.url, replace(LOOSE, group=Group(min_members=3)), HERE, only="group", replace=True)
        curate(dataset.url, LOOSE, HERE, only="compose", replace=True)
        per_unit.append(sum(unit is not None for unit in reads) / units)
    assert per_unit[0] == per_unit[1] > 0


@pytest.mark.parametrize(
    "records",
    [
        [("a.jpg", ["b.jpg"]), ("b.jpg", ["a.jpg"])],  # the same pictures
        [("b.jpg", ["a.jpg"]), ("c.jpg", ["a.jpg"])],  # the same first picture
    ],
)
def test_groups_of_different_units_never_share_an_id(tmp_path, records):
    dataset = curated(tmp_path, easyref(tmp_path, records, unit_size=1), until="group")
    assert len(dataset.units()) > 1
    curate(dataset.url, LOOSE, HERE, until="group")
    assert groups(Dataset(dataset.url))


def test_a_second_run_finds_nothing_due(tmp_path):
    records = [("a.jpg", ["b.jpg", "c.jpg"]), ("d.jpg", ["e.jpg", "f.jpg"])]
    dataset = curated(tmp_path, easyref(tmp_path, records, unit_size=2), until="group")
    again = curate(dataset.url, LOOSE, HERE, until="group")
    assert set(map(tuple, again.due.values())) == {()}


def test_single_pictures_make_no_groups(tmp_path):
    dataset = curated(tmp_path, coco(tmp_path, [{"cat": (10, 10, 50, 50)}]), until="group")
    assert balanced(dataset) == (0, 0, {})
