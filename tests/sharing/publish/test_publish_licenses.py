"""Licenses: what each of them allows, and that pictures that may not be passed on are not."""

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers import HERE, ingest, sa1b_members, write_tar
from publishing import CONFIG, build, rows

from refloom.curation.job import curate
from refloom.ingest.sources.sa1b import Sa1b
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import publish
from refloom.sharing.publish.redistribution import check, terms


@pytest.mark.parametrize(
    ("source", "text", "permission"),
    [
        ("sa1b", "SA-1B Dataset Research License", "forbidden"),
        ("subject10k", "SA-1B Dataset Research License", "forbidden"),
        ("sa1b", None, "forbidden"),
        ("sa1b", "Apache-2.0", "allowed"),
        ("folder", "for non-commercial research purposes only", "forbidden"),
        ("folder", "All rights reserved", "forbidden"),
        ("coco", "Attribution-NonCommercial-ShareAlike License", "allowed"),
        ("coco", "No known copyright restrictions", "allowed"),
        ("coco", "CC BY-SA 4.0 (photograph `china`)", "allowed"),
        ("ytvis", None, "unknown"),
        ("folder", "ask me", "unknown"),
        ("folder", "  ", "unknown"),
    ],
)
def test_what_licenses_allow(source, text, permission):
    assert terms(source, text).permission == permission


def test_conditions_and_what_a_publisher_may_accept():
    assert terms("coco", "CC BY-NC-SA 4.0").conditions == ("attribution", "noncommercial", "share-alike")
    assert terms("coco", "Attribution-NoDerivs License").conditions == ("attribution", "no derivatives")
    assert terms("folder", "ask me", ("Ask me",)).permission == "accepted"
    assert terms("folder", None, ("none",)).permission == "accepted"
    assert (
        terms("sa1b", "SA-1B Dataset Research License", ("SA-1B Dataset Research License",)).permission == "forbidden"
    )


def test_refusals_name_sources_counts_and_remedies():
    pictures_of = Counter({("sa1b", "SA-1B Dataset Research License"): 7, ("folder", None): 3, ("coco", "CC0"): 5})
    with pytest.raises(Refused) as caught:
        check(pictures_of, ())
    for words in (
        "forbidden: sa1b, SA-1B Dataset Research License: 7 pictures",
        "unknown: folder, no license stated: 3 pictures",
        "--no-images",
        "--only-sources coco",
        "--accept-license",
    ):
        assert words in str(caught.value)
    check(Counter({("coco", "CC0"): 5, ("folder", None): 3}), ("none",))


def with_sa1b(root: Path) -> Dataset:
    dataset = build(root, count=3)
    ingest(Sa1b(tars=(str(write_tar(root / "sa_000000.tar", sa1b_members(range(1, 5), size=(96, 80)))),)), dataset.url)
    curate(dataset.url, CONFIG, HERE)
    return Dataset(dataset.url)


def test_bytes_of_sa1b_are_refused_and_nothing_is_left_behind(tmp_path):
    dataset = with_sa1b(tmp_path)
    with pytest.raises(Refused, match=r"sa1b, SA-1B Dataset Research License: \d pictures"):
        publish(dataset, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    publish(dataset, str(tmp_path / "free"), Publish(tables=("all",), only_sources=("coco",)))
    for table in ("images", "objects", "samples", "groups", "splits", "image_scores", "selection"):
        text = json.dumps(rows(tmp_path / "free", table), default=lambda value: "bytes")
        assert "sa1b" not in text
        assert "ytvis" not in text
    publish(dataset, str(tmp_path / "none"), Publish(tables=("all",), images=False))
    assert any(row["source"] == "sa1b" for row in rows(tmp_path / "none", "images"))
    for path in (tmp_path / "none").rglob("*.parquet"):
        assert b"\xff\xd8\xff" not in path.read_bytes()  # no JPEG is in there
    assert all(row["image"] is None and row["link"] is None for row in rows(tmp_path / "none", "images"))
    assert "| sa1b | SA-1B Dataset Research License | 4 | **no** | - |" in (tmp_path / "none/README.md").read_text()
