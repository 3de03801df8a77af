"""EZIGen on a stock pipeline: what it reads of subjects, what it does in a block, when and in which rows it acts."""

from functools import partial

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import attached, ezigen_adapter, ip_adapter, latents_by_step, references
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image

from refloom.inference.adapters import tokens, windows
from refloom.inference.adapters.ezigen import adapter as ezigen
from refloom.inference.adapters.ezigen import referenceunet as reference_unet
from refloom.inference.adapters.ezigen.adapter import EZIGen, EZIGenConfig
from refloom.inference.adapters.guidance import reference_guidance
from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Refused

SMALL = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def pipe():
    return tiny.sd_pipe()


@pytest.fixture
def adapter(pipe):
    with attached(ezigen_adapter(pipe), pipe) as made:
        yield made


def run(pipe, adapter=None, conditioning=None, **options):
    if conditioning is None:
        return tiny.generate(pipe, **(SMALL | options))
    with adapter.generation(conditioning):
        return tiny.generate(pipe, **(SMALL | options))


def call(pipe, rows=1, size=(16, 24), seed=0):
    """One call of the UNet without a pipeline."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, 4, *size, generator=generator)
    text = torch.randn(rows, 77, tiny.TEXT_WIDTH, generator=generator)
    return pipe.unet(noise, 500, encoder_hidden_states=text, return_dict=False)[0]


def test_features_are_what_self_attention_of_each_block_is_given_in_the_order_in_which_blocks_run(pipe):
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 77, tiny.TEXT_WIDTH)
    given, order, hooks = {}, [], []
    for name, module in pipe.unet.named_modules():
        if name.endswith("attn1"):

            def keep(_, args, kwargs, name=name):
                given[name] = args[0].clone()
                order.append(name.removesuffix(".attn1"))

            hooks.append(module.register_forward_pre_hook(keep, with_kwargs=True))
    seen = reference_unet.features(pipe.unet, latents, 1, text)
    for hook in hooks:
        hook.remove()
    assert list(seen) == order == list(ezigen.config_values(pipe.unet)["layers"])
    assert order[2].startswith("mid_block")
    assert all(torch.equal(seen[path], given[f"{path}.attn1"]) for path in order)
    assert not any(block.norm1._forward_hooks for block in reference_unet.transformer_blocks(pipe.unet).values())


def test_subjects_are_read_almost_clean_each_with_its_own_words_and_once(pipe, adapter):
    """Against the definition, A.1.3: one sample of the VAE, one noise for all, noise level 1, one text each."""
    given = [Reference((tiny.picture(0, 40, 40), tiny.picture(1, 40, 40)), "dog"), *references(2, phrases=("a cat",))]
    conditioning = adapter.encode(given, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    images = [*given[0].images, np.pad(given[1].images[0], ((8, 8), (0, 0), (0, 0)), constant_values=255)]
    squares = [np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR)) for i in images]
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2) / 255 * 2 - 1
    with torch.no_grad():
        posterior = pipe.vae.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        latents = latents * pipe.vae.config.scaling_factor
        noise = torch.randn(1, 4, 16, 16, generator=generator)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        kept = torch.cumprod(1 - betas, 0)[1]
        noisy = (latents * kept**0.5 + noise * (1 - kept) ** 0.5).float()
        texts = ["a photo of a dog.", "a photo of a dog.", "a photo of a cat."]
        ids = pipe.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        wanted = reference_unet.features(pipe.unet, noisy, 1, pipe.text_encoder(ids)[0])
    for path, value in wanted.items():
        torch.testing.assert_close(conditioning.features[path][0], value, atol=1e-5, rtol=1e-5)
    again = [adapter.encode(given).features for _ in range(2)]
    assert all(torch.equal(again[0][path], again[1][path]) for path in wanted)
    assert ezigen.subject_text(None) == ""


def test_subjects_keep_their_aspect_or_are_squashed_as_published(pipe, adapter):
    image = tiny.picture(0, 16, 64)
    kept, squashed = (reference_unet.subject_pixels([image], 32, squash=flag)[0] for flag in (False, True))
    assert bool((kept[:, :11] == 1).all())
    assert bool((kept[:, 21:] == 1).all())
    assert bool((kept[:, 12:20] < 1).any())
    wanted = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)) / 127.5 - 1
    np.testing.assert_allclose(squashed.permute(1, 2, 0), wanted, atol=1e-6)
    plain = adapter.encode([Reference((image,), "dog")])
    adapter.faithful = True
    other = adapter.encode([Reference((image,), "dog")])
    assert not any(torch.equal(plain.features[path], other.features[path]) for path in plain.features)


def test_a_block_computes_the_formula(pipe, adapter):
    """h' = h + scale (attention(n(h); [n(h), w f]) + n(h)), literally and in float64 (A.1.4), one strength 0.5."""
    adapter.scale = 0.7
    adapter.learnable_weights.data.copy_(torch.linspace(0.5, 2, len(adapter.config.layers)))
    given = [*references(0), Reference((tiny.picture(1),), "cat", scale=0.5)]
    conditioning = adapter.encode(given)
    blocks, seen, hooks = reference_unet.transformer_blocks(pipe.unet), {}, []
    for path, block in blocks.items():
        seen[path] = {}

        def keep(_, args, out=None, path=path, name=""):
            seen[path][name] = (args[0] if out is None else out).double()

        hooks += [
            block.register_forward_pre_hook(lambda m, a, keep=keep: keep(m, a, name="into")),
            block.attn1.register_forward_hook(lambda m, a, out, keep=keep: keep(m, a, out, name="attended")),
            block.norm2.register_forward_pre_hook(lambda m, a, keep=keep: keep(m, a, name="after")),
        ]
    with torch.no_grad(), adapter.generation(conditioning):
        call(pipe, rows=2)
    for hook in hooks:
        hook.remove()
    for at, (path, block) in enumerate(blocks.items()):
        h, layer = seen[path]["into"] + seen[path]["attended"], adapter.layer(path).double()
        features = conditioning.features[path][0].double() * adapter.learnable_weights[at].double()
        n = layer.adapter_norm(h)
        for row in range(2):
            keys = torch.cat([n[row], *features])
            strength = torch.ones(len(keys), dtype=torch.float64)
            strength[-features.shape[1] :] = 0.5
            parts = []
            for head in torch.arange(h.shape[-1]).chunk(block.attn1.heads):
                q, k, v = (
                    states @ linear.weight[head].T
                    for states, linear in (
                        (n[row], layer.adapter.to_q),
                        (keys, layer.adapter.to_k),
                        (keys, layer.adapter.to_v),
                    )
                )
                weights = (q @ k.T / len(head) ** 0.5).exp() * strength
                parts.append(weights / weights.sum(dim=1, keepdim=True) @ v)
            wanted = h[row] + 0.7 * (layer.adapter.to_out[0](torch.cat(parts, dim=1)) + n[row])
            torch.testing.assert_close(seen[path]["after"][row], wanted, atol=2e-5, rtol=1e-5)
        layer.float()


@pytest.mark.parametrize("quiet", ["scale", "window", "references", "no generation"])
def test_an_adapter_that_does_not_act_changes_no_bit(pipe, adapter, quiet):
    plain = run(pipe)
    adapter.scale = 0.0 if quiet == "scale" else 1.0
    adapter.window = windows.StepWindow(2) if quiet == "window" else windows.StepWindow()
    conditioning = adapter.encode(references(0, 1, scale=0.0 if quiet == "references" else 1.0))
    out = run(pipe, adapter, None if quiet == "no generation" else conditioning)
    assert np.array_equal(out, plain)
    adapter.scale, adapter.window = 1.0, windows.StepWindow()
    assert np.abs(run(pipe, adapter, adapter.encode(references(0, 1))) - plain).max() > 0.01


def test_off_again_the_pipeline_is_the_very_one_it_was():
    pipe = tiny.sd_pipe()
    plain, attributes = run(pipe), set(vars(pipe.unet))
    state = {key: tensor.clone() for key, tensor in pipe.unet.state_dict().items()}
    blocks = reference_unet.transformer_blocks(pipe.unet).values()
    first, second = ezigen_adapter(pipe, 1), ezigen_adapter(pipe, 2)
    outs = []
    for order in ((first, second), (second, first)):
        first.attach(pipe)
        second.attach(pipe)
        assert list(pipe.unet.state_dict()) == list(state)
        conditioning = first.encode(references(0))
        outs.append(run(pipe, first, conditioning))
        with second.generation(second.encode(references(1))):
            assert not np.array_equal(run(pipe, first, conditioning), outs[-1])
        order[0].detach()
        if order[0] is second:
            assert np.array_equal(run(pipe, first, conditioning), outs[0])
        order[1].detach()
        assert set(vars(pipe.unet)) == attributes
        assert not any(hasattr(block, "fuser") for block in blocks)
        assert not pipe.unet._forward_pre_hooks
        assert all(torch.equal(tensor, state[key]) for key, tensor in pipe.unet.state_dict().items())
        assert np.array_equal(run(pipe), plain)


def test_beside_a_token_adapter_both_act_and_each_is_its_own_when_the_other_is_gone():
    pipe = tiny.sd_pipe()
    subjects, images = ezigen_adapter(pipe).attach(pipe), ip_adapter(pipe).attach(pipe)
    conditioning, seen = subjects.encode(references(0)), images.encode(references(1))
    alone = run(pipe, subjects, conditioning)
    with images.generation(seen):
        both, other = run(pipe, subjects, conditioning), run(pipe)
    assert len({array.tobytes() for array in (alone, both, other, run(pipe))}) == 4
    images.detach()
    assert np.array_equal(run(pipe, subjects, conditioning), alone)


def test_a_batch_of_prompts_with_other_numbers_of_references_is_each_alone(pipe, adapter):
    prompts, seeds = ["a dog", "a cat", "a lantern"], [(0,), (1, 2, 3), (4,)]
    latents = torch.randn(6, 4, 12, 20, generator=torch.Generator().manual_seed(0))
    options = {"height": 24, "width": 40}
    each = [adapter.encode(references(*some, scale=0.0 if some == (4,) else 1.0)) for some in seeds]
    batch = run(pipe, adapter, tokens.stack(each), prompt=prompts, num_images_per_prompt=2, latents=latents, **options)
    for at in range(6):
        one = latents[at : at + 1]
        alone = run(pipe, adapter, each[at // 2], prompt=prompts[at // 2], latents=one, **options)
        np.testing.assert_allclose(batch[at], alone[0], atol=2e-4)
        plain = run(pipe, prompt=prompts[at // 2], latents=one, **options)
        assert (np.abs(alone - plain).max() > 0.01) == (at < 4)


def test_a_reference_of_scale_0_is_as_if_it_was_not_given_and_order_does_not_matter(pipe, adapter):
    noise = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 2, 4, 16, 16, generator=noise)
    states = torch.randn(1, 2, 77, tiny.TEXT_WIDTH, generator=noise)

    def out(which, strengths):
        generator = torch.Generator().manual_seed(2)
        conditioning = adapter.condition(
            latents[:, which], states[:, which], strengths=torch.tensor([strengths]), generator=generator
        )
        with torch.no_grad(), adapter.generation(conditioning, halves=("positive",)):
            return call(pipe)

    torch.testing.assert_close(out([0, 1], [1.0, 0.0]), out([0], [1.0]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out([0, 1], [1.0, 0.3]), out([1, 0], [0.3, 1.0]), atol=1e-5, rtol=1e-4)
    assert (out([0, 1], [1.0, 0.3]) - out([0, 1], [1.0, 1.0])).abs().max() > 1e-4


def test_dropped_subjects_are_left_out_or_stay_as_zeros_as_published(pipe, adapter):
    conditioning = tokens.stack([adapter.encode(references(0)), adapter.encode(references(1))])
    which = torch.tensor([True, False])
    with torch.no_grad():
        with adapter.generation(conditioning, halves=("positive",)):
            given = call(pipe, rows=2)
        outs = {}
        for faithful in (False, True):
            adapter.faithful = faithful
            dropped = adapter.without_subjects(conditioning, which)
            with adapter.generation(dropped, halves=("positive",)):
                outs[faithful] = call(pipe, rows=2)
            zero = [not bool(value[0].any()) for value in dropped.features.values()]
            assert all(zero) if faithful else not any(zero)
        plain = call(pipe, rows=2)
    for out in outs.values():
        torch.testing.assert_close(out[1], given[1], atol=1e-5, rtol=1e-4)
    different = torch.stack([plain[0], given[0], outs[False][0], outs[True][0]]).flatten(1)
    assert torch.pdist(different, p=float("inf")).min() > 1e-4


def test_without_the_negative_half_only_the_positive_one_has_subjects(pipe, adapter):
    conditioning, calls = adapter.encode(references(0)), []
    hook = pipe.unet.register_forward_hook(lambda _, __, out: calls.append(out[0]))
    adapter.in_negative = False
    run(pipe, num_inference_steps=1)
    run(pipe, adapter, conditioning, num_inference_steps=1)
    adapter.in_negative = True
    run(pipe, adapter, conditioning, num_inference_steps=1)
    hook.remove()
    plain, half, both = calls
    torch.testing.assert_close(half[0], plain[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(half[1], both[1], atol=1e-6, rtol=1e-5)
    assert (plain - both).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_subjects_are_guided_by_themselves_as_the_formula_says(pipe, adapter, monkeypatch):
    conditioning, calls, seen, step = adapter.encode(references(0)), [], [], pipe.scheduler.step
    hook = pipe.unet.register_forward_hook(lambda _, __, out: calls.append(out[0]))
    run(pipe, num_inference_steps=1, guidance_scale=4.0)
    run(pipe, adapter, conditioning, num_inference_steps=1, guidance_scale=4.0)
    hook.remove()
    monkeypatch.setattr(pipe.scheduler, "step", lambda noise, *a, **k: seen.append(noise) or step(noise, *a, **k))
    with reference_guidance(pipe, 2.5):
        run(pipe, adapter, conditioning, num_inference_steps=1, guidance_scale=4.0)
    neither, (subjects, both) = calls[0][0], calls[1]
    wanted = neither + 2.5 * (subjects - neither) + 4.0 * (both - subjects)
    torch.testing.assert_close(seen[0][0], wanted, atol=1e-4, rtol=1e-4)
    assert (subjects - neither).abs().max() > 1e-3


def test_subject_keys_are_computed_once_a_generation_and_again_when_something_changes(pipe, adapter):
    conditioning, calls = adapter.encode(references(0)), []
    with adapter.generation(conditioning):
        slot = next(iter(adapter._slots.values()))

        def watch(_, step, __, kwargs):
            calls.append(slot.key)
            adapter.scale = 0.5 if step == 1 else adapter.scale
            return kwargs

        tiny.generate(pipe, **SMALL, num_inference_steps=4, callback_on_step_end=watch)
    assert [at and calls[at] is calls[at - 1] for at in range(4)] == [0, True, False, True]
    assert slot.key is None


@pytest.mark.compiled
def test_compiled_blocks_have_one_graph_for_each_width_and_compute_the_same(adapter, pipe):
    adapter.detach()
    other = tiny.sd_pipe()
    adapter.attach(other)
    conditioning = adapter.encode(references(0))
    wanted = run(other, adapter, conditioning, num_inference_steps=3)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    other.unet.compile_repeated_blocks(backend="eager", fullgraph=True)
    adapter.encode(references(1))
    got = run(other, adapter, conditioning, num_inference_steps=3)
    again = adapter.encode(references(0))
    assert all(torch.equal(again.features[path], value) for path, value in conditioning.features.items())
    run(other, adapter, adapter.encode(references(2)), num_inference_steps=3)
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    torch._dynamo.reset()


def test_gradients_reach_every_weight_and_checkpointing_changes_none():
    pipe = tiny.sd_pipe()
    adapter = ezigen_adapter(pipe).attach(pipe.unet).train().requires_grad_(True)
    pipe.unet.train()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 2, 4, 16, 16, generator=generator)
    states = torch.randn(2, 2, 77, tiny.TEXT_WIDTH, generator=generator)
    conditioning, seen = adapter.condition(latents, states, generator=generator), []
    for checkpointed in (False, True):
        if checkpointed:
            pipe.unet.enable_gradient_checkpointing()
        adapter.zero_grad()
        with adapter.generation(conditioning, halves=("positive",)):
            call(pipe, rows=2).square().mean().backward()
        seen.append({name: parameter.grad for name, parameter in adapter.named_parameters()})
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in seen[0].values())
    assert bool((adapter.learnable_weights.grad != 0).all())
    for name, gradient in seen[0].items():
        torch.testing.assert_close(gradient, seen[1][name], msg=name)


def test_half_precision_pipelines_take_adapters_of_full_precision():
    pipe = tiny.sd_pipe()
    adapter = ezigen_adapter(pipe).attach(pipe)
    conditioning = adapter.encode(references(0))
    wanted, plain = run(pipe, adapter, conditioning), run(pipe)
    pipe.to(torch.bfloat16)
    got, rounded = run(pipe, adapter, adapter.encode(references(0))), run(pipe)
    rounding = np.abs(rounded - plain).mean()
    assert np.abs(got - wanted).mean() < 3 * rounding < np.abs(got - rounded).mean()


def test_any_scheduler_and_half_of_the_steps(pipe, adapter):
    stock = pipe.scheduler
    pipe.scheduler = DDIMScheduler.from_config(stock.config)
    conditioning, seen = adapter.encode(references(0)), []
    adapter.window = windows.ShareWindow.last(0.5)
    for given in (None, conditioning):
        seen.append(latents_by_step(partial(run, pipe, adapter, given, num_inference_steps=4)))
    assert [torch.equal(a, b) for a, b in zip(*seen, strict=True)] == [True, True, False, False]
    pipe.scheduler = stock


def test_started_from_the_base_a_block_looks_at_itself_again(pipe, adapter):
    adapter.start_from_self_attention(pipe.unet)
    for path, block in reference_unet.transformer_blocks(pipe.unet).items():
        layer = adapter.layer(path)
        states = torch.randn(1, 6, adapter.config.layers[path])
        assert torch.equal(layer.adapter_norm(states), block.norm1(states))
        assert all(torch.equal(value, block.attn1.state_dict()[k]) for k, value in layer.adapter.state_dict().items())
    assert bool((adapter.learnable_weights == 1).all())


def test_what_cannot_be_is_refused_with_the_remedy(pipe, adapter):
    with pytest.raises(Refused, match="no references"):
        adapter.encode([])
    with pytest.raises(Refused, match=r"a number from 0 to 100, not -1.0"):
        adapter.encode(references(0, scale=-1.0))
    with adapter.generation(adapter.encode(references(0))), pytest.raises(Refused, match="encode them before"):
        adapter.encode(references(0))
    with pytest.raises(Refused, match="Stable Diffusion 1 or 2"):
        ezigen_adapter(pipe).attach(tiny.sdxl_pipe())
    with pytest.raises(Refused, match="call attach"):
        ezigen_adapter(pipe).encode(references(0))
    with pytest.raises(Refused, match=r"use condition\(\)"):
        ezigen_adapter(pipe).attach(tiny.sd_pipe().unet).encode(references(0))
    wide = dict(adapter.config.layers) | {"mid_block.attentions.0.transformer_blocks.0": 32}
    other = tiny.sd_pipe()
    with pytest.raises(Refused, match="is 16 wide in this UNet, and 32"):
        EZIGen(EZIGenConfig(layers=wide)).attach(other)
    inpainting = UNet2DConditionModel(**(dict(pipe.unet.config) | {"in_channels": 9}))
    with pytest.raises(Refused, match="takes 9 channels"):
        ezigen_adapter(pipe).attach(inpainting)
    gligen = UNet2DConditionModel(**(dict(pipe.unet.config) | {"attention_type": "gated"}))
    with pytest.raises(Refused, match="GLIGEN"):
        ezigen_adapter(pipe).attach(gligen)
    assert not hasattr(other.unet, "position_net")
