"""Thin pictures and masks: what would be blown up to millions of pixels is refused or stays small."""

import time
import tracemalloc

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import ezigen_adapter

from refloom.inference.adapters.easyref.qweninputs import fitted
from refloom.inference.adapters.ezigen import editing
from refloom.inference.adapters.ezigen import referenceunet as reference_unet
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.vision import clip_pixels
from refloom.inference.evaluation.encoders import crop
from refloom.inference.pipeline import ReferencePipeline
from refloom.schemas.errors import Refused


@pytest.mark.parametrize("shape", [(6, 400), (400, 6), (8, 33)])
@pytest.mark.parametrize("faithful", [False, True])
def test_a_thin_picture_is_not_edited_and_the_message_says_what_to_do(shape, faithful):
    pipe = tiny.sd_pipe()
    with ReferencePipeline(pipe, ezigen_adapter(pipe)) as pipeline:
        pipeline.set_references([Reference((tiny.picture(0),), "dog")])
        pipeline.adapter.faithful = faithful
        for module in (pipe.unet, pipe.vae.encoder):
            module.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
        source = np.zeros((*shape, 3), np.uint8)
        with pytest.raises(Refused, match=f"picture is {shape[1]}x{shape[0]}, .*cut out the part around the mask"):
            pipeline.edit(source, np.ones(shape, bool), "a dog", iterations=1)


def test_both_sides_in_which_a_picture_is_edited_are_bounded():
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(int(side) for side in rng.integers(1, 5000, 2))
        for multiple in (1, 8):
            try:
                height, width = editing.working_size(size, None, None, 512, multiple)
            except Refused:
                assert max(size) > 4 * min(size)
                continue
            assert max(size) <= 4 * min(size)
            assert min(height, width) == 512
            assert max(height, width) <= 4 * 512
    assert editing.working_size((6, 400), 64, 512, 512, 8) == (64, 512)


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (3, 9_000)])
def test_thin_references_take_neither_time_nor_memory(shape):
    """numpy's and Python's memory; Pillow's own would show in the time."""
    image = np.full((*shape, 3), 77, np.uint8)
    begun = time.perf_counter()
    tracemalloc.start()
    assert clip_pixels([image], 224).shape == clip_pixels([image], 224, squash=512).shape == (1, 3, 224, 224)
    assert crop(image, "dino", 224).shape == (224, 224, 3)
    for squash in (False, True):
        assert reference_unet.subject_pixels([image], 512, squash=squash).shape == (1, 3, 512, 512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28
    assert time.perf_counter() - begun < 5


def test_a_subject_on_white_is_that_of_the_whole_square():
    """A long picture that is shrunk before it is padded differs by what is rounded twice."""
    image = tiny.picture(1, 40, 400)
    square = np.full((400, 400, 3), 255, np.uint8)
    square[180:220] = image
    whole = reference_unet.subject_pixels([square], 32)
    assert (reference_unet.subject_pixels([image], 32) - whole).abs().max() < 0.15


def test_a_tall_mask_and_a_wide_one_are_one_place():
    tall, wide = np.zeros((20_000, 2), bool), np.zeros((2, 20_000), bool)
    tall[10_001, 1], wide[1, 5_000] = True, True
    reference = Reference((tiny.picture(0),), masks=[tall, wide])
    assert max(reference.mask.shape) <= 2048
    assert reference.hull == pytest.approx((0.25, 0.5, 1.0, 1.0), abs=1e-3)
    small = Reference(
        (tiny.picture(0),), masks=[tall[10_000:10_002], np.zeros((2, 4), bool) | [True, False, False, False]]
    )
    assert small.mask.tolist() == [[True, False, False, False], [True, False, True, True]]


def test_easyref_says_what_to_do_with_a_thin_reference():
    with pytest.raises(Refused, match="crop it"):
        fitted(1, 300, 1000, 10_000)


def test_latent_masks_of_thin_pictures_stay_on_their_grid():
    assert editing.latent_mask(np.ones((1, 20_000), np.float32), (8, 8)).shape == (1, 1, 8, 8)
    assert torch.equal(editing.latent_mask(np.ones((3, 9), np.float32), (4, 12)), torch.ones(1, 1, 4, 12))
