"""What may be given once or for each prompt: each picture is that of its own prompt alone."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import ezigen_adapter, references

from refloom.inference.adapters import tokens
from refloom.inference.pipeline import ReferencePipeline
from refloom.schemas.errors import Refused

PROMPTS = ["a dog", "a cat on the grass", "a lantern"]
NEGATIVES = ["dark", "blur, lowres", "red"]
SHORT = {"num_inference_steps": 3, "iterations": 1, "guidance_scale": 4.0}
SIZE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def adapter():
    pipe = tiny.sd_pipe()
    return ezigen_adapter(pipe).attach(pipe)


@pytest.fixture(scope="module")
def conditions(adapter):
    return [adapter.encode(references(seed)) for seed in range(3)]


def noise(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def source():
    mask = np.zeros((32, 32), bool)
    mask[8:28, 8:28] = True
    return tiny.picture(5, 32, 32), mask


def run(adapter, how, conditioning, prompt, **options):
    if how == "edit":
        return adapter.edit(conditioning, *source(), prompt, **(SHORT | options)).images
    return adapter.generate(conditioning, prompt, **(SHORT | SIZE | options)).images


@pytest.mark.parametrize("how", ["generate", "edit"])
@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_prompt_with_its_negative_prompt_gives_the_picture_of_the_two_alone(adapter, conditions, how, each, count):
    prompts, negatives = PROMPTS[:count], NEGATIVES[:count]
    together = run(
        adapter,
        how,
        tokens.stack(conditions[:count]),
        prompts,
        negative_prompt=negatives,
        num_images_per_prompt=each,
        generator=noise(*range(count * each)),
    )
    assert len(together) == count * each
    last = count - 1
    at = last * each + each - 1
    alone = run(adapter, how, conditions[last], prompts[last], negative_prompt=negatives[last], generator=noise(at))[0]
    np.testing.assert_allclose(together[at].astype(int), alone.astype(int), atol=2)
    other = run(adapter, how, conditions[last], prompts[last], negative_prompt="a dog", generator=noise(at))[0]
    assert np.abs(other.astype(int) - alone).max() > 4


def test_one_negative_prompt_in_a_list_is_the_prompts_and_one_text_serves_all_prompts(adapter, conditions):
    alone, listed = (
        run(adapter, "generate", conditions[0], "a dog", negative_prompt=given, generator=noise(1))[0]
        for given in ("dark", ["dark"])
    )
    assert np.array_equal(alone, listed)
    once, each = (
        run(adapter, "generate", conditions[0], PROMPTS[:2], negative_prompt=given, generator=noise(1, 2))
        for given in ("dark", ("dark", "dark"))
    )
    assert all(map(np.array_equal, once, each))


@pytest.mark.parametrize("how", ["generate", "edit"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negative_prompt": ["dark"]}, "1 negative prompts for 2 prompts: give one for all, or one each"),
        ({"negative_prompt": ["dark"] * 3}, "3 negative prompts for 2 prompts"),
        ({"negative_prompt": []}, "0 negative prompts for 2 prompts"),
        ({"generator": noise(1, 2, 3), "num_images_per_prompt": 2}, "3 generators for 4 pictures"),
        ({"generator": noise(1)}, "1 generators for 2 pictures"),
    ],
)
def test_other_counts_are_refused_with_both_before_anything_runs(adapter, conditions, how, options, message):
    hook = adapter.pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    try:
        with pytest.raises(Refused, match=message):
            run(adapter, how, conditions[0], PROMPTS[:2], **options)
        with pytest.raises(Refused, match="conditions of 3 prompts for 2 prompts"):
            run(adapter, how, tokens.stack(conditions), PROMPTS[:2])
        with pytest.raises(Refused, match="conditions of 3 prompts for 1 prompts"):
            run(adapter, how, tokens.stack(conditions), "a dog", num_images_per_prompt=3)
    finally:
        hook.remove()


@pytest.mark.parametrize("how", ["generate", "edit"])
def test_a_reference_pipeline_takes_a_negative_prompt_for_each_prompt(how):
    pipe = tiny.sd_pipe()
    with ReferencePipeline(pipe, ezigen_adapter(pipe)) as pipeline:
        pipeline.set_references(references(0))

        def made(prompt, negative, seeds):
            if how == "edit":
                done = pipeline.edit(*source(), prompt, negative, seed=seeds, **SHORT)
            else:
                done = pipeline.generate(prompt, negative, seed=seeds, **SHORT, **SIZE)
            return [np.asarray(image, int) for image in done.images]

        together = made(PROMPTS, tuple(NEGATIVES), (7, 8, 9))
        np.testing.assert_allclose(together[1], made(PROMPTS[1], [NEGATIVES[1]], 8)[0], atol=2)
