"""What EZIGen's `faithful` gives back beside the published schedule: CLIP's crop, the subject's own text."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import ezigen_adapter
from PIL import Image
from torchvision.transforms import functional as published

from refloom.inference.adapters.ezigen import loops as transfer
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.vision import DEVIATION, MEAN, clip_pixels
from refloom.inference.centrecrops import centre_crop

SIDE = 28


@pytest.fixture(scope="module")
def adapter():
    pipe = tiny.sd_pipe()
    return ezigen_adapter(pipe).attach(pipe)


def torchvisions(image, short, side):
    resized = published.resize(Image.fromarray(image), short, published.InterpolationMode.BICUBIC)
    return np.asarray(published.center_crop(resized, [side, side]))


def test_clips_crop_is_torchvisions_to_the_last_bit_at_every_size():
    rng = np.random.default_rng(0)
    other = 0
    for _ in range(300):
        height, width = rng.integers(SIDE // 4, 5 * SIDE, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = torchvisions(image, SIDE, SIDE)
        assert np.array_equal(centre_crop(image, SIDE, SIDE, rounded=True), wanted), (height, width)
        other += not np.array_equal(centre_crop(image, SIDE, SIDE), wanted)
    assert other > 30  # where the middle lies between two pixels, transformers rounds down


@pytest.mark.parametrize("shape", [(1, 20), (20, 1), (7, 400), (400, 7), (224, 224), (225, 224), (224, 227)])
def test_clips_crop_is_torchvisions_of_thin_pictures_and_of_those_that_fit_already(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for short, side in ((224, 224), (256, 224)):
        assert np.array_equal(centre_crop(image, short, side, rounded=True), torchvisions(image, short, side))


def test_the_rule_to_stop_by_sees_openais_crop(adapter):
    vision, images = adapter.image_encoder, [tiny.picture(seed, 40, 48)[:40, :45] for seed in range(2)]
    seen = []
    for image in images:
        crop = torch.from_numpy(torchvisions(image, vision.side, vision.side)).permute(2, 0, 1)[None] / 255
        normal = (crop - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(DEVIATION).reshape(3, 1, 1)
        seen.append(vision.pooled(normal))
    wanted = torch.nn.functional.cosine_similarity(*seen).item()
    assert transfer._similarity(vision, images[:1], images[1:])[0] == pytest.approx(wanted, abs=1e-5)
    assert not torch.equal(clip_pixels(images, vision.side), clip_pixels(images, vision.side, rounded=True))


@pytest.mark.parametrize("phrase", ["dog", "a photo of a dog.", "", None])
def test_the_published_script_tells_the_frozen_unet_the_phrase_as_it_is(adapter, monkeypatch, phrase):
    told, encode = [], adapter.pipe.encode_prompt
    monkeypatch.setattr(
        adapter.pipe, "encode_prompt", lambda texts, *rest, **more: told.append(texts) or encode(texts, *rest, **more)
    )
    for faithful in (True, False):
        monkeypatch.setattr(adapter, "faithful", faithful)
        adapter.encode([Reference((tiny.picture(0),), phrase)])
    assert told[0] == [phrase or ""]
    if phrase == "dog":
        assert told[1] == ["a photo of a dog."]
