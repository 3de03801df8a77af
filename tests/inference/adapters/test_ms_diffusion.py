"""MS-Diffusion on stock pipelines: places, grounding, auto layout, and where the published code differs."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import conditioned, latents_by_step, ms_adapter, references

from refloom.inference.adapters import tokens
from refloom.inference.adapters.ms_diffusion.grounding import box_embedding
from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Refused

PROMPT = "a photo of a dog and a cat"
LEFT, RIGHT = (0.0, 0.25, 0.5, 0.75), (0.5, 0.25, 1.0, 0.75)


@pytest.fixture(scope="module")
def pipe():
    return tiny.sdxl_pipe()


@pytest.fixture
def adapter(pipe):
    adapter = ms_adapter(pipe)
    yield adapter.attach(pipe)
    adapter.detach()


def placed(*boxes, seeds=(0, 1), phrases=("dog", "cat"), **options) -> list[Reference]:
    given = zip(seeds, phrases, boxes, strict=True)
    return [Reference((tiny.picture(seed),), phrase, (box,), **options) for seed, phrase, box in given]


def halves(pipe, run) -> torch.Tensor:
    """What the UNet says in the first step of a run: without and with the condition."""
    seen = []
    hook = pipe.unet.register_forward_hook(lambda _, __, out: seen.append(out[0].clone()))
    run()
    hook.remove()
    return seen[0]


def test_the_box_embedding_is_eight_frequencies_of_four_sines_and_four_cosines():
    box = torch.tensor([0.25, 0.5, 0.75, 1.0])
    wanted = [f(100 ** (k / 8) * x) for k in range(8) for f in (np.sin, np.cos) for x in box.tolist()]
    np.testing.assert_allclose(box_embedding(box).numpy(), wanted, atol=1e-5)


def test_the_negative_half_sees_text_alone(pipe, adapter):
    plain = halves(pipe, lambda: tiny.generate(pipe))
    given = halves(pipe, lambda: conditioned(pipe, adapter, placed(LEFT, RIGHT)))
    assert torch.equal(plain[0], given[0])
    assert (plain[1] - given[1]).abs().max() > 1e-3


def test_places_of_nothing_are_text_alone_and_a_place_is_a_box_or_its_mask(pipe, adapter):
    adapter.faithful = True
    assert np.array_equal(conditioned(pipe, adapter, references(0, 1)), tiny.generate(pipe))
    adapter.faithful = False
    mask = np.zeros((100, 100), bool)
    mask[25:75, :50] = True
    by_box, by_mask = (
        adapter.encode(placed(LEFT, seeds=(0,), phrases=("dog",))),
        adapter.encode(references(0, masks=mask)),
    )
    torch.testing.assert_close(by_box.tokens, by_mask.tokens)
    outs = []
    for conditioning in (by_box, by_mask):
        with adapter.generation(conditioning):
            outs.append(tiny.generate(pipe))
    np.testing.assert_allclose(*outs, atol=1e-5)


def test_without_a_place_a_reference_acts_everywhere_by_null_latents(pipe, adapter):
    whole = (0.0, 0.0, 1.0, 1.0)
    anywhere, full = adapter.encode(references(0)), adapter.encode(placed(whole, seeds=(0,), phrases=("dog",)))
    assert not torch.allclose(anywhere.tokens, full.tokens)
    dropped = adapter.encode(placed(whole, seeds=(0,), phrases=("cat",)), drop_grounding_tokens=True)
    torch.testing.assert_close(anywhere.tokens, dropped.tokens)
    assert not torch.allclose(full.tokens, adapter.encode(placed(LEFT, seeds=(0,), phrases=("dog",))).tokens)
    assert not torch.allclose(full.tokens, adapter.encode(placed(whole, seeds=(0,), phrases=("cat",))).tokens)
    with adapter.generation(anywhere):
        out = tiny.generate(pipe)
    with adapter.generation(dropped):
        assert np.array_equal(out, tiny.generate(pipe))
    assert np.abs(out - tiny.generate(pipe)).max() > 1e-2


def test_the_strength_of_one_reference_is_its_own(pipe, adapter):
    def said(given):  # in the first step: a run multiplies rounding errors
        return halves(pipe, lambda: conditioned(pipe, adapter, given))

    quiet = placed(LEFT, RIGHT)
    quiet[1] = Reference(quiet[1].images, "cat", quiet[1].boxes, scale=0.0)
    left = said(placed(LEFT, seeds=(0,), phrases=("dog",)))
    torch.testing.assert_close(said(quiet), left, atol=1e-5, rtol=0)
    assert (said(placed(LEFT, RIGHT)) - left).abs().max() > 1e-3


def test_batches_of_prompts_with_places_of_their_own_are_each_alone_at_any_aspect(pipe, adapter):
    latents = torch.randn(4, 4, 24, 44, generator=torch.Generator().manual_seed(0))
    prompts, options = ["a dog", "a dog and a cat"], {"height": 48, "width": 88}
    each = [adapter.encode(placed(LEFT, seeds=(0,), phrases=("dog",))), adapter.encode(placed(RIGHT, LEFT))]
    with adapter.generation(tokens.stack(each)):
        batch = tiny.generate(pipe, prompts, latents=latents, num_images_per_prompt=2, **options)
    for at in range(4):
        with adapter.generation(each[at // 2]):
            alone = tiny.generate(pipe, prompts[at // 2], latents=latents[at : at + 1], **options)
        np.testing.assert_allclose(batch[at], alone[0], atol=2e-4)


def test_auto_layout_follows_the_text_from_its_step_on_and_forgets(pipe, adapter):
    given = placed(LEFT, RIGHT)

    def run(**options):
        return conditioned(pipe, adapter, given, prompt=PROMPT, num_inference_steps=4, **options)

    by_boxes = latents_by_step(run)
    adapter.mask_threshold, adapter.start_step = 0.5, 3
    followed = latents_by_step(run)
    close = [torch.allclose(a, b, atol=1e-5) for a, b in zip(by_boxes, followed, strict=True)]
    assert close == [True, True, False, False]
    assert all(torch.equal(a, b) for a, b in zip(followed, latents_by_step(run), strict=True))
    with adapter.generation(adapter.encode(given, prompt=PROMPT)):  # two runs in one generation
        first, second = (tiny.generate(pipe, num_inference_steps=4) for _ in range(2))
    assert np.array_equal(first, second)
    adapter.mask_threshold = None
    assert all(torch.equal(a, b) for a, b in zip(by_boxes, latents_by_step(run), strict=True))


def test_auto_layout_needs_the_prompt_and_its_words(pipe, adapter):
    adapter.mask_threshold = 0.5
    with adapter.generation(adapter.encode(placed(LEFT, RIGHT))), pytest.raises(Refused, match="prompt="):
        tiny.generate(pipe)
    with pytest.raises(Refused, match="'cat'"):
        adapter.encode(placed(LEFT, RIGHT), prompt="a photo of a dog")
    with pytest.raises(Refused, match="phrase"):
        adapter.encode([Reference((tiny.picture(0),))])


def test_where_the_published_code_differs(adapter):
    box, twice = (0.1, 0.2, 0.7, 0.9), placed(LEFT, RIGHT, phrases=("dog", "dog"))
    for faithful, stored, second in ((False, box, 5), (True, tuple(np.float16(box).tolist()), 4)):
        adapter.faithful = faithful
        conditioning = adapter.encode(placed(box, seeds=(0,), phrases=("dog",)))
        assert conditioning.boxes[0, 0, 0].tolist() == torch.tensor(stored).tolist()
        spans = adapter.encode(twice, prompt="a dog and a dog").spans
        assert [row.nonzero().flatten().tolist() for row in spans[0]] == [[2], [second]]


def test_several_pictures_of_a_subject_are_the_mean_of_their_tokens(adapter):
    images = (tiny.picture(0), tiny.picture(1, 24, 88))
    alone = [adapter.encode([Reference((image,), "dog", (LEFT,))]).tokens for image in images]
    pair = adapter.encode([Reference(images, "dog", (LEFT,)), Reference(images[:1], "cat", (RIGHT,))])
    torch.testing.assert_close(pair.tokens[:, :1], (alone[0] + alone[1]) / 2, atol=1e-5, rtol=1e-4)
