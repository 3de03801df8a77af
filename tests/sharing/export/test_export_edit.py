"""`export --format edit`: every layout as its trainer reads it, from samples of every kind; nothing is mixed up."""

import dataclasses
import io
import json
import re
from collections import Counter
from pathlib import Path

import editsamples
import numpy as np
import pytest
from drawing import encoded, gradient
from exporting import run
from PIL import Image
from scenes import COLOURS, shows
from trainerreaders import READERS, Example

from refloom.ingest.sources import SOURCES
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.takedownlist import TakedownList
from refloom.sharing.export.edit.examples import example
from refloom.sharing.export.edit.settings import LAYOUTS, Edit, LeftOut
from refloom.sharing.export.reading import Choice, PictureBytes, as_trainers_read

UNITS, ROWS = 3, 5
GIVEN = 4
"""Of five samples, one of each kind, all but that of one image give an example."""


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> str:
    """Two units of train and one of validation, each with a sample of every kind."""
    return editsamples.write(tmp_path_factory.mktemp("edit") / "data", UNITS, ROWS)


def export(samples: str, out: Path, layout: str, **options: object) -> Counter[str]:
    """Export in this process; what was written, by word."""
    assert run(Path(samples), out, "edit", layout=layout, workers=0, prefix=str(out), **options) == 0
    written = json.loads((out / "export.json").read_text())["written"]
    return Counter(written)


def read(out: Path, layout: str) -> dict[str, list[Example]]:
    return {split: list(READERS[layout](out, split)) for split in ("train", "validation")}


def sources(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "sources.jsonl").read_text().splitlines()]


def named(text: str) -> dict[int, str]:
    """Number of an image to the subject that the text names it by."""
    found = {}
    for name, numbers in re.findall(r"the (\w+) of images? ((?:\d+(?:, | and )?)+)", text, re.IGNORECASE):
        found.update(dict.fromkeys(map(int, re.findall(r"\d+", numbers)), name))
    return found


def signature(pixels: np.ndarray) -> tuple[int, ...]:
    """Which whole picture of `editsamples` it is: number and place."""
    return tuple(int(value) for value in pixels[-1, 0, :2])


# -- every layout, read as its trainer reads it --------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trainer_reads_every_example_with_its_references_in_the_order_of_the_text(samples, tmp_path, layout):
    written = export(samples, tmp_path / "out", layout, per_subject=1)
    found = read(tmp_path / "out", layout)
    assert {split: len(examples) for split, examples in found.items()} == {"train": 2 * GIVEN, "validation": GIVEN}
    assert written["samples"] == 3 * GIVEN
    records = {split: [one for one in sources(tmp_path / "out") if one["split"] == split] for split in found}
    for split, examples in found.items():
        assert len(records[split]) == len(examples)
        for record, one in zip(records[split], examples, strict=True):
            kind, number, at = record["image_ids"][0].split("/")
            assert one.target.shape == (*reversed(editsamples.SIZE), 3)
            assert signature(one.target) == (int(number), int(at))
            assert len(one.references) == len(record["image_ids"]) - 1
            if kind == "directed":
                assert one.text == "Put what image 1 shows beside image 2"
                assert [signature(pixels) for pixels in one.references] == [(int(number), 2), (int(number), 0)]
                assert int(at) == 1
                continue
            names = named(one.text)
            assert sorted(names) == list(range(1, len(one.references) + 1))
            for place, pixels in enumerate(one.references, 1):
                assert pixels.shape[0] == pixels.shape[1]  # a square
                others = sum(shows(pixels, name).mean() for name in COLOURS if name != names[place])
                assert shows(pixels, names[place]).mean() > 0.3
                assert others < 0.02
            assert record["image_ids"][0] not in record["image_ids"][1:]


def test_what_is_written_is_accounted_for(samples, tmp_path):
    written = export(samples, tmp_path / "out", "uno")
    left = sum(count for word, count in written.items() if word.startswith("left out: sample"))
    assert written["samples"] + left == UNITS * ROWS
    assert written["left out: sample, one image: its own crops are given with --same-image"] == UNITS
    assert written["instructions from source"] == UNITS
    assert written["instructions from template"] == 3 * UNITS
    assert written["images"] == len(list((tmp_path / "out/images").rglob("*.*")))


def test_names_are_relative_without_a_prefix_and_none_leaves_the_folder(samples, tmp_path):
    assert run(Path(samples), tmp_path / "out", "edit", layout="omnigen2", workers=0) == 0
    for line in (tmp_path / "out/train.jsonl").read_text().splitlines():
        item = json.loads(line)
        for name in [item["output_image"], *item["input_images"]]:
            assert re.fullmatch(r"images/train/train-\d{5}/\d{8}(_\d)?\.(jpg|png)", name)
            assert (tmp_path / "out" / name).is_file()


def test_one_split_and_the_first_few(samples, tmp_path):
    export(samples, tmp_path / "validation", "uno", split="validation")
    assert not (tmp_path / "validation/train.json").exists()
    assert len(json.loads((tmp_path / "validation/validation.json").read_text())) == GIVEN
    written = export(samples, tmp_path / "few", "uno", limit=7)
    assert sum(count for word, count in written.items() if word == "samples" or word.startswith("left out: s")) == 7


def test_bagels_rows_keep_bytes_as_they_are(samples, tmp_path):
    export(samples, tmp_path / "out", "bagel", reference="image")
    stored = {
        picture["image_id"]: image["bytes"]
        for row in Dataset(samples).read("samples").to_pylist()
        for picture, image in zip(row["pictures"], row["images"], strict=True)
    }
    import pyarrow.parquet as pq

    rows = [row for path in sorted((tmp_path / "out/train").iterdir()) for row in pq.read_table(path).to_pylist()]
    records = [one for one in sources(tmp_path / "out") if one["split"] == "train"]
    assert len(rows) == len(records) == 2 * GIVEN
    for row, record in zip(rows, records, strict=True):
        assert row["sample_id"] == record["sample_id"]
        target, *references = record["image_ids"]
        assert row["image_list"] == [stored[name] for name in [*references, target]]


# -- what an example is made of ------------------------------------------------------------------------------------


def row_of(kind: str, number: int = 1) -> dict:
    return editsamples.made(kind, number)[0]


def edit(**options: object) -> Edit:
    return Edit(**{"layout": "uno", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("reference", ["cutout", "box", "image", "face"])
@pytest.mark.parametrize("kind", ["video", "group", "cross"])
def test_references_lie_on_other_images_than_the_target(kind, reference):
    for seed in range(30):
        found = example(row_of(kind), edit(reference=reference, seed=seed, per_subject=3))
        assert found.references
        assert all(one.picture != found.target for one in found.references)
        shown = {one.picture for one in found.references}
        assert reference != "image" or len(shown) == len(found.references)  # each whole image once


def test_a_target_that_is_said_stays_and_others_are_drawn_by_the_seed():
    drawn = [example(row_of("video", number), edit(seed=seed)).target for number in range(4) for seed in range(10)]
    assert set(drawn) == {0, 1, 2}
    assert drawn == [
        example(row_of("video", number), edit(seed=seed)).target for number in range(4) for seed in range(10)
    ]
    assert {example(row_of("cross"), edit(seed=seed)).target for seed in range(10)} == {0}
    assert {example(row_of("directed"), edit(seed=seed)).target for seed in range(10)} == {1}


def test_a_reference_never_becomes_the_target():
    row = row_of("video")
    row["pictures"][0]["role"] = row["pictures"][2]["role"] = "reference"
    assert {example(row, edit(seed=seed)).target for seed in range(20)} == {1}


def test_a_subject_that_is_seen_once_is_no_reference_and_not_named():
    for seed in range(10):
        found = example(row_of("group"), edit(seed=seed))
        assert "dog" not in re.sub(r"A cup and a dog and a car\.", "", found.instruction)
        assert named(found.instruction) == {1: "cup"}


def test_several_references_of_a_subject_are_named_together():
    found = example(row_of("cross"), edit(per_subject=2))
    assert named(found.instruction) == {1: "cup", 2: "cup", 3: "dog", 4: "dog"}
    assert "the cup of images 1 and 2 and the dog of images 3 and 4" in found.instruction
    assert [one.picture for one in found.references] == [1, 2, 1, 2]


def test_one_image_that_shows_both_is_given_once():
    row = row_of("cross")
    row["subjects"] = [s | {"appearances": [a for a in s["appearances"] if a["picture"] < 2]} for s in row["subjects"]]
    found = example(row, edit(reference="image"))
    assert [one.subjects for one in found.references] == [(0, 1)]
    assert "the cup of image 1 and the dog of image 1" in found.instruction


def test_a_layout_of_three_references_takes_the_first_of_each_subject_before_a_second():
    found = example(row_of("cross"), edit(layout="ai-toolkit", per_subject=2))
    assert [one.subjects for one in found.references] == [(0,), (0,), (1,)]
    row = row_of("directed")
    row["pictures"] = row["pictures"] * 2
    row["instructions"][0]["references"] = [0, 2, 3, 4]
    with pytest.raises(LeftOut, match="more references than ai-toolkit holds"):
        example(row, edit(layout="ai-toolkit"))
    assert len(example(row, edit()).references) == 4


def test_one_image_gives_its_own_crops_only_when_asked():
    with pytest.raises(LeftOut, match="--same-image"):
        example(row_of("image"), edit())
    found = example(row_of("image"), edit(same_image=True))
    assert [(one.picture, one.form) for one in found.references] == [(0, "cutout"), (0, "cutout")]
    with pytest.raises(Refused, match="the target itself"):
        edit(same_image=True, reference="image")


def test_a_directed_record_gives_its_own_images_whole_whatever_is_asked():
    for instructions, order in (("own", [2, 0]), ("template", [0, 2])):
        found = example(row_of("directed"), edit(reference="face", instructions=instructions))
        assert [(one.picture, one.form) for one in found.references] == [(index, "image") for index in order]
    assert named(found.instruction) == {1: "cup", 2: "cup"} | {1: "dog", 2: "dog"}


@pytest.mark.parametrize("references", [[1], [0, 7], [-1]])
def test_an_instruction_that_counts_the_target_or_nothing_is_left_out(references):
    row = row_of("directed")
    row["instructions"][0]["references"] = references
    with pytest.raises(LeftOut, match="no references of it"):
        example(row, edit())


def test_without_a_face_there_is_no_face_reference():
    row = row_of("video")
    for subject in row["subjects"]:
        for appearance in subject["appearances"]:
            appearance["face"] = None
    with pytest.raises(LeftOut, match=r"reference \(face\) on another image"):
        example(row, edit(reference="face"))


def test_a_caption_of_a_person_or_model_is_used_and_a_template_is_not():
    row = row_of("cross")
    assert "A cup and a dog and a car." in example(row, edit()).instruction
    for picture in row["pictures"]:
        picture["caption_from"] = "template"
    assert "car" not in example(row, edit()).instruction


def test_words_of_a_dataset_stay_on_one_line():
    row = row_of("cross")
    row["subjects"][0]["phrase"] = "a\ncup\t{0}"
    assert "the a cup {0} of image 1" in example(row, edit()).instruction


# -- bytes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["box", "face"])
def test_crops_show_the_box_of_their_subject(samples, tmp_path, reference):
    export(samples, tmp_path / "out", "uno", reference=reference)
    checked = 0
    for record, one in zip(
        [r for r in sources(tmp_path / "out") if r["split"] == "train"],
        read(tmp_path / "out", "uno")["train"],
        strict=True,
    ):
        if record["kind"] == "group" and "directed" in record["sample_id"]:
            continue
        for place, pixels in enumerate(one.references, 1):
            checked += 1
            assert shows(pixels, named(one.text)[place]).mean() > 0.2
            assert (pixels.shape[0] == pixels.shape[1]) or reference == "box"
    assert checked >= 8


def test_a_damaged_image_costs_its_sample_and_is_counted(tmp_path):
    def make(number):
        row, images = editsamples.every_kind(number)
        return row, [images[0][:80], *images[1:]] if number == 1 else images

    url = editsamples.write(tmp_path / "data", 2, ROWS, held_out=0, make=make)
    written = export(url, tmp_path / "out", "uno")
    assert written["samples"] == 2 * GIVEN - 1
    assert written["left out: sample, an image with truncated"] == 1
    names = [one["sample_id"] for one in sources(tmp_path / "out")]
    assert "cross/test/1" not in names
    assert not list((tmp_path / "out/images").rglob("00000001*"))


def test_an_error_that_nobody_foresaw_costs_its_sample_and_is_tried_again(samples, tmp_path, monkeypatch):
    from refloom.sharing.export.edit import unit

    def trips(row, settings):
        if row["sample_id"] == "video/test/0":
            raise KeyError("a bug")
        return example(row, settings)

    monkeypatch.setattr(unit, "example", trips)
    assert run(Path(samples), tmp_path / "out", "edit", layout="uno", workers=0, item_timeout=None) == 1
    assert not (tmp_path / "out/export.json").exists()
    assert len(sources(tmp_path / "out")) == 3 * GIVEN - 1
    monkeypatch.undo()
    assert run(Path(samples), tmp_path / "out", "edit", layout="uno", workers=0) == 0
    assert len(sources(tmp_path / "out")) == 3 * GIVEN
    assert not (tmp_path / "out/export.parts").exists()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(gradient(60, 40)), "JPEG", exif=exif, quality=95)


def transparent(form: str) -> bytes:
    image = Image.fromarray(gradient(60, 40)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encoded(image, form, **({"lossless": True} if form == "WEBP" else {}))


def deep() -> bytes:
    return encoded(Image.fromarray((np.arange(2400, dtype=np.uint16) * 27).reshape(40, 60)), "PNG")


@pytest.mark.parametrize(
    ("data", "end", "same"),
    [
        (encoded(Image.fromarray(gradient(60, 40)), "JPEG", quality=95), ".jpg", True),
        (encoded(Image.fromarray(gradient(60, 40)), "PNG"), ".png", True),
        (encoded(Image.fromarray(gradient(60, 40)).convert("P"), "PNG"), ".png", True),
        (encoded(Image.fromarray(gradient(60, 40)), "WEBP", quality=90), ".webp", True),
        (turned(), ".png", False),
        (transparent("PNG"), ".png", False),
        (transparent("WEBP"), ".png", False),
        (deep(), ".png", False),
        (encoded(Image.fromarray(gradient(60, 40)), "TIFF"), ".png", False),
        (encoded(Image.fromarray(gradient(60, 40)), "BMP"), ".png", False),
    ],
)
def test_a_whole_image_is_what_refloom_sees_to_whoever_opens_it_with_pillow(data, end, same):
    made, extension = as_trainers_read("x", data, PictureBytes(Choice(), Counter()))
    assert extension == end
    assert (made == data) == same
    seen = np.asarray(Image.open(io.BytesIO(made)).convert("RGB")).astype(int)
    assert np.abs(seen - pictures.decode(data)).max() <= 1


# -- licenses and takedowns ----------------------------------------------------------------------------------------


def test_licenses_go_along_and_can_bound_what_is_given(tmp_path):
    def make(number):
        row, images = editsamples.made("cross", number)
        row["pictures"][1]["license"] = ["CC BY 4.0", "for research only", None][number]
        return row, images

    url = editsamples.write(tmp_path / "data", 1, 3, held_out=0, make=make)
    written = export(url, tmp_path / "all", "uno", reference="image", per_subject=2)
    assert written["samples"] == 3
    assert written["samples of which a license forbids to give an image away"] == 1
    assert written["samples of which no license is known to let an image be given away"] == 1
    assert {one["licenses"][1] for one in sources(tmp_path / "all")} == {"CC BY 4.0", "for research only", None}
    written = export(url, tmp_path / "free", "uno", reference="image", per_subject=2, redistributable=True)
    assert [one["sample_id"] for one in sources(tmp_path / "free")] == ["cross/test/0"]
    assert written["left out: sample, a license forbids to give an image away"] == 1


def test_a_dataset_that_holds_what_was_taken_down_is_refused(tmp_path):
    url = editsamples.write(tmp_path / "data", 1, ROWS, held_out=0)
    TakedownList(entries=("cross/1/2",), images={"cross/1/2": ""}).save(Dataset(url).folder)
    with pytest.raises(Refused, match="takedown list"):
        run(Path(url), tmp_path / "out", "edit", layout="uno", workers=0)
    assert not (tmp_path / "out").exists()


# -- again ---------------------------------------------------------------------------------------------------------


def test_what_is_written_is_taken_in_again_with_its_direction_and_text(samples, tmp_path):
    if "pairs" not in SOURCES:
        pytest.skip("this refloom has no `ingest pairs` yet")
    from refloom import cli

    for layout, file in (("omnigen2", "train.jsonl"), ("diffsynth", "train.jsonl"), ("uno", "train.json")):
        assert run(Path(samples), tmp_path / layout, "edit", layout=layout, workers=0) == 0
        words = ["ingest", "pairs", tmp_path / layout / file, "--layout", layout, "--out", tmp_path / f"{layout}.data"]
        assert cli.main([*map(str, words), "--workers", "0"]) == 0
        again = Dataset(str(tmp_path / f"{layout}.data"))
        assert again.ledger("ingest").num_rows == 0
        groups = {group["texts"][0]: group for group in again.read("source_groups").to_pylist()}
        records = [one for one in sources(tmp_path / layout) if one["split"] == "train"]
        assert len(groups) == len({one["text"] for one in lines_of(layout, tmp_path / layout / file)})
        for one in lines_of(layout, tmp_path / layout / file):
            *references, target = groups[one["text"]]["members"]
            assert target == groups[one["text"]]["target"]
            assert len(references) == len(one["references"])
            assert all(member.endswith(name) for member, name in zip(references, one["references"], strict=True))
            assert target.endswith(one["target"])
        assert len(records) == 2 * GIVEN


def lines_of(layout: str, file: Path) -> list[dict]:
    """Text, names of references and target of the lines of a layout; the last of those with one text."""
    keys = {
        "omnigen2": ("instruction", "input_images", "output_image"),
        "diffsynth": ("prompt", "edit_image", "image"),
        "uno": ("prompt", "image_paths", "image_tgt_path"),
    }[layout]
    lines = json.loads(file.read_text()) if file.suffix == ".json" else map(json.loads, file.read_text().splitlines())
    found = {
        line[keys[0]]: dict(zip(("text", "references", "target"), map(line.get, keys), strict=True)) for line in lines
    }
    return list(found.values())


def test_settings_that_cannot_be_are_refused(samples, tmp_path):
    out = tmp_path / "out"
    for options, said in (
        ({}, "needs --layout: give one of omnigen2, diffsynth"),
        ({"layout": "flux"}, "layout is one of omnigen2"),
        ({"layout": "uno", "per_subject": 0}, "per_subject is a whole number from 1"),
        ({"layout": "uno", "seed": -1}, "seed is a whole number"),
        ({"layout": "uno", "prefix": " "}, "prefix is a text"),
        ({"layout": "uno", "kept": True}, "--kept is for --format coco and bbox"),
    ):
        with pytest.raises(Refused, match=re.escape(said)):
            run(Path(samples), out, "edit", workers=0, **options)
    with pytest.raises(Refused, match="--layout is for --format edit, not webdataset"):
        run(Path(samples), out, "webdataset", layout="uno")
    with pytest.raises(Refused, match="webdataset is written by one"):
        run(Path(samples), out, "webdataset", workers=2)
    assert not out.exists()


def test_every_setting_of_edit_is_an_option_and_part_of_what_an_export_is_known_by(samples, tmp_path):
    export(samples, tmp_path / "out", "uno")
    known = json.loads((tmp_path / "out/export.json").read_text())
    assert {f"edit.{field.name}" for field in dataclasses.fields(Edit)} <= set(known)
    with pytest.raises(Refused, match=re.escape("another edit.seed")):
        export(samples, tmp_path / "out", "uno", seed=3)
