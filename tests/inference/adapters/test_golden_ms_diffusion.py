"""MS-Diffusion against tensors that its published code computed, its defects included (tests/golden/README.md)."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from diffusers import StableDiffusionXLControlNetPipeline
from goldens import Golden, Layers, run, same
from PIL import Image

from refloom.inference.adapters import layout, phrases, published
from refloom.inference.adapters.ms_diffusion.grounding import box_embedding
from refloom.inference.adapters.reference import Reference

PROMPT = "a photo of a dog and a cat"
PLACES = ((0.04, 0.2, 0.62, 0.75), (0.4, 0.31, 1.0, 0.9))


@pytest.fixture(scope="module")
def golden():
    return Golden("ms_diffusion")


@pytest.fixture(scope="module")
def pipe(golden):
    return golden.pipe()


@pytest.fixture
def adapter(golden, pipe, tmp_path):
    adapter = published.read_ms_diffusion(golden.adapter_file("adapter", tmp_path), pipe.unet, head_width=8)
    adapter.image_encoder = golden.vision()
    yield adapter.requires_grad_(False).attach(pipe)
    adapter.detach()


@pytest.fixture
def placed(golden):
    def make(boxes=PLACES, names=("dog", "cat"), scales=(1.0, 1.0)) -> list[Reference]:
        given = zip(names, boxes or (None, None), scales, strict=True)
        return [
            Reference((golden.image(at),), name, None if box is None else (box,), scale=scale)
            for at, (name, box, scale) in enumerate(given)
        ]

    return make


@pytest.fixture
def generate(golden, pipe, adapter):
    def latents(references, steps, *, prompt=PROMPT, noise="noise.30.1", other=None, options=None, **run_options):
        conditioning = adapter.encode(references, prompt=prompt, **(options or {}))
        with adapter.generation(conditioning, pipe=other):
            return run(other or pipe, [prompt], noise=golden[noise], steps=steps, **run_options)

    return latents


def differs(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() > 1e-3)


@pytest.mark.parametrize("drop", [0, 1])
def test_the_grounding_resampler_and_the_way_to_it(golden, adapter, placed, drop):
    phrase, features = golden["tokens.phrases"], golden["tokens.features"]
    same(adapter.pooled_phrases(placed()), phrase)
    queries = adapter.image_proj.queries(phrase, torch.tensor(PLACES), torch.full((2,), not drop))
    same(adapter.image_proj(features, queries), golden[f"tokens.out.{drop}"])
    encoded = adapter.encode(placed(), drop_grounding_tokens=bool(drop))
    same(encoded.tokens[0], golden[f"tokens.out.{drop}"])
    assert differs(golden["tokens.out.0"], golden["tokens.out.1"])


def test_layers_and_every_step_of_a_run_with_places(golden, pipe, adapter, placed, generate):
    adapter.scale = 0.6
    watch = Layers(pipe.unet, 1)
    steps = generate(placed(), 3, prompt=PROMPT, noise="noise.30.2", samples=2)
    wanted = golden.under("boxes.layer")
    layers = watch.close()
    assert set(layers) == set(wanted) == set(adapter.config.layers)
    for path, output in layers.items():
        same(output[1::2], wanted[path])
    for at, latents in enumerate(steps):
        same(latents, golden[f"boxes.latents.{at}"])
    assert differs(steps[-1], run(pipe, [PROMPT], noise=golden["noise.30.2"], steps=3, samples=2)[-1])


def test_strengths_of_subjects_and_null_latents(golden, placed, generate):
    same(generate(placed(scales=(0.3, 1.4)), 2)[-1], golden["subjects.latents.1"])
    same(generate(placed(), 2, options={"drop_grounding_tokens": True})[-1], golden["null.latents.1"])


def test_auto_layout_its_masks_layers_and_every_step(golden, pipe, adapter, placed, generate):
    adapter.mask_threshold, adapter.start_step = 0.5, 2
    masks: dict[str, torch.Tensor] = {}
    done = iter(range(4))

    def look():
        step = next(done)
        for path, slot in adapter.slots.items():
            if step >= 1:
                masks[f"{step}.{path}"] = layout.pseudo_masks(slot.maps / adapter._acting.maps, 0.5)

    watch = Layers(pipe.unet, 2)
    steps = generate(placed(), 4, after_step=look)
    wanted = golden.under("layout.mask")
    assert set(masks) == set(wanted)
    assert all(torch.equal(mask, wanted[key]) for key, mask in masks.items())
    assert 0 < sum(int(mask.sum()) for mask in masks.values()) < sum(mask.numel() for mask in masks.values())
    layers = watch.close()
    for path, output in golden.under("layout.layer").items():
        same(layers[path], output)
    for at, latents in enumerate(steps):
        same(latents, golden[f"layout.latents.{at}"])


def test_auto_layout_once_used_goes_on_only_if_faithful(golden, adapter, placed, generate):
    outs = {}
    for faithful in (True, False):
        adapter.faithful = faithful
        adapter.mask_threshold, adapter.start_step = 0.5, 2
        generate(placed(), 4)
        adapter.mask_threshold = None
        outs[faithful] = generate(placed(), 2, noise="noise.31.1")[-1]
    same(outs[True], golden["sticky.latents.1"])
    assert differs(outs[True], outs[False])


def test_places_in_half_precision_only_if_faithful(golden, adapter, placed, generate):
    boxes = golden["half.boxes"]
    for side in (10, 24, 28, 32):
        grids = {"half": layout.box_masks(boxes.half(), (side, side)), "full": layout.box_masks(boxes, (side, side))}
        for name, masks in grids.items():
            columns = masks.reshape(-1, side, side).any(dim=1)
            assert torch.equal(columns, golden[f"{name}.columns.{side}"]), (name, side)
    assert not torch.equal(golden["half.columns.10"], golden["full.columns.10"])
    same(box_embedding(boxes[:16]), golden["full.embedding"].reshape(16, -1))
    assert torch.equal(box_embedding(boxes[:16].half()), golden["half.embedding"].reshape(16, -1))
    rounded, outs = ((0.1, 0.29999, 0.7001, 0.9), (0.29999, 0.1, 0.9001, 0.6)), {}
    for adapter.faithful in (True, False):
        outs[adapter.faithful] = generate(placed(rounded), 2)[-1]
    same(outs[True], golden["rounded.latents.1"])
    assert differs(outs[True], outs[False])


def test_a_reference_without_a_place_waits_for_pseudo_masks_only_if_faithful(golden, adapter, placed, generate):
    adapter.mask_threshold, adapter.start_step = 0.5, 2
    for adapter.faithful in (True, False):
        out = generate(placed(None), 3)[-1]
        assert differs(out, golden["nowhere.latents.2"]) is not adapter.faithful
        if adapter.faithful:
            same(out, golden["nowhere.latents.2"])


@pytest.mark.parametrize(
    ("run_name", "prompt", "names"),
    [("twice", "a dog and a dog", ("dog", "dog")), ("case", "a Dog, near a cat.", ("dog", "cat"))],
)
def test_repeated_phrases_and_capitals_are_missed_only_if_faithful(
    golden, adapter, placed, generate, run_name, prompt, names
):
    adapter.mask_threshold, adapter.start_step = 0.5, 2
    wanted = golden[f"{run_name}.latents.2"]
    for adapter.faithful in (True, False):
        out = generate(placed(names=names), 3, prompt=prompt)[-1]
        assert differs(out, wanted) is not adapter.faithful
        if adapter.faithful:
            same(out, wanted)


def test_published_spans_are_the_published_ones(golden):
    tokenizer = tiny.tokenizer()
    for prompt, names, spans in golden.meta["spans"]:
        assert phrases.published_spans(tokenizer, prompt, names) == [tuple(span) for span in spans], prompt


def test_a_controlnet_takes_tokens_for_text_only_if_faithful(golden, pipe, adapter, placed, generate):
    controlnet = golden.controlnet(pipe.unet)
    parts = {key: value for key, value in pipe.components.items() if key not in ("image_encoder", "feature_extractor")}
    other = StableDiffusionXLControlNetPipeline(**parts, controlnet=controlnet)
    other.set_progress_bar_config(disable=True)
    coarse = golden["controlnet.image"].numpy()
    options = {
        "image": Image.fromarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))),
        "controlnet_conditioning_scale": 0.7,
        "other": other,
    }
    wanted = golden["controlnet.latents.1"]
    for adapter.faithful in (True, False):
        out = generate(placed(), 2, **options)[-1]
        assert differs(out, wanted) is not adapter.faithful
        if adapter.faithful:
            same(out, wanted)
    assert not controlnet._forward_pre_hooks
