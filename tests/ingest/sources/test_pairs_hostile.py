"""Directed records as strangers write them: one bad record costs itself, with its id and reason; nothing is run."""

import json
import pickle
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawing import encoded, gradient
from helpers import ingest, ledger
from pairfiles import diptych, drawn, subjects200k_row, write_bagel, write_images, write_lines, write_subjects200k
from PIL import Image

from refloom.ingest.sources.pairs import layouts, tables
from refloom.ingest.sources.pairs.diptych import halves
from refloom.ingest.sources.pairs.layouts import MAX_REFERENCES, told_by
from refloom.ingest.sources.pairs.pairs import Pairs
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.verify import verify

SOUND = {"instruction": "go", "input_images": ["a.jpg"], "output_image": "b.jpg"}


def details(dataset) -> dict[str, str]:
    return {row["item_id"]: row["detail"] for row in dataset.ledger("ingest").to_pylist()}


def balanced(dataset, kind: str, given: int) -> bool:
    counts = dataset.counts("ingest")[kind]
    return counts.input == given == counts.kept + counts.rejected.total() + counts.failed.total()


@pytest.mark.parametrize(
    ("record", "reason", "said"),
    [
        ([1], "bad_record", "list"),
        ({"instruction": "go"}, "bad_record", "no output_image"),
        (SOUND | {"output_image": None}, "bad_record", "no output_image"),
        (SOUND | {"output_image": 7}, "bad_record", "7"),
        (SOUND | {"output_image": ["b.jpg"]}, "bad_record", "b.jpg"),
        (SOUND | {"input_images": [None]}, "bad_record", "None"),
        (SOUND | {"input_images": {"0": "a.jpg"}}, "bad_record", "a.jpg"),
        (SOUND | {"input_images": ["a.jpg"] * (MAX_REFERENCES + 1)}, "bad_record", "more than 1,000"),
        (SOUND | {"instruction": 7}, "bad_text", "instruction is int"),
        (SOUND | {"instruction": "a\x00b"}, "bad_text", "NUL"),
        (SOUND | {"instruction": "x" * 10_001}, "bad_text", "10001 characters"),
        (SOUND | {"instruction": ["go", {}]}, "bad_text", "dict"),
        (SOUND | {"score_final": float("nan")}, "bad_record", "nan"),
        (SOUND | {"score_final": 10**400}, "bad_record", "score_final"),
        (SOUND | {"input_images": ["../a.jpg"]}, "unsafe_path", "../a.jpg"),
        (SOUND | {"output_image": "/etc/passwd"}, "unsafe_path", "/etc/passwd"),
        (SOUND | {"output_image": "http://example.com/b.jpg"}, "unsafe_path", "http"),
        (SOUND | {"output_image": "c:\\b.jpg"}, "unsafe_path", "c:"),
        (SOUND | {"output_image": "b\x00.jpg"}, "bad_record", "x00"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_record_costs_itself(tmp_path, record, reason, said):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    path = write_lines(tmp_path / "r.jsonl", [SOUND, record, SOUND | {"instruction": "again"}])
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    assert ledger(dataset) == {("group", "pairs/r#2", 0): reason}
    assert said in details(dataset)["pairs/r#2"]
    assert balanced(dataset, "group", 3)
    assert balanced(dataset, "image", 2)
    assert verify(dataset).sound


def test_a_line_that_is_no_json_costs_itself(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    lines = [json.dumps(SOUND), "{", "[" * 100_000, pickle.dumps(SOUND).decode("latin-1").replace("\n", "")]
    (tmp_path / "r.jsonl").write_text("\n".join(lines), encoding="latin-1")
    dataset = ingest(Pairs(path=str(tmp_path / "r.jsonl")), tmp_path / "data")
    assert ledger(dataset) == {("group", f"pairs/r#{line}", 0): "bad_record" for line in (2, 3, 4)}
    assert balanced(dataset, "group", 4)


def test_a_bad_entry_of_a_list_costs_itself(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "r.json").write_text(json.dumps(["no record", SOUND]))
    dataset = ingest(Pairs(path=str(tmp_path / "r.json")), tmp_path / "data")
    assert ledger(dataset) == {("group", "pairs/r#0", 0): "bad_record"}
    assert dataset.counts("ingest")["group"].kept == 1


def test_lost_images_cost_themselves_and_the_record_names_them_still(tmp_path):
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "cut.jpg").write_bytes(drawn(4)[:200])
    records = [SOUND, SOUND | {"input_images": ["cut.jpg", "absent.jpg", "a.jpg"]}]
    dataset = ingest(Pairs(path=write_lines(tmp_path / "r.jsonl", records)), tmp_path / "data")
    found = {key: reason for key, reason in ledger(dataset).items() if key[0] == "image"}
    assert found == {("image", "pairs/cut.jpg", 0): "truncated", ("image", "pairs/absent.jpg", 0): "missing_file"}
    assert dataset.counts("ingest")["group"].kept == 2
    (tmp_path / "absent.jpg").write_bytes(drawn(9))
    again = ingest(Pairs(path=str(tmp_path / "r.jsonl")), tmp_path / "data", retry_failed=True)
    assert again.counts("ingest")["image"].kept == 3


def test_two_spellings_that_make_one_id_are_two_images(tmp_path):
    write_images(tmp_path, ["caf\u00e9.jpg", "cafe\u0301.jpg"])
    record = {"instruction": "go", "input_images": ["cafe\u0301.jpg"], "output_image": "caf\u00e9.jpg"}
    dataset = ingest(Pairs(path=write_lines(tmp_path / "r.jsonl", [record])), tmp_path / "data")
    (row,) = dataset.read("source_groups").to_pylist()
    assert len(set(row["members"])) == 2
    assert not ledger(dataset)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.jsonl", "", "holds no records"),
        ("r.json", "{}", "not a list"),
        ("r.json", "[", "not json"),
        ("r.jsonl", '{"a": 1, "b": 2}', "no known layout (they have a, b): give --layout"),
        ("r.jsonl", "[1]", "no known layout"),
        ("r.parquet", "PAR1", "not Parquet"),
        ("r.jsonl", json.dumps({"image_list": [], "instruction": ""}), "layout bagel, which is Parquet"),
        ("r.jsonl", json.dumps(SOUND), "none of the first 2 files"),
    ],
)
def test_what_is_no_set_is_refused_with_a_remedy(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(Refused) as refusal:
        ingest(Pairs(path=str(tmp_path / name)), tmp_path / "data")
    assert said in str(refusal.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "gone.jsonl"}, "does not exist"),
        ({"path": "gone.parquet"}, "does not exist"),
        ({"path": "r.jsonl", "layout": "omnigen"}, "unknown layout 'omnigen'"),
        ({"path": "r.jsonl", "layout": "bagel"}, "is not Parquet"),
        ({"path": "t.parquet", "layout": "uno"}, "of no known layout (it has the columns image_list, instruction)"),
        ({"path": "t.parquet", "images": "."}, "leave it out"),
        ({"path": "."}, "folder without Parquet"),
        ({"path": "sub", "controls": ("sub/deeper",)}, "side by side"),
        ({"path": "sub", "controls": ("sub",)}, "side by side"),
        ({"path": "sub", "controls": ("other",), "layout": "uno"}, "of the layout musubi, not uno"),
        ({"path": "sub", "controls": ("other",)}, "holds no pictures"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(tmp_path, options, said):
    write_lines(tmp_path / "home" / "r.jsonl", [SOUND])
    write_bagel(tmp_path / "home" / "tables.parquet", [])
    (tmp_path / "home" / "tables.parquet").rename(tmp_path / "t.parquet")
    (tmp_path / "home" / "r.jsonl").rename(tmp_path / "r.jsonl")
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    base = tmp_path / "home" if options["path"] == "." else tmp_path
    given = {name: str(base / value) if name in ("path", "images") else value for name, value in options.items()}
    given |= {"controls": tuple(str(tmp_path / one) for one in options["controls"])} if "controls" in options else {}
    with pytest.raises(Refused) as refusal:
        ingest(Pairs(**given), tmp_path / "data")
    assert said in str(refusal.value)


def test_a_bad_row_of_parquet_costs_itself(tmp_path):
    rows = [
        {"image_list": [drawn(1), drawn(2)], "instruction": "go"},
        {"image_list": None, "instruction": "none"},
        {"image_list": [], "instruction": "empty"},
        {"image_list": [drawn(3), None], "instruction": "null"},
        {"image_list": [drawn(4), drawn(5)], "instruction": "x" * 10_001},
        {"image_list": [b"no picture", drawn(6)], "instruction": "half"},
    ]
    dataset = ingest(Pairs(path=write_bagel(tmp_path / "t.parquet", rows)), tmp_path / "data")
    assert ledger(dataset) == {
        ("group", "pairs/t#1", 0): "bad_record",
        ("group", "pairs/t#2", 0): "bad_record",
        ("group", "pairs/t#3", 0): "bad_record",
        ("group", "pairs/t#4", 0): "bad_text",
        ("image", "pairs/t/5/0", 0): "not_an_image",
        ("whole", "pairs/t/5/0#whole", 0): "image_rejected",
    }
    assert balanced(dataset, "group", 6)
    assert balanced(dataset, "image", 4)
    assert verify(dataset).sound


def test_a_row_of_several_turns_is_not_taken_for_one_record(tmp_path):
    kinds = pa.schema([("image_list", pa.list_(pa.binary())), ("instruction_list", pa.list_(pa.list_(pa.string())))])
    rows = [
        {"image_list": [drawn(1), drawn(2)], "instruction_list": [["make it red", "red, please"]]},
        {"image_list": [drawn(3), drawn(4), drawn(5)], "instruction_list": [["one"], ["two"]]},
    ]
    pq.write_table(pa.Table.from_pylist(rows, kinds), tmp_path / "t.parquet")
    dataset = ingest(Pairs(path=str(tmp_path / "t.parquet")), tmp_path / "data")
    (row,) = dataset.read("source_groups").to_pylist()
    assert [one["text"] for one in row["instructions"]] == ["make it red", "red, please"]
    assert ledger(dataset) == {("group", "pairs/t#1", 0): "bad_record"}
    assert "in turn" in details(dataset)["pairs/t#1"]


def test_a_text_that_is_no_utf8_costs_its_row(tmp_path):
    images = pa.array([[drawn(1), drawn(2)], [drawn(3), drawn(4)]], pa.list_(pa.binary()))
    broken = pa.array([b"go", b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"image_list": images, "instruction": broken}), tmp_path / "t.parquet")
    dataset = ingest(Pairs(path=str(tmp_path / "t.parquet")), tmp_path / "data")
    assert ledger(dataset) == {("group", "pairs/t#1", 0): "bad_record"}
    assert dataset.counts("ingest")["image"].kept == 2


def test_rows_of_a_damaged_row_group_fail_and_the_others_are_taken(tmp_path):
    rows = [{"image_list": [drawn(row), drawn(row + 50)], "instruction": f"{row}"} for row in range(6)]
    path = write_bagel(tmp_path / "t.parquet", rows, row_group_size=2, compression="zstd")
    column = pq.read_metadata(path).row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    (tmp_path / "t.parquet").write_bytes(data)
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    assert ledger(dataset) == {("group", f"pairs/t#{row}", 0): "io_error" for row in (2, 3)}
    assert "row group 1 cannot be read" in details(dataset)["pairs/t#2"]
    assert balanced(dataset, "group", 6)


def test_a_row_that_repeats_one_value_beyond_reason_costs_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROW_BYTES", 1 << 20)
    value = drawn(1) + bytes(10_000)
    rows = [
        {"image_list": [value] * 900, "instruction": "bomb"},
        {"image_list": [drawn(2), drawn(3)], "instruction": "sound"},
    ]
    path = write_bagel(tmp_path / "t.parquet", rows, compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 50_000
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    assert ledger(dataset) == {("group", "pairs/t#0", 0): "bad_record"}
    assert "bytes" in details(dataset)["pairs/t#0"]
    assert dataset.counts("ingest")["image"].kept == 2


@pytest.mark.parametrize("layout", ["bagel", "subjects200k"])
def test_an_image_of_more_bytes_than_any_picture_costs_its_row(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(layouts, "MAX_FILE_BYTES", 100_000)
    giant = drawn(1) + bytes(200_000)
    path = (
        write_bagel(tmp_path / "t.parquet", [{"image_list": [giant, drawn(2)], "instruction": "x"}])
        if layout == "bagel"
        else write_subjects200k(tmp_path / "t.parquet", [subjects200k_row(giant)])
    )
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    assert ledger(dataset) == {("group", "pairs/t#0", 0): "not_an_image"}


def test_what_is_no_diptych_costs_its_images(tmp_path):
    rows = [
        subjects200k_row(diptych(1)),
        subjects200k_row(encoded(Image.fromarray(gradient(40, 90)), "PNG")),
        subjects200k_row(b"no picture", "collection_3"),
        subjects200k_row(None),
        subjects200k_row(diptych(2), quality_assessment=None),
    ]
    dataset = ingest(Pairs(path=write_subjects200k(tmp_path / "s.parquet", rows)), tmp_path / "data")
    lost = {key[1]: reason for key, reason in ledger(dataset).items() if key[0] in ("image", "group")}
    assert lost == {
        "pairs/s/1/0": "bad_record",
        "pairs/s/1/1": "bad_record",
        "pairs/s/2/0": "not_an_image",
        "pairs/s/2/1": "not_an_image",
        "pairs/s#3": "bad_record",
    }
    assert dataset.counts("ingest")["image"].kept == 4
    assert verify(dataset).sound


def test_a_giant_of_few_bytes_is_never_decoded(tmp_path):
    giant = bytearray(encoded(Image.new("1", (64, 32)), "PNG"))
    giant[16:24] = (60_000).to_bytes(4, "big") + (30_000).to_bytes(4, "big")
    giant[29:33] = zlib.crc32(bytes(giant[12:29])).to_bytes(4, "big")
    path = write_subjects200k(tmp_path / "s.parquet", [subjects200k_row(bytes(giant), "collection_3")])
    dataset = ingest(Pairs(path=path), tmp_path / "data")
    assert {reason for key, reason in ledger(dataset).items() if key[0] == "image"} == {"too_many_pixels"}


@pytest.mark.parametrize(
    ("size", "padding", "boxes"),
    [
        ((1056, 528), 8, ((8, 8, 520, 520), (528, 8, 1040, 520))),
        ((2048, 1024), 0, ((0, 0, 1024, 1024), (1024, 0, 2048, 1024))),
        ((300, 200), 0, ((0, 0, 150, 200), (150, 0, 300, 200))),
        ((1040, 528), 8, ((8, 8, 520, 520), (528, 8, 1040, 520))),
        ((1039, 528), 8, None),
        ((1057, 528), 8, None),
        ((200, 200), 0, None),
        ((301, 200), 0, None),
        ((1, 16), 8, None),
    ],
)
def test_where_the_halves_lie(size, padding, boxes):
    if boxes is None:
        with pytest.raises(Rejected, match=r"side by side|two squares"):
            halves(*size, padding)
    else:
        assert halves(*size, padding) == boxes


@pytest.mark.parametrize(
    ("keys", "layout"),
    [
        ("task_type instruction input_images output_image", "omnigen2"),
        ("prompt image_tgt_path image_paths", "uno"),
        ("img_path1 img_path2 caption vlm_filter_cot", "uno"),
        ("image prompt edit_image", "diffsynth"),
        ("image_path control_path caption", "musubi"),
        ("image_path control_path_0 caption", "musubi"),
        ("image_list instruction", "bagel"),
        ("image collection quality_assessment description", "subjects200k"),
        ("image text", None),
        ("image_path caption", None),
        ("", None),
    ],
)
def test_a_layout_is_told_by_keys_that_no_other_has(keys, layout):
    assert told_by(keys.split()) == layout
