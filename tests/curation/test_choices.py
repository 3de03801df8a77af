"""Choices from end to end: what is listed is composed, and what a limit or a bound leaves out is accounted for."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import curatedata
import pytest
from curating import LOOSE, coco, composing, curated, easyref, embed, folders, samples, with_faces, ytvis
from helpers import HERE, ledger

from refloom.curation.config import Curation
from refloom.curation.group.bounds import Pairs
from refloom.curation.job import curate
from refloom.curation.select.balance import Balance
from refloom.curation.select.candidates import list_candidates
from refloom.curation.select.settings import Split
from refloom.ingest.sources.subjects import Subjects
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify

CONFIG = replace(
    composing(frames_per_sample=2, samples_per_video=2, images_per_video=0), split=Split(validation_share=0.4)
)
STILL = [(10, 10, 50, 50)] * 4
MOVING = [(10, 10, 50, 50), (20, 10, 40, 60), (0, 30, 90, 50), (30, 0, 40, 70)]
SCENES = [{"cat": (10, 10, 50, 50)}, {"dog": (40, 20, 90, 70)}, {}] * 4
VIDEOS = {
    "still": {"cat": STILL},
    "moving": {"cat": MOVING},
    "both": {"cat": STILL, "dog": MOVING},
    "once": {"cat": STILL[:1]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Pictures in four units, videos, folders and records, curated without limits."""
    root = tmp_path_factory.mktemp("choices")
    curated(
        root,
        coco(root / "coco", SCENES, unit_size=3),
        ytvis(root / "ytvis", VIDEOS),
        Subjects(directory=str(folders(root / "subjects", {"vase": 3, "lamp": 1, "cup": 2}))),
        easyref(root / "records", [("a.jpg", ["b.jpg"]), ("c.jpg", ["b.jpg", "d.jpg"])], unit_size=2),
        config=CONFIG,
    )
    return root / "data"


@pytest.fixture
def out(made, tmp_path) -> Path:
    return curatedata.copy(made, tmp_path)


def again(out: Path, **sections: Any) -> Dataset:
    curate(str(out), replace(CONFIG, **sections), HERE, replace=True)
    return Dataset(str(out))


def composed(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "manifests/compose").iterdir()}


def test_the_candidates_are_what_samples_are_made_of(made):
    dataset = Dataset(str(made))
    found = {one.sample_id: one for rows in list_candidates(dataset, CONFIG.compose, Pairs()).values() for one in rows}
    assert found.keys() == samples(dataset).keys()
    assert Counter(one.kind for one in found.values()) == {"image": 9, "video": 6, "group": 4}
    splits = {row["image_id"]: row["split"] for row in dataset.read("splits").to_pylist()}
    for name, sample in samples(dataset).items():
        one, first = found[name], sample["pictures"][0]
        assert (one.source, one.split) == (first["source"], splits[first["image_id"]])
        assert one.category == sample["subjects"][0]["category"], name
        if one.kind != "group":
            assert one.score == sample["scores"]["min_quality"]


def test_stills_of_videos_are_candidates_as_they_are_samples(out):
    config = replace(CONFIG, compose=replace(CONFIG.compose, images_per_video=2))
    curate(str(out), config, HERE, replace=True)
    dataset = Dataset(str(out))
    found = {one.sample_id: one for rows in list_candidates(dataset, config.compose, Pairs()).values() for one in rows}
    assert found.keys() == samples(dataset).keys()
    stills = {name for name, one in found.items() if one.kind == "image" and one.source == "ytvis"}
    assert len(stills) == 2
    assert all(name.startswith("image/ytvis/both/") for name in stills)


def test_a_picture_with_a_face_and_no_kept_object_is_a_candidate(tmp_path):
    config = replace(composing(min_face_px=20), select=replace(LOOSE.select, min_area_share=0.9))
    dataset = curated(tmp_path, coco(tmp_path, [{"cat": (10, 10, 50, 50)}]), config=config)
    with_faces(dataset, ("coco/000000000001", None, [15, 15, 40, 40]))
    (rows,) = list_candidates(dataset, config.compose, Pairs()).values()
    assert [one.sample_id for one in rows] == ["image/coco/000000000001"]


def test_without_limits_nothing_is_listed_and_with_one_that_nothing_reaches_samples_are_the_same(out):
    before = Dataset(str(out))
    assert before.read("choices").num_rows == 0
    stamps, fingerprint = composed(out), before.fingerprint("samples")
    dataset = again(out, balance=Balance(max_per_source=100), pairs=Pairs(min_pose_change=0.0))
    assert dataset.read("choices").num_rows == 0
    assert (composed(out), dataset.fingerprint("samples")) == (stamps, fingerprint)


def test_what_is_over_a_cap_is_in_the_ledger_and_what_stays_says_why(out):
    dataset = again(out, balance=Balance(max_per_source=3, caps={"source/ytvis": 2}))
    found = samples(dataset)
    assert Counter(row["pictures"][0]["source"] for row in found.values()) == {
        "coco": 3,
        "ytvis": 2,
        "subjects": 3,
        "easyref": 2,
    }
    reasons = Counter(ledger(dataset, "compose").values())
    assert reasons["over_cap"] == 5 + 4
    for stage in ("balance", "compose"):
        for counts in dataset.counts(stage).values():
            assert counts.balanced
    assert sum(counts.rejected["over_cap"] for counts in dataset.counts("balance").values()) == reasons["over_cap"]
    for name, row in found.items():
        limited = row["pictures"][0]["source"] in ("coco", "ytvis")
        assert ("drawn at 0." in row["why"] and "under a limit on source/" in row["why"]) == limited, name
    assert verify(dataset).sound


def test_another_cap_composes_only_units_that_change(out):
    limited = again(out, balance=Balance(max_per_source=3))
    before, kept = composed(out), set(samples(limited))
    wider = again(out, balance=Balance(max_per_source=4))
    new = set(samples(wider)) - kept
    assert len(new) == 2  # of the two sources with more than three
    assert kept < set(samples(wider))
    changed = {name for name, data in composed(out).items() if before[name] != data}
    assert len(changed) == 2


def test_limits_are_the_same_however_pictures_are_cut_into_units(tmp_path):
    config = replace(CONFIG, balance=Balance(max_per_source=4))
    one, many = (
        set(samples(curated(tmp_path / str(size), coco(tmp_path / str(size), SCENES, unit_size=size), config=config)))
        for size in (100, 2)
    )
    assert one == many
    assert len(one) == 4


def test_other_limits_are_refused_by_name_without_replace(out):
    with pytest.raises(Refused, match=r"balance\.max_per_source: None -> 3"):
        curate(str(out), replace(CONFIG, balance=Balance(max_per_source=3)), HERE)


# -- bounds on pairs -------------------------------------------------------------------------------------------------


def test_a_video_goes_if_all_that_is_seen_in_it_twice_stands_still(out):
    dataset = again(out, pairs=Pairs(min_pose_change=0.1))
    left = {name.split("/")[2] for name in samples(dataset) if name.startswith("video/")}
    assert left == {"moving", "both"}
    gone = {key[1] for key, reason in ledger(dataset, "compose").items() if reason == "too_alike"}
    assert gone == {"ytvis/still/0", "ytvis/still/1"}
    scores = {row["group_id"]: row["pose_change"] for row in dataset.read("groups").to_pylist()}
    assert scores["track/ytvis/still#1"] == 0, "the scores of what was rejected stay"
    assert verify(dataset).sound


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Pairs(max_mean_similarity=0.9), "too_alike"),
        (Pairs(min_mean_similarity=0.99), "too_different"),
        (Pairs(min_mean_similarity=0.9, max_mean_similarity=0.99), None),
    ],
)
def test_similarity_is_bounded_on_both_sides_and_what_is_not_known_breaks_nothing(tmp_path, bounds: Pairs, reason):
    source = Subjects(directory=str(folders(tmp_path / "subjects", {"vase": 2, "cup": 2})))
    dataset = curated(tmp_path, source, config=CONFIG, until="select")
    embed(dataset, {f"subjects/vase/{n:02d}.jpg#whole": vector for n, vector in enumerate([(1, 0), (0.95, 0.312)])})
    curate(dataset.url, replace(CONFIG, pairs=bounds), HERE)
    vase, cup = ("group", "folder/subjects/vase/00.jpg#whole", 0), ("group", "folder/subjects/cup/00.jpg#whole", 0)
    found = ledger(Dataset(dataset.url), "compose")
    assert found.get(vase) == reason
    assert cup not in found


def test_moving_a_limit_decodes_nothing_and_loads_no_model(out, monkeypatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("nothing may be looked at")

    monkeypatch.setattr("refloom.schemas.pictures.decode", refuse)
    monkeypatch.setattr("refloom.inference.models.entry.Entry.load", refuse)
    dataset = again(out, balance=Balance(max_samples=5), pairs=Pairs(min_pose_change=0.2))
    assert len(samples(dataset)) == 5


def test_bounds_and_limits_are_off_by_default():
    assert not Curation().balance.is_set
    assert not Curation().pairs.is_set
