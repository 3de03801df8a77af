"""EZIGen's generation and editing: how the schedule is divided, when loops end, inversion, what stays of a picture."""

from functools import partial

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import attached, ezigen_adapter, latents_by_step, references
from diffusers import DPMSolverMultistepScheduler, StableDiffusionImg2ImgPipeline
from PIL import Image
from torch.nn import functional

from refloom.inference.adapters import tokens, windows
from refloom.inference.adapters.ezigen import editing, inversion
from refloom.inference.adapters.ezigen import loops as transfer
from refloom.inference.adapters.ezigen import schedule as splits
from refloom.inference.adapters.ezigen.referenceunet import ancestral
from refloom.inference.adapters.vision import clip_pixels
from refloom.schemas.errors import Refused

SMALL = {"height": 32, "width": 32, "num_inference_steps": 5, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def pipe():
    return tiny.sd_pipe()


@pytest.fixture
def adapter(pipe):
    with attached(ezigen_adapter(pipe), pipe) as made:
        yield made


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def timesteps(steps=50):
    scheduler = ancestral()
    scheduler.set_timesteps(steps)
    return scheduler.timesteps.tolist()


TABLE = {0.2: (181, 200, 40), 0.4: (381, 400, 30), 0.5: (481, 500, 25), 0.7: (681, 700, 15), 0.8: (781, 800, 10)}


@pytest.mark.parametrize("share", TABLE)
def test_the_schedule_is_divided_as_in_the_spec_and_as_published(share):
    """Table A.4.1; published, a loop's noise is not that of its first step, and 0.8 starts a step early."""
    first, noise, start = TABLE[share]
    part, published = (splits.split(timesteps(), share, faithful=flag) for flag in (False, True))
    assert (part.start, part.timesteps[0], part.noise) == (start, first, first)
    assert part.timesteps == published.timesteps == tuple(range(first, 0, -20))
    assert (published.start, published.noise) == (9 if share == 0.8 else start, noise)


def test_the_subjects_have_one_step_to_all():
    assert splits.split(timesteps(), 1.0) == splits.Split(0, tuple(timesteps()), 981)
    with pytest.raises(Refused, match="no noise level"):
        splits.split(timesteps(), 1.0, faithful=True)
    assert splits.split(timesteps(), 0.01) == splits.Split(49, (1,), 1)
    for share in (0.0, 1.1, -0.5):
        with pytest.raises(Refused, match="at most 1"):
            splits.split(timesteps(), share)


def test_backgrounds_have_the_noise_of_the_foreground_and_end_with_the_picture():
    inverse = inversion.inverse_scheduler(ancestral(), 50).timesteps.tolist()
    assert inverse[:3] == [0, 20, 40]
    assert inverse[-1] == 979
    part = splits.split(timesteps(), 0.4)
    way, published = (splits.trajectory(part, inverse, 0.4, faithful=flag) for flag in (False, True))
    assert way == splits.Trajectory(19, tuple(max(18 - step, 0) for step in range(20)))
    assert published == splits.Trajectory(20, tuple(20 - step for step in range(20)))
    levels = [*part.timesteps[1:], 0]
    assert all(abs(inverse[k] - level) <= 10 for k, level in zip(way.background, levels, strict=True))
    whole = splits.trajectory(splits.split(timesteps(7), 1.0), inversion.inverse_scheduler(ancestral(), 7).timesteps, 1)
    assert whole.background == (5, 4, 3, 2, 1, 0, 0)


def test_loops_end_when_the_picture_stands_still_after_3_to_9_or_a_given_number():
    def loops(similarity, iterations=None):
        done = 0
        while splits.goes_on(done, similarity if done else 0.0, iterations=iterations, sim_threshold=0.99):
            done += 1
        return done

    assert [loops(0.5), loops(0.99), loops(1.0), loops(0.98)] == [9, 3, 3, 9]
    assert [loops(1.0, 6), loops(0.5, 0), loops(0.5, 1)] == [6, 0, 1]


def test_inversion_and_back_is_the_picture_again_the_more_so_the_more_steps(pipe):
    torch.manual_seed(0)
    start = torch.randn(2, 4, 16, 24) * 0.8
    errors = []
    for steps in (10, 40):
        way = inversion.invert(pipe, start, steps=steps, stop=steps // 2)
        assert len(way) == steps // 2 + 1
        assert torch.equal(way[0], start)
        scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
        levels = inversion.inverse_scheduler(pipe.scheduler, steps).timesteps[: steps // 2 + 1]
        scheduler.set_timesteps(timesteps=levels.flip(0).tolist()[:-1])
        text, latents = inversion.exceptional_states(pipe).expand(2, -1, -1), way[-1]
        with torch.no_grad():
            for timestep in scheduler.timesteps:
                noise = pipe.unet(latents, timestep, text, return_dict=False)[0]
                latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
        errors.append((latents - start).abs().mean().item() / (way[-1] - start).abs().mean().item())
    assert errors[1] < errors[0] / 2 < 0.1
    assert errors[1] < 0.05


def test_the_text_of_an_inversion_is_one_token_without_places(pipe):
    with_places = pipe.text_encoder(torch.full((1, 77), 7788))[0]
    table = pipe.text_encoder.get_parameter("embeddings.position_embedding.weight")
    kept = table.clone()
    states = inversion.exceptional_states(pipe)
    table.zero_()
    wanted = pipe.text_encoder(torch.full((1, 77), 7788))[0]
    table.copy_(kept)
    assert torch.equal(states, wanted)
    assert (states - with_places).abs().max() > 1e-3
    assert torch.equal(pipe.text_encoder(torch.full((1, 77), 7788))[0], with_places)


def test_generating_is_a_pass_with_late_subjects_then_loops_of_noise_and_subjects(pipe, adapter):
    """Against the stock pipelines: the pass is one run in a window, a loop is img2img with the method's sampler."""
    conditioning, calls = adapter.encode(references(0)), []
    stock = pipe.scheduler
    options = SMALL | {"split_ratio": 0.4, "iterations": 2, "negative_prompt": "dark"}
    count = lambda _, step, timestep, kwargs: calls.append((step, int(timestep))) or kwargs  # noqa: E731
    done = adapter.generate(conditioning, "a dog", generator=seeded(), callback_on_step_end=count, **options)
    assert pipe.scheduler is stock
    assert adapter.window == windows.StepWindow()
    assert calls == [*enumerate([801, 601, 401, 201, 1]), *[(0, 201), (1, 1)] * 2]
    assert (len(done.passes), done.loops, done.similarities[0][0] < 1) == (3, [2], True)
    assert np.array_equal(done.images[0], done.passes[-1][0])

    generator = seeded()
    pipe.scheduler = ancestral(stock)
    run = {"prompt": "a dog", "negative_prompt": "dark", "generator": generator, "guidance_scale": 3.0}
    adapter.window = windows.StepWindow(3)
    with adapter.generation(conditioning):
        first = pipe(**run, num_inference_steps=5, height=32, width=32).images[0]
    assert np.array_equal(first, done.passes[0][0])
    adapter.window = windows.StepWindow()
    parts = {k: v for k, v in pipe.components.items() if k not in ("image_encoder", "feature_extractor")}
    other = StableDiffusionImg2ImgPipeline(
        **parts, image_encoder=None, feature_extractor=None, requires_safety_checker=False
    )
    other.set_progress_bar_config(disable=True)
    for number in (1, 2):
        image = Image.fromarray(done.passes[number - 1][0])
        with adapter.generation(conditioning, pipe=other):
            after = other(**run, num_inference_steps=5, strength=0.4, image=image).images[0]
        np.testing.assert_allclose(np.asarray(after, int), done.passes[number][0], atol=1)
    pipe.scheduler = stock


def test_the_first_pass_has_the_methods_negative_prompt_and_loops_have_none(pipe, adapter, monkeypatch):
    said, encode = [], pipe.encode_prompt

    def listen(prompt, device, images, guided, negative=None, **options):
        said.append(negative)
        return encode(prompt, device, images, guided, negative, **options)

    monkeypatch.setattr(pipe, "encode_prompt", listen)
    conditioning = adapter.encode(references(0))
    said.clear()
    adapter.generate(conditioning, ["a dog", "a cat"], iterations=1, **SMALL)
    assert said == [[transfer.FIRST_NEGATIVE] * 2, ["", ""]]
    said.clear()
    adapter.generate(conditioning, "a dog", iterations=1, negative_prompt="dark", **SMALL)
    assert said == ["dark", "dark"]


def test_published_loops_draw_from_torchs_own_generator_and_ours_from_the_given_one(pipe, adapter):
    conditioning = adapter.encode(references(0))
    for faithful in (False, True):
        adapter.faithful, outs = faithful, []
        for seed in (1, 2):
            torch.manual_seed(seed)
            outs.append(adapter.generate(conditioning, "a dog", iterations=1, generator=seeded(), **SMALL))
        assert np.array_equal(outs[0].passes[0][0], outs[1].passes[0][0])
        assert np.array_equal(outs[0].images[0], outs[1].images[0]) == (not faithful)


def test_each_picture_of_a_batch_stands_still_by_itself(pipe, adapter, monkeypatch):
    """The similarity is CLIP's of a picture before and after; one that stands still keeps its last loop."""
    each = [adapter.encode(references(0)), adapter.encode(references(1))]
    options = SMALL | {"num_inference_steps": 3, "generator": [seeded(at) for at in range(4)]}
    still = iter([[0.0, 1.0, 0.5, 1.0]] * 3 + [[1.0, 0.0, 0.5, 0.0]] + [[0.0, 0.0, 0.995, 0.0]])
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_similarity", lambda *_: next(still))
        done = adapter.generate(tokens.stack(each), ["a dog", "a cat"], num_images_per_prompt=2, **options)
    assert done.loops == [4, 3, 5, 3]
    assert len(done.passes) == 6
    for image, loops, at in zip(done.images, done.loops, range(4), strict=True):
        assert np.array_equal(image, done.passes[loops][at])
    assert not np.array_equal(done.images[1], done.passes[5][1])
    before, after = done.passes[0], done.passes[1]
    vision = adapter.image_encoder
    a, b = (functional.normalize(vision.pooled(clip_pixels(p, vision.side)), dim=1) for p in (before, after))
    np.testing.assert_allclose(transfer._similarity(vision, before, after), (a * b).sum(1), atol=1e-5)


@pytest.mark.parametrize("size", [(40, 56), (64, 32), (33, 47)])
def test_editing_leaves_what_is_outside_the_mask_to_the_last_bit(pipe, adapter, size):
    source = np.ascontiguousarray(tiny.picture(5, 64, 64)[: size[0], : size[1]])
    mask = np.zeros(size, bool)
    mask[8:24, 8:24] = True
    conditioning = adapter.encode(references(0))
    done = adapter.edit(conditioning, source, mask, "a dog", iterations=2, num_inference_steps=5, generator=seeded())
    assert done.images[0].shape == source.shape
    assert done.images[0].dtype == np.uint8
    assert np.array_equal(done.images[0][~mask], source[~mask])
    assert np.abs(done.images[0][mask].astype(int) - source[mask]).mean() > 5
    short = min(size)
    assert done.passes[0][0].shape[:2] == tuple(2 * round(side * 32 / short / 2) for side in size)
    again = adapter.edit(conditioning, source, mask, "a dog", iterations=2, num_inference_steps=5, generator=seeded())
    assert np.array_equal(again.images[0], done.images[0])


def test_background_latents_are_the_pictures_own_in_the_last_step_and_noisier_ones_as_published(pipe, adapter):
    source, mask = tiny.picture(5, 32, 32), np.zeros((32, 32), bool)
    mask[:, 16:] = True
    conditioning = adapter.encode(references(0))
    for faithful in (False, True):
        adapter.faithful = faithful
        torch.manual_seed(3)
        options = {"iterations": 1, "num_inference_steps": 10, "split_ratio": 0.5, "generator": seeded(3)}
        seen = latents_by_step(partial(adapter.edit, conditioning, source, mask, "a dog", **options))
        latents = transfer.vae_latents(pipe, transfer.to_signed([source]), seeded(3))
        way = inversion.invert(pipe, latents, steps=10, stop=5)
        wanted = [way[5 - step] if faithful else way[max(3 - step, 0)] for step in range(5)]
        for after, behind in zip(seen, wanted, strict=True):
            torch.testing.assert_close(after[..., :7], behind[..., :7], atol=1e-5, rtol=1e-5)
            assert (after[..., 9:] - behind[..., 9:]).abs().max() > 0.1
    assert (wanted[-1] - latents).abs().max() > 1e-3


def test_guidance_of_an_edit_is_what_is_asked_for(pipe, adapter):
    source, mask = tiny.picture(5, 32, 32), np.ones((32, 32), bool)
    conditioning = adapter.encode(references(0))
    outs = [
        adapter.edit(
            conditioning, source, mask, "a dog", iterations=1, num_inference_steps=5, generator=seeded(), **given
        ).images[0]
        for given in ({}, {"guidance_scale": 2.0}, {"guidance_scale": 6.0})
    ]
    assert np.array_equal(outs[0], outs[1])
    assert not np.array_equal(outs[0], outs[2])


def test_soft_masks_stay_soft_and_are_cut_off_as_published():
    mask = np.zeros((40, 60), np.float32)
    mask[10:30, 20:40], mask[10:30, 40:50] = 1.0, 0.5
    soft = editing.latent_mask(mask, (20, 30))[0, 0]
    torch.testing.assert_close(soft[7:13, 22:24], torch.full((6, 2), 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(soft[7:13, 12:18], torch.ones(6, 6), atol=1e-5, rtol=0)
    hard = editing.latent_mask(mask, (20, 30), hard=((40, 60), 40))[0, 0]
    assert hard[7:13, 22:24].abs().max() == 0
    assert hard[7:13, 12:18].min() == 1
    source, edited = np.full((40, 60, 3), 100, np.uint8), np.full((40, 60, 3), 200, np.uint8)
    assert set(np.unique(editing.pasted(source, edited, mask))) == {100, 150, 200}


def test_what_cannot_be_is_refused_with_the_remedy(pipe, adapter):
    conditioning = adapter.encode(references(0))
    source, mask = tiny.picture(5, 32, 32), np.ones((32, 32), bool)
    for wrong in (np.ones((16, 32), bool), np.full((32, 32), 255, np.uint8)):
        with pytest.raises(Refused, match="boolean or float"):
            adapter.edit(conditioning, source, wrong, "a dog")
    for wrong in (np.zeros((32, 32), bool), np.full((32, 32), 2.0), np.full((32, 32), np.nan)):
        with pytest.raises(Refused, match=r"in 0\.\.1 and set"):
            adapter.edit(conditioning, source, wrong, "a dog")
    with pytest.raises(Refused, match="both height and width"):
        adapter.edit(conditioning, source, mask, "a dog", height=32)
    with pytest.raises(Refused, match="number of loops"):
        adapter.generate(conditioning, "a dog", iterations=-1)
    adapter.image_encoder = None
    with pytest.raises(Refused, match="iterations=3"):
        adapter.generate(conditioning, "a dog", **SMALL)
    done = adapter.generate(conditioning, "a dog", iterations=1, **SMALL)
    assert done.similarities == [None]
    alone = ezigen_adapter(pipe).attach(tiny.sd_pipe().unet)
    with pytest.raises(Refused, match="StableDiffusionPipeline, not on a UNet2DConditionModel"):
        alone.generate(conditioning, "a dog", iterations=1)
