"""Cross samples: a target, and other images that show two of its subjects and more; what is said of every subject."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crossing import (
    ALL_TRAIN,
    CAT,
    DOG,
    FLAT,
    GROUPS,
    RIGHT,
    SCENES,
    SQUARE,
    TALL,
    WIDE,
    crossed,
    crosses,
    image,
    shown,
    thing,
)
from curating import LOOSE, coco, composing, curated, easyref, embed, folders, match, samples, with_faces, ytvis
from helpers import HERE, ledger

from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.group.bounds import Pairs
from refloom.curation.job import curate
from refloom.curation.select.balance import Balance
from refloom.curation.select.candidates import list_candidates
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas import masks
from refloom.schemas.dataset import Dataset
from refloom.schemas.verify import verify

FOLLOWS = {"group", "split", "balance", "compose"}


@pytest.fixture(scope="module", params=[10, 2], ids=["one unit", "three units"])
def dataset(request, tmp_path_factory) -> Dataset:
    """Six photographs in one unit or in three, and groups by look over them."""
    root = tmp_path_factory.mktemp("cross")
    return crossed(root, unit_size=request.param)


# -- what is one -----------------------------------------------------------------------------------------------------


def test_an_image_whose_subjects_others_show_is_a_target(dataset):
    found = crosses(dataset)
    assert found.keys() == {f"cross/{image(number)}" for number in (1, 3, 5)}
    sample = found[f"cross/{image(1)}"]
    assert (sample["target"], sample["pictures"][0]["image_id"]) == (0, image(1))
    assert [picture["role"] for picture in sample["pictures"]] == ["target"] + ["reference"] * 4
    assert {picture["image_id"] for picture in sample["pictures"][1:]} == {image(number) for number in (2, 3, 4, 5)}
    seen = shown(sample)
    assert seen.keys() == {CAT, DOG}
    assert {name: sights[0] for name, sights in seen.items()} == {
        CAT: (image(1), thing(1)),
        DOG: (image(1), thing(1, 1)),
    }
    assert {name: {one for _, one in sights[1:]} for name, sights in seen.items()} == {
        CAT: {thing(2), thing(3)},
        DOG: {thing(4), thing(5)},
    }
    assert sample["why"] == "2 subjects seen on 4 other images too"


def test_every_subject_is_first_seen_on_the_target_and_then_on_others(dataset):
    for sample in crosses(dataset).values():
        assert len(sample["subjects"]) >= 2
        for subject in sample["subjects"]:
            places = [one["picture"] for one in subject["appearances"]]
            assert places[0] == 0
            assert len(places) > 1
            assert 0 not in places[1:]
            assert places == sorted(set(places))


def test_images_with_two_subjects_are_all_accounted_for(dataset):
    """What nobody else shows is rejected and not passed over; images of one subject are no candidates."""
    (counts,) = [counts for kind, counts in dataset.counts("compose").items() if kind == "cross"]
    assert (counts.input, counts.kept, counts.balanced) == (3, 3, True)
    for _, one in list_candidates(dataset, ALL_TRAIN.compose, Pairs()).items():
        assert {row.sample_id for row in one if row.kind == "cross"} <= crosses(dataset).keys()
    assert sum(
        row.kind == "cross" for rows in list_candidates(dataset, ALL_TRAIN.compose, Pairs()).values() for row in rows
    ) == len(crosses(dataset))
    assert verify(dataset).sound


def test_units_do_not_matter(tmp_path):
    rows = []
    for size in (10, 1):
        rows.append(samples(crossed(tmp_path / str(size), unit_size=size)))
    assert rows[0] == rows[1]


def test_splits_name_the_other_units_whose_groups_reach_a_picture(tmp_path):
    dataset = crossed(tmp_path, unit_size=2)
    first, second, _ = dataset.units()
    reached = {row["image_id"]: row["group_units"] for row in dataset.read("splits").to_pylist()}
    assert reached == {
        image(1): None,
        image(2): None,
        image(3): [first],
        image(4): [first],
        image(5): [first, second],
        image(6): None,
    }


def test_a_subject_that_only_the_target_shows_stays_with_its_image_sample(tmp_path):
    scenes = [{"cat": SQUARE, "dog": RIGHT, "bird": (60, 2, 70, 9)}, {"cat": WIDE}, {"dog": TALL}]
    plain = curated(tmp_path, coco(tmp_path, scenes), config=ALL_TRAIN)
    found = match(plain, {CAT: [thing(1), thing(2)], DOG: [thing(1, 1), thing(3)]}, ALL_TRAIN)
    assert shown(crosses(found)[f"cross/{image(1)}"]).keys() == {CAT, DOG}
    assert len(samples(found)[f"image/{image(1)}"]["subjects"]) == 3
    few = match(plain, {CAT: [thing(1), thing(2)]}, ALL_TRAIN)
    assert crosses(few) == {}
    assert ledger(few, "compose")["cross", image(1), 0] == "no_reference"


def test_references_lie_on_the_side_of_the_target(tmp_path):
    config = replace(ALL_TRAIN, split=replace(ALL_TRAIN.split, validation_share=0.5))
    dataset = match(curated(tmp_path, coco(tmp_path, SCENES * 3), config=config), _tripled(), config)
    sides = {row["image_id"]: row["split"] for row in dataset.read("splits").to_pylist()}
    assert set(sides.values()) == {"train", "validation"}
    found = crosses(dataset)
    assert found
    for sample in found.values():
        assert len({sides[picture["image_id"]] for picture in sample["pictures"]}) == 1
    count = dataset.counts("compose")["cross"]
    assert count.rejected["no_reference"] == count.input - count.kept == 9 - len(found)


def _tripled() -> dict[str, list[str]]:
    names = {"cat": [], "dog": [], "tie": []}
    for number, scene in enumerate(SCENES * 3, 1):
        for place, name in enumerate(scene):
            if name in names:
                names[name].append(thing(number, place))
    return {f"look/{min(members)}": members for members in names.values()}


def test_a_copy_is_neither_target_nor_reference(tmp_path):
    """Image 3 shows both subjects, and 2 is 1 again, byte for byte."""
    scenes = [{"cat": SQUARE, "dog": RIGHT}, {"cat": SQUARE, "dog": RIGHT}, {"cat": WIDE, "dog": TALL}]
    config = replace(ALL_TRAIN, dedup=replace(ALL_TRAIN.dedup, by=("bytes",)))
    source = coco(tmp_path, scenes)
    (tmp_path / "val2017/000000000002.jpg").write_bytes((tmp_path / "val2017/000000000001.jpg").read_bytes())
    plain = curated(tmp_path, source, config=config)
    (copied,) = (row["id"] for row in plain.read("duplicates").to_pylist() if row["kind"] == "image")
    kept = {row["object_id"] for row in plain.read("selection").to_pylist() if row["verdict"] == "keep"}
    assert {name.partition("#")[0] for name in kept} == {image(1), image(2), image(3)} - {copied}
    members = [{name for name in kept if name.endswith(end)} for end in ("0", "1")]
    found = crosses(match(plain, {f"look/{min(names)}": sorted(names) for names in members}, config))
    assert len(found) == 2
    for sample in found.values():
        assert copied not in [picture["image_id"] for picture in sample["pictures"]]


def test_a_member_that_was_not_kept_is_no_reference(tmp_path):
    """Groups that are older than the verdicts on their members, as `--only` leaves them."""
    dataset = crossed(tmp_path)
    tall = replace(ALL_TRAIN, select=replace(ALL_TRAIN.select, max_aspect=4.0))  # the cat of image 3 is 5 times as wide
    curate(dataset.url, tall, HERE, only="select", replace=True)
    curate(dataset.url, tall, HERE, only="compose", replace=True)
    left = Dataset(dataset.url)
    assert thing(3) not in {row["object_id"] for row in left.read("selection").to_pylist() if row["verdict"] == "keep"}
    assert shown(crosses(left)[f"cross/{image(1)}"])[CAT] == [(image(1), thing(1)), (image(2), thing(2))]


# -- choice of references --------------------------------------------------------------------------------------------


def test_references_are_those_whose_pose_differs_most_under_both_caps(dataset, tmp_path):
    out = Path(dataset.url)
    for per_subject, per_target, cats, dogs in (
        (1, 12, [thing(3)], [thing(4)]),
        (3, 2, [thing(3)], [thing(4)]),
        (3, 3, [thing(2), thing(3)], [thing(4)]),
    ):
        compose = replace(ALL_TRAIN.compose, references_per_subject=per_subject, references_per_target=per_target)
        curate(str(out), replace(ALL_TRAIN, compose=compose), HERE, names=FOLLOWS, replace=True)
        seen = shown(crosses(Dataset(str(out)))[f"cross/{image(1)}"])
        assert {one for _, one in seen[CAT][1:]} == set(cats), (per_subject, per_target)
        assert {one for _, one in seen[DOG][1:]} == set(dogs), (per_subject, per_target)
    none = replace(ALL_TRAIN, compose=replace(ALL_TRAIN.compose, references_per_subject=0))
    curate(str(out), none, HERE, names=FOLLOWS, replace=True)
    assert crosses(Dataset(str(out))) == {}
    assert "cross" not in Dataset(str(out)).counts("compose")
    curate(str(out), ALL_TRAIN, HERE, names=FOLLOWS, replace=True)
    with pytest.raises(ValueError, match="references_per_subject"):
        Compose(references_per_subject=-1)


def _bounded(dataset: Dataset, **pairs: Any) -> Dataset:
    curate(dataset.url, replace(ALL_TRAIN, pairs=Pairs(**pairs)), HERE, names=FOLLOWS, replace=True)
    return Dataset(dataset.url)


@pytest.fixture
def seen_alike(tmp_path) -> Dataset:
    """Cats nearer to each other than dogs, by made embeddings."""
    plain = curated(tmp_path, coco(tmp_path, SCENES, unit_size=2), config=ALL_TRAIN)
    angles = {thing(1): 0, thing(2): 10, thing(3): 60, thing(1, 1): 0, thing(4): 40, thing(5): 80}
    embed(plain, {name: (np.cos(np.radians(angle)), np.sin(np.radians(angle))) for name, angle in angles.items()})
    return match(plain, GROUPS, ALL_TRAIN)


def test_bounds_hold_for_every_pair_of_target_and_reference(seen_alike):
    name = f"cross/{image(1)}"
    both = _bounded(seen_alike, min_mean_similarity=0.4, max_mean_similarity=0.9)
    assert {key: [one for _, one in sights[1:]] for key, sights in shown(samples(both)[name]).items()} == {
        CAT: [thing(3)],
        DOG: [thing(4)],
    }
    assert "pairs inside bounds" in samples(both)[name]["why"]
    poses = _bounded(seen_alike, min_pose_change=0.6)
    assert name not in samples(poses)
    assert ledger(poses, "compose")["cross", image(1), 0] == "too_alike"
    assert poses.counts("balance")["cross"].rejected["too_alike"] >= 1
    assert verify(poses).sound
    free = _bounded(seen_alike)
    assert len(shown(samples(free)[name])[CAT]) == 3


def test_caps_know_the_kind(seen_alike):
    config = replace(ALL_TRAIN, balance=Balance(caps={"kind/cross": 1}))
    curate(seen_alike.url, config, HERE, names=FOLLOWS, replace=True)
    capped = Dataset(seen_alike.url)
    assert len(crosses(capped)) == 1
    assert Counter(key[0] for key, reason in ledger(capped, "compose").items() if reason == "over_cap") == {"cross": 2}


# -- tracks and faces ------------------------------------------------------------------------------------------------


def test_tracks_of_other_frames_are_references_of_a_still(tmp_path):
    boxes = [SQUARE, WIDE, FLAT, TALL]
    source = ytvis(tmp_path, {"v": {"cat": boxes, "dog": [RIGHT, None, (60, 40, 90, 60), RIGHT]}})
    config = composing(frames_per_sample=2, samples_per_video=1, references_per_subject=2)
    found = samples(curated(tmp_path, source, config=config))
    (sample,) = (row for row in found.values() if row["kind"] == "cross")
    assert {f"image/{sample['pictures'][0]['image_id']}"} == {name for name in found if name.startswith("image/")}
    assert {subject["subject_id"] for subject in sample["subjects"]} == {"ytvis/v#1", "ytvis/v#2"}
    assert all(subject["track_id"] == subject["subject_id"] for subject in sample["subjects"])


def test_faces_of_a_group_photograph_have_portraits_as_references(tmp_path):
    """Two portraits and a photograph of both, whole pictures all; nobody is drawn out of the group photograph."""
    config = composing(min_face_px=20)
    dataset = curated(
        tmp_path, Subjects(directory=str(folders(tmp_path / "s", {"a": 1, "b": 1, "both": 1}))), config=config
    )
    left, right, both = (f"subjects/{name}/00.jpg" for name in ("a", "b", "both"))
    faces = [
        (left, f"{left}#whole", [10.0, 10, 60, 60]),
        (right, f"{right}#whole", [12.0, 10, 60, 60]),
        (both, f"{both}#whole", [2.0, 10, 32, 40]),
        (both, f"{both}#whole", [42.0, 10, 72, 40]),
    ]
    with_faces(dataset, *faces)
    people = {
        f"identity/{left}#whole": [f"{left}#whole", f"{both}@2"],
        f"identity/{right}#whole": [f"{right}#whole", f"{both}@3"],
    }
    found = match(dataset, people, config)
    sample = crosses(found)[f"cross/{both}"]
    assert shown(sample) == {
        f"identity/{left}#whole": [(both, None), (left, f"{left}#whole")],
        f"identity/{right}#whole": [(both, None), (right, f"{right}#whole")],
    }
    for subject in sample["subjects"]:
        assert (subject["role"], subject["identity"], subject["kind"]) == ("person", subject["subject_id"], "face")
        assert subject["pair_pose_change"] == [None]
        assert all(one["face"] is not None for one in subject["appearances"])


# -- what is said of a subject ---------------------------------------------------------------------------------------


def test_subjects_of_all_kinds_name_their_groups_and_roles(dataset):
    found = samples(dataset)
    for sample in found.values():
        for subject in sample["subjects"]:
            names = {one["object_id"] for one in subject["appearances"]}
            looks = {group for group, members in GROUPS.items() if names & set(members)}
            assert subject["look"] == (looks.pop() if looks else None), sample["sample_id"]
            assert subject["identity"] is None
            assert subject["role"] == ("clothes" if subject["category"] == "tie" else "object")
    assert found[f"image/{image(6)}"]["subjects"][0]["look"] is None
    assert {row["target"] for row in found.values() if row["kind"] != "cross"} == {None}
    assert {picture["role"] for row in found.values() if row["kind"] != "cross" for picture in row["pictures"]} == {
        None
    }


def test_pose_change_of_pairs_is_that_of_groups(dataset):
    for sample in samples(dataset).values():
        for subject in sample["subjects"]:
            seen = subject["appearances"]
            if len(seen) == 1:
                assert subject["pair_pose_change"] is None
                continue
            wanted = [
                _change(seen[i]["mask"], seen[j]["mask"]) for i in range(len(seen)) for j in range(i + 1, len(seen))
            ]
            assert subject["pair_pose_change"] == pytest.approx(wanted, abs=2e-3), sample["sample_id"]


def _change(one: masks.Mask, other: masks.Mask) -> float:
    """1 - IoU of two filled boxes whose longer sides fill one square of 32 cells, laid middle on middle."""
    sides = []
    for mask in (one, other):
        x0, y0, x1, y1 = masks.tight_boxes([mask])[0].tolist()
        longer = max(x1 - x0, y1 - y0)
        sides.append((max(1, round((y1 - y0) * 32 / longer)), max(1, round((x1 - x0) * 32 / longer))))
    cells = np.zeros((2, 32, 32), bool)
    for place, (height, width) in enumerate(sides):
        top, left = (32 - height) // 2, (32 - width) // 2
        cells[place, top : top + height, left : left + width] = True
    return 1 - float((cells[0] & cells[1]).sum() / (cells[0] | cells[1]).sum())


def test_what_is_beside_a_groups_members_is_one_subject_where_groups_know_it(tmp_path):
    """Cat and dog are on both images; the group of the cat shows the dog as one subject, the bird as two."""
    scenes = [
        {"cat": SQUARE, "dog": RIGHT, "bird": (60, 2, 70, 9)},
        {"cat": WIDE, "dog": TALL, "bird": (5, 70, 20, 78)},
    ]
    plain = curated(tmp_path, coco(tmp_path, scenes), config=ALL_TRAIN)
    found = samples(match(plain, {CAT: [thing(1), thing(2)], DOG: [thing(1, 1), thing(2, 1)]}, ALL_TRAIN))
    for name, other in ((CAT, DOG), (DOG, CAT)):
        seen = shown(found[f"group/{name}"])
        assert {key: len(sights) for key, sights in seen.items()} == {
            name: 2,
            other: 2,
            thing(1, 2): 1,
            thing(2, 2): 1,
        }


def test_the_face_of_an_appearance_has_what_the_face_model_said(tmp_path):
    plain = curated(tmp_path, coco(tmp_path, SCENES[:1]), config=ALL_TRAIN)
    said = {"pose": [4.0, -20.5, 1.0], "sharpness": 12.5, "embedding": [0.6, -0.8]}
    with_faces(plain, (image(1), thing(1), [15, 15, 40, 40]), **said)
    curate(plain.url, ALL_TRAIN, HERE)
    cat = next(one for one in samples(Dataset(plain.url))[f"image/{image(1)}"]["subjects"] if one["category"] == "cat")
    face = cat["appearances"][0]["face"]
    assert (face["pose"], face["sharpness"]) == (said["pose"], said["sharpness"])
    assert face["embedding"] == [float(np.float16(value)) for value in said["embedding"]]
    with_faces(plain, (image(1), thing(1), [15, 15, 40, 40]))
    curate(plain.url, ALL_TRAIN, HERE)
    cat = next(one for one in samples(Dataset(plain.url))[f"image/{image(1)}"]["subjects"] if one["category"] == "cat")
    assert {cat["appearances"][0]["face"][name] for name in ("embedding", "sharpness")} == {None}, "never made up"


# -- records with a direction ----------------------------------------------------------------------------------------


def _records(root: Path, records: list[tuple[str, list[str]]], config: Curation = LOOSE) -> list[dict[str, Any]]:
    return [
        row for row in samples(curated(root, easyref(root, records), config=config)).values() if row["kind"] == "group"
    ]


def test_the_target_of_a_record_stays_its_target(tmp_path):
    (sample,) = _records(tmp_path, [("b.jpg", ["a.jpg", "c.jpg"])])
    ids = [picture["image_id"] for picture in sample["pictures"]]
    assert ids == ["easyref/a.jpg", "easyref/b.jpg", "easyref/c.jpg"]
    assert sample["target"] == 1
    assert [picture["role"] for picture in sample["pictures"]] == ["reference", "target", "reference"]


def test_records_that_make_every_image_of_the_others_fix_no_target(tmp_path):
    """As EasyRef's own records do; two of three such records are two samples with a target each."""
    images = ["a.jpg", "b.jpg", "c.jpg"]
    every = [(name, [other for other in images if other != name]) for name in images]
    (sample,) = _records(tmp_path / "all", every)
    assert sample["target"] is None
    some = _records(tmp_path / "some", every[:2])
    assert sorted(sample["target"] for sample in some) == [0, 1]


def test_a_record_keeps_its_target_when_it_is_thinned(tmp_path):
    names = [f"{letter}.jpg" for letter in "abcdefghi"]
    (sample,) = _records(tmp_path, [("b.jpg", [n for n in names if n != "b.jpg"])], composing(max_pictures_per_group=3))
    assert len(sample["pictures"]) == 3
    assert sample["pictures"][sample["target"]]["image_id"] == "easyref/b.jpg"


def test_a_record_whose_target_was_not_kept_is_no_sample(tmp_path):
    """Two references are left, neither of which may be made of the other."""
    config = replace(LOOSE, dedup=replace(LOOSE.dedup, by=("bytes",)))
    source = easyref(tmp_path, [("z.jpg", ["a.jpg", "c.jpg"]), ("d.jpg", ["e.jpg"])])
    (tmp_path / "pictures/z.jpg").write_bytes((tmp_path / "pictures/e.jpg").read_bytes())
    dataset = curated(tmp_path, source, config=config)
    assert {row["id"] for row in dataset.read("duplicates").to_pylist() if row["kind"] == "image"} == {"easyref/z.jpg"}
    assert [reason for key, reason in ledger(dataset, "compose").items() if key[0] == "group"] == ["no_target"]
    (sample,) = samples(dataset).values()
    assert sample["pictures"][sample["target"]]["image_id"] == "easyref/d.jpg"
