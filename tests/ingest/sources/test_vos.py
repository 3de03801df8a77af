"""YouTube-VOS and DAVIS: pixel values become objects and tracks, and a bad PNG, object or video costs itself."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from drawing import encoded, gradient
from helpers import image_ids, ingest, ledger, object_ids
from PIL import Image

from refloom.ingest.labelmap import label_map
from refloom.ingest.sources.vos import Vos
from refloom.schemas import masks, pictures
from refloom.schemas.errors import Refused, Rejected
from refloom.schemas.verify import verify

WIDTH, HEIGHT = 64, 48
FRAMES = ("00000", "00005", "00010")


def labels(frame: int = 0) -> np.ndarray:
    """Two objects that move: 1 and 2 on 0, with a rim of void."""
    out = np.zeros((HEIGHT, WIDTH), np.uint8)
    out[5:20, 3 + frame : 20 + frame] = 1
    out[22:40, 30 + frame : 50 + frame] = 2
    out[40:42, 30:50] = 255
    return out


def palette_png(values: np.ndarray, seed: int = 0) -> bytes:
    image = Image.fromarray(values, "P")
    image.putpalette(np.random.default_rng(seed).integers(0, 256, 768, np.uint8).tobytes())
    return encoded(image, "PNG")


def write_vos(root, videos=("v1", "v2"), *, meta=True, below=""):
    """A tree of three frames a video; returns the root."""
    frames, pngs = root / "JPEGImages" / below, root / "Annotations" / below
    for number, video in enumerate(videos):
        (frames / video).mkdir(parents=True)
        (pngs / video).mkdir(parents=True)
        for index, frame in enumerate(FRAMES):
            data = pictures.encode_jpeg(gradient(WIDTH, HEIGHT, 10 * number + index), 90)
            (frames / video / f"{frame}.jpg").write_bytes(data)
            (pngs / video / f"{frame}.png").write_bytes(palette_png(labels(index)))
    if meta:
        objects = {
            "1": {"category": "dog", "frames": list(FRAMES)},
            "2": {"category": "giant panda", "frames": list(FRAMES[1:])},
        }
        change(root, lambda document: document.update(videos={video: {"objects": objects} for video in videos}))
    return root


def change(root, edit) -> None:
    path = root / "meta.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    edit(document)
    path.write_text(json.dumps(document))


def kept(dataset) -> dict[str, int]:
    return {kind: counts.kept for kind, counts in dataset.counts("ingest").items()}


def test_rows_hold_what_meta_and_pngs_say(tmp_path):
    dataset = ingest(Vos(root=str(write_vos(tmp_path / "vos"))), tmp_path / "out")
    image = dataset.read("images").to_pylist()[1]
    assert (image["image_id"], image["source"], image["video_id"]) == ("vos/v1/00005", "vos", "vos/v1")
    assert (image["frame_index"], image["time_s"]) == (5, None)
    objects = {row["object_id"]: row for row in dataset.read("objects").to_pylist()}
    panda = objects["vos/v1/00005#2"]
    assert (panda["track_id"], panda["category"], panda["kind"]) == ("vos/v1#2", "giant panda", "object")
    assert panda["box"] == [31, 22, 51, 40]
    assert np.array_equal(masks.decode(panda["mask"]), labels(1) == 2)
    assert "vos/v1/00000#2" not in objects  # meta.json does not list it there, though the PNG has it
    assert kept(dataset) == {"video": 2, "image": 6, "track": 4, "annotation": 10}
    assert verify(dataset, decode_per_unit=-1).sound


def test_time_is_known_only_with_a_frame_rate(tmp_path):
    root = write_vos(tmp_path / "vos")
    dataset = ingest(Vos(root=str(root), frame_rate=24.0), tmp_path / "out")
    assert dataset.read("images")["time_s"].to_pylist()[:3] == pytest.approx([0, 5 / 24, 10 / 24])


def test_without_meta_objects_are_the_values_and_255_is_none(tmp_path):
    root = write_vos(tmp_path / "vos", meta=False)
    (root / "Annotations" / "v2" / "00005.png").unlink()  # DAVIS and the valid split annotate some frames only
    source = Vos(root=str(root))
    dataset = ingest(source, tmp_path / "out")
    assert kept(dataset) == {"video": 2, "image": 6, "track": 4, "annotation": 10}
    assert object_ids(dataset) == {
        f"vos/v{video}/{frame}#{value}"
        for video in (1, 2)
        for frame in FRAMES
        for value in (1, 2)
        if (video, frame) != (2, "00005")
    }
    assert set(dataset.read("objects")["category"].to_pylist()) == {None}
    assert "255 is void" in source.plans()[0].notes[0]
    assert not ledger(dataset)
    assert verify(dataset).sound


def test_a_listed_object_255_is_an_object(tmp_path):
    root = write_vos(tmp_path / "vos", ("v1",))
    change(root, lambda document: document["videos"]["v1"]["objects"].update({"255": {"frames": ["00000"]}}))
    row = ingest(Vos(root=str(root)), tmp_path / "out").read("objects").to_pylist()[1]
    assert (row["object_id"], row["category"], row["area"]) == ("vos/v1/00000#255", None, 40)


def test_colours_of_the_palette_mean_nothing(tmp_path):
    plain = ingest(Vos(root=str(write_vos(tmp_path / "vos"))), tmp_path / "plain")
    for path in (tmp_path / "vos" / "Annotations").rglob("*.png"):
        path.write_bytes(palette_png(np.asarray(Image.open(path)), seed=7))
    other = ingest(Vos(root=str(tmp_path / "vos")), tmp_path / "other")
    assert other.fingerprint("objects") == plain.fingerprint("objects")


def grey_png(values: list[int], bits: int) -> bytes:
    """A PNG of one row of grey values of 1, 2, 4, 8 or 16 bits, written by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    text = "".join(f"{value:0{bits}b}" for value in values)
    row = b"\0" + int(text.ljust(-len(text) % 8 + len(text), "0"), 2).to_bytes((len(text) + 7) // 8, "big")
    header = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("values", "bits"), [([0, 1, 1], 1), ([0, 1, 3], 2), ([0, 5, 15], 4), ([0, 7, 255], 8), ([0, 300, 65535], 16)]
)
def test_grey_values_are_those_that_are_stored(values, bits):
    assert label_map(grey_png(values, bits)).tolist() == [values]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "bad_mask"),
        (b"no picture at all", "bad_mask"),
        (palette_png(labels())[:-40], "bad_mask"),
        (palette_png(labels()).replace(b"IDAT", b"JDAT"), "bad_mask"),
        (pictures.encode_jpeg(gradient(WIDTH, HEIGHT)), "bad_mask"),
        (encoded(Image.fromarray(labels()), "JPEG"), "bad_mask"),
        (encoded(Image.fromarray(gradient(WIDTH, HEIGHT)), "PNG"), "bad_mask"),
        (encoded(Image.new("P", (20_000, 20_000)), "PNG"), "bad_mask"),
        (palette_png(labels()[:, :-1]), "size_mismatch"),
        (palette_png(labels().T), "size_mismatch"),
        (palette_png(np.zeros((HEIGHT, WIDTH), np.uint8)), "empty_mask"),
        (None, "missing_file"),
    ],
    ids=[
        "empty",
        "text",
        "cut",
        "chunk",
        "jpeg",
        "grey jpeg",
        "rgb",
        "bomb",
        "narrow",
        "turned",
        "background",
        "absent",
    ],
)
def test_a_bad_png_costs_the_annotations_of_its_frame_only(tmp_path, data, reason):
    root = write_vos(tmp_path / "vos", ("v1",))
    path = root / "Annotations" / "v1" / "00005.png"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    dataset = ingest(Vos(root=str(root)), tmp_path / "out")
    assert ledger(dataset) == {("annotation", f"vos/v1/00005#{value}", 0): reason for value in (1, 2)}
    assert kept(dataset) == {"video": 1, "image": 3, "track": 2, "annotation": 3}
    assert verify(dataset).sound


def test_without_meta_a_bad_png_is_one_item_of_the_ledger(tmp_path):
    root = write_vos(tmp_path / "vos", ("v1",), meta=False)
    (root / "Annotations" / "v1" / "00005.png").write_bytes(b"no picture at all")
    dataset = ingest(Vos(root=str(root)), tmp_path / "out")
    assert ledger(dataset) == {("annotation", "vos/v1/00005#mask", 0): "bad_mask"}
    assert dataset.counts("ingest")["annotation"].input == 5


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize(
    ("data", "reason", "lost"), [(b"", "not_an_image", "rejected"), (None, "missing_file", "failed")]
)
def test_a_lost_frame_takes_its_annotations_along(tmp_path, meta, data, reason, lost):
    root = write_vos(tmp_path / "vos", ("v1",), meta=meta)
    path = root / "JPEGImages" / "v1" / "00005.jpg"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    dataset = ingest(Vos(root=str(root)), tmp_path / "out")
    expected = {("annotation", f"vos/v1/00005#{value}", 0): f"image_{lost}" for value in (1, 2)}
    assert ledger(dataset) == expected | {("image", "vos/v1/00005", 0): reason}
    assert kept(dataset)["image"] == 2
    assert verify(dataset).sound


def test_a_png_is_decoded_when_its_frame_is_under_work(tmp_path):
    root = write_vos(tmp_path / "vos", ("v1",))
    source = Vos(root=str(root))
    picture = list(source.read(source.plans()[0].units[0]))[1]
    assert picture.annotations[0].segmentation is None
    picture.load()
    assert np.array_equal(masks.decode(picture.annotations[0].segmentation), labels() == 1)


@pytest.mark.parametrize(
    ("identity", "record", "track_reason", "annotation_reason"),
    [
        ("3", "text", "bad_record", None),
        ("3", {"category": "cat"}, "bad_record", None),
        ("0", {"frames": ["00000"]}, "bad_record", "track_rejected"),
        ("cat", {"frames": ["00000"]}, "bad_record", "track_rejected"),
        ("3", {"frames": ["00000"], "category": 5}, "bad_record", "track_rejected"),
        ("3", {"frames": ["00000"], "category": "\ud800"}, "bad_record", "track_rejected"),
        ("3", {"frames": ["00000"]}, "bad_record", "empty_mask"),
        ("70000", {"frames": ["00000"]}, "bad_record", "empty_mask"),
    ],
)
def test_a_bad_object_costs_itself(tmp_path, identity, record, track_reason, annotation_reason):
    root = write_vos(tmp_path / "vos", ("v1",))
    change(root, lambda document: document["videos"]["v1"]["objects"].update({identity: record}))
    dataset = ingest(Vos(root=str(root)), tmp_path / "out")
    found = ledger(dataset)
    assert found.pop(("track", f"vos/v1#{identity}", 0)) == track_reason
    assert found.pop(("annotation", f"vos/v1/00000#{identity}", 0), None) == annotation_reason
    assert not found
    assert kept(dataset) == {"video": 1, "image": 3, "track": 2, "annotation": 5}


@pytest.mark.parametrize(
    ("frame", "image", "reason"),
    [
        ("../../x", "vos/v1/'../../x'", "unsafe_path"),
        (7, "vos/v1/7", "bad_record"),
        ("00015", "vos/v1/00015", "missing_file"),
    ],
)
def test_a_bad_frame_costs_itself_and_what_lies_on_it(tmp_path, frame, image, reason):
    root = write_vos(tmp_path / "vos", ("v1",))
    change(root, lambda document: document["videos"]["v1"]["objects"]["1"]["frames"].append(frame))
    dataset = ingest(Vos(root=str(root)), tmp_path / "out")
    lost = "missing_file" if reason == "missing_file" else "image_rejected"
    assert ledger(dataset) == {("image", image, 0): reason, ("annotation", f"{image}#1", 0): lost}


def test_a_frame_listed_twice_is_a_duplicate(tmp_path):
    root = write_vos(tmp_path / "vos", ("v1",))
    change(root, lambda document: document["videos"]["v1"]["objects"]["1"]["frames"].append("./00000"))
    dataset = ingest(Vos(root=str(root)), tmp_path / "out")
    assert ledger(dataset) == {("annotation", "vos/v1/00000#1", 1): "duplicate"}
    assert verify(dataset).sound


@pytest.mark.parametrize(
    ("name", "record", "reason", "tracks"),
    [
        ("v3", [], "bad_record", 0),
        ("v3", {"objects": []}, "bad_record", 0),
        ("v3", {"objects": {}}, "bad_record", 0),
        ("v3", {"objects": {"1": {"frames": []}}}, "bad_record", 1),
        ("../v1", {"objects": {"1": {"frames": ["00000"]}}}, "unsafe_path", 1),
        ("./v1", {"objects": {"1": {"frames": ["00000"]}}}, "duplicate", 1),
    ],
)
def test_a_bad_video_costs_itself(tmp_path, name, record, reason, tracks):
    root = write_vos(tmp_path / "vos", ("v1",))
    change(root, lambda document: document["videos"].update({name: record}))
    dataset = ingest(Vos(root=str(root)), tmp_path / "out")
    reasons = [(kind, reason) for (kind, *_), reason in sorted(ledger(dataset).items())]
    assert reasons == [("track", "no_image")] * tracks + [("video", reason)]
    assert kept(dataset) == {"video": 1, "image": 3, "track": 2, "annotation": 5}


@pytest.mark.parametrize(("below", "split"), [("", None), ("train", "train"), ("valid", "val")])
def test_layouts_are_found_and_name_the_split(tmp_path, below, split):
    write_vos(tmp_path / "vos" / below)
    dataset = ingest(Vos(root=str(tmp_path / "vos")), tmp_path / "out")
    assert set(dataset.read("images")["split"].to_pylist()) == {split}
    assert len(image_ids(dataset)) == 6


def test_of_two_splits_the_second_is_named_in_a_note(tmp_path):
    write_vos(tmp_path / "vos" / "train")
    write_vos(tmp_path / "vos" / "valid")
    (plan,) = Vos(root=str(tmp_path / "vos")).plans()
    assert any("valid was passed over" in note for note in plan.notes)


def test_the_resolutions_of_davis_are_no_videos(tmp_path):
    write_vos(tmp_path / "DAVIS", meta=False, below="480p")
    dataset = ingest(Vos(root=str(tmp_path / "DAVIS")), tmp_path / "out")
    assert image_ids(dataset)[0] == "vos/v1/00000"
    assert kept(dataset)["annotation"] == 12


def test_what_is_no_vos_folder_is_refused(tmp_path):
    with pytest.raises(Refused, match="no JPEGImages"):
        Vos(root=str(tmp_path)).plans()
    root = write_vos(tmp_path / "vos")
    (root / "meta.json").write_text('{"videos": []}')
    with pytest.raises(Refused, match="has no object `videos`"):
        Vos(root=str(root)).plans()


def test_what_meta_does_not_list_is_noted(tmp_path):
    root = write_vos(tmp_path / "vos")
    change(root, lambda document: document["videos"].pop("v2"))
    (plan,) = Vos(root=str(root)).plans()
    assert plan.notes == ("1 videos of JPEGImages are not in meta.json and were passed over",)


def test_files_that_are_no_frames_are_noted(tmp_path):
    root = write_vos(tmp_path / "vos", meta=False)
    (root / "JPEGImages" / "list.txt").write_text("v1")
    (root / "JPEGImages" / "v1" / "notes.txt").write_text("a dog")
    notes = Vos(root=str(root)).plans()[0].notes
    assert "1 files lie in JPEGImages and in no video; they were passed over" in notes
    assert "passed over in JPEGImages and Annotations, as no pictures: .txt 1" in notes


@pytest.mark.parametrize("meta", [True, False])
def test_units_are_runs_of_videos(tmp_path, meta):
    root = str(write_vos(tmp_path / "vos", ("v1", "v2", "v3"), meta=meta))
    one, many = ingest(Vos(root=root), tmp_path / "one"), ingest(Vos(root=root, unit_size=1), tmp_path / "many")
    assert len(many.units()) == 3
    assert one.read("objects").equals(many.read("objects"))
    assert image_ids(ingest(Vos(root=root, limit=2), tmp_path / "few")) == image_ids(one)[:6]


@pytest.mark.parametrize("file", ["meta.json", "JPEGImages/v1/00000.jpg", "Annotations/v1/00000.png"])
def test_the_identity_of_a_unit_changes_with_its_input(tmp_path, file):
    root = write_vos(tmp_path / "vos")
    before = Vos(root=str(root)).plans()[0].units[0].identity
    assert Vos(root=str(root)).plans()[0].units[0].identity == before
    with (root / file).open("ab") as opened:
        opened.write(b"\n")
    assert Vos(root=str(root)).plans()[0].units[0].identity != before


def test_links_point_at_the_frames(tmp_path):
    root = write_vos(tmp_path / "vos" / "train")
    dataset = ingest(Vos(root=str(root.parent)), tmp_path / "out", link=True)
    row = dataset.read("images").to_pylist()[0]
    assert row["link"]["file"] == "train/JPEGImages/v1/00000.jpg"
    assert dataset.picture(row) == (root / "JPEGImages" / "v1" / "00000.jpg").read_bytes()
    assert verify(dataset).sound


def test_an_animated_png_is_no_label_map():
    file = io.BytesIO()
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (1, 2)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(Rejected, match="bad_mask"):
        label_map(file.getvalue())


@pytest.mark.shared
def test_davis_sequences_have_the_masks_of_their_youtube_vis_json(tmp_path, shared):
    root = tmp_path / "vos"
    root.mkdir()
    for name in ("JPEGImages", "Annotations"):
        (root / name).symlink_to(shared / "ytvis" / name)
    listed: dict[str, dict[str, list[str]]] = {}
    for path in sorted((shared / "ytvis" / "Annotations").rglob("*.png")):
        for value in np.unique(np.asarray(Image.open(path)))[1:].tolist():
            listed.setdefault(path.parent.name, {}).setdefault(str(value), []).append(path.stem)
    objects = {
        video: {"objects": {value: {"category": "thing", "frames": frames} for value, frames in values.items()}}
        for video, values in listed.items()
    }
    (root / "meta.json").write_text(json.dumps({"videos": objects}))
    dataset = ingest(Vos(root=str(root)), tmp_path / "out")
    assert kept(dataset) == {"video": 5, "image": 113, "track": 11, "annotation": 353}
    assert verify(dataset).sound
    document = json.loads((shared / "ytvis" / "instances_compressed_rle.json").read_text())
    names = {video["id"]: video["file_names"] for video in document["videos"]}
    expected = {
        (f"vos/{name.removesuffix('.jpg')}", mask["counts"])
        for track in document["annotations"]
        for name, mask in zip(names[track["video_id"]], track["segmentations"], strict=True)
        if mask is not None
    }
    rows = dataset.read("objects").to_pylist()
    assert {(row["image_id"], row["mask"]["counts"]) for row in rows} == expected
