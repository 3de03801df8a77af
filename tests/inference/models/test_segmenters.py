"""Segment Anything: its true architecture at a tiny size, also when memory runs out; GrabCut where it must agree."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.utils.amg import calculate_stability_score
from segmenting import pasted_cat, same, tight
from skimage import data
from tinymodels import Touches, put_sam, sam_entry, some_sam, use

from refloom.inference.models import registry, sam
from refloom.inference.models.entry import Entry
from refloom.inference.models.sam import SegmentAnything
from refloom.inference.models.segmenters import Segment
from refloom.inference.models.threads import one_thread
from refloom.schemas import masks
from refloom.schemas.errors import Failed, Refused

GRABCUT = registry.by_name("segmenter", "grabcut")


def tiny_entry(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: float) -> Entry:
    """The catalog's entry of ViT-B with the weights and the numbers of a tiny SAM."""
    put_sam(use(folder, monkeypatch))
    return sam_entry(**options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    return tiny_entry(folder, monkeypatch)


@pytest.fixture(scope="module")
def model(folder: Path) -> SegmentAnything:
    """Not to be changed: the tests share it."""
    with pytest.MonkeyPatch.context() as patch:
        return tiny_entry(folder, patch).load()


@pytest.fixture(scope="module")
def coffee() -> np.ndarray:
    return data.coffee()[:300, :400]


BOXES = np.array([[20, 30, 120, 160], [200, 100, 390, 290], [0, 0, 400, 300], [150, 5, 180, 30]], np.float32)


def assert_close(a: list[Segment | None], b: list[Segment | None], *, pixels: float = 0.02) -> None:
    assert [segment is None for segment in a] == [segment is None for segment in b]
    for one, other in zip(a, b, strict=True):
        if one is not None and other is not None:
            assert masks.iou([one.mask], [other.mask])[0, 0] > 1 - pixels
            assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-3)
            assert one.stability_score == pytest.approx(other.stability_score, abs=1e-2)


@pytest.mark.parametrize("name", ["sam_vit_h", "sam_vit_l", "sam_vit_b"])
def test_the_published_sizes_are_built_as_the_package_builds_them(name: str):
    with torch.device("meta"):
        ours = sam.build(registry.by_name("segmenter", name).options)
        theirs = sam_model_registry[name.removeprefix("sam_")]()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    blocks = [[block.window_size for block in net.image_encoder.blocks] for net in (ours, theirs)]
    assert blocks[0] == blocks[1]
    for net in (ours, theirs):
        assert net.mask_decoder.transformer.layers[0].self_attn.num_heads == 8
        assert net.prompt_encoder.input_image_size == (1024, 1024)
    assert ours.image_encoder.blocks[0].attn.num_heads == theirs.image_encoder.blocks[0].attn.num_heads
    assert torch.equal(ours.pixel_mean, theirs.pixel_mean)
    assert torch.equal(ours.pixel_std, theirs.pixel_std)


def test_masks_for_boxes_are_the_packages_own(model: SegmentAnything, coffee: np.ndarray):
    small = coffee[:150, :200]  # not shrunk
    boxes = BOXES / 2
    found = model.segment(small, boxes)
    plain = SamPredictor(some_sam())
    with one_thread():  # with more it takes seconds on a busy machine
        plain.set_image(small)
        answers = [plain.predict(box=box, multimask_output=False, return_logits=True) for box in boxes]
    for segment, (logits, quality, _) in zip(found, answers, strict=True):
        assert segment is not None
        assert 0 < segment.area < 150 * 200
        assert masks.iou([segment.mask], [masks.encode(logits[0] > 0)])[0, 0] > 0.999
        assert segment.predicted_iou == pytest.approx(float(quality[0]), abs=1e-4)
        assert segment.stability_score == pytest.approx(
            float(calculate_stability_score(torch.tensor(logits), 0.0, 1.0)), abs=1e-3
        )


def test_a_segment_says_what_its_mask_says(model: SegmentAnything, coffee: np.ndarray):
    for segment in [*model.segment(coffee, BOXES), *model.segment_everything(coffee)]:
        assert segment is not None
        assert segment.mask["size"] == [300, 400]
        assert masks.check([segment.mask]) == [None]
        pixels = masks.decode(segment.mask)
        rows, columns = np.nonzero(pixels)
        assert segment.area == pixels.sum()
        assert segment.box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert 0 <= segment.predicted_iou <= 1
        assert 0 <= segment.stability_score <= 1


def test_a_large_picture_is_shrunk_and_its_masks_are_grown_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, coffee: np.ndarray
):
    whole = tiny_entry(folder, monkeypatch, work_side_px=400).load().segment(coffee, BOXES)
    shrunk = tiny_entry(folder, monkeypatch).load().segment(coffee, BOXES)
    assert all(segment.mask["size"] == [300, 400] for segment in shrunk)
    # a random network draws ragged masks; they must lie in the same place all the same
    overlap = [masks.iou([a.mask], [b.mask])[0, 0] for a, b in zip(whole, shrunk, strict=True)]
    assert min(overlap) > 0.8


def test_a_picture_is_encoded_once_and_never_for_nothing(entry: Entry, coffee: np.ndarray):
    model, calls = entry.load(), []
    model._predictor.model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    assert len(model.segment(coffee, np.repeat(BOXES, 8, axis=0))) == 32
    assert len(calls) == 1
    assert model.segment(coffee, np.zeros((0, 4), np.float32)) == []
    assert model.segment(coffee, np.full((1, 4), np.nan, np.float32)) == [None]
    assert len(calls) == 1
    model.segment_everything(coffee)
    assert len(calls) == 2
    assert model._predictor.features is None  # the picture is not kept


def test_boxes_that_can_be_no_prompt_are_none_and_leave_the_others_alone(model: SegmentAnything, coffee: np.ndarray):
    bad = [[5, 5, 5, 9], [9, 9, 5, 5], [500, 0, 600, 20], [np.nan, 0, 5, 5], [0, 0, np.inf, 9], [-9, -9, -1, -1]]
    mixed = np.array([BOXES[0].tolist(), *bad, BOXES[1].tolist(), [-50, 10, 90, 900]], np.float32)
    found = model.segment(coffee, mixed)
    assert [segment is None for segment in found] == [False, *[True] * 6, False, False]
    assert_close([found[0], found[7]], model.segment(coffee, BOXES[:2]))


def test_the_same_input_gives_the_same_bytes(entry: Entry, model: SegmentAnything, coffee: np.ndarray):
    again = entry.load()
    for one, other in (
        (model.segment(coffee, BOXES), again.segment(coffee.copy(), BOXES)),
        (model.segment_everything(coffee), again.segment_everything(coffee)),
    ):
        assert len(one) == len(other) > 0
        assert all(map(same, one, other))


def test_automatic_masks_come_by_certainty_and_obey_the_thresholds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: SegmentAnything, coffee: np.ndarray
):
    assert model.has_automatic
    found = model.segment_everything(coffee)
    certainties = [segment.predicted_iou for segment in found]
    assert certainties == sorted(certainties, reverse=True)
    assert len(found) > 3
    middle = float(np.median(certainties))
    strict = tiny_entry(folder, monkeypatch, min_predicted_iou=middle).load().segment_everything(coffee)
    assert 0 < len(strict) < len(found)
    assert all(segment.predicted_iou > middle for segment in strict)
    assert tiny_entry(folder, monkeypatch, min_predicted_iou=9).load().segment_everything(coffee) == []
    stable = tiny_entry(folder, monkeypatch, min_stability=0.7).load().segment_everything(coffee)
    assert all(segment.stability_score >= 0.7 for segment in stable)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_agrees_roughly_and_only_in_the_encoder(
    entry: Entry, model: SegmentAnything, coffee: np.ndarray, precision: str
):
    half = entry.load("cpu", precision)
    seen = []
    half._predictor.model.image_encoder.encoder.neck[0].register_forward_hook(lambda *call: seen.append(call[2].dtype))
    found = half.segment(coffee, BOXES)
    assert seen == [{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    for one, other in zip(found, model.segment(coffee, BOXES), strict=True):
        assert masks.iou([one.mask], [other.mask])[0, 0] > 0.8
        assert one.predicted_iou == pytest.approx(other.predicted_iou, abs=0.05)


SIZES = [(1, 1), (1, 200), (200, 1), (2, 2), (1, 700), (3, 900), (700, 1)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[1]}x{size[0]}")
def test_no_size_crashes_either(model: SegmentAnything, size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    whole = np.array([[0, 0, size[1], size[0]], [0, 0, 1, 1]], np.float32)
    for segmenter in (model, GRABCUT.load()):
        found = segmenter.segment(noise, whole)
        assert len(found) == 2
        assert all(segment is None or segment.mask["size"] == list(size) for segment in found)
    assert all(segment.mask["size"] == list(size) for segment in model.segment_everything(noise))


def test_a_picture_whose_shorter_side_vanishes_has_no_masks(model: SegmentAnything):
    line = np.zeros((1, 300, 3), np.uint8)
    assert model.segment(line, np.array([[0, 0, 300, 1]], np.float32)) == [None]
    assert model.segment_everything(line) == []


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
)
def test_other_pixels_and_boxes_are_refused(model: SegmentAnything, pixels: np.ndarray):
    for segmenter in (model, GRABCUT.load()):
        with pytest.raises(ValueError, match="uint8"):
            segmenter.segment(pixels, BOXES)
        with pytest.raises(ValueError, match=r"\(N, 4\)"):
            segmenter.segment(np.zeros((8, 8, 3), np.uint8), np.zeros(4, np.float32))


def test_absent_weights_are_refused_with_the_remedy_and_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
):
    use(tmp_path, monkeypatch)
    for name in ("sam_vit_h", "sam_vit_l", "sam_vit_b"):
        with pytest.raises(Refused, match=rf"{name}_\w+\.pth is not in the weights folder.*curl .*segment_anything/"):
            registry.resolve("segmenter", name)
    assert registry.resolve("segmenter") is GRABCUT


@pytest.mark.parametrize("spoil", ["text", "cut", "shape", "missing", "extra", "list", "pickle"])
def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str):
    entry = tiny_entry(tmp_path, monkeypatch)
    (file,) = entry.files()
    state = some_sam().state_dict()
    name = "mask_decoder.iou_token.weight"
    if spoil == "text":
        file.write_bytes(b"no weights at all")
    elif spoil == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    elif spoil == "pickle":
        torch.save(state | {name: Touches(tmp_path / "touched")}, file)
    else:
        state[name] = torch.zeros(1, 7) if spoil == "shape" else state[name]
        if spoil == "missing":
            del state[name]
        if spoil == "extra":
            state["more"] = torch.zeros(1)
        torch.save([1] if spoil == "list" else state, file)
    with pytest.raises(Refused, match=re.escape(file.name) + r"(?s:.)*curl"):
        entry.load()
    assert not (tmp_path / "touched").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(entry: Entry):
    with pytest.raises(Refused, match="no CUDA device; use device=cpu"):
        entry.load("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_agrees_with_the_cpu(entry: Entry, model: SegmentAnything, coffee: np.ndarray):
    assert_close(entry.load("cuda").segment(coffee, BOXES), model.segment(coffee, BOXES))


@pytest.mark.weights
@pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_l", "sam_vit_h"])
def test_true_weights_cut_out_the_cup(name: str):
    known = registry.by_name("segmenter", name)
    if known.present() is not None:
        pytest.skip(known.describe_absence())
    (file,) = known.files()
    assert file.stat().st_size == known.size_bytes
    model = known.load("cuda" if torch.cuda.is_available() else "cpu")
    picture, truth = pasted_cat()
    (found,) = model.segment(picture, tight(truth))
    assert masks.iou([found.mask], [masks.encode(truth)])[0, 0] > 0.9
    assert found.predicted_iou > 0.8
    assert found.stability_score > 0.8


def starve(monkeypatch: pytest.MonkeyPatch, model: SegmentAnything, most: int) -> list[int]:
    """Let the mask decoder run out of memory above a number of prompts; the numbers it was asked for."""
    sizes: list[int] = []
    forward = model._predictor.model.mask_decoder.predict_masks

    def limited(*, sparse_prompt_embeddings: torch.Tensor, **others: torch.Tensor) -> object:
        sizes.append(len(sparse_prompt_embeddings))
        if len(sparse_prompt_embeddings) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(sparse_prompt_embeddings=sparse_prompt_embeddings, **others)

    monkeypatch.setattr(model._predictor.model.mask_decoder, "predict_masks", limited)
    return sizes


def test_sam_goes_on_when_memory_runs_out_with_the_same_masks(
    monkeypatch: pytest.MonkeyPatch, entry: Entry, model: SegmentAnything, coffee: np.ndarray
):
    plenty = model.segment(coffee, BOXES), model.segment_everything(coffee)
    poor = entry.load()
    sizes = starve(monkeypatch, poor, 3)
    assert_close(poor.segment(coffee, BOXES), plenty[0])
    assert sizes == [4, 2, 2]
    sizes.clear()
    assert_close(poor.segment_everything(coffee), plenty[1])
    assert sizes[:3] == [8, 4, 2]
    starve(monkeypatch, poor, 0)
    for ask in (lambda: poor.segment(coffee, BOXES), lambda: poor.segment_everything(coffee)):
        with pytest.raises(Failed, match="out_of_memory"):
            ask()
    assert poor._predictor.features is None


def test_a_picture_that_does_not_fit_fails_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, entry: Entry, coffee: np.ndarray
):
    model = entry.load()

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model._predictor.model.image_encoder, "forward", full)
    with pytest.raises(Failed, match="out_of_memory"):
        model.segment(coffee, BOXES)
    with pytest.raises(Failed, match="out_of_memory"):
        model.segment_everything(coffee)


def test_the_split_changes_the_scores_by_rounding_only(folder: Path, monkeypatch: pytest.MonkeyPatch):
    coffee = data.coffee()[:150, :200]
    boxes = np.repeat(BOXES / 2, 3, axis=0) + np.arange(12, dtype=np.float32)[:, None] / 4
    whole = tiny_entry(folder, monkeypatch, cpu_batch_size=12).load().segment(coffee, boxes)
    for size in (1, 5):
        parts = tiny_entry(folder, monkeypatch, cpu_batch_size=size).load().segment(coffee, boxes)
        assert_close(parts, whole, pixels=1e-3)
