"""What `ReferencePipeline` takes once for all prompts or once for each, on stock pipelines of every kind."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import ip_adapter, ms_adapter, references
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from PIL import Image

from refloom.inference.adapters import tokens
from refloom.inference.pipeline import ReferencePipeline
from refloom.schemas.errors import Refused

SHORT = {"num_inference_steps": 2, "guidance_scale": 4.0, "output_type": "np"}
PROMPTS, NEGATIVES = ["a dog", "a cat on the grass"], ["dark", "blur"]


@pytest.fixture(scope="module")
def sdxl():
    pipe = tiny.sdxl_pipe()
    pipeline = ReferencePipeline(pipe, ip_adapter(pipe))
    return pipeline.set_references(references(0))


@pytest.mark.parametrize(
    "given",
    [
        {"negative_prompt": NEGATIVES},
        {"negative_prompt": tuple(NEGATIVES)},
        {"negative_prompt": NEGATIVES, "negative_prompt_2": ["red", "green"]},
        {"prompt_2": ["red", "green"]},
        {"negative_prompt": "dark", "negative_prompt_2": "red", "prompt_2": "green"},
    ],
)
def test_texts_for_each_prompt_go_to_their_prompt(sdxl, given):
    options = SHORT | {"height": 32, "width": 32, "num_images_per_prompt": 2}
    together = sdxl.generate(PROMPTS, seed=3, **given, **options).images
    mine = {name: text if isinstance(text, str) else text[1:] for name, text in given.items()}
    alone = sdxl.generate(PROMPTS[1], seed=5, **mine, **options).images
    np.testing.assert_allclose(together[2:], alone, atol=2e-3)


@pytest.mark.parametrize("name", ["negative_prompt", "negative_prompt_2", "prompt_2"])
def test_texts_of_another_count_are_refused_with_both(sdxl, name):
    with pytest.raises(Refused, match=r"3 (negative )?prompts for 2 prompts: give one for all, or one each"):
        sdxl.generate(PROMPTS, **{name: ["dark"] * 3})


def test_negative_prompts_go_with_embeddings_too():
    pipe = tiny.sd_pipe()
    with ReferencePipeline(pipe, ip_adapter(pipe)) as pipeline:
        pipeline.set_references(references(0))
        states = pipe.encode_prompt(PROMPTS, "cpu", 1, False)[0]
        options = SHORT | {"height": 32, "width": 32, "seed": 1}
        for given in ("dark", ["dark", "dark"]):
            made = pipeline.generate(prompt_embeds=states, negative_prompt=given, **options).images
            np.testing.assert_allclose(made, pipeline.generate(PROMPTS, "dark", **options).images, atol=1e-4)
        with pytest.raises(Refused, match="1 negative prompts for 2 prompts"):
            pipeline.generate(prompt_embeds=states, negative_prompt=["dark"], **options)


@pytest.mark.parametrize("kind", [StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline])
def test_each_prompt_starts_from_its_own_picture_however_many_are_made_of_it(kind):
    parts = {name: part for name, part in tiny.sd_pipe().components.items() if part is not None}
    missing = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    pipe = kind(**(missing | parts), requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    images = [Image.fromarray(tiny.picture(seed, 32, 32)) for seed in (1, 2)]
    masks = [Image.fromarray(np.uint8(255) * (np.indices((32, 32))[axis] > 15)) for axis in (0, 1)]
    given = {"image": images} | ({"mask_image": masks} if kind is StableDiffusionInpaintPipeline else {})
    options = SHORT | {"strength": 0.5}
    with ReferencePipeline(pipe, ip_adapter(pipe)) as pipeline:
        pipeline.set_references(references(0))
        together = pipeline.generate(PROMPTS, seed=3, num_images_per_prompt=2, **given, **options).images
        for at in range(4):
            mine = {name: values[at // 2] for name, values in given.items()}
            alone = pipeline.generate(PROMPTS[at // 2], seed=3 + at, **mine, **options).images[0]
            np.testing.assert_allclose(together[at], alone, atol=2e-3)
        with pytest.raises(Refused, match="3 images for 2 prompts: give one for all, or one each"):
            pipeline.generate(PROMPTS, image=[images[0]] * 3, num_images_per_prompt=2)


def test_conditions_of_another_number_of_prompts_are_refused(sdxl):
    adapter = sdxl.adapter
    two = tokens.stack([adapter.encode(references(seed)) for seed in (0, 1)])
    for prompt in (["a dog"] * 4, "a dog"):
        with pytest.raises(Refused, match="conditions of 2 prompts for"):
            adapter.generate(two, prompt=prompt, num_images_per_prompt=2)


@pytest.mark.parametrize("name", ["drop_grounding_tokens", "drop_images"])
def test_flags_of_references_are_one_for_all_or_one_each(name):
    pipe = tiny.sdxl_pipe()
    adapter = ms_adapter(pipe).attach(pipe)
    once, each = (adapter.encode(references(0, 1), **{name: given}) for given in (True, [True, True]))
    assert torch.equal(once.tokens, each.tokens)
    for count in (1, 3):
        with pytest.raises(Refused, match=f"{count} {name} flags for 2 references"):
            adapter.encode(references(0, 1), **{name: [True] * count})
