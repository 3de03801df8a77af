"""DINO as an image embedder: the true architecture, tiny and random, through the registry's loader."""

import json

import numpy as np
import pytest
import torch
from tinymodels import cut, edited, pickled, use

from refloom.inference.models import registry
from refloom.schemas.errors import Refused

pytestmark = pytest.mark.usefixtures("no_network")
ENTRY = registry.by_name("image_embedding", "dino-vits16")
PIXELS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "size": 32}


def some_dino(pooler=False):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**sizes, image_size=32, patch_size=8, initializer_range=0.2)
    return ViTModel(config, add_pooling_layer=pooler).eval()


@pytest.fixture
def present(tmp_path, monkeypatch):
    folder = use(tmp_path, monkeypatch) / ENTRY.name
    some_dino().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    return folder


def test_vectors_are_the_class_tokens_of_transformers(present):
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    pixels = (crops.astype(np.float32) / 255 - PIXELS["image_mean"]) / PIXELS["image_std"]
    with torch.inference_mode():
        tokens = some_dino()(torch.from_numpy(pixels).float().permute(0, 3, 1, 2)).last_hidden_state
    model = ENTRY.load()
    vectors = model.embed(crops)
    assert (model.dim, model.input_px) == (32, 32)
    assert np.abs(vectors - torch.nn.functional.normalize(tokens[:, 0]).numpy()).max() < 1e-5
    assert (vectors @ vectors.T)[~np.eye(3, dtype=bool)].max() < 0.999


def test_a_pooler_in_the_file_changes_nothing(present):
    crops = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    before = ENTRY.load().embed(crops)
    with_pooler = some_dino(pooler=True)
    with_pooler.load_state_dict(some_dino().state_dict(), strict=False)
    with_pooler.save_pretrained(present)
    assert np.array_equal(ENTRY.load().embed(crops), before)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled(), ""),
        (cut(), ""),
        (edited("config.json", num_hidden_layers=3), "disagree about"),
        (edited("config.json", num_hidden_layers=1), "disagree about"),
        (edited("config.json", model_type="dinov2"), "of a dinov2, not of a vit"),
        (edited("preprocessor_config.json", image_mean=[0.5]), "three channels"),
    ],
    ids=["pickle", "cut", "more", "fewer", "kind", "mean"],
)
def test_damaged_files_are_refused(present, spoil, said):
    spoil(present)
    with pytest.raises(Refused, match=f"dino-vits16 is damaged: .*{said}.*get it again: .*facebook/dino-vits16"):
        ENTRY.load()
    assert not (present / "ran").exists()
