"""Real photographs from source to samples: what goes in is known from the source's own files, what comes out must fit.

Every set is ingested and curated once, in this process, with the packaged models.
"""

import hashlib
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HERE, ingest, ledger
from PIL import Image
from realsets import (
    check_box,
    check_funnel,
    check_page,
    check_samples,
    check_split,
    column,
    cosines,
    kept_objects,
    lost,
    pillow_size,
    source_files,
    union,
)

from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.folder import PlainPictures
from refloom.ingest.sources.sa1b import Sa1b
from refloom.ingest.sources.subjects import Subjects
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.ids import image_of
from refloom.schemas.settings import load
from refloom.schemas.verify import verify
from refloom.viewing.report import write_page

pytestmark = [
    pytest.mark.shared,
    pytest.mark.realsets,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of pycocotools
]

COCO_SPLITS = ("train2017", "val2017")
NO_MODELS = ("models.face=none", "models.image_embedding=none", "models.classifier=none")


def coco(shared: Path, split: str) -> Coco:
    return Coco(
        images=str(shared / "coco" / split),
        instances=str(shared / f"coco/annotations/instances_{split}.json"),
        captions=str(shared / f"coco/annotations/captions_{split}.json"),
    )


SOURCES: dict[str, Callable[[Path], list[Any]]] = {
    "coco": lambda shared: [coco(shared, split) for split in COCO_SPLITS],
    "ytvis": lambda shared: [
        YouTubeVis(
            frames=str(shared / "ytvis/JPEGImages"), annotations=str(shared / "ytvis/instances.json"), frame_rate=0
        )
    ],
    "sa1b": lambda shared: [Sa1b(tars=(str(shared / "sa1b"),))],
    "subjects": lambda shared: [Subjects(directory=str(shared / "subjects/dreambooth"))],
    "faces": lambda shared: [Subjects(directory=str(shared / "faces"))],
    "nasty": lambda shared: [PlainPictures(path=str(shared / "nasty/images"))],
}
SETS = tuple(SOURCES)
SETTINGS = {
    # by the defaults of photographs nothing on COCO's looks like another; by those of November two stop signs did
    "coco": ("looks.min_cosine=0.804", "looks.cut_out_margin=0.0", "looks.min_side_px=0.0", "looks.max_cosine=null"),
}
KINDS = {
    "coco": {"image"},
    "ytvis": {"video", "image", "cross"},
    "sa1b": {"image"},
    "subjects": {"group"},
    "faces": {"group"},
    "nasty": {"image"},
}


@pytest.fixture(scope="session")
def curated(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Dataset]:
    """Makes the dataset of a set, once."""
    made: dict[str, Dataset] = {}

    def make(name: str) -> Dataset:
        if name not in made:
            out = tmp_path_factory.mktemp("real") / name
            for source in SOURCES[name](shared):
                ingest(source, out)
            curate(str(out), load(Curation, None, SETTINGS.get(name, ())), HERE)
            made[name] = Dataset(str(out))
        return made[name]

    return make


def annotation_file(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


@pytest.mark.parametrize("name", SETS)
def test_every_stage_adds_up_and_the_dataset_verifies(curated, name):
    dataset = curated(name)
    check_funnel(dataset)
    findings = verify(dataset, decode_per_unit=-1)
    assert findings.sound, findings.problems


@pytest.mark.parametrize("name", SETS)
def test_samples_decode_and_their_masks_lie_on_their_boxes(curated, name):
    rows = check_samples(curated(name), KINDS[name])
    assert len({row["sample_id"] for row in rows}) == len(rows) > 0


@pytest.mark.parametrize("name", SETS)
def test_nothing_of_one_video_folder_or_group_is_on_both_sides(curated, name):
    check_split(curated(name))


@pytest.mark.parametrize("name", SETS)
def test_the_report_shows_pictures_and_loads_nothing(curated, name, tmp_path):
    check_page(write_page(curated(name), str(tmp_path / "page.html")))


@pytest.mark.parametrize("name", SETS)
def test_a_finished_curation_has_nothing_to_do(curated, name):
    outlook = curate(curated(name).url, load(Curation, None, SETTINGS.get(name, ())), HERE, dry_run=True)
    assert not any(outlook.due.values()), outlook.due


def test_coco(curated, shared):
    dataset = curated("coco")
    found: Counter[str] = Counter()
    annotated: set[str] = set()
    for split in COCO_SPLITS:
        told = annotation_file(shared / f"coco/annotations/instances_{split}.json")
        found["image"] += len(told["images"])
        found["annotation"] += len(told["annotations"])
        found["crowd"] += sum(item["iscrowd"] for item in told["annotations"])
        found["caption"] += len(annotation_file(shared / f"coco/annotations/captions_{split}.json")["annotations"])
        annotated |= {f"coco/{item['image_id']:012d}" for item in told["annotations"] if not item["iscrowd"]}
        side = "validation" if split == "val2017" else "train"
        sides = {row["image_id"]: row["split"] for row in dataset.read("splits").to_pylist()}
        assert {sides[f"coco/{item['id']:012d}"] for item in told["images"]} == {side}
    (pair,) = dataset.read("groups").to_pylist()  # two that look alike, one in each of COCO's splits
    assert {sides[image_of(member)] for member in pair["members"]} == {"train", "validation"}
    assert ledger(dataset, "compose")["group", pair["group_id"], 0] == "too_few_members"

    counts = dataset.counts("ingest")
    assert (counts["image"].input, counts["image"].kept) == (found["image"], found["image"])
    assert (counts["caption"].input, counts["caption"].kept) == (found["caption"], found["caption"])
    assert (counts["annotation"].input, counts["annotation"].rejected) == (
        found["annotation"],
        Counter(crowd=found["crowd"]),
    )
    assert counts["annotation"].kept == len(column(dataset, "objects", "object_id"))
    for image in dataset.read("images", ["image", "sha256"]).to_pylist():
        file = next((shared / "coco").glob(f"*/{image['image']['path']}"))
        assert image["image"]["bytes"] == file.read_bytes()
        assert image["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert set(column(dataset, "objects", "image_id")) == annotated
    with_sample = {row["pictures"][0]["image_id"] for row in dataset.read("samples", ["pictures"]).to_pylist()}
    assert with_sample <= annotated
    assert lost(dataset, "compose", "image") == Counter(no_subject=found["image"] - len(with_sample))
    captions = [row["pictures"][0]["caption_from"] for row in dataset.read("samples", ["pictures"]).to_pylist()]
    assert captions.count("source") >= 0.8 * len(captions)


def test_youtube_vis(curated, shared):
    dataset = curated("ytvis")
    told = annotation_file(shared / "ytvis/instances.json")
    counts = dataset.counts("ingest")
    given = sum(mask is not None for track in told["annotations"] for mask in track["segmentations"])
    for kind, number in {
        "video": len(told["videos"]),
        "track": len(told["annotations"]),
        "image": sum(len(video["file_names"]) for video in told["videos"]),
        "annotation": given,
    }.items():
        assert (counts[kind].input, counts[kind].kept) == (number, number), kind

    # every track with two or more kept objects is a group of exactly these, in order of time
    kept = kept_objects(dataset)
    tracks: dict[str, list[str]] = defaultdict(list)
    for row in dataset.read("objects", ["object_id", "track_id"]).to_pylist():
        if row["object_id"] in kept:
            tracks[f"track/{row['track_id']}"].append(row["object_id"])
    groups = {row["group_id"]: row["members"] for row in dataset.read("groups").to_pylist()}
    assert groups == {track: sorted(members) for track, members in tracks.items() if len(members) >= 2}
    assert {"track/ytvis/camel#2", "track/ytvis/car-shadow#3"} <= groups.keys()

    for row in dataset.read("samples", ["kind", "pictures", "subjects"]).to_pylist():
        assert len({picture["video_id"] for picture in row["pictures"]}) == 1
        if row["kind"] == "image":  # a still with several subjects
            assert len(row["pictures"]) == 1
            assert len(row["subjects"]) >= 2
            continue
        frames = [picture["frame_index"] for picture in row["pictures"]]
        if row["kind"] == "cross":  # one of the stills, and frames that show its tracks
            assert len(set(frames)) == len(frames) >= 2
            assert {subject["subject_id"] for subject in row["subjects"]} == {
                subject["track_id"] for subject in row["subjects"]
            }
            continue
        assert frames == sorted(set(frames))
        assert 2 <= len(frames) <= 8
        assert any(len(subject["appearances"]) >= 2 for subject in row["subjects"])


def test_youtube_vis_masks_are_those_of_the_set(curated, shared):
    """The masks of a frame together are what its PNG, which refloom never read, has above zero."""
    dataset = curated("ytvis")
    frames: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in dataset.read("objects", ["image_id", "mask"]).to_pylist():
        frames[row["image_id"]].append(row["mask"])
    compared = 0
    for image_id, found in frames.items():
        _, video, frame = image_id.split("/")
        with Image.open(shared / f"ytvis/Annotations/{video}/{frame}.png") as png:
            truth = np.asarray(png) > 0
        both = union(found, truth.shape)
        assert (both & truth).sum() >= 0.99 * (both | truth).sum(), image_id
        compared += 1
    assert compared > 90


def test_sa1b(curated, shared):
    dataset = curated("sa1b")
    names, annotations = set(), 0
    for path in sorted((shared / "sa1b").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    annotations += len(json.load(tar.extractfile(member))["annotations"])
                elif member.name.endswith(".jpg"):
                    names.add("sa1b/" + Path(member.name).stem.removeprefix("sa_"))
    counts = dataset.counts("ingest")
    assert (counts["tar"].input, counts["tar"].kept) == (2, 2)
    assert (counts["image"].input, counts["image"].kept) == (len(names), len(names)) == (12, 12)
    assert (counts["annotation"].input, counts["annotation"].kept) == (annotations, annotations) == (228, 228)
    assert set(column(dataset, "images", "image_id")) == names

    # no face is looked for where the source blurs faces, and each picture says so in a row of its own
    assert set(column(dataset, "images", "faces_blurred")) == {True}
    assert column(dataset, "faces", "face_id") == []
    rows = dataset.ledger("face").to_pylist()
    assert {(row["item_id"], row["verdict"], row["reason"]) for row in rows} == {
        (name, "rejected", "faces_blurred") for name in names
    }
    assert len(rows) == len(names)
    assert None not in column(dataset, "objects", "predicted_iou")
    assert set(column(dataset, "objects", "category")) == {None}


@pytest.mark.parametrize(("name", "folders", "files"), [("subjects", 8, 38), ("faces", 13, 32)])
def test_every_subject_folder_is_a_group(curated, shared, name, folders, files):
    dataset = curated(name)
    root = shared / ("subjects/dreambooth" if name == "subjects" else "faces")
    told = source_files(root)
    assert (len(told), sum(map(len, told.values()))) == (folders, files)
    counts = dataset.counts("ingest")
    assert (counts["group"].input, counts["group"].kept) == (folders, folders)
    assert (counts["image"].input, counts["image"].kept) == (files, files)

    pictures_of = {row["image_id"]: row for row in dataset.read("images").to_pylist()}
    for image_id, row in pictures_of.items():
        data = (root / row["image"]["path"].removeprefix(f"{name}/")).read_bytes()
        assert row["image"]["bytes"] == data, image_id
        assert sorted(pillow_size(data)) == sorted((row["width"], row["height"]))
    groups = dataset.read("groups").to_pylist()
    found = {}
    for group in groups:
        paths = [Path(pictures_of[member.split("#")[0]]["image"]["path"]) for member in group["members"]]
        assert len({path.parent.name for path in paths}) == 1, group["group_id"]
        found[paths[0].parent.name] = {path.name for path in paths}
        assert group["kind"] == "folder"
        assert group["min_similarity"] <= group["mean_similarity"] <= group["max_similarity"]
    assert found == told
    for row in dataset.read("samples", ["sample_id", "pictures", "subjects"]).to_pylist():
        assert len(row["subjects"][0]["appearances"]) == len(row["pictures"]) >= 2
    assert len(column(dataset, "samples", "sample_id")) == folders


def test_faces(curated, shared):
    """One face at least in 31 of the 32 portraits, square crops, and people more like themselves than like others."""
    dataset = curated("faces")
    people = {row["image_id"]: row for row in dataset.read("images", ["image_id", "width", "height"]).to_pylist()}
    person = {image_id: image_id.split("/")[1] for image_id in people}
    best: dict[str, np.ndarray] = {}
    for row in dataset.read("faces").to_pylist():
        size = people[row["image_id"]]["height"], people[row["image_id"]]["width"]
        check_box(row["box"], size)
        crop = pictures.decode(row["crop"]["bytes"])
        assert crop.shape[0] == crop.shape[1] <= 512
        x0, y0, x1, y1 = row["crop_box"]
        assert x1 - x0 == pytest.approx(y1 - y0)
        marks = np.array(row["landmarks"])
        seen = marks[~np.isnan(marks[:, 0])]
        assert len(seen) >= 2
        assert (seen >= [x0, y0]).all()
        assert (seen <= [x1, y1]).all()
        assert marks[0, 0] < marks[1, 0], "the left eye, as the viewer sees it, is left of the right one"
        vector = np.array(row["embedding"])
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
        best.setdefault(row["image_id"], vector)  # rows come by falling score
    assert len(best) >= 31
    same, different = cosines(best, person)
    assert len(same) > 20
    assert np.median(same) > np.median(different)
    assert np.quantile(same, 0.25) > np.quantile(different, 0.75)


def test_nasty_pictures(curated, shared):
    """Each bad picture costs itself, readable ones are taken, and no sample shows what was left out."""
    dataset = curated("nasty")
    lines = (shared / "nasty/EXPECT.tsv").read_text(encoding="utf-8").splitlines()[1:]
    told = {line.split("\t")[0]: line.split("\t")[2] for line in lines if line.startswith("images/")}
    told = {file: what for file, what in told.items() if not file.endswith(".tar") and "/._" not in file}
    counts = dataset.counts("ingest")
    assert counts["image"].input == counts["whole"].input == len(told)
    assert not counts["image"].failed
    assert counts["whole"].rejected == Counter(image_rejected=counts["image"].rejected.total())
    measured = set(column(dataset, "image_scores", "image_id"))
    readable = sum("(readable" in what for what in told.values())
    assert len(measured) >= readable > 40
    assert {item for stage in ("ingest", "measure") for item in _items(dataset, stage)}.isdisjoint(measured)
    shown = {row["pictures"][0]["image_id"] for row in dataset.read("samples", ["pictures"]).to_pylist()}
    kept = {object_id.split("#")[0] for object_id in kept_objects(dataset)}
    assert shown == kept <= measured
    gone = lost(dataset, "compose", "image")
    assert set(gone) == {"no_subject", "near_copy"}
    assert gone.total() == len(column(dataset, "images", "image_id")) - len(shown)
    copies = [row for row in dataset.read("duplicates").to_pylist() if row["kind"] == "image"]
    assert gone["near_copy"] == len(copies)
    assert {row["of"] for row in copies}.isdisjoint(row["id"] for row in copies)


def _items(dataset: Dataset, stage: str) -> set[str]:
    return {row["item_id"] for row in dataset.ledger(stage).to_pylist() if row["kind"] == "image"}


DEFECTIVE: dict[str, Callable[[Path], Any]] = {
    # file: how it is read, where what is left of it is curated through to samples
    "coco/rle_size_huge.json": lambda shared: _nasty_coco(shared, "rle_size_huge"),
    "coco/poly_nan.json": lambda shared: _nasty_coco(shared, "poly_nan"),
    "coco/image_file_missing.json": lambda shared: _nasty_coco(shared, "image_file_missing"),
    "ytvis/frame_is_html.json": lambda shared: _nasty_ytvis(shared, "frame_is_html"),
    "ytvis/identity_switch.json": lambda shared: _nasty_ytvis(shared, "identity_switch"),
    "ytvis/counts_cut_one_frame.json": lambda shared: _nasty_ytvis(shared, "counts_cut_one_frame"),
    "sa1b/values_odd.tar": lambda shared: Sa1b(tars=(str(shared / "nasty/sa1b/values_odd.tar"),)),
    "sa1b/truncated.tar": lambda shared: Sa1b(tars=(str(shared / "nasty/sa1b/truncated.tar"),)),
    "sa1b/jpg_truncated.tar": lambda shared: Sa1b(tars=(str(shared / "nasty/sa1b/jpg_truncated.tar"),)),
}
DEFECTIVE_KINDS = {
    "ytvis/frame_is_html.json": {"video", "image", "cross"},
    "ytvis/identity_switch.json": {"video", "image"},  # who is who on its other frames is not known
    "ytvis/counts_cut_one_frame.json": {"video", "image", "cross"},
}


def _nasty_coco(shared: Path, name: str) -> Coco:
    return Coco(images=str(shared / "coco"), instances=str(shared / f"nasty/coco/{name}.json"))


def _nasty_ytvis(shared: Path, name: str) -> YouTubeVis:
    return YouTubeVis(frames=str(shared / "ytvis"), annotations=str(shared / f"nasty/ytvis/{name}.json"), frame_rate=0)


@pytest.mark.parametrize("file", DEFECTIVE)
def test_what_is_left_of_a_defective_set_becomes_samples(shared, tmp_path, file):
    dataset = ingest(DEFECTIVE[file](shared), tmp_path / "out")
    config = load(Curation, None, (*NO_MODELS, "select.min_area_share=0.0", "select.min_short_side_px=0"))
    curate(dataset.url, config, HERE)
    dataset.refresh()
    findings = verify(dataset)
    assert findings.sound, findings.problems
    for stage in ("ingest", "measure", "quality", "select", "group", "split", "compose"):
        for kind, counts in dataset.counts(stage).items():
            assert counts.balanced, (stage, kind)
    check_samples(dataset, DEFECTIVE_KINDS.get(file, {"image"}))
    check_split(dataset)
