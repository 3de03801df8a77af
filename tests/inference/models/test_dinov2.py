"""DINOv2 as an image embedder: the true architecture, tiny and random, through the registry's loader."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from tinymodels import DINOV2 as ENTRY
from tinymodels import DINOV2_PIXELS, Spoil, cut, edited, pickled, put_dinov2, replaced, some_dinov2, use

from refloom.inference.models import registry
from refloom.inference.models.crops import cut_out
from refloom.inference.models.dinov2 import Dinov2
from refloom.schemas.errors import Refused

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_dinov2(use(tmp_path, monkeypatch))


@pytest.fixture
def model(present: Path) -> Dinov2:
    return ENTRY.load()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 28, 28, 3), np.uint8)


def test_vectors_are_the_class_tokens_of_transformers(model: Dinov2, crops: np.ndarray):
    pixels = (crops.astype(np.float32) / 255 - DINOV2_PIXELS["image_mean"]) / DINOV2_PIXELS["image_std"]
    with torch.inference_mode():
        output = some_dinov2()(torch.from_numpy(pixels).float().permute(0, 3, 1, 2))
    expected = torch.nn.functional.normalize(output.last_hidden_state[:, 0]).numpy()
    vectors = model.embed(crops)
    assert (model.dim, model.input_px, vectors.dtype) == (32, 28, np.float32)
    assert np.abs(vectors - expected).max() < 1e-5
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    assert (vectors @ vectors.T)[~np.eye(7, dtype=bool)].max() < 0.999  # else this test could not fail


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_vector_depends_neither_on_neighbours_nor_on_place_nor_on_batch(
    present: Path, crops: np.ndarray, batch_size: int
):
    model = replace(ENTRY, options={"cpu_batch_size": batch_size}).load()
    expected = model.embed(crops)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(crops))
        assert model.embed(crops[order]).tobytes() == expected[order].tobytes()
    for count in (1, 2, 3, 5):
        parts = [model.embed(crops[start : start + count]) for start in range(0, len(crops), count)]
        assert np.concatenate(parts).tobytes() == expected.tobytes()


def test_bf16_is_honoured_and_agrees_roughly(present: Path, crops: np.ndarray):
    assert 1e-6 < np.abs(ENTRY.load("cpu", "bf16").embed(crops) - ENTRY.load().embed(crops)).max() < 0.05


def test_no_crops_give_no_vectors(model: Dinov2):
    assert model.embed(np.zeros((0, 28, 28, 3), np.uint8)).shape == (0, 32)


@pytest.mark.parametrize("batch", [np.zeros((1, 28, 56, 3), np.uint8), np.zeros((1, 28, 28, 3), np.float32)])
def test_other_batches_are_refused(model: Dinov2, batch: np.ndarray):
    with pytest.raises(ValueError, match="28"):
        model.embed(batch)


def test_auto_prefers_the_large_one_then_the_base(present: Path):
    names = [entry.name for entry in registry.ENTRIES["image_embedding"]]
    assert names[:2] == ["dinov2-large", "dinov2-base"]
    assert names[-1] == "efficientnet-lite0"
    assert registry.resolve("image_embedding") is ENTRY


def test_absent_weights_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use(tmp_path, monkeypatch)
    said = rf"dinov2-base/config.json is not in .*{tmp_path}.*hf download facebook/dinov2-base"
    with pytest.raises(Refused, match=said):
        ENTRY.load()
    folder = put_dinov2(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(some_dinov2().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(Refused, match=r"dinov2-base/model.safetensors is not in .*hf download facebook/dinov2-base"):
        ENTRY.load()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled(), ""),
        (cut(), ""),
        (edited("config.json", num_hidden_layers=3), "model.safetensors and config.json disagree about"),
        (
            edited("config.json", num_hidden_layers=1, out_features=["stage1"], out_indices=[1]),
            "model.safetensors and config.json disagree about",
        ),
        (edited("config.json", image_size=84), ""),
        (edited("config.json", model_type="vit"), "of a vit, not of a dinov2"),
        (replaced("config.json", "{"), ""),
        (edited("preprocessor_config.json", crop_size={"height": 28, "width": 30}), "square"),
        (edited("preprocessor_config.json", crop_size={"height": 30, "width": 30}), "patches of 14 px"),
        (edited("preprocessor_config.json", image_mean=None), ""),
    ],
    ids=["pickle", "cut", "more", "fewer", "shape", "kind", "json", "oblong", "patches", "mean"],
)
def test_damaged_files_are_refused(present: Path, spoil: Spoil, said: str):
    spoil(present)
    with pytest.raises(
        Refused, match=f"dinov2-base is damaged: .*{said}.*get it again: .*hf download facebook/dinov2-base"
    ):
        ENTRY.load()
    assert not (present / "ran").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(present: Path):
    with pytest.raises(Refused, match="no CUDA device; use device=cpu"):
        ENTRY.load("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_agrees_with_the_cpu(present: Path, crops: np.ndarray):
    assert np.abs(ENTRY.load("cuda").embed(crops) - ENTRY.load().embed(crops)).max() < 1e-3


@pytest.mark.weights
@pytest.mark.parametrize("name", ["dinov2-base", "dinov2-large"])
def test_true_weights_know_a_subject_again(name: str):
    entry = registry.by_name("image_embedding", name)
    if entry.present() is not None:
        pytest.skip(entry.present())
    model = entry.load()
    cat, coffee = data.chelsea(), data.coffee()
    views = [cat, cat[:, ::-1], cat[20:280, 60:400], coffee]
    made = [cut_out(np.ascontiguousarray(p), None, (0, 0, *p.shape[1::-1]), model.input_px) for p in views]
    cosines = model.embed(np.stack(made)) @ model.embed(np.stack(made[:1]))[0]
    assert (cosines[1:3] > 0.6).all()
    assert cosines[3] < 0.4
