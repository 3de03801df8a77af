"""Directed records through curation: a sample with the record's pictures, instructions by place, and scores."""

from dataclasses import replace

import numpy as np
import pytest
from curating import LOOSE, curated, samples
from helpers import ledger
from pairfiles import diptych, drawn, subjects200k_row, write_images, write_lines, write_subjects200k

from refloom.curation.compose.records import by_group, said_of
from refloom.curation.group.directions import record_of
from refloom.ingest.sources.pairs.pairs import Pairs
from refloom.schemas.verify import verify


def record(text: str, references: list[str], target: str, **more: object) -> dict:
    return {"instruction": text, "input_images": references, "output_image": target, **more}


def made(root, records, names=("a.jpg", "b.jpg", "c.jpg", "d.jpg"), **options):
    write_images(root / "set", names)
    path = write_lines(root / "set" / "r.jsonl", records)
    return curated(root, Pairs(path=path, **options))


def by_record(dataset) -> dict[str, dict]:
    """What stands behind the `#` of a record to its sample."""
    return {sample_id.rpartition("%23")[2]: row for sample_id, row in samples(dataset).items() if "~" in sample_id}


def named(sample, places) -> list[str]:
    return [sample["pictures"][place]["image_id"] for place in places]


def test_a_record_is_a_sample_with_its_instruction_and_scores(tmp_path):
    text = "put image 1 (the cup) beside image 2"
    dataset = made(
        tmp_path, [record(text, ["d.jpg", "a.jpg"], "b.jpg", score_final=3.5), record("go", ["c.jpg"], "d.jpg")]
    )
    found = by_record(dataset)
    assert set(found) == {"1", "2"}
    (asked,) = found["1"]["instructions"]
    assert (asked["text"], asked["from"]) == (text, "source")
    assert named(found["1"], asked["references"]) == ["pairs/d.jpg", "pairs/a.jpg"]  # as the text counts them
    assert {picture["image_id"] for picture in found["1"]["pictures"]} - set(
        named(found["1"], asked["references"])
    ) == {dataset.read("source_groups").to_pylist()[0]["target"]}
    assert found["1"]["scores"]["named"] == [{"name": "score_final", "value": 3.5, "model": "source"}]
    assert len(found["2"]["pictures"]) == 2  # one reference and one target are enough
    assert found["2"]["scores"]["named"] == []
    assert verify(dataset).sound


def test_the_same_pictures_may_be_asked_for_otherwise_and_twice_the_same_is_once(tmp_path):
    records = [
        record("make it red", ["a.jpg"], "b.jpg"),
        record("make it blue", ["a.jpg"], "b.jpg"),
        record("make it red", ["b.jpg"], "a.jpg"),
        record("make it red", ["./a.jpg"], "b.jpg"),
    ]
    dataset = made(tmp_path, records)
    found = {line: row["instructions"][0] | {"row": row} for line, row in by_record(dataset).items()}
    assert {line: (one["text"], named(one["row"], one["references"])) for line, one in found.items()} == {
        "1": ("make it red", ["pairs/a.jpg"]),
        "2": ("make it blue", ["pairs/a.jpg"]),
        "3": ("make it red", ["pairs/b.jpg"]),
    }
    assert ledger(dataset, "group") == {("group", "pairs/r#4", 0): "duplicate"}


def test_pictures_of_a_record_in_other_units_are_counted_as_its_text_does(tmp_path):
    records = [record("one", ["b.jpg"], "c.jpg"), record("two", ["c.jpg", "a.jpg", "b.jpg"], "d.jpg")]
    dataset = made(tmp_path, records, unit_size=1)
    found = by_record(dataset)["2"]
    assert named(found, found["instructions"][0]["references"]) == ["pairs/c.jpg", "pairs/a.jpg", "pairs/b.jpg"]


def test_an_instruction_that_counts_a_lost_picture_is_left_out(tmp_path):
    records = [record("with image 2", ["a.jpg", "cut.jpg", "b.jpg"], "c.jpg", score=1)]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cut.jpg").write_bytes(drawn(9)[:300])
    (found,) = samples(made(tmp_path, records)).values()
    assert len(found["pictures"]) == 3
    assert found["instructions"] == []
    assert [one["name"] for one in found["scores"]["named"]] == ["score"]


def test_a_record_whose_target_is_lost_is_no_sample(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cut.jpg").write_bytes(drawn(9)[:300])
    dataset = made(tmp_path, [record("go", ["a.jpg", "b.jpg"], "cut.jpg")])
    assert samples(dataset) == {}
    ((kind, group_id, _),) = ledger(dataset, "compose")
    assert (kind, record_of(group_id)) == ("group", "pairs/r%231")


def test_halves_of_a_diptych_are_a_sample_with_its_scores_and_captions(tmp_path):
    path = write_subjects200k(tmp_path / "s.parquet", [subjects200k_row(diptych(3))])
    (found,) = samples(curated(tmp_path, Pairs(path=path))).values()
    assert [picture["captions"] for picture in found["pictures"]] == [
        ["The chair stands in a bright loft."],
        ["The chair stands on a terrace by the sea."],
    ]
    assert {one["name"]: one["value"] for one in found["scores"]["named"]}["objectConsistency"] == 4
    assert found["instructions"] == []
    assert found["subjects"][0]["phrase"] == "Eames Lounge Chair"


def test_smaller_copies_keep_what_is_said_of_the_record(tmp_path):
    write_images(tmp_path / "set", ["a.jpg", "b.jpg"])
    path = write_lines(tmp_path / "set" / "r.jsonl", [record("go", ["a.jpg"], "b.jpg")])
    config = replace(LOOSE, compose=replace(LOOSE.compose, max_side_px=64))
    (found,) = samples(curated(tmp_path, Pairs(path=path), config=config)).values()
    assert max(picture["width"] for picture in found["pictures"]) == 64
    assert [one["text"] for one in found["instructions"]] == ["go"]


@pytest.mark.parametrize("name", ["pairs/r#1", "pairs/a~2#1", "pairs/r%#1"])
def test_a_group_knows_its_record_whatever_its_first_member_is_called(name):
    rows = [{"group_id": name, "kind": "record"}, {"group_id": "subjects/toy", "kind": "folder"}]
    known = by_group(rows)
    (key,) = known
    assert known[record_of(f"folder/pairs/cafe~2.jpg#whole~{key}")] == rows[0]
    assert record_of("folder/subjects/toy/00.jpg#whole") == record_of("look/pairs/a~2.jpg#whole") == ""


def test_places_are_those_of_the_sample_and_an_unknown_target_asks_for_nothing():
    row = {"target": "t", "instructions": [{"text": "x", "references": ["b", "a", "b"]}], "scores": None}
    assert said_of(row, ["a", "b", "t"])["instructions"][0]["references"] == [1, 0, 1]
    assert said_of(row, ["a", "b"])["instructions"] == []
    assert said_of(row, ["a", "t"])["instructions"] == []
    assert said_of(row | {"instructions": None}, list(np.array(["a"])))["instructions"] == []
