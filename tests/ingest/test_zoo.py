"""The zoo of bad input as truth table: each bad item costs exactly itself; what must survive survives and decodes."""

import re
from pathlib import Path

import pytest
from helpers import HERE, image_ids, ingest, ledger, object_ids

from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest import jsons
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas.errors import Refused
from refloom.schemas.reasons import FAILED, REJECTED
from refloom.schemas.settings import load
from refloom.schemas.verify import verify

pytestmark = pytest.mark.shared

REFUSED_WHOLE = {
    # the annotation file itself is unusable: refused before anything is written, naming file and remedy
    "coco/categories_missing.json": "no categories",
    "coco/deep_nesting.json": "nested too deeply",
    "coco/empty_file.json": "empty",
    "coco/images_empty.json": "no images",
    "coco/text_cut.json": "not json",
    "coco/top_level_list.json": "detection results",
    "coco/trailing_comma.json": "not json",
    "coco/utf16.json": "not json",
    "ytvis/annotations_absent.json": "no list `annotations`",
    "ytvis/text_cut.json": "not json",
    "ytvis/mmtracking_cocovid_ann.json": "CocoVID",
}
LOST_WITH_THEIR_IMAGE = {
    # these two lie on the second record of one file, whose declared size is another picture's
    "coco/dup_file_name.json": {"294670", "1189025"},
}
OURS = Path(__file__).with_name("zoo_truth.tsv")
"""Rows of EXPECT.tsv whose verdict is another since exports of real tools are taken: the ids that survive."""

UNDETECTABLE = {
    # a box that begins at (0, 0) is the same as x, y, width, height and as x1, y1, x2, y2
    "coco/bbox_xyxy.json": {"583683"},
}


def ours() -> dict[str, set[str]]:
    """File to the ids that survive, where that is not what EXPECT.tsv says."""
    rows = [line.split("\t") for line in OURS.read_text().splitlines()[1:]]
    return {file: set(good.split()) for file, good, _ in rows}


def truth(shared, kind: str) -> list[tuple[str, str, list[str], str]]:
    rows = []
    for line in (shared / "nasty/EXPECT.tsv").read_text().splitlines()[1:]:
        file, _, what, good, note, *_ = [*line.split("\t"), "", ""]
        if file.startswith(kind):
            rows.append((file, what, good.split(), note))
    return rows


def ids_in(path) -> set[str]:
    """Annotation ids of a file: the table also lists ids as they were before a defect took them out."""
    return {str(item["id"]) for item in jsons.load(str(path)).value["annotations"] if "id" in item}


def check(dataset) -> None:
    """Conservation, closed reasons, and a sound dataset."""
    findings = verify(dataset, decode_per_unit=0)
    assert findings.sound, findings.problems
    for counts in dataset.counts("ingest").values():
        assert counts.balanced
        assert set(counts.rejected) <= REJECTED.keys()
        assert set(counts.failed) <= FAILED.keys()


def decoded(dataset) -> set[str]:
    """Ids that `measure` decodes."""
    curate(dataset.url, load(Curation), HERE, only="measure")
    dataset.refresh()
    return set(dataset.read("image_scores", ["image_id"])["image_id"].to_pylist())


def test_coco(shared, tmp_path):
    tried = 0
    for file, what, good, note in truth(shared, "coco/"):
        out = tmp_path / file
        captions = file == "coco/captions_odd.json"
        source = Coco(
            images=str(shared / "coco"),
            instances=str(shared / "coco/annotations/instances_val2017.json" if captions else shared / "nasty" / file),
            captions=str(shared / "nasty" / file) if captions else None,
        )
        tried += 1
        if file in REFUSED_WHOLE:
            with pytest.raises(Refused, match=REFUSED_WHOLE[file]):
                ingest(source, out)
            continue
        dataset = ingest(source, out)
        check(dataset)
        if captions:
            assert dataset.counts("ingest")["caption"].kept == len(good) == 15
            assert len([1 for (kind, *_), reason in ledger(dataset).items() if kind == "caption"]) == 8
            continue
        kept = {object_id.split("#")[1] for object_id in object_ids(dataset)}
        if file in ours():
            assert kept == ours()[file], f"{file} ({what}): {ledger(dataset)}"
            assert set(image_ids(dataset)) <= decoded(dataset)
            continue
        must = set(good) & ids_in(shared / "nasty" / file) - LOST_WITH_THEIR_IMAGE.get(file, set())
        assert must <= kept, f"{file} ({what}): lost {must - kept}: {ledger(dataset)}"
        bad = set(re.findall(r"\d{3,}", note)) - must - UNDETECTABLE.get(file, set())
        if "none if" not in note and not file.startswith("coco/dup_"):
            assert not bad & kept, f"{file} ({what}): kept {bad & kept}"
            assert kept - UNDETECTABLE.get(file, set()) == must, (
                f"{file} ({what}): {kept ^ must} lost or taken beside what the table says"
            )
        assert set(image_ids(dataset)) <= decoded(dataset)
    assert tried == 65


def test_ytvis(shared, tmp_path):
    tried = 0
    for file, what, good, _ in truth(shared, "ytvis/"):
        source = YouTubeVis(frames=str(shared / "ytvis"), annotations=str(shared / "nasty" / file), frame_rate=0)
        tried += 1
        if file in REFUSED_WHOLE:
            with pytest.raises(Refused, match=REFUSED_WHOLE[file]):
                ingest(source, tmp_path / file)
            continue
        dataset = ingest(source, tmp_path / file)
        check(dataset)
        tracks = set(dataset.read("objects", ["track_id"])["track_id"].to_pylist())
        kept = {track.split("#")[1] for track in tracks}
        assert file not in ours() or kept == ours()[file], f"{file} ({what}): {ledger(dataset)}"
        must = set(good) & ids_in(shared / "nasty" / file) - LOST_WITH_THEIR_IMAGE.get(file, set())
        assert must <= kept, f"{file} ({what}): lost {must - kept}: {ledger(dataset)}"
        assert set(image_ids(dataset)) <= decoded(dataset)
    assert tried == 28


def test_ytvis_tracks_that_must_go(shared, tmp_path):
    """What is wrong with a whole track costs the track; what is wrong in one frame costs that frame of it."""
    whole = {
        "category_unknown": "unknown_category",
        "iscrowd_track": "crowd",
        "segmentations_long": "bad_record",
        "segmentations_short": "bad_record",
        "track_all_null": "bad_record",
        "unknown_video": "no_image",
        "mask_other_size": "bad_record",
        "mask_null_bbox_present": "bad_record",
        "dup_track_id": "duplicate",
    }
    for name, reason in whole.items():
        source = YouTubeVis(frames=str(shared / "ytvis"), annotations=str(shared / f"nasty/ytvis/{name}.json"))
        found = {
            item: why for (kind, item, _), why in ledger(ingest(source, tmp_path / name)).items() if kind == "track"
        }
        assert {item.split("#")[1]: why for item, why in found.items()} == {"7": reason}, name
    one_frame = {"bbox_nan": "bad_box", "counts_cut_one_frame": "bad_mask"}
    for name, reason in one_frame.items():
        source = YouTubeVis(frames=str(shared / "ytvis"), annotations=str(shared / f"nasty/ytvis/{name}.json"))
        found = {item: why for (kind, item, _), why in ledger(ingest(source, tmp_path / name)).items()}
        assert [why for item, why in found.items() if item.endswith("#7")] == [reason], name


def test_an_exchange_of_masks_is_seen_when_tracks_are_grouped(shared, tmp_path):
    no_models = ["models.face=none", "models.image_embedding=none", "models.classifier=none"]
    no_bounds = ["filter.min_area_share=0.0", "filter.min_area_px=0", "select.min_area_share=0.0"]
    no_bounds += ["select.min_short_side_px=0", "select.min_quality=0.0"]
    config = load(Curation, None, no_models + no_bounds)
    for name, expected in (("identity_switch", {"5", "7"}), ("control_ok", set())):
        source = YouTubeVis(frames=str(shared / "ytvis"), annotations=str(shared / f"nasty/ytvis/{name}.json"))
        dataset = ingest(source, tmp_path / name)
        curate(dataset.url, config, HERE, until="group")
        dataset.refresh()
        found = {
            item.split("#")[1] for (_, item, _), why in ledger(dataset, "group").items() if why == "identity_switch"
        }
        assert found == expected, name


def test_pictures(shared, tmp_path):
    dataset = ingest(PlainPictures(path=str(shared / "nasty/images")), tmp_path / "out")
    check(dataset)
    taken = decoded(dataset)
    names = {row["item_id"]: row["reason"] for row in dataset.ledger("ingest").to_pylist() if row["kind"] == "image"}
    lost = names | {row["item_id"]: row["reason"] for row in dataset.ledger("measure").to_pylist()}
    rows = [row for row in truth(shared, "images/") if not row[0].endswith(".tar")]
    for file, what, _, _ in rows:
        image_id = image_id_of(file)
        if "(readable" in what:
            assert image_id in taken, f"{file} ({what}): {lost.get(image_id)}"
        if "/._" not in file:  # what an operating system leaves behind is no item
            assert (image_id in taken) != (image_id in lost), file
    assert len(taken) + len(lost) == len(rows) - sum("/real/._" in row[0] for row in rows)


def image_id_of(file: str) -> str:
    from refloom.schemas.ids import encode

    return f"folder/{encode(file.removeprefix('images/'))}"


def test_odd_names_in_a_tar(shared, tmp_path):
    dataset = ingest(PlainPictures(path=str(shared / "nasty/images/made/odd_names.tar")), tmp_path / "out")
    check(dataset)
    assert len(image_ids(dataset)) + len(ledger(dataset)) == 13 + sum(kind == "whole" for kind, *_ in ledger(dataset))
    assert set(image_ids(dataset)) <= decoded(dataset)


def test_sa1b(shared, tmp_path):
    for file, what, good, _ in truth(shared, "sa1b/"):
        dataset = ingest(Sa1b(tars=(str(shared / "nasty" / file),)), tmp_path / file)
        check(dataset)
        for name in good:
            image_id = "sa1b/" + name.removeprefix("sa_").removesuffix(".jpg")
            assert image_id in image_ids(dataset), f"{file} ({what}): {ledger(dataset)}"
            assert image_id in decoded(dataset)
        if "control" in what:
            assert not ledger(dataset), file
    assert not list(tmp_path.rglob("*escaped*"))
