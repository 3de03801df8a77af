"""Directed records: every published layout gives groups with a target, instructions and scores; images come once."""

import json

import numpy as np
import pytest
from helpers import HERE, image_ids, ingest, ledger
from pairfiles import (
    diptych,
    drawn,
    pixels,
    subjects200k_row,
    write_bagel,
    write_images,
    write_lines,
    write_subjects200k,
)

from refloom.ingest import job
from refloom.ingest.sourcekinds import SOURCES
from refloom.ingest.sources.pairs.layouts import LAYOUTS
from refloom.ingest.sources.pairs.pairs import Pairs
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.schemas.verify import verify


def groups(dataset) -> dict[str, dict]:
    return {row["group_id"]: row for row in dataset.read("source_groups").to_pylist()}


def only(dataset) -> dict:
    (row,) = dataset.read("source_groups").to_pylist()
    return row


def column(dataset, name: str) -> dict:
    return {row["image_id"]: row[name] for row in dataset.read("images", ["image_id", name]).to_pylist()}


def asked(row) -> list[tuple[str, list[str]]]:
    return [(one["text"], one["references"]) for one in row["instructions"] or []]


def scores(row) -> dict[str, float]:
    return {one["name"]: one["value"] for one in row["scores"] or []}


def sound(dataset) -> bool:
    return not ledger(dataset) and verify(dataset, decode_per_unit=-1).sound


def test_omnigen2_records_keep_their_numbers_and_their_task(tmp_path):
    text = "Put the cat of image 2 on the sofa of image 1."
    write_images(tmp_path, ["in/sofa.jpg", "in/cat.jpg", "out/1.jpg", "out/2.jpg"])
    path = write_lines(
        tmp_path / "train.jsonl",
        [
            {
                "task_type": "edit",
                "instruction": text,
                "input_images": ["in/sofa.jpg", "in/cat.jpg"],
                "output_image": "out/1.jpg",
            },
            {"task_type": "t2i", "instruction": "A dog.", "input_images": None, "output_image": "out/2.jpg"},
        ],
    )
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    found = groups(dataset)
    assert found["pairs/train#1"] == {
        "group_id": "pairs/train#1",
        "kind": "record",
        "members": ["pairs/in/sofa.jpg", "pairs/in/cat.jpg", "pairs/out/1.jpg"],
        "target": "pairs/out/1.jpg",
        "texts": [text],
        "instructions": [{"text": text, "references": ["pairs/in/sofa.jpg", "pairs/in/cat.jpg"]}],
        "scores": None,
        "source_json": '{"task_type":"edit"}',
    }
    assert found["pairs/train#2"]["members"] == ["pairs/out/2.jpg"]
    assert column(dataset, "captions") == {
        "pairs/in/sofa.jpg": [],
        "pairs/in/cat.jpg": [],
        "pairs/out/1.jpg": [],
        "pairs/out/2.jpg": ["A dog."],  # a text without references describes its image
    }
    assert {row["kind"] for row in dataset.read("objects").to_pylist()} == {"whole"}
    assert sound(dataset)


def test_a_record_may_count_one_image_twice_and_make_an_image_of_itself(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    records = [
        {"instruction": "two", "input_images": ["a.jpg", "./a.jpg"], "output_image": "b.jpg"},
        {"instruction": "same", "input_images": ["a.jpg"], "output_image": "a.jpg"},
    ]
    dataset = ingest(Pairs(path=write_lines(tmp_path / "r.jsonl", records)), tmp_path / "data")
    found = groups(dataset)
    assert asked(found["pairs/r#1"]) == [("two", ["pairs/a.jpg", "pairs/a.jpg"])]
    assert found["pairs/r#1"]["members"] == ["pairs/a.jpg", "pairs/b.jpg"]
    assert found["pairs/r#2"]["members"] == [found["pairs/r#2"]["target"]] == ["pairs/a.jpg"]
    assert sound(dataset)


def test_uno_records_as_its_trainer_reads_them(tmp_path):
    write_images(tmp_path, ["toy.jpg", "cup.jpg", "tgt.jpg"])
    record = {
        "prompt": "The toy is in the cup",
        "image_tgt_path": "./tgt.jpg",
        "image_paths": ["./toy.jpg", "./cup.jpg"],
        "score_final": 3.5,
    }
    (tmp_path / "set.json").write_text(json.dumps([record]))
    dataset = ingest(Pairs(path=str(tmp_path / "set.json")), tmp_path / "data")
    row = only(dataset)
    assert (row["group_id"], row["target"]) == ("pairs/set#0", "pairs/tgt.jpg")
    assert asked(row) == [("The toy is in the cup", ["pairs/toy.jpg", "pairs/cup.jpg"])]
    assert row["scores"] == [{"name": "score_final", "value": 3.5, "model": "source"}]
    assert column(dataset, "captions")["pairs/tgt.jpg"] == ["The toy is in the cup"]
    assert sound(dataset)


def test_uno_1m_labels_keep_both_captions_the_subject_and_every_score(tmp_path):
    write_images(tmp_path / "images", ["split1/stew_1.png", "split1/stew_2.png"])
    label = {
        "img_path1": "split1/stew_1.png",
        "img_path2": "split1/stew_2.png",
        "caption": {
            "img_path1": "A bowl of stew on white.",
            "img_path2": "A bowl of stew on a table.",
            "judgment": "same",
            "subject": ["beef stew"],
        },
        "vlm_filter_cot": {"score_part": {"Carrots": 3.0, "Garnish": 4.0}, "score_final": 3.5},
    }
    (tmp_path / "labels.json").write_text(json.dumps([label]))
    dataset = ingest(Pairs(path=str(tmp_path / "labels.json")), tmp_path / "data")  # `images` is found
    row = only(dataset)
    assert row["members"] == ["pairs/split1/stew_1.png", "pairs/split1/stew_2.png"]
    assert (row["target"], asked(row)) == (
        "pairs/split1/stew_2.png",
        [("A bowl of stew on a table.", ["pairs/split1/stew_1.png"])],
    )
    assert scores(row) == {"score_final": 3.5, "score_part.Carrots": 3.0, "score_part.Garnish": 4.0}
    assert {one["model"] for one in row["scores"]} == {"UNO-1M vlm_filter_cot"}
    assert column(dataset, "captions")["pairs/split1/stew_1.png"] == ["A bowl of stew on white."]
    assert {one["phrase"] for one in dataset.read("objects").to_pylist()} == {"beef stew"}
    assert json.loads(row["source_json"]) == {"judgment": "same", "subject": ["beef stew"]}
    assert sound(dataset)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_diffsynth_metadata_in_each_of_its_forms(tmp_path, form):
    write_images(tmp_path, ["t.jpg", "a.jpg", "b.jpg"])
    record = {"image": "t.jpg", "prompt": "make it, red", "edit_image": ["a.jpg", "b.jpg"]}
    path = tmp_path / f"metadata.{form}"
    if form == "csv":
        path.write_text('image,prompt,edit_image\nt.jpg,"make it, red","[""a.jpg"", ""b.jpg""]"\n')
    else:
        path.write_text(json.dumps([record] if form == "json" else record))
    dataset = ingest(Pairs(path=str(path)), tmp_path / "data")
    row = only(dataset)
    assert row["target"] == "pairs/t.jpg"
    assert asked(row) == [("make it, red", ["pairs/a.jpg", "pairs/b.jpg"])]
    assert sound(dataset)


def test_diffsynth_may_have_one_reference_as_a_text(tmp_path):
    write_images(tmp_path, ["t.jpg", "a.jpg"])
    (tmp_path / "metadata.csv").write_text("image,prompt,edit_image\nt.jpg,red,a.jpg\n")
    row = only(ingest(Pairs(path=str(tmp_path / "metadata.csv")), tmp_path / "data"))
    assert row["members"] == ["pairs/a.jpg", "pairs/t.jpg"]


def test_musubi_controls_count_by_their_numbers(tmp_path):
    write_images(tmp_path, ["t.jpg", *(f"c{number}.jpg" for number in range(12))])
    record = {"image_path": "t.jpg", "caption": "all of them"}
    record |= {f"control_path_{number}": f"c{number}.jpg" for number in reversed(range(12))}
    dataset = ingest(Pairs(path=write_lines(tmp_path / "m.jsonl", [record])), tmp_path / "data")
    assert asked(only(dataset)) == [("all of them", [f"pairs/c{number}.jpg" for number in range(12)])]
    single = {"image_path": "t.jpg", "control_path": "c1.jpg", "caption": "one"}
    other = ingest(Pairs(path=write_lines(tmp_path / "n.jsonl", [single])), tmp_path / "other")
    assert asked(only(other)) == [("one", ["pairs/c1.jpg"])]


def test_folders_of_controls_are_matched_by_name(tmp_path):
    write_images(tmp_path / "targets", ["one.jpg", "two.jpg", "three.jpg"])
    write_images(tmp_path / "first", ["one.png", "two_10.jpg", "two_2.jpg", "spare.jpg"])
    write_images(tmp_path / "second", ["one.jpg"])
    (tmp_path / "targets" / "one.txt").write_text("put image 2 on image 1\n")
    source = Pairs(
        path=str(tmp_path / "targets"), controls=(str(tmp_path / "first"), str(tmp_path / "second")), layout="musubi"
    )
    dataset = ingest(source, tmp_path / "data")
    found = groups(dataset)
    assert asked(found["pairs/targets#0"]) == [
        ("put image 2 on image 1", ["pairs/first/one.png", "pairs/second/one.jpg"])
    ]
    assert found["pairs/targets#2"]["members"] == [
        "pairs/first/two_2.jpg",
        "pairs/first/two_10.jpg",
        "pairs/targets/two.jpg",
    ]
    assert ledger(dataset) == {("group", "pairs/targets#1", 0): "incomplete_pair"}
    assert verify(dataset).sound


def test_bagel_rows_make_the_last_image_of_the_others(tmp_path):
    rows = [
        {"image_list": [drawn(1), drawn(2), drawn(3)], "instruction": "Both of image 1 and image 2."},
        {"image_list": [drawn(4), drawn(5)], "instruction": None},
    ]
    dataset = ingest(Pairs(path=write_bagel(tmp_path / "part.parquet", rows)), tmp_path / "data")
    found = groups(dataset)
    assert found["pairs/part#0"]["members"] == ["pairs/part/0/0", "pairs/part/0/1", "pairs/part/0/2"]
    assert found["pairs/part#0"]["target"] == "pairs/part/0/2"
    assert asked(found["pairs/part#0"]) == [("Both of image 1 and image 2.", ["pairs/part/0/0", "pairs/part/0/1"])]
    assert (found["pairs/part#1"]["target"], asked(found["pairs/part#1"])) == ("pairs/part/1/1", [])
    stored = dataset.read("images").to_pylist()
    assert [row["image"]["bytes"] for row in stored] == [drawn(number) for number in range(1, 6)]
    assert sound(dataset)


def test_a_reference_that_rows_repeat_is_one_image_of_the_unit(tmp_path):
    rows = [
        {"image_list": [drawn(1), drawn(2), drawn(3)], "instruction": "one"},
        {"image_list": [drawn(2), drawn(1), drawn(4)], "instruction": "two"},
        {"image_list": [drawn(1)], "instruction": "alone"},  # what describes an image makes one of its own
    ]
    dataset = ingest(Pairs(path=write_bagel(tmp_path / "p.parquet", rows)), tmp_path / "data")
    assert image_ids(dataset) == ["pairs/p/0/0", "pairs/p/0/1", "pairs/p/0/2", "pairs/p/1/2", "pairs/p/2/0"]
    found = groups(dataset)
    assert asked(found["pairs/p#1"]) == [("two", ["pairs/p/0/1", "pairs/p/0/0"])]
    assert found["pairs/p#1"]["target"] == "pairs/p/1/2"
    assert column(dataset, "captions")["pairs/p/2/0"] == ["alone"]
    assert sound(dataset)


def test_halves_of_subjects200k_are_the_squares_that_its_loader_cuts(tmp_path):
    data = diptych(3, quality=90)
    path = write_subjects200k(tmp_path / "train-0.parquet", [subjects200k_row(data)])
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    whole = pixels(data)
    left, right = dataset.read("images").to_pylist()
    assert (pixels(left["image"]["bytes"]) == whole[8:72, 8:72]).all()
    assert (pixels(right["image"]["bytes"]) == whole[8:72, 80:144]).all()
    assert left["image"]["bytes"][:8] == b"\x89PNG\r\n\x1a\n"  # 8 px lie off the grid of 16
    assert left["cut_from"]["sha256"] == right["cut_from"]["sha256"]
    assert (left["cut_from"]["box"], right["cut_from"]["box"]) == ([8, 8, 72, 72], [80, 8, 144, 72])
    assert left["captions"] == ["The chair stands in a bright loft."]
    row = only(dataset)
    assert (row["target"], row["instructions"]) == (None, None)  # either may be made of the other
    assert scores(row) == {"compositeStructure": 5, "objectConsistency": 4, "imageQuality": 5}
    assert json.loads(row["source_json"]) == {"collection": "collection_2", "description_valid": True}
    (phrases,) = {(one["phrase"], one["category"]) for one in dataset.read("objects").to_pylist()}
    assert phrases == ("Eames Lounge Chair", "Furniture")
    assert sound(dataset)


def test_a_jpeg_whose_halves_lie_on_its_grid_is_cut_without_encoding_it_again(tmp_path):
    data = diptych(3, padding=0, side=96, quality=90, subsampling=2)
    path = write_subjects200k(tmp_path / "c3.parquet", [subjects200k_row(data, "collection_3")])
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    parts = [row["image"]["bytes"] for row in dataset.read("images").to_pylist()]
    assert [part[:3] for part in parts] == [b"\xff\xd8\xff"] * 2
    assert sum(map(len, parts)) < len(data) + 800  # the tables come twice
    for part, whole in zip(parts, np.split(pixels(data), 2, axis=1), strict=True):
        assert (pixels(part)[:, 2:-2] == whole[:, 2:-2]).all()
    assert sound(dataset)


def test_a_folder_of_parquet_is_one_ingest_a_file(tmp_path):
    (tmp_path / "set").mkdir()
    for number in range(2):
        rows = [{"image_list": [drawn(10 * number + row), drawn(5 + row)], "instruction": "go"} for row in range(3)]
        write_bagel(tmp_path / "set" / f"part-{number}.parquet", rows)
    source = Pairs(path=str(tmp_path / "set"), unit_size=2, limit=4)
    assert [[unit.name for unit in plan.units] for plan in source.plans()] == [
        ["pairs.part-0-00000", "pairs.part-0-00001"],
        ["pairs.part-1-00000"],
    ]
    dataset = ingest(source, tmp_path / "data")
    assert len(groups(dataset)) == 4
    assert sound(dataset)


@pytest.mark.parametrize("row_group_size", [1, 2, 5])
def test_units_of_rows_do_not_depend_on_row_groups(tmp_path, row_group_size):
    rows = [{"image_list": [drawn(row), drawn(50 + row)], "instruction": f"{row}"} for row in range(5)]
    path = write_bagel(tmp_path / "p.parquet", rows, row_group_size=row_group_size)
    dataset = ingest(Pairs(path=path, unit_size=2), tmp_path / "data")
    assert {name: [text for text, _ in asked(row)] for name, row in groups(dataset).items()} == {
        f"pairs/p#{row}": [f"{row}"] for row in range(5)
    }
    assert len(image_ids(dataset)) == len(set(image_ids(dataset))) == 10


def test_an_image_that_records_share_lies_in_the_unit_of_the_first(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    records = [
        {"instruction": "one", "input_images": ["a.jpg"], "output_image": "b.jpg"},
        {"instruction": "two", "input_images": ["b.jpg", "a.jpg"], "output_image": "c.jpg"},
    ]
    source = Pairs(path=write_lines(tmp_path / "r.jsonl", records), unit_size=1)
    dataset = ingest(source, tmp_path / "data")
    first, second = dataset.units()
    assert dataset.read("images", ["image_id"], unit=second)["image_id"].to_pylist() == ["pairs/c.jpg"]
    assert dataset.read("source_groups", unit=second).to_pylist()[0]["members"][0] == "pairs/b.jpg"
    assert len(dataset.read("images", ["image_id"], unit=first)) == 2
    assert sound(dataset)


def test_a_full_path_that_lies_in_the_folder_is_taken_and_another_is_not(tmp_path):
    root = write_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    records = [
        {"instruction": "go", "input_images": [f"{root}/a.jpg"], "output_image": f"{root}/b.jpg"},
        {"instruction": "no", "input_images": ["/etc/hostname"], "output_image": f"{root}/b.jpg"},
        {"instruction": "no", "input_images": [f"{root}/../images/a.jpg"], "output_image": "b.jpg"},
    ]
    source = Pairs(path=write_lines(tmp_path / "lists" / "r.jsonl", records), images=str(root))
    dataset = ingest(source, tmp_path / "data")
    assert [row["members"] for row in groups(dataset).values()] == [["pairs/a.jpg", "pairs/b.jpg"]]
    assert ledger(dataset) == {("group", f"pairs/r#{line}", 0): "unsafe_path" for line in (2, 3)}


def test_files_are_linked_and_images_in_parquet_keep_their_bytes(tmp_path):
    root = write_images(tmp_path / "set", ["a.jpg", "b.jpg"])
    path = write_lines(root / "r.jsonl", [{"image": "b.jpg", "prompt": "go", "edit_image": "a.jpg"}])
    linked = ingest(Pairs(path=path), tmp_path / "data", link=True)
    assert [row["image"] for row in linked.read("images").to_pylist()] == [None, None]
    assert {row["link"]["file"] for row in linked.read("images").to_pylist()} == {"a.jpg", "b.jpg"}
    assert verify(linked, decode_per_unit=-1).sound
    table = write_subjects200k(tmp_path / "t.parquet", [subjects200k_row(diptych(1))])
    held = ingest(Pairs(path=table), tmp_path / "held", link=True)
    assert all(row["link"] is None and row["image"]["bytes"] for row in held.read("images").to_pylist())
    assert verify(held, decode_per_unit=-1).sound


def test_a_second_run_does_nothing_and_a_changed_file_is_refused(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    record = {"instruction": "go", "input_images": ["a.jpg"], "output_image": "b.jpg"}
    path = write_lines(tmp_path / "r.jsonl", [record])
    ingest(Pairs(path=path), tmp_path / "data")
    before = {file: (tmp_path / "data" / file).stat().st_mtime_ns for file in ("dataset.json", "images", "manifests")}
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    assert all((tmp_path / "data" / file).stat().st_mtime_ns == time for file, time in before.items())
    write_lines(tmp_path / "r.jsonl", [record | {"instruction": "went"}])
    with pytest.raises(Refused, match=r"pairs\.r was ingested with other settings"):
        ingest(Pairs(path=path), tmp_path / "data")
    assert asked(only(ingest(Pairs(path=path), tmp_path / "data", replace=True)))[0][0] == "went"
    assert dataset.units() == ["pairs.r-00000"]


def test_a_unit_that_is_missing_is_done_again_alone_and_is_the_same(tmp_path):
    rows = [subjects200k_row(diptych(row)) for row in range(3)]
    source = Pairs(path=write_subjects200k(tmp_path / "s.parquet", rows, row_group_size=2), unit_size=1)
    before = ingest(source, tmp_path / "data")
    prints = {table: before.fingerprint(table) for table in ("images", "objects", "source_groups")}
    (tmp_path / "data" / "manifests" / "ingest" / "pairs.s-00001.json").unlink()
    plan = job.ingest(source, str(tmp_path / "data"), job.Options(), HERE)
    assert [unit.name for unit in plan.todo] == ["pairs.s-00001"]
    after = Dataset(str(tmp_path / "data"))
    assert {table: after.fingerprint(table) for table in prints} == prints


def test_sets_of_two_names_are_told_apart_with_their_instructions(tmp_path):
    for name in ("one", "two"):
        root = write_images(tmp_path / name, ["a.jpg", "b.jpg"])
        write_lines(root / "r.jsonl", [{"instruction": name, "input_images": ["a.jpg"], "output_image": "b.jpg"}])
    (tmp_path / "two" / "a.jpg").write_bytes(drawn(77))
    ingest(Pairs(path=str(tmp_path / "one" / "r.jsonl")), tmp_path / "data")
    dataset = ingest(Pairs(path=str(tmp_path / "two" / "r.jsonl"), name="second"), tmp_path / "data")
    row = groups(dataset)["pairs/second/r#1"]
    assert (row["target"], asked(row)) == ("pairs/second/b.jpg", [("two", ["pairs/second/a.jpg"])])


def test_a_set_on_an_object_store_is_read_there(tmp_path):
    store = Folder("memory://pairs-of-a-test")
    for number, name in enumerate(("images/a.jpg", "images/b.jpg")):
        store.write(name, drawn(number))
    record = {"instruction": "go", "input_images": ["a.jpg"], "output_image": "b.jpg"}
    store.write("r.jsonl", json.dumps(record).encode())
    rows = [{"image_list": [drawn(1), drawn(2)], "instruction": "x"}]
    store.write(
        "t.parquet", (tmp_path / "t.parquet").read_bytes() if write_bagel(tmp_path / "t.parquet", rows) else b""
    )
    dataset = ingest(Pairs(path=f"{store.url}/r.jsonl"), tmp_path / "data")
    dataset = ingest(Pairs(path=f"{store.url}/t.parquet"), tmp_path / "data")
    assert sorted(groups(dataset)) == ["pairs/r#1", "pairs/t#0"]
    assert sound(dataset)


def test_the_command_line_knows_every_layout():
    (option,) = [option for option in SOURCES["pairs"].own_options if option.name == "layout"]
    assert option.choices == ("auto", *LAYOUTS)
