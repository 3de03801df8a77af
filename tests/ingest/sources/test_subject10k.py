"""MIP-Adapter's set: labels in boxes become objects, half triples and hostile selections are refused."""

import dataclasses
import io
import json
import os
import pickle

import numpy as np
import pytest
from drawing import encoded, gradient
from helpers import image_ids, ingest, ledger, object_ids
from PIL import Image

from refloom.ingest.sources.subject10k import Subject10k, object_mask
from refloom.schemas import masks, pictures
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.verify import verify

WIDTH, HEIGHT = 64, 48
ENTRIES = [
    {"value": 0, "label": "background"},
    {"value": 1, "label": "dog", "box": [8.5, 9.0, 29.2, 31.0], "logit": 0.75},
    {"value": 2, "label": "red ball", "box": [38, 18, 60, 44], "logit": 0.5},
]


def labels() -> np.ndarray:
    """A dog and a ball; the ball's box also holds a few pixels of a third thing."""
    out = np.full((HEIGHT, WIDTH), 3, np.uint8)  # background is the smallest value, not 0
    out[10:30, 10:28] = 77
    out[20:42, 40:58] = 5
    out[20:22, 40:58] = 200
    return out


def write(root, identity="sa_1", *, png=None, **record):
    """One triple; returns the root."""
    for part in ("images", "masks", "jsons"):
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / "images" / f"{identity}.png").write_bytes(encoded(Image.fromarray(gradient(WIDTH, HEIGHT, 3)), "PNG"))
    (root / "masks" / f"{identity}.png").write_bytes(encoded(Image.fromarray(labels()), "PNG") if png is None else png)
    value = {"text": "a dog and a red ball", "original_size": [1500, 2250], "final_masks": ENTRIES} | record
    (root / "jsons" / f"{identity}.json").write_text(json.dumps(value))
    return root


def test_rows_hold_what_the_triple_says(tmp_path):
    dataset = ingest(Subject10k(directory=str(write(tmp_path / "set"))), tmp_path / "out")
    image = dataset.read("images").to_pylist()[0]
    assert (image["image_id"], image["captions"]) == ("subject10k/sa_1", ["a dog and a red ball"])
    assert image["original_size"] == [2250, 1500]
    assert image["faces_blurred"]
    dog, ball = dataset.read("objects").to_pylist()
    assert (dog["object_id"], dog["phrase"], dog["confidence"]) == ("subject10k/sa_1#1", "dog", 0.75)
    assert (dog["box"], dog["area"]) == ([10, 10, 28, 30], 360)  # the mask's, not the detector's
    assert np.array_equal(masks.decode(dog["mask"]), labels() == 77)
    assert json.loads(dog["source_json"]) == ENTRIES[1]
    assert ball["object_id"] == "subject10k/sa_1#2"
    assert np.array_equal(masks.decode(ball["mask"]), labels() == 5)
    assert verify(dataset, decode_per_unit=-1).sound


def test_pictures_that_are_not_of_sa1b_have_no_blurred_faces(tmp_path):
    dataset = ingest(Subject10k(directory=str(write(tmp_path / "set", "mine"))), tmp_path / "out")
    image = dataset.read("images").to_pylist()[0]
    assert (image["image_id"], image["faces_blurred"], image["license"]) == ("subject10k/mine", False, None)


@pytest.mark.parametrize("mode", ["P", "I;16"])
def test_label_maps_of_every_mode_give_the_same_objects(tmp_path, mode):
    plain = ingest(Subject10k(directory=str(write(tmp_path / "plain" / "set"))), tmp_path / "a")
    image = Image.fromarray(labels().astype(np.uint16) * 256)
    if mode == "P":
        image = Image.fromarray(labels(), "P")
        image.putpalette(list(range(255, -1, -1)) * 3)
    root = write(tmp_path / "other" / "set", png=encoded(image, "PNG"))
    other = ingest(Subject10k(directory=str(root)), tmp_path / "b")
    assert other.fingerprint("objects") == plain.fingerprint("objects")


def test_the_smallest_value_in_the_box_is_background():
    values = np.array([[9, 9, 9, 9], [9, 9, 4, 9], [9, 4, 4, 4], [9, 9, 9, 9]], np.uint8)
    # 4 is the smallest, so 9 is the object, though it looks like the surroundings
    assert np.array_equal(masks.decode(object_mask(values, [0, 0, 4, 4])), values == 9)


def test_of_two_equally_frequent_labels_the_smaller_wins():
    values = np.array([[0, 0, 7, 5]], np.uint8)
    assert masks.decode(object_mask(values, [0, 0, 4, 1])).tolist() == [[0, 0, 0, 1]]


def test_the_mask_ends_at_the_box():
    values = np.zeros((6, 6), np.uint8)
    values[1:5, 1:5] = 2
    assert masks.tight_boxes([object_mask(values, [0, 0, 3.2, 2])])[0].tolist() == [1, 1, 4, 2]


def test_a_box_that_holds_one_value_has_no_object():
    with pytest.raises(Rejected, match="empty_mask"):
        object_mask(np.full((6, 6), 2, np.uint8), [0, 0, 3, 3])


@pytest.mark.parametrize(
    "box",
    [
        None,
        "8 9 29 31",
        [],
        [8, 9, 29],
        [8, 9, 29, 31, 1],
        [8, 9, 29, "31"],
        [8, 9, 29, None],
        [8, 9, 29, True],
        [8, 9, 29, float("nan")],
        [8, 9, 29, float("inf")],
        [8, 9, 29, 10**400],
        [8, 9, 29, 60],
        [-5, 9, 29, 31],
        [29, 9, 8, 31],
        [8, 9, 8, 31],
        [500, 500, 600, 600],
    ],
    ids=lambda box: repr(box)[:30],
)
def test_a_bad_box_costs_itself(tmp_path, box):
    root = write(tmp_path / "set", final_masks=[{"label": "dog", "box": box, "logit": 0.5}, ENTRIES[2]])
    dataset = ingest(Subject10k(directory=str(root)), tmp_path / "out")
    assert ledger(dataset) == {("annotation", "subject10k/sa_1#0", 0): "bad_box"}
    assert object_ids(dataset) == {"subject10k/sa_1#1"}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("dog", "bad_record"),
        (None, "bad_record"),
        ({"box": [8, 9, 29, 31]}, "bad_record"),
        ({"box": [8, 9, 29, 31], "label": ""}, "bad_record"),
        ({"box": [8, 9, 29, 31], "label": 5}, "bad_record"),
        ({"box": [8, 9, 29, 31], "label": "\ud800"}, "bad_record"),
        ({"box": [8, 9, 29, 31], "label": "dog", "logit": "sure"}, "bad_record"),
        ({"box": [8, 9, 29, 31], "label": "dog", "logit": 2**60}, "bad_record"),
        ({"box": [0, 0, 8, 8], "label": "nothing", "logit": 0.9}, "empty_mask"),
    ],
)
def test_a_bad_entry_costs_itself(tmp_path, entry, reason):
    root = write(tmp_path / "set", final_masks=[entry, ENTRIES[2]])
    dataset = ingest(Subject10k(directory=str(root)), tmp_path / "out")
    assert ledger(dataset) == {("annotation", "subject10k/sa_1#0", 0): reason}
    assert object_ids(dataset) == {"subject10k/sa_1#1"}
    assert verify(dataset).sound


@pytest.mark.parametrize(
    ("png", "reason"),
    [
        (b"", "bad_mask"),
        (encoded(Image.fromarray(gradient(WIDTH, HEIGHT)), "PNG"), "bad_mask"),
        (encoded(Image.fromarray(labels()), "PNG")[:-30], "bad_mask"),
        (encoded(Image.fromarray(labels()[:-1]), "PNG"), "size_mismatch"),
    ],
    ids=["empty", "rgb", "cut", "size"],
)
def test_a_bad_label_map_costs_the_objects_only(tmp_path, png, reason):
    dataset = ingest(Subject10k(directory=str(write(tmp_path / "set", png=png))), tmp_path / "out")
    assert ledger(dataset) == {("annotation", f"subject10k/sa_1#{index}", 0): reason for index in (1, 2)}
    assert image_ids(dataset) == ["subject10k/sa_1"]
    assert verify(dataset).sound


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"text": "x"}', '{"final_masks": {}}', '{"final_masks": [], "original_size": [0, 5]}', "\ud800"],
)
def test_a_bad_json_costs_its_picture(tmp_path, text):
    root = write(write(tmp_path / "set"), "sa_2")
    (root / "jsons" / "sa_1.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    dataset = ingest(Subject10k(directory=str(root)), tmp_path / "out")
    assert ledger(dataset) == {("image", "subject10k/sa_1", 0): "bad_record"}
    assert image_ids(dataset) == ["subject10k/sa_2"]
    assert verify(dataset).sound


def test_a_picture_without_text_size_or_objects_is_taken(tmp_path):
    root = write(tmp_path / "set", text=None, original_size=None, final_masks=[ENTRIES[0]])
    dataset = ingest(Subject10k(directory=str(root)), tmp_path / "out")
    row = dataset.read("images").to_pylist()[0]
    assert (row["captions"], row["original_size"]) == ([], None)
    assert not ledger(dataset)


@pytest.mark.parametrize("part", ["images", "masks", "jsons"])
def test_half_a_triple_costs_itself(tmp_path, part):
    root = write(write(tmp_path / "set"), "sa_2")
    next((root / part).glob("sa_1.*")).unlink()
    dataset = ingest(Subject10k(directory=str(root)), tmp_path / "out")
    assert ledger(dataset) == {("image", "subject10k/sa_1", 0): "incomplete_pair"}
    assert image_ids(dataset) == ["subject10k/sa_2"]


def test_a_lost_picture_takes_its_objects_and_caption_along(tmp_path):
    root = write(tmp_path / "set")
    (root / "images" / "sa_1.png").write_bytes(b"<html>404</html>")
    found = ledger(ingest(Subject10k(directory=str(root)), tmp_path / "out"))
    assert found.pop(("image", "subject10k/sa_1", 0)) == "not_an_image"
    assert sorted(found.values()) == ["image_rejected"] * 3


def test_the_layout_of_the_zip_is_found(tmp_path):
    write(tmp_path / "subject_dataset_10k")
    dataset = ingest(Subject10k(directory=str(tmp_path)), tmp_path / "out", link=True)
    row = dataset.read("images").to_pylist()[0]
    assert row["link"]["file"] == "subject_dataset_10k/images/sa_1.png"
    assert verify(dataset).sound


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(Refused, match="images, masks and jsons"):
        Subject10k(directory=str(tmp_path)).plans()


def test_files_of_no_id_are_noted(tmp_path):
    root = write(tmp_path / "set")
    (root / "images" / "readme.txt").write_text("hello")
    (root / "images" / "._sa_1.png").write_text("left by macOS")
    (plan,) = Subject10k(directory=str(root)).plans()
    assert plan.notes == ("1 files are neither .png in images and masks nor .json in jsons",)
    assert plan.units[0].items == {"image": 1}


# -- selections ------------------------------------------------------------------------------------------------------


def three(root):
    for identity in ("sa_1", "sa_2", "sa_3"):
        write(root, identity)
    return root


def selecting(tmp_path, data: bytes, name="select.pkl") -> Subject10k:
    (tmp_path / name).write_bytes(data)
    return Subject10k(directory=str(three(tmp_path / "set")), select=str(tmp_path / name))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xef\xbb\xbf# the best\nsa_3\r\n\n  sa_1  \n", "ids.txt"),
        *((pickle.dumps(["sa_3", "sa_1"], protocol), "selected_indexes_sam_10k.pkl") for protocol in range(6)),
        (pickle.dumps(["sa_3", "sa_1"]), "ids"),
    ],
)
def test_a_selection_is_taken_in_its_order(tmp_path, data, name):
    source = selecting(tmp_path, data, name)
    assert source.plans()[0].notes[0].startswith("1 ids of")
    assert image_ids(ingest(source, tmp_path / "out")) == ["subject10k/sa_3", "subject10k/sa_1"]


def test_a_pickle_of_ten_thousand_ids_is_read(tmp_path):
    wanted = [f"sa_{number}" for number in range(10_000)]
    (plan,) = selecting(tmp_path, pickle.dumps(wanted, 2)).plans()
    assert sum(unit.items["image"] for unit in plan.units) == 10_000


@pytest.mark.parametrize("unit_size", [2, 1000])
def test_selected_ids_that_are_not_there_are_failed_and_repeats_rejected(tmp_path, unit_size):
    source = selecting(tmp_path, b"sa_1\nsa_9\n../sa_2\nsa_1\n", "ids.txt")
    dataset = ingest(dataclasses.replace(source, unit_size=unit_size), tmp_path / "out")
    assert ledger(dataset) == {
        ("image", "subject10k/sa_9", 0): "missing_file",
        ("image", "subject10k/../sa_2", 0): "missing_file",
        ("image", "subject10k/sa_1", 1): "duplicate",
    }
    assert dataset.counts("ingest")["image"].input == 4
    assert verify(dataset).sound


class _Runs:
    """Its pickle calls a function, as a hostile one does."""

    def __init__(self, call, *arguments) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_refused_and_not_obeyed(tmp_path, protocol):
    proof = tmp_path / "proof"
    data = pickle.dumps(["sa_1", _Runs(os.system, f"touch {proof}")], protocol)
    with pytest.raises(Refused, match=r"select\.pkl cannot be read"):
        selecting(tmp_path, data).plans()
    assert not proof.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x04.",
        pickle.dumps("sa_1"),
        pickle.dumps({"sa_1": 1}),
        pickle.dumps(("sa_1",)),
        pickle.dumps([["sa_1"]]),
        pickle.dumps(["sa_1", 5]),
        pickle.dumps(["sa_1", b"sa_2"]),
        pickle.dumps(np.array(["sa_1"])),
        pickle.dumps(["sa_1", "sa_2"])[:-5],
        b"\x80\x04Psa_1\n.",  # an object from elsewhere
        b"\x80\x04]r\xff\xff\xff\xff.",  # a memo of 34 GB
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # a bytearray of 1 TB
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04N0](\x8c\x04sa_1e.",  # harmless, but no pickler writes it
    ],
)
def test_what_is_no_flat_list_of_texts_is_refused(tmp_path, data):
    with pytest.raises(Refused, match=r"select\.pkl cannot be read"):
        selecting(tmp_path, data).plans()


def test_the_unpickler_itself_refuses_to_import_and_to_look_up():
    from refloom.ingest.sources import subject10k

    reader = subject10k._ListOfTexts(io.BytesIO(pickle.dumps(_Runs(os.getcwd))))
    with pytest.raises(pickle.UnpicklingError, match="wants to import"):
        reader.load()
    with pytest.raises(pickle.UnpicklingError, match="from elsewhere"):
        reader.persistent_load("x")


@pytest.mark.parametrize("data", [b"\xff\xfe\x00 text", b"sa_404\n", b"# nothing\n", b'["sa_1"]\n'])
def test_a_text_that_selects_nothing_is_refused(tmp_path, data):
    with pytest.raises(Refused, match=r"ids\.txt"):
        selecting(tmp_path, data, "ids.txt").plans()


def test_an_absent_selection_is_refused(tmp_path):
    with pytest.raises(Refused, match="cannot be read"):
        Subject10k(directory=str(three(tmp_path)), select=str(tmp_path / "absent.txt")).plans()


def test_units_are_runs_of_ids(tmp_path):
    root = str(three(tmp_path / "set"))
    one = ingest(Subject10k(directory=root), tmp_path / "one")
    many = ingest(Subject10k(directory=root, unit_size=1), tmp_path / "many")
    assert len(many.units()) == 3
    assert one.read("objects").equals(many.read("objects"))
    assert image_ids(ingest(Subject10k(directory=root, limit=2), tmp_path / "few")) == image_ids(one)[:2]


@pytest.mark.parametrize("file", ["images/sa_1.png", "masks/sa_1.png", "jsons/sa_1.json"])
def test_the_identity_of_a_unit_changes_with_its_input(tmp_path, file):
    source = Subject10k(directory=str(write(tmp_path / "set")))
    before = source.plans()[0].units[0].identity
    with (tmp_path / "set" / file).open("ab") as opened:
        opened.write(b" ")
    assert source.plans()[0].units[0].identity != before


@pytest.mark.shared
def test_real_masks_in_this_layout_come_back(tmp_path, shared):
    """The girls and bags of `schoolgirls`, with the boxes that a detector would give."""
    folder = shared / "ytvis"
    for part in ("images", "masks", "jsons"):
        (tmp_path / "set" / part).mkdir(parents=True)
    expected = {}
    for path in sorted((folder / "Annotations" / "schoolgirls").glob("*.png"))[:5]:
        values = np.asarray(Image.open(path))
        entries = []
        for value in np.unique(values)[1:].tolist():
            box = masks.tight_boxes([masks.encode(values == value)])[0].tolist()
            entries.append({"label": f"girl {value}", "box": box, "logit": 0.9})
            inside = values[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])]
            found, counts = np.unique(inside, return_counts=True)
            if found[1:][counts[1:].argmax()] == value:
                expected[f"subject10k/sa_{path.stem}#{len(entries) - 1}"] = masks.encode(values == value)["counts"]
        frame = pictures.decode((folder / "JPEGImages" / "schoolgirls" / f"{path.stem}.jpg").read_bytes())
        name = f"sa_{path.stem}"
        (tmp_path / "set" / "images" / f"{name}.png").write_bytes(encoded(Image.fromarray(frame), "PNG"))
        (tmp_path / "set" / "masks" / f"{name}.png").write_bytes(path.read_bytes())
        record = {"text": "girls", "original_size": [432, 240], "final_masks": entries}
        (tmp_path / "set" / "jsons" / f"{name}.json").write_text(json.dumps(record))
    dataset = ingest(Subject10k(directory=str(tmp_path / "set")), tmp_path / "out")
    rows = {row["object_id"]: row["mask"]["counts"] for row in dataset.read("objects").to_pylist()}
    assert len(rows) == 35
    assert len(expected) > 20
    assert {key: rows[key] for key in expected} == expected
    assert verify(dataset).sound
