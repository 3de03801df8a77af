"""Takedowns: no trace of an id in any cell, samples and groups that shrink by their rules, numbers only in the card."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curatedata import curated
from helpers import ingest, write_coco
from publishing import ALL, build, rows

from refloom.ingest.sources.coco import Coco
from refloom.schemas import tables
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.redaction import Redaction
from refloom.sharing.publish.smaller import smaller_sample
from refloom.sharing.publish.takedown import Takedown, read, resolve


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return Path(build(tmp_path_factory.mktemp("takedown"), count=6).url)


@pytest.fixture
def dataset(made) -> Dataset:
    return Dataset(str(made))


def traces(root: Path, name: str) -> list[str]:
    """Every cell of every table, and every text, that holds an id: not as a part of a longer name."""
    pattern = re.compile(re.escape(name) + r"(?![0-9A-Za-z_.-])")
    found = []

    def walk(value: Any, where: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{where}.{key}")
        elif isinstance(value, list):
            for inner in value:
                walk(inner, where)
        elif isinstance(value, str) and pattern.search(value):
            found.append(f"{where}: {value}")

    for path in root.rglob("*"):
        if path.suffix == ".parquet":
            walk(pq.ParquetFile(path).read().to_pylist(), str(path.relative_to(root)))
            walk(json.dumps(str(pq.read_schema(path).metadata)), str(path.relative_to(root)))
        elif path.is_file():
            walk(path.read_text("utf-8"), str(path.relative_to(root)))
    return found


def published(dataset: Dataset, dest: Path, *ids: str, **options: Any) -> dict[str, Any]:
    accepted = tuple({row["license"] or "none" for row in dataset.read("images", ["license"]).to_pylist()})
    wanted = Publish(tables=("all",), accept_licenses=accepted, takedown=ids, **options)
    return publish(dataset, str(dest), wanted).manifest


def test_a_publication_has_traces_of_what_is_not_taken_down(dataset, tmp_path):
    publish(dataset, str(tmp_path / "out"), ALL)
    assert traces(tmp_path / "out", "coco/000000000002")  # so that the other tests can fail
    assert traces(tmp_path / "out", "ytvis/v1")


def test_a_picture_goes_from_every_table(dataset, tmp_path):
    published(dataset, tmp_path / "out", "coco/000000000002")
    assert traces(tmp_path / "out", "coco/000000000002") == []
    assert traces(tmp_path / "out", "000000000002.jpg") == []
    for table in ("images", "image_scores", "splits"):
        assert len(rows(tmp_path / "out", table)) == len(dataset.read(table)) - 1
    assert len(rows(tmp_path / "out", "samples")) == len(dataset.read("samples")) - 1


def test_a_frame_goes_out_of_its_video_sample(dataset, tmp_path):
    before = {row["sample_id"]: row for row in dataset.read("samples").to_pylist()}["video/ytvis/v1/0"]
    assert len(before["pictures"]) == 3
    gone = before["pictures"][1]["image_id"]
    manifest = published(dataset, tmp_path / "out", gone)
    assert traces(tmp_path / "out", gone) == []
    after = {row["sample_id"]: row for row in rows(tmp_path / "out", "samples")}["video/ytvis/v1/0"]
    assert [one["image_id"] for one in after["pictures"]] == [
        one["image_id"] for one in before["pictures"] if one["image_id"] != gone
    ]
    assert after["images"] == [before["images"][0], before["images"][2]]
    for old in before["subjects"]:
        boxes = {one["object_id"]: one["box"] for one in old["appearances"] if one["picture"] != 1}
        new = {one["subject_id"]: one for one in after["subjects"]}.get(old["subject_id"])
        assert (new is None) == (not boxes)
        if new is not None:
            assert {one["object_id"]: one["box"] for one in new["appearances"]} == boxes
            for one in new["appearances"]:
                assert after["pictures"][one["picture"]]["image_id"] == one["object_id"].split("#")[0]
            for one in new["mentions"]:
                caption = after["pictures"][one["picture"]]["captions"][one["caption"]]
                assert caption[one["start"] : one["end"]]
    counts = manifest["facts"]["left_out"]["rows"]
    assert counts["samples shrunk"] == 1
    assert counts["images dropped"] == 1
    text = (tmp_path / "out/README.md").read_text()
    assert "1 ids are on the list of this publication; they name 1 pictures." in text
    assert "| `samples` | kept without the pictures taken down | 1 |" in text


def redacted(names: list[str], takedown: Takedown, **options: Any) -> list[str]:
    """The rows of `choices` that are published."""
    schema = tables.TABLES["choices"].schema
    rows = [{"sample_id": name, "verdict": "keep", "why": "drawn at 0.1"} for name in names]
    batch = Redaction(Publish(**options), takedown).apply("choices", pa.RecordBatch.from_pylist(rows, schema))
    kept: list[str] = batch.column("sample_id").to_pylist()
    return kept


def test_choices_go_with_their_pictures_groups_and_samples():
    gone = ["image/coco/1", "group/look/coco/1#5", "video/ytvis/v1/0", "group/look/sa1b/3#1", "video/ytvis/v2/0"]
    stay = ["image/coco/2", "image/coco/10", "group/folder/easyref/a.jpg#whole~x", "video/ytvis/v2/1"]
    takedown = Takedown(
        ids=4,
        images=frozenset({"coco/1", "ytvis/v1/00005"}),
        groups=frozenset({"look/sa1b/3#1"}),
        samples=frozenset({"video/ytvis/v2/0"}),
    )
    assert redacted(gone + stay, takedown) == stay
    assert redacted(gone + stay, Takedown(), only_sources=("ytvis", "easyref")) == [
        name for name in gone + stay if "ytvis" in name or "easyref" in name
    ]


def test_a_sample_with_too_little_left_goes_whole(dataset, tmp_path):
    sample = {row["sample_id"]: row for row in dataset.read("samples").to_pylist()}["video/ytvis/v1/0"]
    published(dataset, tmp_path / "out", *(one["image_id"] for one in sample["pictures"][:2]))
    assert "video/ytvis/v1/0" not in {row["sample_id"] for row in rows(tmp_path / "out", "samples")}


def test_a_video_goes_with_all_of_its_frames_and_tracks(dataset, tmp_path):
    published(dataset, tmp_path / "out", "ytvis/v1")
    assert traces(tmp_path / "out", "ytvis/v1") == []
    assert traces(tmp_path / "out", "v1") == []
    assert traces(tmp_path / "out", "ytvis/v2")


def test_a_sample_goes_and_its_picture_stays(dataset, tmp_path):
    published(dataset, tmp_path / "out", "video/ytvis/v2/0")
    assert traces(tmp_path / "out", "video/ytvis/v2/0") == []
    assert len(rows(tmp_path / "out", "images")) == len(dataset.read("images"))


def test_a_source_url_takes_its_pictures_along(tmp_path):
    images, instances, _ = write_coco(tmp_path / "coco", 4)
    document = json.loads(instances.read_text())
    for image in document["images"]:
        image["flickr_url"] = f"https://example.org/{image['id'] // 2}"
    instances.write_text(json.dumps(document))
    dataset = ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data")
    urls = {row["image_id"]: row["source_url"] for row in dataset.read("images").to_pylist()}
    assert urls["coco/000000000002"] == urls["coco/000000000003"] == "https://example.org/1"
    published(dataset, tmp_path / "out", "https://example.org/1")
    assert {row["image_id"] for row in rows(tmp_path / "out", "images")} == {"coco/000000000001", "coco/000000000004"}
    assert traces(tmp_path / "out", "https://example.org/1") == []
    assert traces(tmp_path / "out", "coco/000000000003") == []


def test_groups_shrink_and_are_named_anew(tmp_path_factory, tmp_path):
    dataset = Dataset(str(curated(tmp_path_factory)))
    before = {row["sample_id"]: row for row in dataset.read("samples").to_pylist()}
    name = next(name for name, row in before.items() if row["kind"] == "group" and len(row["pictures"]) >= 4)
    sample = before[name]
    first = sample["pictures"][0]["image_id"]
    assert first in name
    published(dataset, tmp_path / "out", first)
    assert traces(tmp_path / "out", first) == []
    groups = {row["group_id"]: row for row in rows(tmp_path / "out", "groups")}
    after = next(
        row
        for row in rows(tmp_path / "out", "samples")
        if row["kind"] == "group" and row["pictures"][0]["image_id"] == sample["pictures"][1]["image_id"]
    )
    group = groups[after["sample_id"].removeprefix("group/")]
    assert group["min_similarity"] is None  # of all members, and nobody computed it anew
    assert first not in {member.split("#")[0] for member in group["members"]}
    (old,), (new,) = (
        [one for one in row["subjects"] if one["subject_id"] == row["sample_id"].removeprefix("group/")]
        for row in (sample, after)
    )
    count = len(old["appearances"])
    pairs = list(zip(*np.triu_indices(count, k=1), strict=True))
    expected = [value for (a, _), value in zip(pairs, old["similarity"], strict=True) if a > 0]
    assert new["similarity"] == pytest.approx(expected, abs=1e-3)
    source_groups = rows(tmp_path / "out", "source_groups")
    assert all(first not in row["members"] for row in source_groups)


def test_a_group_goes_with_the_pictures_of_its_members(tmp_path_factory, tmp_path):
    dataset = Dataset(str(curated(tmp_path_factory)))
    group = next(row for row in dataset.read("source_groups").to_pylist())
    published(dataset, tmp_path / "out", group["group_id"])
    assert traces(tmp_path / "out", group["group_id"]) == []
    for member in group["members"]:
        assert traces(tmp_path / "out", member) == []


def test_faces_embeddings_and_scores_of_a_picture_go_with_it(tmp_path_factory, tmp_path):
    dataset = Dataset(str(curated(tmp_path_factory)))
    face = dataset.read("faces", ["image_id"]).to_pylist()[0]["image_id"]
    published(dataset, tmp_path / "out", face)
    assert traces(tmp_path / "out", face) == []
    published(dataset, tmp_path / "none", face, images=False)
    assert traces(tmp_path / "none", face) == []


def test_ids_that_are_not_there_are_told(dataset):
    found = resolve(dataset, ["coco/000000000001", "coco/1", "nobody", "ytvis/v1", "image/coco/000000000002"])
    assert found.unknown == ("coco/1", "nobody")
    assert "coco/000000000001" in found.images
    assert len(found.images) == 7
    assert found.samples == {"image/coco/000000000002"}


def test_a_list_has_one_id_a_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# a comment\n\n a/b \na/b\neasyref/x.json#3\nc/d # asked for\ne/f\t# too\n")
    assert read(str(path)) == ("a/b", "easyref/x.json#3", "c/d", "e/f")
    with pytest.raises(Refused, match="cannot be read"):
        read(str(tmp_path / "absent"))


def test_nothing_left_is_refused(dataset, tmp_path):
    everything = tuple(dataset.read("images", ["image_id"])["image_id"].to_pylist())
    with pytest.raises(Refused, match="nothing is left"):
        published(dataset, tmp_path / "out", *everything)


def test_clusters_of_splits_are_named_after_pictures_that_stay(dataset, tmp_path):
    clusters: dict[str, list[str]] = {}
    for row in dataset.read("splits").to_pylist():
        clusters.setdefault(row["cluster"], []).append(row["image_id"])
    cluster, members = next((name, sorted(ids)) for name, ids in clusters.items() if len(ids) > 2)
    published(dataset, tmp_path / "out", cluster)
    after = {row["image_id"]: row["cluster"] for row in rows(tmp_path / "out", "splits")}
    assert {after[name] for name in members if name != cluster} == {min(set(members) - {cluster})}


def test_what_only_a_model_could_tell_again_becomes_null():
    def appearance(picture: int, quality: float) -> dict[str, Any]:
        return {"picture": picture, "object_id": f"a/{picture}#1", "quality": quality}

    row = {
        "sample_id": "group/identity/a/0#1",
        "kind": "group",
        "why": "identity group of 3",
        "scores": {"mip_s": 0.5, "min_quality": 0.1},
        "pictures": [{"image_id": f"a/{index}"} for index in range(3)],
        "subjects": [
            {
                "subject_id": "identity/a/0#1",
                "mentions": [{"picture": 2, "caption": 0, "start": 0, "end": 1}],
                "appearances": [appearance(0, 0.1), appearance(1, 0.7), appearance(2, 0.9)],
                "similarity": [0.1, 0.2, 0.3],
            },
            {"subject_id": "a/0#2", "mentions": [], "appearances": [appearance(0, 0.4)], "similarity": None},
        ],
    }
    taken = Takedown(ids=1, images=frozenset({"a/0"}), renamed={"identity/a/0#1": "identity/a/1#1~12345678"})
    after = smaller_sample(row, taken)
    assert after is not None
    assert after["sample_id"] == "group/identity/a/1#1~12345678"
    assert after["scores"] == {"mip_s": None, "min_quality": 0.7}
    assert after["why"] == "identity group of 3; 1 of its pictures taken down"
    (subject,) = after["subjects"]
    assert subject["subject_id"] == "identity/a/1#1~12345678"
    assert subject["similarity"] == [0.3]
    assert [one["picture"] for one in subject["appearances"]] == [0, 1]
    assert subject["mentions"] == [{"picture": 1, "caption": 0, "start": 0, "end": 1}]
    assert smaller_sample(row, Takedown(ids=1, images=frozenset({"a/0", "a/1"}))) is None
