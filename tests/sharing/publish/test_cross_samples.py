"""Cross samples in publications and takedowns: what goes, what shrinks, what is never shared of faces."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from crossing import CAT, DOG, crossed, crosses, image, shown, thing
from curating import samples, with_faces
from helpers import HERE
from publishing import rows

from refloom.curation.job import curate
from refloom.curation.mend import settings_of
from refloom.schemas import tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.verify import verify
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.redaction import Redaction
from refloom.sharing.publish.removal import remove
from refloom.sharing.publish.smaller import smaller_sample, smaller_source_group
from refloom.sharing.publish.takedown import Takedown

NAME = f"cross/{image(1)}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Of three units; nothing changes it."""
    return crossed(tmp_path_factory.mktemp("published"), unit_size=2)


def published(dataset: Dataset, dest: Path, *ids: str, **options: Any) -> dict[str, dict[str, Any]]:
    accepted = tuple({row["license"] or "none" for row in dataset.read("images", ["license"]).to_pylist()})
    publish(dataset, str(dest), Publish(tables=("all",), accept_licenses=accepted, takedown=ids, **options))
    return {row["sample_id"]: row for row in rows(dest, "samples")}


def test_a_target_takes_its_sample_along(dataset, tmp_path):
    assert NAME in published(dataset, tmp_path / "all")
    left = published(dataset, tmp_path / "less", image(1))
    assert NAME not in left
    assert f"cross/{image(5)}" in left, "where the target was a reference others are left"
    assert image(1) not in str(left)


def test_a_reference_goes_and_the_sample_stays_while_two_subjects_have_one(dataset, tmp_path):
    before = crosses(dataset)[NAME]
    after = published(dataset, tmp_path / "one", image(2))[NAME]
    assert (after["target"], after["pictures"][0]["role"]) == (0, "target")
    names = dict(zip(shown(before), shown(after), strict=True))
    cat, dog = (shown(after)[names[name]] for name in (CAT, DOG))
    assert cat == [(image(1), thing(1)), (image(3), thing(3))]
    assert dog == shown(before)[DOG]
    for subject in after["subjects"]:
        count = len(subject["appearances"])
        assert len(subject["pair_pose_change"]) == count * (count - 1) // 2
        assert subject["look"] == subject["subject_id"], "the group is called anew wherever it is named"
    assert NAME not in published(dataset, tmp_path / "two", image(2), image(3)), "one subject is left"


def test_a_removal_reaches_cross_samples_and_counts_them(tmp_path):
    dataset = crossed(tmp_path, unit_size=2)
    remove(dataset.url, [image(4), f"cross/{image(5)}"])
    left = Dataset(dataset.url)
    assert crosses(left).keys() == {NAME, f"cross/{image(3)}"}
    assert image(4) not in str([{key: row[key] for key in row if key != "images"} for row in samples(left).values()])
    assert verify(left).sound
    assert left.counts("compose")["cross"].balanced
    curate(left.url, settings_of(left), HERE, names={"group", "split", "balance", "compose"})
    again = Dataset(left.url)
    assert crosses(again).keys() == {NAME, f"cross/{image(3)}"}, "a sample that was taken down is not made anew"


def test_choices_lose_references_that_go():
    schema = tables.TABLES["choices"].schema
    names = ["cross/a/1", "cross/a/2", "cross/a/3"]
    held = [{"sample_id": name, "verdict": "keep", "why": "x", "references": ["a/2#1", "a/4@0"]} for name in names[:2]]
    batch = pa.RecordBatch.from_pylist([*held, {"sample_id": names[2], "verdict": "keep", "why": "x"}], schema)
    kept = Redaction(Publish(), Takedown(ids=1, images=frozenset({"a/2"}))).apply("choices", batch).to_pylist()
    assert [(row["sample_id"], row["references"]) for row in kept] == [("cross/a/1", ["a/4@0"]), ("cross/a/3", None)]


def test_what_a_model_says_of_faces_is_published_where_it_is_asked_for(tmp_path):
    dataset = crossed(tmp_path)
    said = {"pose": [4.0, -20.5, 1.0], "sharpness": 12.5, "embedding": [0.6, -0.8]}
    with_faces(dataset, (image(1), thing(1), [15, 15, 40, 40]), (image(2), thing(2), [15, 15, 30, 30]), **said)
    curate(dataset.url, settings_of(dataset), HERE, names={"group", "split", "balance", "compose"})
    dataset = Dataset(dataset.url)

    def faces(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        seen = [one for row in found.values() for subject in row["subjects"] for one in subject["appearances"]]
        return [one["face"] for one in seen if one["face"] is not None]

    own = faces(samples(dataset))
    assert own
    assert all(face[name] is not None for face in own for name in said)
    without = published(dataset, tmp_path / "out")
    assert [{name: face[name] for name in said} for face in faces(without)] == [dict.fromkeys(said)] * len(own)
    assert sorted(face["box"] for face in faces(without)) == sorted(face["box"] for face in own)
    rest = {name: [one["mask"] for s in row["subjects"] for one in s["appearances"]] for name, row in without.items()}
    assert rest == {
        name: [one["mask"] for s in row["subjects"] for one in s["appearances"]]
        for name, row in samples(dataset).items()
    }
    assert sorted(map(str, faces(published(dataset, tmp_path / "with", face_embeddings=True)))) == sorted(map(str, own))


def test_targets_and_instructions_are_counted_anew_and_false_ones_go():
    def appearance(picture: int) -> dict[str, Any]:
        return {"picture": picture, "object_id": f"a/{picture}#1", "quality": 0.5}

    row = {
        "sample_id": "group/folder/a/0#whole~x",
        "kind": "group",
        "why": "folder group of 4",
        "scores": {"mip_s": None, "min_quality": 0.5, "named": [{"name": "x", "value": 1.0, "model": "y"}]},
        "target": 3,
        "instructions": [
            {"text": "image 1 beside image 2", "from": "source", "references": [1, 2]},
            {"text": "image 1", "from": "source", "references": [0]},
        ],
        "pictures": [{"image_id": f"a/{index}"} for index in range(4)],
        "subjects": [
            {
                "subject_id": "folder/a/0#whole~x",
                "mentions": [],
                "appearances": [appearance(place) for place in range(4)],
                "similarity": None,
                "pair_pose_change": [0.1, 0.2, 0.3, 0.4, None, 0.6],
                "identity": "identity/a/0#whole",
                "look": None,
            }
        ],
    }
    names = {"folder/a/0#whole~x": "folder/a/1#whole~12345678", "identity/a/0#whole": "identity/a/1#whole~87654321"}
    taken = Takedown(ids=1, images=frozenset({"a/0"}), renamed=names)
    after = smaller_sample(row, taken)
    assert after is not None
    assert (after["target"], after["scores"]["named"]) == (2, [])
    assert after["instructions"] == [{"text": "image 1 beside image 2", "from": "source", "references": [0, 1]}]
    (subject,) = after["subjects"]
    assert subject["pair_pose_change"] == [0.4, None, 0.6]
    assert subject["identity"] == "identity/a/1#whole~87654321"
    gone = Takedown(ids=1, images=frozenset({"a/0"}), renamed=names, dissolved=frozenset({"identity/a/0#whole"}))
    assert (smaller_sample(row, gone) or {})["subjects"][0]["identity"] is None
    assert smaller_sample(row, Takedown(ids=1, images=frozenset({"a/3"}))) is None, "nothing else may be made"


def test_a_record_without_its_target_is_no_group_of_the_source():
    said = {"instructions": None, "scores": None, "source_json": None}
    row = {"group_id": "x", "kind": "record", "members": ["a/1", "a/2", "a/3"], "target": "a/1", "texts": []} | said
    assert smaller_source_group(row, Takedown(images=frozenset({"a/1"}))) is None
    left = smaller_source_group(row, Takedown(images=frozenset({"a/2"})))
    assert left is not None
    assert (left["members"], left["target"]) == (["a/1", "a/3"], "a/1")
