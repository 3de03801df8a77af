"""Train and validation: nothing leaks, nothing moves, the source's own splits are followed where that makes sense."""

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from curating import LOOSE, coco, curated, easyref, folders, samples, ytvis
from helpers import HERE, ingest
from hypothesis import given, settings
from hypothesis import strategies as st
from refloom.curation.select.settings import Split

from refloom.curation.compose.samples import on_one_side
from refloom.curation.group.groups import group_unit
from refloom.curation.group.members import matched_units
from refloom.curation.job import curate
from refloom.curation.select.balance import Balance
from refloom.curation.select.split import Clusters, assign, split_of
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.schemas.verify import verify

CONFIG = Split(validation_share=0.3)

pictures = st.integers(0, 11).map(lambda number: f"coco/{number:03d}")
links = st.lists(st.lists(pictures, min_size=1, max_size=4), max_size=6)


def clustered(images: set[str], joined: list[list[str]]) -> Clusters:
    clusters = Clusters()
    for image in images:
        clusters.add(image)
    for group in joined:
        clusters.join(group)
    return clusters


def connected(images: set[str], joined: list[list[str]]) -> dict[str, set[str]]:
    """Image to everything that it is connected with, by walking."""
    neighbours: dict[str, set[str]] = {image: {image} for image in images}
    for group in joined:
        for one, two in pairwise(image for image in group if image in images):
            neighbours[one].add(two)
            neighbours[two].add(one)
    found = {}
    for image in images:
        reached, waiting = {image}, [image]
        while waiting:
            new = neighbours[waiting.pop()] - reached
            reached |= new
            waiting += new
        found[image] = reached
    return found


# -- clusters --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sets(pictures, min_size=1), links)
def test_clusters_are_the_connected_pictures_called_by_the_smallest_id(images, joined):
    clusters = clustered(images, joined)
    for image, together in connected(images, joined).items():
        assert clusters.name(image) == min(together)


@settings(deadline=None)
@given(st.sets(pictures, min_size=1), links, st.randoms(use_true_random=False))
def test_the_order_of_joining_does_not_matter(images, joined, random):
    shuffled = [random.sample(group, len(group)) for group in random.sample(joined, len(joined))]
    one, two = clustered(images, joined), clustered(images, shuffled)
    assert {image: one.name(image) for image in images} == {image: two.name(image) for image in images}


# -- leaks -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.dictionaries(pictures, st.sampled_from([None, "train", "val", "test"]), min_size=1),
    links,
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.booleans(),
)
def test_connected_pictures_are_on_one_side(source_splits, joined, share, follow):
    images = set(source_splits)
    sources = {image: f"source{int(image[-1]) % 2}" for image in images}
    config = Split(validation_share=share, follow_source=follow)
    splits = assign(clustered(images, joined), source_splits, sources, config)
    assert splits.keys() == images
    for together in connected(images, joined).values():
        assert len({splits[image] for image in together}) == 1


@settings(deadline=None)
@given(st.dictionaries(pictures, st.sampled_from([None, "train", "val", "test"]), min_size=1), links, st.booleans())
def test_the_sources_split_is_followed_where_its_train_split_is_here(source_splits, joined, follow):
    images = set(source_splits)
    sources = {image: f"source{int(image[-1]) % 2}" for image in images}
    clusters = clustered(images, joined)
    splits = assign(clusters, source_splits, sources, Split(validation_share=0.3, follow_source=follow))
    trained = {sources[image] for image in images if source_splits[image] == "train"}
    for together in connected(images, joined).values():
        held = any(source_splits[image] in ("val", "test") and sources[image] in trained for image in together)
        expected = "validation" if held and follow else split_of(min(together), CONFIG)
        assert {splits[image] for image in together} == {expected}


# -- growing, seeds, shares ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sets(pictures, min_size=1), links, st.sets(st.integers(12, 40), max_size=20), st.data())
def test_pictures_that_touch_nothing_known_move_nothing(images, joined, more, data):
    new = {f"coco/{number:03d}" for number in more}
    among = data.draw(st.lists(st.lists(st.sampled_from(sorted(new)), max_size=4), max_size=4)) if new else []
    before = assign(clustered(images, joined), dict.fromkeys(images), dict.fromkeys(images, "coco"), CONFIG)
    grown = images | new
    after = assign(clustered(grown, joined + among), dict.fromkeys(grown), dict.fromkeys(grown, "coco"), CONFIG)
    assert {image: after[image] for image in images} == before


def sides(config: Split, count: int = 2000) -> list[str]:
    return [split_of(f"coco/{number:012d}", config) for number in range(count)]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_share_is_about_right_on_two_thousand_clusters(share):
    found = sides(Split(validation_share=share)).count("validation") / 2000
    assert abs(found - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_shares_of_nothing_and_everything_are_exact():
    assert set(sides(Split(validation_share=0.0))) == {"train"}
    assert set(sides(Split(validation_share=1.0))) == {"validation"}


def test_a_larger_share_only_adds_to_a_smaller_one():
    small, large = sides(Split(validation_share=0.1)), sides(Split(validation_share=0.3))
    assert all(two == "validation" for one, two in zip(small, large, strict=True) if one == "validation")


def test_another_seed_is_another_split_that_has_nothing_to_do_with_the_first():
    one, two = sides(Split(validation_share=0.3)), sides(Split(validation_share=0.3, seed=1))
    both = sum(a == b == "validation" for a, b in zip(one, two, strict=True)) / 2000
    assert both == pytest.approx(0.09, abs=0.03)
    assert one == sides(Split(validation_share=0.3))


# -- datasets --------------------------------------------------------------------------------------------------------

SCENES = [{"cat": (10, 10, 50, 50)}] * 6
MOVING = {f"v{number}": {"cat": [(10, 10, 50, 50)] * 3, "dog": [(30, 30, 80, 70)] * 3} for number in range(6)}


def with_split(**settings: Any) -> Any:
    return replace(LOOSE, split=Split(**settings))


def splits(dataset: Dataset) -> dict[str, str]:
    rows = dataset.read("splits").to_pylist()
    found = {row["image_id"]: row["split"] for row in rows}
    assert found.keys() == set(dataset.read("images", ["image_id"])["image_id"].to_pylist())
    counts = dataset.counts("split")["image"]
    assert counts.input == counts.kept == len(rows)
    return found


@pytest.mark.parametrize("min_quality", [0.0, 1.0])
def test_videos_folders_and_records_stay_together_across_units(tmp_path, min_quality):
    """Also where no object was kept, so that there are no groups."""
    config = with_split(validation_share=0.4)
    bounds = replace(config.select, min_quality=min_quality, min_whole_quality=min_quality)
    rng = random.Random(0)
    names = [f"{number:02d}.jpg" for number in range(24)]
    records = [(rng.choice(names), rng.sample(names, 1)) for _ in range(14)]
    subjects = folders(tmp_path / "subjects", {f"thing{number}": 3 for number in range(6)})
    dataset = curated(
        tmp_path,
        ytvis(tmp_path / "videos", MOVING, unit_size=2),
        easyref(tmp_path / "records", records, unit_size=5),
        Subjects(directory=str(subjects), unit_size=3),
        config=replace(config, select=bounds),
        until="split",
    )
    assert bool(dataset.read("groups", ["group_id"]).num_rows) == (min_quality == 0)
    found = splits(dataset)
    joined = [row["members"] for row in dataset.read("source_groups", ["members"]).to_pylist()]
    assert len(joined) == 6 + 14
    joined += [[f"ytvis/{video}/{frame:05d}" for frame in (0, 5, 10)] for video in MOVING]
    clusters = {frozenset(together) for together in connected(set(found), joined).values()}
    assert {frozenset(found[image] for image in together) for together in clusters} == {
        frozenset({"train"}),
        frozenset({"validation"}),
    }
    rows = dataset.read("splits").to_pylist()
    assert all(row["cluster"] == min(connected(set(found), joined)[row["image_id"]]) for row in rows)


def test_val_pictures_are_validation_if_the_train_split_is_in_the_dataset(tmp_path):
    train, val = coco(tmp_path, SCENES, split="train"), coco(tmp_path, SCENES, split="val", first=101)
    found = splits(curated(tmp_path, train, val, config=with_split(validation_share=0.0), until="split"))
    assert {image for image, side in found.items() if side == "validation"} == {
        f"coco/{number:012d}" for number in range(101, 107)
    }


def test_val_pictures_alone_are_split_like_any_others(tmp_path):
    val = coco(tmp_path, SCENES, split="val")
    assert set(splits(curated(tmp_path, val, config=with_split(validation_share=0.0), until="split")).values()) == {
        "train"
    }


def test_the_train_split_of_another_source_does_not_count(tmp_path):
    train, val = ytvis(tmp_path / "videos", MOVING, split="train"), coco(tmp_path, SCENES, split="val")
    found = splits(curated(tmp_path, train, val, config=with_split(validation_share=0.0), until="split"))
    assert set(found.values()) == {"train"}


def test_the_sources_split_is_not_followed_if_one_does_not_want_it(tmp_path):
    train, val = coco(tmp_path, SCENES, split="train"), coco(tmp_path, SCENES, split="val", first=101)
    config = with_split(validation_share=0.0, follow_source=False)
    assert set(splits(curated(tmp_path, train, val, config=config, until="split")).values()) == {"train"}


def test_another_source_moves_nothing(tmp_path):
    config = with_split(validation_share=0.4)
    before = splits(curated(tmp_path, ytvis(tmp_path / "videos", MOVING), config=config, until="split"))
    assert set(before.values()) == {"train", "validation"}
    ingest(coco(tmp_path, SCENES), tmp_path / "data")
    curate(str(tmp_path / "data"), config, HERE, until="split")
    after = splits(Dataset(str(tmp_path / "data")))
    assert len(after) == len(before) + len(SCENES)
    assert {image: after[image] for image in before} == before


# -- looks -----------------------------------------------------------------------------------------------------------


def test_looks_tie_no_pictures_and_their_samples_keep_the_side_of_most(tmp_path):
    """Else pictures of all that looks alike, over enough pictures nearly all, would be on one side."""
    config = with_split(validation_share=0.3)
    plain = curated(tmp_path, coco(tmp_path, SCENES * 2, unit_size=5), config=config)
    before = splits(plain)
    assert set(before.values()) == {"train", "validation"}
    first, *others = plain.units()
    members = [f"coco/{number:012d}#{100 * number}" for number in range(1, 13)]
    with UnitWriter(plain.folder, UnitKey("match", first, "made")) as out:
        out.expect("group")
        out.add("matches", {"group_id": "look/all", "kind": "look", "members": members, "units": others})
        out.keep("group")
    plain.refresh()
    with UnitWriter(plain.folder, UnitKey("group", first, "made")) as out:
        group_unit(plain, first, matched_units(plain, first), config.group, out)
    for stage in ("split", "balance", "compose"):
        limited = replace(config, balance=Balance(max_per_kind=20))
        curate(plain.url, limited, HERE, only=stage, replace=True)
    dataset = Dataset(plain.url)
    assert splits(dataset) == before
    row = samples(dataset)["group/look/all"]
    shown = {picture["image_id"] for picture in row["pictures"]}
    (side,) = {before[image] for image in shown}
    assert shown == {image for image, other in before.items() if other == side}
    apart = 12 - len(shown)
    assert len(shown) > apart > 0
    assert row["why"].startswith(f"look group of {len(shown)}, without {apart} on the other side of the split")
    assert verify(dataset).sound


@pytest.mark.parametrize(
    ("sides", "stay"),
    [("tvt", "02"), ("vvt", "01"), ("vt", "0"), ("tt", "01"), ("?vt?v", "14"), ("??", ""), ("", "")],
)
def test_a_group_keeps_the_members_of_one_side(sides, stay):
    names = {"t": "train", "v": "validation"}
    known = {f"coco/{place}": names[side] for place, side in enumerate(sides) if side in names}
    group = on_one_side({"members": [f"coco/{place}#1" for place in range(len(sides))]}, known)
    assert group["members"] == [f"coco/{place}#1" for place in stay]
    assert group["apart"] == len(sides) - len(stay)
