"""Every real loader through a unit: tiny random weights of the true architectures, by the normal `curate`."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import curatedata
import modelunits
import numpy as np
import pytest
import torch
from curating import samples
from helpers import HERE, ledger
from modelunits import BOXES, FACE, NAMES
from network import cut_network
from onnxgraphs import ANGLES, FIVE
from tinymodels import CLIP_NAME, cut

from refloom import cli
from refloom.curation.annotate.decoded import Decoded
from refloom.curation.annotate.scene import Scene
from refloom.curation.annotate.settings import ROLES, Models
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.objects import ObjectStream
from refloom.inference.models import registry
from refloom.inference.models.dinov2 import Dinov2
from refloom.inference.models.entry import WEIGHTS_VARIABLE
from refloom.inference.models.hfcaptioner import Blip
from refloom.inference.models.insightfaces import InsightFaces
from refloom.inference.models.openclip import OpenClipImages
from refloom.inference.models.sam import SegmentAnything
from refloom.ingest.engine.pool import Pool
from refloom.ingest.sources.folder import PlainPictures
from refloom.schemas import boxes, masks, pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.verify import verify

VICTIM = "coco/000000000003"
CAT, DOG = f"{VICTIM}#30", f"{VICTIM}#31"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return modelunits.put_weights(tmp_path_factory.mktemp("models") / "weights")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(modelunits.make(tmp_path_factory.mktemp("raw")).url)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Curation:
    return modelunits.config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def curated(raw: Path, weights: Path, config: Curation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage done in this process, without a network. Not to be changed."""
    out = curatedata.copy(raw, tmp_path_factory.mktemp("curated"))
    with pytest.MonkeyPatch.context() as patch:
        modelunits.use_weights(weights, patch)
        cut_network(patch)
        curate(str(out), config, HERE)
    return out


@pytest.fixture
def dataset(curated: Path) -> Dataset:
    return Dataset(str(curated))


@pytest.fixture
def models(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    modelunits.use_weights(weights, monkeypatch)
    return weights


def rows(dataset: Dataset, table: str) -> Iterator[dict]:
    yield from dataset.read(table).to_pylist()


# -- what the tables hold --------------------------------------------------------------------------------------------


def test_boxes_and_bare_pictures_get_masks_with_their_scores(dataset: Dataset):
    made = {row["object_id"]: row for row in rows(dataset, "masks")}
    found = [name for name in made if "#sam" in name]
    assert set(made) - set(found) == {f"coco/{n:012d}#{10 * n + index}" for n in range(1, 5) for index in (0, 1)}
    assert {row["image_id"] for name, row in made.items() if name in found} == {"folder/0.jpg", "folder/1.jpg"}
    for row in made.values():
        assert 0 <= row["predicted_iou"] <= 1
        assert 0 <= row["stability_score"] <= 1
        assert row["area"] == masks.areas([row["mask"]])[0] > 0
        assert row["box"] == masks.tight_boxes([row["mask"]])[0].tolist()


def test_faces_have_points_pose_identity_and_crop(dataset: Dataset):
    faces = list(rows(dataset, "faces"))
    assert [face["face_id"] for face in faces] == [f"coco/{n:012d}@0" for n in range(1, 5)]
    left, top, side = FACE
    effective = {row["object_id"]: row["mask"] for row in rows(dataset, "masks")}
    for face in faces:
        assert face["box"] == pytest.approx([left, top, left + side, top + side], abs=0.1)
        assert np.array(face["landmarks"]) == pytest.approx(np.array([left, top]) + side / 2 + FIVE, abs=0.1)
        assert face["pose"] == pytest.approx(ANGLES, abs=0.1)
        assert np.linalg.norm(face["embedding"]) == pytest.approx(1, abs=1e-5)
        assert len(face["embedding"]) == 512
        crop = pictures.decode(face["crop"]["bytes"])
        assert crop.shape == (2 * side, 2 * side, 3)
        assert boxes.pad(face["crop_box"], 10**6, 10**6) == (left - side // 2, top - side // 2, 216, 200)
        assert crop[side, side, 0] > 200 > 60 > crop[side, side, 1]  # its middle is red
        if face["object_id"] is not None:
            assert masks.decode(effective[face["object_id"]])[top + side // 2, left + side // 2]
    assert {reason for _, reason in ledger(dataset, "face").items()} == {"no_face"}


def test_embeddings_and_phrases_have_the_spaces_of_their_models(dataset: Dataset):
    shown = {row["object_id"] for row in rows(dataset, "object_scores") if row["filtered"] is None}
    embedded = {row["object_id"]: row["embedding"] for row in rows(dataset, "embeddings")}
    named = {row["object_id"]: row for row in rows(dataset, "phrases")}
    assert set(embedded) == set(named) == shown
    assert {len(vector) for vector in embedded.values()} == {32}  # DINOv2's
    scores = {row["object_id"]: row["phrase_cosine"] for row in rows(dataset, "object_scores")}
    for name, row in named.items():
        assert len(row["embedding"]) == 24  # CLIP's
        assert -1 <= row["cosine"] <= 1
        assert scores[name] == pytest.approx(row["cosine"], abs=1e-6)
        if name.startswith("coco/"):
            assert (row["origin"], row["phrase"]) == ("source", list(BOXES)[int(name[-1])])
            assert row["probability"] is row["margin"] is None
        else:
            assert (row["origin"], row["phrase"] in NAMES) == ("vocabulary", True)
            assert 1 / len(NAMES) <= row["probability"] <= 1
            assert 0 <= row["margin"] <= 2


def test_samples_say_who_wrote_their_captions_and_where_their_subjects_are_in_them(dataset: Dataset):
    captions = {row["image_id"]: row["caption"] for row in rows(dataset, "captions")}
    assert len(captions) == 6
    assert len(set(captions.values())) > 1  # else the captioner does not look
    found = samples(dataset)
    mentioned = 0
    for number in range(1, 5):
        sample = found[f"image/coco/{number:012d}"]
        (picture,) = sample["pictures"]
        assert (picture["captions"], picture["caption_from"]) == ([captions[picture["image_id"]]], "model")
        assert {subject["phrase"] for subject in sample["subjects"]} >= set(BOXES)
        for subject in sample["subjects"]:
            said = [picture["captions"][m["caption"]][m["start"] : m["end"]] for m in subject["mentions"]]
            expected = re.findall(rf"\b{subject['phrase']}\b", picture["captions"][0])
            assert said == expected
            mentioned += len(said)
        assert -3 <= sample["scores"]["mip_s"] <= 1
    assert mentioned > 8  # else this test could not fail


def test_the_books_balance_and_the_manifests_name_models_and_revisions(dataset: Dataset):
    assert verify(dataset, decode_per_unit=-1).sound
    used = {"mask": {"segmenter"}, "face": {"face"}, "embed": {"image_embedding"}}
    used["phrase"] = {"text_embedding", "captioner"}
    for stage, roles in used.items():
        for counts in dataset.counts(stage).values():
            assert counts.balanced
            assert not counts.failed
        for manifest in dataset.manifests(stage).values():
            assert set(manifest.models) == roles
            for role, identity in manifest.models.items():
                assert identity.startswith(f"{getattr(modelunits.NAMED, role)}@")
                assert re.fullmatch(r"[\w.-]+@[0-9a-f]{16}\+[\w.-]+#[0-9a-f]{8}", identity)


# -- the same bytes --------------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_of_ray_write_the_same_bytes(
    ray_session: None, raw: Path, curated: Path, models: Path, config: Curation, tmp_path: Path, workers: int
):
    out = curatedata.copy(raw, tmp_path)
    curate(str(out), config, Pool(workers=workers), until="quality")
    made = {path: digest for path, digest in curatedata.contents(out).items() if "/" in path}
    assert made.items() <= curatedata.contents(curated).items()
    assert {path.partition("/")[0] for path in made} > {"masks", "faces", "embeddings", "phrases", "captions"}


def test_decoding_ahead_changes_no_byte(raw: Path, curated: Path, models: Path, config: Curation, tmp_path: Path):
    out = curatedata.copy(raw, tmp_path)
    curate(str(out), replace(config, models=replace(config.models, prefetch=True)), HERE)
    assert curatedata.contents(out) == curatedata.contents(curated)


# -- models that fail ------------------------------------------------------------------------------------------------


@pytest.fixture
def masked(raw: Path, weights: Path, config: Curation, tmp_path: Path) -> Path:
    """The dataset with masks and nothing else."""
    out = curatedata.copy(raw, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        modelunits.use_weights(weights, patch)
        curate(str(out), config, HERE, only="mask")
    return out


def test_a_lack_of_memory_halves_the_batch_and_grows_back_and_loses_no_row(
    masked: Path, curated: Path, models: Path, config: Curation, monkeypatch: pytest.MonkeyPatch
):
    sizes, run = [], Dinov2._run

    def poor(model: Dinov2, batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        if len(sizes) <= 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run(model, batch)

    monkeypatch.setattr(Dinov2, "_run", poor)
    eight = replace(config, models=replace(config.models, batch_size={"image_embedding": 8}))
    curate(str(masked), eight, HERE, only="embed")
    least = min(sizes)
    assert sizes[0] == 8 > least
    assert sizes[-1] > least, "it grew back"
    made, whole = ([*rows(Dataset(str(out)), "embeddings")] for out in (masked, curated))
    assert [row["object_id"] for row in made] == [row["object_id"] for row in whole]
    for one, other in zip(made, whole, strict=True):
        assert np.abs(np.subtract(one["embedding"], other["embedding"])).max() < 1e-3


def crop_of(dataset: Dataset, object_id: str, side_px: int) -> np.ndarray:
    """The cut-out of an object, as stages cut it."""
    image_id = object_id.rpartition("#")[0]
    for unit in dataset.units():
        stream = ObjectStream(dataset, unit)
        for image in dataset.read("images", unit=unit).to_pylist():
            objects = stream.take(image["image_id"])
            if image["image_id"] == image_id:
                scene = Scene(Decoded(pictures.decode(image["image"]["bytes"])), objects, modelunits.LOOSE.filter)
                return scene.crops(side_px)[objects.ids.index(object_id)]
    raise KeyError(object_id)


def victims_pixels(dataset: Dataset) -> np.ndarray:
    (image,) = [row for row in rows(dataset, "images") if row["image_id"] == VICTIM]
    return pictures.decode(image["image"]["bytes"])


FAILING = {
    "mask": (SegmentAnything, "segment", {("object", CAT, 0): "image_failed", ("object", DOG, 0): "image_failed"}),
    "face": (InsightFaces, "find", {("image", VICTIM, 0): "internal_error"}),
    "embed": (Dinov2, "embed", {("object", DOG, 0): "internal_error"}),
    "phrase": (OpenClipImages, "embed", {("object", DOG, 0): "internal_error"}),
    "caption": (Blip, "caption", {("image", VICTIM, 0): "internal_error"}),
}


@pytest.mark.parametrize("what", FAILING)
def test_what_a_model_cannot_do_costs_itself(
    what: str,
    raw: Path,
    masked: Path,
    curated: Path,
    models: Path,
    config: Curation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    stage = "phrase" if what == "caption" else what
    out = curatedata.copy(raw, tmp_path / "unmasked") if stage == "mask" else masked
    kind, name, lost = FAILING[what]
    side_px = {"embed": 28, "phrase": 32}.get(what)
    poison = victims_pixels(Dataset(str(out))) if side_px is None else crop_of(Dataset(str(out)), DOG, side_px)
    method: Callable = getattr(kind, name)

    def sick(model: object, given: np.ndarray | list[np.ndarray], *others: object, **options: object) -> object:
        batch = given if isinstance(given, list) or given.ndim == 4 else [given]
        if any(np.array_equal(one, poison) for one in batch):
            raise RuntimeError("nobody foresaw this")
        return method(model, given, *others, **options)

    monkeypatch.setattr(kind, name, sick)
    curate(str(out), config, HERE, only=stage)
    failed, whole = Dataset(str(out)), Dataset(str(curated))
    assert ledger(failed, stage) == ledger(whole, stage) | lost
    table = {"mask": "masks", "face": "faces", "embed": "embeddings", "phrase": "phrases", "caption": "captions"}[what]
    keys = {key for _, key, _ in lost}
    left = [
        row
        for row in rows(whole, table)
        if not keys & {row.get("object_id"), row["image_id"] if table in ("captions", "faces") else None}
    ]
    assert list(rows(failed, table)) == left
    assert len(list((out / "runs").rglob("*.error-0.txt"))) == 1
    assert "nobody foresaw this" in next((out / "runs").rglob("*.error-0.txt")).read_text()


@pytest.mark.processes
def test_a_model_that_crashes_on_one_crop_costs_its_picture_and_no_other(
    ray_session: None, masked: Path, curated: Path, weights: Path, config: Curation, monkeypatch: pytest.MonkeyPatch
):
    """Crops are handed over many at once and pictures are decoded ahead, so the first note names another picture."""
    name = modelunits.name_of(crop_of(Dataset(str(masked)), CAT, 28))
    modelunits.use_weights(weights, monkeypatch, dies_of=name)
    ahead = replace(config, models=replace(config.models, prefetch=True))
    curate(str(masked), ahead, Pool(workers=1), only="embed")
    expected = [row for row in rows(Dataset(str(curated)), "embeddings") if row["image_id"] != VICTIM]
    assert list(rows(Dataset(str(masked)), "embeddings")) == expected
    assert ledger(Dataset(str(masked)), "embed") == {("object", one, 0): "image_failed" for one in (CAT, DOG)}


# -- models that are not there ---------------------------------------------------------------------------------------


def test_an_absent_model_is_refused_in_one_line(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    assert cli.main(["curate", str(raw), "--workers", "0", "--set", "models.segmenter=sam_vit_b"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "sam_vit_b_01ec64.pth is not in the weights folder" in line
    assert "get it with: pip install segment-anything" in line


def test_models_says_which_are_there_and_how_to_get_the_others(models: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["models", "--verbose"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (modelunits.NAMED.face, modelunits.NAMED.image_embedding, modelunits.NAMED.captioner, CLIP_NAME):
        (row,) = [place for place, line in enumerate(lines) if re.match(rf"  {name} .* present$", line)][:1]
        assert f"{name}@" in lines[row + 1]
    (row,) = [place for place, line in enumerate(lines) if line.startswith("  antelopev2 ")]
    assert "absent: the file antelopev2/scrfd_10g_bnkps.onnx is not in" in lines[row]
    assert "get it with: pip install" in lines[row + 1]
    assert "captioner: `auto` takes blip-large" in lines


def test_damaged_weights_stop_the_job_at_once(
    ray_session: None, masked: Path, config: Curation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights = modelunits.put_weights(tmp_path / "damaged")
    cut()(weights / modelunits.NAMED.image_embedding)
    modelunits.use_weights(weights, monkeypatch)
    with pytest.raises(Refused, match="dinov2-base is damaged"):
        curate(str(masked), config, Pool(workers=1), only="embed")
    assert not Dataset(str(masked)).manifests("embed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(ray_session: None, masked: Path, models: Path, config: Curation):
    cuda = replace(config, models=replace(config.models, device="cuda"))
    with pytest.raises(Refused, match="asks for 1 GPUs and Ray sees 0"):
        curate(str(masked), cuda, Pool(workers=1), only="embed")
    with pytest.raises(Refused, match="torch sees no CUDA device"):
        curate(str(masked), cuda, HERE, only="embed")


def test_another_precision_is_another_model_where_the_model_knows_it(curated: Path, models: Path, config: Curation):
    half = replace(config, models=replace(config.models, precision="bf16"))
    with pytest.raises(Refused, match=r"models.image_embedding: '(dinov2-base@\S+)' -> '\1:bf16'"):
        curate(str(curated), half, HERE, only="embed", dry_run=True)
    assert not any(curate(str(curated), half, HERE, only="face", dry_run=True).due.values())


@pytest.mark.parametrize(("sizes", "said"), [({"faces": 2}, "not 'faces'"), ({"face": 0}, "batch_size.face must be 1")])
def test_other_batch_sizes_are_refused(sizes: dict[str, int], said: str):
    with pytest.raises(ValueError, match=said):
        Models(batch_size=sizes)


def test_loading_is_offline_before_the_libraries_are_there_and_nothing_else_is(
    models: Path, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    seen = []

    def look(entry: registry.Entry, device: str, precision: str) -> None:
        seen.append((os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"], constants.is_offline_mode()))
        raise Refused("no")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("refloom.inference.models.dinov2.load", look)
    with pytest.raises(Refused, match="no"):
        registry.by_name("image_embedding", "dinov2-base").load()
    assert seen == [("1", "1", True)]
    assert "HF_HUB_OFFLINE" not in os.environ
    assert not constants.is_offline_mode()


# -- true weights ----------------------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize(
    "entry", [e for role in ROLES for e in registry.ENTRIES[role]], ids=lambda e: f"{e.role}-{e.name}"
)
def test_true_weights_go_through_a_unit(entry: registry.Entry, shared: Path, tmp_path: Path):
    if entry.present() is not None:
        pytest.skip(entry.describe_absence())
    if entry.name == "grabcut":
        pytest.skip("grabcut has no automatic masks, which bare pictures need")
    from helpers import ingest

    ingest(PlainPictures(path=str(shared / "faces"), limit=3), tmp_path / "data")
    none = dict.fromkeys(ROLES, "none") | {entry.role: entry.name}
    stages = {"segmenter": "mask", "face": "face", "image_embedding": "embed", "classifier": "quality"}
    stage = stages.get(entry.role, "phrase")
    curate(str(tmp_path / "data"), Curation(models=Models(**none)), HERE, only=stage)
    dataset = Dataset(str(tmp_path / "data"))
    assert verify(dataset).sound
    assert sum(counts.kept for counts in dataset.counts(stage).values()) > 0
    assert not any(counts.failed for counts in dataset.counts(stage).values())
