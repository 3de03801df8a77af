"""Grounding DINO as a detector: the true architecture, tiny and random, by the registry's loader; and overlaps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing import gradient
from PIL import Image
from skimage import data
from tinymodels import GROUNDING as ENTRY
from tinymodels import (
    Spoil,
    cut,
    edited,
    grounding_processor,
    grounding_tokenizer,
    pickled,
    put_grounding,
    replaced,
    some_grounding,
    use,
)

from refloom.inference.models import registry
from refloom.inference.models.detectors import apart
from refloom.inference.models.groundingdino import GroundingDino
from refloom.inference.models.threads import one_thread
from refloom.schemas.errors import Refused

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder that nothing changes."""
    folder = tmp_path_factory.mktemp("weights")
    put_grounding(folder)
    return folder


@pytest.fixture
def model(weights: Path, monkeypatch: pytest.MonkeyPatch) -> GroundingDino:
    use(weights, monkeypatch)
    return ENTRY.load()


def theirs(picture: np.ndarray, phrase: str, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores as transformers' own processor reads them, by descending score."""
    from transformers import GroundingDinoProcessor, PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=grounding_tokenizer(), pad_token="[PAD]")
    processor = GroundingDinoProcessor(grounding_processor(), words)
    inputs = processor(images=Image.fromarray(picture), text=[[phrase]], return_tensors="pt")
    with torch.inference_mode(), one_thread():
        said = some_grounding()(**inputs)
    (found,) = processor.post_process_grounded_object_detection(
        said, inputs["input_ids"], threshold=threshold, target_sizes=[picture.shape[:2]]
    )
    order = found["scores"].argsort(descending=True)
    return found["boxes"][order].numpy(), found["scores"][order].numpy()


@pytest.mark.parametrize("phrase", ["red cup", "a dog"])
def test_detections_are_those_of_transformers(model: GroundingDino, phrase: str):
    picture = data.chelsea()
    found = replace(ENTRY, options=ENTRY.options | {"max_overlap": 1.0}).load().detect(picture, phrase)
    boxes, scores = theirs(picture, phrase, ENTRY.thresholds["min_score"])
    assert 1 < len(found) == len(boxes), "else this test could not fail"
    assert [one.score for one in found] == pytest.approx(scores.tolist(), abs=1e-5)
    side = np.array([451, 300, 451, 300])
    assert np.allclose([one.box for one in found], np.clip(boxes, 0, side), atol=0.01)
    assert theirs(picture, "a dog", 0.35)[1][0] != theirs(picture, "red cup", 0.35)[1][0], "phrases count"


def test_no_detection_covers_another_and_only_the_surest_are_given(model: GroundingDino):
    found = model.detect(data.chelsea(), "red cup")
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert [one.box.tolist() for one in model.detect(data.chelsea(), "red cup", 2)] == [
        one.box.tolist() for one in found[:2]
    ]
    shifted = model.detect(data.chelsea(), "Red cup. ", 2)
    assert [one.score for one in shifted] == scores[:2], "case and full stops are no words"


def test_bf16_runs(model: GroundingDino):
    assert ENTRY.load("cpu", "bf16").detect(data.chelsea(), "red cup")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_finds_the_same(model: GroundingDino):
    there = ENTRY.load("cuda").detect(data.chelsea(), "red cup", 3)
    assert np.allclose(
        [one.box for one in there], [one.box for one in model.detect(data.chelsea(), "red cup", 3)], atol=1
    )


def test_nothing_is_found_above_every_score(weights: Path, monkeypatch: pytest.MonkeyPatch):
    use(weights, monkeypatch)
    blind = replace(ENTRY, thresholds={"min_score": 1.0}).load()
    assert blind.detect(data.chelsea(), "cat") == []


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (40, 333)])
def test_pictures_of_all_sizes_are_looked_at(model: GroundingDino, size: tuple[int, int]):
    width, height = size
    for one in model.detect(gradient(width, height, 3), "dog"):
        x1, y1, x2, y2 = one.box.tolist()
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height


def test_a_long_phrase_is_cut_and_a_blank_one_refused(model: GroundingDino):
    picture = gradient(64, 64, 3)
    long = model.detect(picture, "a red cat " * 40)
    assert [one.score for one in long] == [one.score for one in model.detect(picture, "a red cat " * 80)]
    for blank in ("", " . "):
        with pytest.raises(ValueError, match="a blank phrase"):
            model.detect(picture, blank)
    with pytest.raises(ValueError, match="a picture is"):
        model.detect(np.zeros((4, 4), np.uint8), "cat")


def test_the_same_thing_found_twice_is_one():
    found = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 40], [-5, 0, 4, 4], [50, 0, 60, 9]], np.float32)
    scores = [0.6, 0.9, 0.5, 0.8, 0.99]
    kept = apart(found, scores, 40, 40, 0.5)
    assert [one.score for one in kept] == [0.9, 0.8, 0.5], "the last one lies outside the picture"
    assert kept[1].box.tolist() == [0, 0, 4, 4]
    assert [one.score for one in apart(found, scores, 40, 40, 0.5, 1)] == [0.9]
    assert [one.score for one in apart(found, scores, 40, 40, 1.0)] == [0.9, 0.8, 0.6, 0.5]
    nothing = np.array([[np.nan, 0, 1, 1], [3, 3, 3, 9]], np.float32)
    assert apart(nothing, [0.5, 0.5], 40, 40, 0.5) == []
    assert apart(np.zeros((0, 4), np.float32), [], 40, 40, 0.5) == []


def test_absent_weights_are_null_to_auto_and_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use(tmp_path, monkeypatch)
    assert registry.resolve("detector") is None
    with pytest.raises(Refused, match=r"grounding-dino-tiny/config.json is not in .*hf download IDEA-Research/"):
        ENTRY.load()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled(), ""),
        (cut(), ""),
        (edited("config.json", decoder_layers=3), "disagree about"),
        (edited("config.json", model_type="owlv2"), "of a owlv2, not of a grounding-dino"),
        (edited("config.json", "text_config", vocab_size=3), ""),
        (replaced("tokenizer.json", "{"), "is no tokenizer"),
        (replaced("preprocessor_config.json", "{"), ""),
    ],
    ids=["pickle", "cut", "more", "kind", "words", "tokenizer", "preprocessor"],
)
def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, said: str):
    folder = put_grounding(use(tmp_path, monkeypatch))
    spoil(folder)
    with pytest.raises(Refused, match=f"grounding-dino-tiny is damaged: .*{said}.*get it again: .*hf download"):
        ENTRY.load()
    assert not (folder / "ran").exists()


@pytest.mark.weights
def test_true_weights_find_the_cat():
    if ENTRY.present() is not None:
        pytest.skip(ENTRY.present())
    found = ENTRY.load().detect(data.chelsea(), "cat", 1)
    x1, y1, x2, y2 = found[0].box.tolist()
    assert (x2 - x1) * (y2 - y1) > 0.3 * 451 * 300
    assert ENTRY.load().detect(data.chelsea(), "bicycle") == []
