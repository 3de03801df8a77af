"""Places as token masks, phrases as token spans."""

import numpy as np
import pytest
import tinypipes as tiny
import torch

from refloom.inference.adapters import layout, phrases
from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Refused


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.mark.parametrize("size", [(128, 128), (96, 136), (33, 50)])
def test_a_number_of_tokens_names_the_grid_that_the_unet_makes(size):
    found = layout.grids(size)
    levels = [size]
    for _ in range(3):
        conv = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1)
        levels.append(tuple(conv(torch.zeros(1, 1, *levels[-1])).shape[-2:]))
    assert [found[height * width] for height, width in levels] == levels


def test_box_masks_are_floor_and_ceil_of_the_box_at_any_aspect():
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.0, 0.3, 0.51, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    masks = layout.box_masks(boxes, (6, 10)).reshape(4, 6, 10)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
        wanted = np.zeros((6, 10), bool)
        wanted[int(np.floor(y1 * 6)) : int(np.ceil(y2 * 6)), int(np.floor(x1 * 10)) : int(np.ceil(x2 * 10))] = True
        assert np.array_equal(mask.numpy(), wanted)


def test_a_mask_touches_the_tokens_that_a_box_of_the_same_shape_touches():
    mask = torch.zeros(2, 60, 100, dtype=torch.bool)
    mask[0, 18:60, 0:51] = True
    mask[1, 7, 33] = True
    for grid in ((6, 10), (7, 9), (120, 200)):
        boxes = torch.tensor([[0, 0.3, 0.51, 1], [0.33, 7 / 60, 0.34, 8 / 60]], dtype=torch.float64)
        assert torch.equal(layout.picture_masks(mask, grid)[0], layout.box_masks(boxes, grid)[0])
    assert layout.picture_masks(mask, (6, 10))[1].nonzero().tolist() == [[0 * 10 + 3]]
    assert layout.picture_masks(mask, (3, 3)).shape == (2, 9)


def test_pseudo_masks_follow_each_maps_own_range_and_an_absent_phrase_covers_nothing():
    maps = torch.tensor([[0.0, 1e-4, 2e-2, 3e-2], [0.5, 0.5, 0.9, 0.6], [0.0, 0.0, 0.0, 0.0]])
    masks = layout.pseudo_masks(maps, 0.5)
    assert masks.tolist() == [[False, False, True, True], [False, False, True, False], [False] * 4]


@pytest.mark.parametrize(
    ("prompt", "wanted", "words"),
    [
        ("a photo of a dog", ["dog"], ["dog"]),
        ("A Photo of a DOG, and a cat.", ["a dog", "the Cat"], ["dog", "cat"]),
        ("a dog and a dog", ["dog", "dog"], ["dog", "dog"]),
        ("a hot-dog beside a dog", ["dog", "hot dog"], ["dog", "hot-dog"]),
        ("two colorful_sneakers  and a grey sloth plushie", ["grey sloth plushie"], ["grey sloth plushie"]),
        ("a café, naïve résumé on paper", ["résumé", "cafe\u0301"], ["résumé", "café"]),
        ("a supercalifragilistic teapot", ["supercalifragilistic teapot"], ["supercalifragilistic teapot"]),
    ],
)
def test_spans_are_the_tokens_of_the_words(tokenizer, prompt, wanted, words):
    second = tiny.tokenizer("!")
    ids = tokenizer(prompt).input_ids
    found = phrases.spans(tokenizer, prompt, wanted)
    assert phrases.spans(second, prompt, wanted) == found
    for span, word in zip(found, words, strict=True):
        assert ids[span[0] : span[1]] == tokenizer(word).input_ids[1:-1]
    assert len(set(found)) == len(found)


def test_what_a_prompt_does_not_say_is_not_found(tokenizer):
    assert phrases.spans(tokenizer, "a hotdog. Cat", ["dog", "hotdog cat", "a"]) == [None, None, (1, 2)]
    assert phrases.spans(tokenizer, "a dog", ["dog", "dog"]) == [(2, 3), None]
    assert phrases.spans(tokenizer, "very " * 100 + "dog", ["dog"]) == [None]
    assert phrases.spans(tokenizer, "very " * 73 + "hot dog dog", ["hot dog dog"]) == [None]


def test_the_published_spans_place_the_second_of_two_equal_phrases_too_early(tokenizer):
    assert phrases.published_spans(tokenizer, "a dog and a dog", ["dog", "dog"]) == [(2, 3), (4, 5)]
    assert phrases.spans(tokenizer, "a dog and a dog", ["dog", "dog"]) == [(2, 3), (5, 6)]
    assert phrases.published_spans(tokenizer, "A Dog, a cat.", ["dog", "cat"]) == [(0, 0), (5, 6)]
    assert phrases.published_spans(tokenizer, "a big hot-dog, yes", ["dog"]) == [(3, 6)]


@pytest.mark.parametrize(
    "options",
    [
        {"boxes": ((0.5, 0.0, 0.2, 1.0),)},
        {"boxes": ((0.0, 0.0, 1.2, 1.0),)},
        {"boxes": ((0.0, 0.0, float("nan"), 1.0),)},
        {"boxes": ()},
        {"masks": np.zeros((4, 4), bool)},
        {"images": ()},
        {"images": (np.zeros((8, 8, 4), np.uint8),)},
        {"scale": float("inf")},
    ],
)
def test_a_reference_that_cannot_be_used_is_refused(options):
    with pytest.raises(Refused, match="the reference 'dog'"):
        Reference(**({"images": (tiny.picture(),), "phrase": "dog"} | options))


def test_the_hull_is_around_every_box_or_the_mask():
    image = tiny.picture()
    assert Reference((image,), boxes=((0.1, 0.2, 0.3, 0.4), (0.2, 0.1, 0.9, 0.3))).hull == (0.1, 0.1, 0.9, 0.4)
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:8] = True
    assert Reference((image,), masks=mask).hull == (0.2, 0.2, 0.4, 0.5)
    assert Reference((image,)).hull is None
