"""BLIP as a captioner: the true architecture, tiny and random, with a tokenizer made here, by the registry's loader."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from tinymodels import BLIP as ENTRY
from tinymodels import (
    WORDS,
    Spoil,
    blip_processor,
    blip_tokenizer,
    cut,
    edited,
    pickled,
    put_blip,
    replaced,
    some_blip,
    use,
)

from refloom.inference.models.captioners import sentence
from refloom.inference.models.hfcaptioner import Blip
from refloom.inference.models.threads import one_thread
from refloom.schemas.errors import Refused

pytestmark = pytest.mark.usefixtures("no_network")

SEARCH = {"num_beams": 3, "min_new_tokens": 5, "max_new_tokens": 12, "no_repeat_ngram_size": 3, "do_sample": False}


@pytest.fixture
def present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_blip(use(tmp_path, monkeypatch))


def load(batch_size: int = 1) -> Blip:
    """By the true entry, with a shorter search: `SEARCH`."""
    return replace(ENTRY, options=ENTRY.options | {"max_new_tokens": 12, "cpu_batch_size": batch_size}).load()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [data.chelsea(), data.coffee(), data.rocket(), data.astronaut()[:40, :333], data.chelsea()[:1, :1]]


def test_captions_are_those_of_transformers(present: Path, pictures: list[np.ndarray]):
    net, processor = some_blip(), blip_processor()
    expected = []
    for picture in pictures:
        values = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
        with torch.inference_mode(), one_thread():
            tokens = net.generate(pixel_values=values, **SEARCH)
        assert tokens[0, 0] == len(WORDS)
        expected.append(sentence(blip_tokenizer().decode(tokens[0].tolist(), skip_special_tokens=True)))
    captions = load().caption(pictures)
    assert captions == expected
    assert len(set(captions)) > 1  # else this test could not fail
    assert all(captions)


def test_a_caption_depends_neither_on_neighbours_nor_on_place_nor_on_batch(present: Path, pictures: list[np.ndarray]):
    expected = load().caption(pictures)
    model = load(batch_size=3)
    assert model.caption(pictures) == expected
    assert model.caption(pictures[::-1]) == expected[::-1]
    assert [model.caption([picture])[0] for picture in pictures] == expected


def test_bf16_runs(present: Path, pictures: list[np.ndarray]):
    model = ENTRY.load("cpu", "bf16")
    assert len(model.caption(pictures[:2])) == 2


def test_no_pictures_give_no_captions(present: Path):
    assert load().caption([]) == []


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_pixels_are_refused(present: Path, picture: np.ndarray):
    with pytest.raises(ValueError, match="a picture is"):
        load().caption([picture])


@pytest.mark.parametrize(
    ("said", "clean"),
    [
        ("  a cat\non   a table ", "a cat on a table"),
        ("arafed man in a hat", "man in a hat"),
        ("there is a araffe dog sitting", "there is a dog sitting"),
        ("a dog dog dog on a table", "a dog on a table"),
        ("a cat on a table on a table on a table", "a cat on a table"),
        ("a red, red, red ball", "a red ball"),
        ('"a cat and a dog"', "a cat and a dog"),
        ("a man sits . a woman stands.", "a man sits."),
        ("a man and a woman , sitting", "a man and a woman, sitting"),
        ("a man in st. louis", "a man in st. louis"),
        ("men and women, women and men", "men and women and men"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_a_sentence_is_one_clean_line(said: str, clean: str):
    assert sentence(said) == clean
    assert sentence(clean) == clean


def test_absent_weights_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use(tmp_path, monkeypatch)
    with pytest.raises(Refused, match=rf"blip-large/config.json is not in .*{tmp_path}.*hf download Salesforce/"):
        ENTRY.load()
    folder = put_blip(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(some_blip().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(Refused, match=r"blip-large/model.safetensors is not in .*hf download Salesforce/"):
        ENTRY.load()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled(), ""),
        (cut(), ""),
        (edited("config.json", "vision_config", num_hidden_layers=3), "disagree about"),
        (edited("config.json", "vision_config", num_hidden_layers=1), "disagree about"),
        (edited("config.json", "text_config", vocab_size=99), ""),
        (edited("config.json", model_type="blip-2"), "of a blip-2, not of a blip"),
        (replaced("config.json", "{"), ""),
        (replaced("tokenizer.json", "{"), ""),
        (replaced("preprocessor_config.json", "{"), ""),
    ],
    ids=["pickle", "cut", "more", "fewer", "shape", "kind", "config", "tokenizer", "preprocessor"],
)
def test_damaged_files_are_refused(present: Path, spoil: Spoil, said: str):
    spoil(present)
    with pytest.raises(Refused, match=f"blip-large is damaged: .*{said}.*get it again: .*hf download Salesforce/"):
        ENTRY.load()
    assert not (present / "ran").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(present: Path):
    with pytest.raises(Refused, match="no CUDA device; use device=cpu"):
        ENTRY.load("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_captions_too(present: Path, pictures: list[np.ndarray]):
    assert all(ENTRY.load("cuda").caption(pictures))


@pytest.mark.weights
def test_true_weights_say_what_is_there():
    if ENTRY.present() is not None:
        pytest.skip(ENTRY.present())
    model = ENTRY.load()
    captions = model.caption([data.chelsea(), data.coffee()])
    assert "cat" in captions[0]
    assert "cup" in captions[1] or "coffee" in captions[1]
    assert model.caption([data.coffee(), data.chelsea()]) == captions[::-1]
