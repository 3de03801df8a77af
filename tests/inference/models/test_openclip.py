"""open_clip's CLIP as image and text embedder: the true architecture, tiny and random, by the registry's loader."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from skimage import data
from tinymodels import CLIP_NAME as NAME
from tinymodels import Spoil, clip_config, cut, edited, pickled, put_clip, replaced, some_clip, use

from refloom.inference.models import registry
from refloom.inference.models.batching import MicroBatches
from refloom.inference.models.crops import cut_out
from refloom.inference.models.embedders import in_fixed_batches
from refloom.inference.models.openclip import OpenClipImages, OpenClipTexts
from refloom.schemas.errors import Refused

IMAGES = registry.by_name("image_embedding", NAME)
TEXTS = registry.by_name("text_embedding", NAME)
CONFIG = clip_config()
WORDS = ["a photo of a cat.", "an apple", "", "one two three four five six seven eight nine ten eleven twelve a cat"]
MIDDLE = f"{WORDS[-1]} again"  # 17 tokens with start and end: one more than the short way takes
LONG = f"{MIDDLE} and then once more and again until there is no room"


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    put_clip(folder)
    return folder


@pytest.fixture
def present(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use(weights, monkeypatch) / NAME


@pytest.fixture
def images(present: Path) -> OpenClipImages:
    return IMAGES.load()


@pytest.fixture
def texts(present: Path) -> OpenClipTexts:
    return TEXTS.load()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)


def test_the_tokenizer_comes_with_the_package():
    assert Path(open_clip.tokenizer.default_bpe()).is_file()


def test_image_vectors_are_those_of_open_clip(images: OpenClipImages, crops: np.ndarray):
    prepare = open_clip.image_transform(32, is_train=False, mean=(0.48, 0.45, 0.40), std=(0.27, 0.26, 0.28))
    with torch.inference_mode():
        expected = some_clip(CONFIG).encode_image(
            torch.stack([prepare(Image.fromarray(c)) for c in crops]), normalize=True
        )
    vectors = images.embed(crops)
    assert (images.dim, images.input_px, vectors.dtype) == (24, 32, np.float32)
    assert np.abs(vectors - expected.numpy()).max() < 1e-5
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    assert (vectors @ vectors.T)[~np.eye(7, dtype=bool)].max() < 0.999  # else this test could not fail


def test_text_vectors_are_those_of_open_clip_and_share_the_space(
    texts: OpenClipTexts, images: OpenClipImages, crops: np.ndarray
):
    net, tokenizer = some_clip(CONFIG), open_clip.SimpleTokenizer(context_length=24)
    with torch.inference_mode():
        expected = net.encode_text(tokenizer([*WORDS, MIDDLE, LONG]), normalize=True).numpy()
        prepared = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        logits = net.get_logits(prepared, tokenizer(WORDS))[0]
        cosines = net.encode_image(prepared, normalize=True) @ net.encode_text(tokenizer(WORDS), normalize=True).T
    lengths = [int(row.argmax()) + 1 for row in tokenizer([*WORDS, MIDDLE, LONG])]
    assert lengths[-3:] == [16, 17, 24]
    assert np.abs(texts.embed([*WORDS, MIDDLE, LONG]) - expected).max() < 1e-5
    assert texts.logit_scale == pytest.approx(float((logits / cosines).median()), rel=1e-4)
    assert (texts.image_model, texts.dim) == (IMAGES.name, images.dim)
    assert registry.by_name("image_embedding", texts.image_model).weights == TEXTS.weights


def test_what_is_too_long_is_cut_and_said(texts: OpenClipTexts):
    assert texts.truncated([*WORDS, MIDDLE, LONG]) == [False] * 5 + [True]
    more = " ".join([*LONG.split()[:22], "other words"])
    assert texts.embed([LONG]).tobytes() == texts.embed([more]).tobytes()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_vector_depends_neither_on_neighbours_nor_on_place_nor_on_batch(
    present: Path, crops: np.ndarray, batch_size: int
):
    options = {"cpu_batch_size": batch_size}
    images, texts = replace(IMAGES, options=options).load(), replace(TEXTS, options=options).load()
    words = [*WORDS, MIDDLE, LONG, "a dog"]
    seen, read = images.embed(crops), texts.embed(words)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(crops))
        assert images.embed(crops[order]).tobytes() == seen[order].tobytes()
        assert texts.embed([words[place] for place in order]).tobytes() == read[order].tobytes()
    for count in (1, 2, 3, 5):
        starts = range(0, len(crops), count)
        assert np.concatenate([images.embed(crops[s : s + count]) for s in starts]).tobytes() == seen.tobytes()
        assert np.concatenate([texts.embed(words[s : s + count]) for s in starts]).tobytes() == read.tobytes()


def test_nothing_gives_no_vectors(images: OpenClipImages, texts: OpenClipTexts):
    assert images.embed(np.zeros((0, 32, 32, 3), np.uint8)).shape == (0, 24)
    assert texts.embed([]).shape == (0, 24)
    assert texts.truncated([]) == []


@pytest.mark.parametrize("batch", [np.zeros((1, 32, 31, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32)])
def test_other_batches_are_refused(images: OpenClipImages, batch: np.ndarray):
    with pytest.raises(ValueError, match="32"):
        images.embed(batch)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_honoured_and_agrees_roughly(present: Path, crops: np.ndarray, precision: str):
    full, half = IMAGES.load().embed(crops), IMAGES.load("cpu", precision).embed(crops)
    assert 1e-6 < np.abs(half - full).max() < 0.05
    full, half = TEXTS.load().embed(WORDS), TEXTS.load("cpu", precision).embed(WORDS)
    assert 1e-6 < np.abs(half - full).max() < 0.05


def test_a_batch_that_ran_out_of_memory_is_halved_and_padded_to_the_new_size(crops: np.ndarray):
    shapes = []

    def run(batch: np.ndarray) -> np.ndarray:
        shapes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch.reshape(len(batch), -1)[:, :5].astype(np.float32)

    vectors = in_fixed_batches(crops, 5, MicroBatches(4), run)
    expected = crops.reshape(7, -1)[:, :5].astype(np.float64)
    assert np.allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert shapes == [4, 2, 2, 2, 2]


def test_absent_weights_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use(tmp_path, monkeypatch)
    with pytest.raises(Refused, match=rf"{NAME}/open_clip_config.json is not in .*{tmp_path}.*hf download laion/"):
        TEXTS.load()
    folder = put_clip(tmp_path)
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(Refused, match=rf"{NAME}/open_clip_model.safetensors is not in .*hf download laion/"):
        IMAGES.load()


CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"


def reconfigured(tower: str, **changes: object) -> Spoil:
    return edited(CONFIG_FILE, "model_cfg", f"{tower}_cfg", **changes)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled(WEIGHTS_FILE), WEIGHTS_FILE),
        (cut(WEIGHTS_FILE, 1000), WEIGHTS_FILE),
        (replaced(CONFIG_FILE, "{"), CONFIG_FILE),
        (replaced(CONFIG_FILE, "[]"), "not a mapping"),
        (reconfigured("vision", layers=3), "resblocks.2"),
        (reconfigured("vision", image_size=64), r"visual.positional_embedding is \(17, 32\)"),
        (reconfigured("text", context_length=77), r"positional_embedding is \(24, 32\)"),
        (reconfigured("vision", widht=32), "widht"),
        (reconfigured("text", hf_model_name="roberta-base"), "hf_model_name"),
        (reconfigured("text", hf_tokenizer_name="roberta-base"), "hf_tokenizer_name"),
        (reconfigured("vision", timm_model_name="resnet18"), "timm_model_name"),
    ],
    ids=["pickle", "cut", "json", "list", "layers", "size", "context", "typo", "tower", "tokenizer", "timm"],
)
def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, said: str):
    folder = put_clip(use(tmp_path, monkeypatch))
    spoil(folder)
    for entry in (IMAGES, TEXTS):
        with pytest.raises(Refused, match=f"{said}.*hf download laion/"):
            entry.load()
    assert not (folder / "ran").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(present: Path):
    with pytest.raises(Refused, match="no CUDA device; use device=cpu"):
        IMAGES.load("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_agrees_with_the_cpu(present: Path, crops: np.ndarray):
    assert np.abs(IMAGES.load("cuda").embed(crops) - IMAGES.load().embed(crops)).max() < 1e-3
    assert np.abs(TEXTS.load("cuda").embed(WORDS) - TEXTS.load().embed(WORDS)).max() < 1e-3


@pytest.mark.weights
@pytest.mark.parametrize("entry", registry.ENTRIES["text_embedding"], ids=lambda entry: entry.name)
def test_true_weights_know_a_cat_and_a_cup_of_coffee(entry: registry.Entry):
    if entry.present() is not None:
        pytest.skip(entry.present())
    texts = entry.load()
    images = registry.by_name("image_embedding", texts.image_model).load()
    seen = images.embed(
        np.stack([cut_out(p, None, (0, 0, *p.shape[1::-1]), images.input_px) for p in (data.chelsea(), data.coffee())])
    )
    said = texts.embed(["a photo of a cat.", "a photo of a cup of coffee.", "a photo of a rocket."])
    assert (seen @ said.T).argmax(axis=1).tolist() == [0, 1]
    assert 50 < texts.logit_scale <= 100.1
