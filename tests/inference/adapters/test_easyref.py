"""EasyRef on a pipeline: tokens, LoRA, scales, null tokens, reference guidance, and what detaching leaves."""

import contextlib

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import attached, conditioned, easyref_adapter, ip_adapter, references

from refloom.inference.adapters import tokens, windows
from refloom.inference.adapters.easyref import checkpoint as easyref_checkpoint
from refloom.inference.adapters.easyref.adapter import EasyRef
from refloom.inference.adapters.guidance import reference_guidance
from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Refused


@pytest.fixture(scope="module")
def pipe():
    return tiny.sdxl_pipe()


@pytest.fixture
def adapter(pipe):
    with attached(easyref_adapter(pipe), pipe) as made:
        yield made


def weights_of(pipe) -> dict[str, int]:
    """Where the UNet's weights lie: the very same tensors have the same places."""
    return {name: parameter.data_ptr() for name, parameter in pipe.unet.named_parameters()}


def test_off_again_the_pipeline_is_the_very_one_it_was(pipe):
    processors, places = pipe.unet.attn_processors, weights_of(pipe)
    state = {key: tensor.clone() for key, tensor in pipe.unet.state_dict().items()}
    plain = tiny.generate(pipe)
    adapter = easyref_adapter(pipe).attach(pipe)
    assert list(pipe.unet.state_dict()) == list(state)
    during = []
    with adapter.generation(adapter.encode(references(0))):
        given = tiny.generate(pipe, callback_on_step_end=lambda *_: during.append(weights_of(pipe)) or {})
    assert np.abs(given - plain).max() > 0.01
    moved = {name for name in places if during[0][name] != places[name]}
    assert len(moved) == len(adapter.lora_widths) * 4
    assert weights_of(pipe) == places
    assert np.array_equal(tiny.generate(pipe), plain)
    with pytest.raises(ZeroDivisionError), adapter.generation(adapter.encode(references(0))):
        tiny.generate(pipe, callback_on_step_end=lambda *_: 1 / 0)
    assert weights_of(pipe) == places
    adapter.detach()
    assert {n: id(p) for n, p in pipe.unet.attn_processors.items()} == {n: id(p) for n, p in processors.items()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.unet.modules())
    assert all(torch.equal(tensor, state[key]) for key, tensor in pipe.unet.state_dict().items())
    assert np.array_equal(tiny.generate(pipe), plain)


@pytest.mark.parametrize("quiet", ["scale", "window", "no generation"])
def test_an_adapter_that_does_not_act_changes_no_bit(pipe, adapter, quiet):
    plain = tiny.generate(pipe)
    if quiet == "no generation":
        conditioned(pipe, adapter, references(0))
        assert np.array_equal(tiny.generate(pipe), plain)
        return
    if quiet == "scale":
        adapter.scale = 0.0
    else:
        adapter.window = windows.StepWindow(2)
    assert np.array_equal(conditioned(pipe, adapter, references(0, 1)), plain)


@pytest.mark.parametrize("faithful", [False, True])
def test_the_scale_is_that_of_all_or_as_published_of_the_tokens_alone(pipe, adapter, faithful):
    """Spec A4, A6-10: published at scale 0 the LoRA still acts; ours is then the untouched pipeline."""
    plain, (first, *_) = tiny.generate(pipe), adapter.lora_widths
    stock = pipe.unet.get_submodule(first).to_q.weight.clone()
    addition = adapter.lora.get_submodule(first).to_q.product(torch.device("cpu"))
    adapter.faithful, seen = faithful, {}
    for scale in (0.0, 0.5, 1.0):
        adapter.scale, adapter.lora_scale = scale, 0.8
        weights = []
        with adapter.generation(adapter.encode(references(0))):
            out = tiny.generate(
                pipe,
                callback_on_step_end=lambda *_, weights=weights: (
                    weights.append(pipe.unet.get_submodule(first).to_q.weight.clone()) or {}
                ),
            )
        wanted = stock + 0.8 * (1.0 if faithful else scale) * addition
        torch.testing.assert_close(weights[0], wanted)
        seen[scale] = out
    assert np.array_equal(seen[0.0], plain) == (not faithful)
    adapter.lora_scale = 0.0
    without = conditioned(pipe, adapter, references(0))
    assert np.abs(without - seen[1.0]).max() > 1e-3
    assert np.abs(without - plain).max() > 1e-3


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_fused_and_live_lora_are_the_same(pipe, adapter, size):
    """One UNet call to 1e-5 in fp32: noise levels and guidance multiply the rounding of a whole run."""
    seen = []
    hook = pipe.unet.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    for fuse in (True, False):
        adapter.fuse_lora = fuse
        conditioned(pipe, adapter, references(0, 1), height=size[0], width=size[1], num_inference_steps=1)
    adapter.lora_scale = 0.0
    conditioned(pipe, adapter, references(0, 1), height=size[0], width=size[1], num_inference_steps=1)
    hook.remove()
    torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=1e-5)
    assert (seen[0] - seen[2]).abs().max() > 1e-3


def test_peft_makes_the_same_of_the_lora(pipe, adapter, tmp_path):
    """References away, as published at scale 0: the LoRA alone acts, here and in the file that peft reads."""
    plain = tiny.generate(pipe, num_inference_steps=1)
    adapter.faithful, adapter.scale = True, 0.0
    ours = conditioned(pipe, adapter, references(0), num_inference_steps=1)
    file = tmp_path / "lora.safetensors"
    easyref_checkpoint.write_lora(adapter, file)
    other = tiny.sdxl_pipe()
    assert np.array_equal(tiny.generate(other, num_inference_steps=1), plain)
    other.load_lora_weights(str(tmp_path), weight_name=file.name)
    theirs = tiny.generate(other, num_inference_steps=1)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert np.abs(theirs - plain).max() > 1e-2
    assert other.unet.peft_config


def test_two_loras_add_up_in_any_order_and_leave_one_by_one(pipe, adapter):
    places = weights_of(pipe)
    other = easyref_adapter(pipe, 9).attach(pipe)
    stock = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    states = torch.randn(1, 3, 32)
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    one, two = (made.lora.get_submodule(path)(states) for made in (adapter, other))
    wanted = stock(states) + one + two
    for first, second in ((adapter, other), (other, adapter)):
        first._switch.set(1.0, fuse=True)
        second._switch.set(1.0, fuse=True)
        assert (first._switch.fused, second._switch.fused) == (len(first.lora_widths) * 4, 0)
        torch.testing.assert_close(stock(states), wanted)
        first._switch.off()
        second._switch.off()
        assert weights_of(pipe) == places
    other.detach()


def test_weights_that_cannot_be_summed_have_a_live_lora():
    pipe = tiny.sdxl_pipe()
    adapter = easyref_adapter(pipe).attach(pipe)
    given = references(0)
    wanted = conditioned(pipe, adapter, given, num_inference_steps=1)
    pipe.unet.enable_group_offload(
        onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    seen = []
    with adapter.generation(adapter.encode(given)):
        got = tiny.generate(
            pipe, num_inference_steps=1, callback_on_step_end=lambda *_: seen.append(adapter._switch.fused) or {}
        )
    assert seen == [0]
    np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_null_tokens_are_computed_once_and_are_what_they_would_be(pipe, adapter):
    calls = []
    adapter.reader.register_forward_hook(lambda *_: calls.append(1))
    first = adapter.encode(references(0), prompt="a dog")
    second = adapter.encode(references(1, 2), prompt="a cat")
    assert len(calls) == 3
    assert torch.equal(first.negative_tokens, second.negative_tokens)
    black = np.zeros((512, 512, 3), np.uint8)
    computed = adapter.tokens(adapter.inputs([((black,), "")]))
    assert torch.equal(first.negative_tokens[0], computed)
    with torch.no_grad():
        adapter.image_proj.proj[3].bias += 1
    torch.testing.assert_close(adapter.encode(references(0)).negative_tokens[0], computed + 1)
    assert len(calls) == 6


def test_a_batch_of_prompts_is_each_alone(pipe, adapter):
    prompts, seeds = ["a dog", "a cat"], [(0,), (1, 2)]
    latents = torch.randn(4, 4, 24, 40, generator=torch.Generator().manual_seed(0))
    options = {"height": 48, "width": 80, "num_inference_steps": 1}
    each = [adapter.encode(references(*some), prompt=prompt) for some, prompt in zip(seeds, prompts, strict=True)]
    with adapter.generation(tokens.stack(each)):
        batch = tiny.generate(pipe, prompts, num_images_per_prompt=2, latents=latents, **options)
    for at in range(4):
        with adapter.generation(each[at // 2]):
            alone = tiny.generate(pipe, prompts[at // 2], latents=latents[at : at + 1], **options)
        np.testing.assert_allclose(batch[at], alone[0], atol=2e-4)


def test_references_are_read_together_alone_or_averaged(pipe):
    made = {name: easyref_adapter(pipe, combine=name) for name in ("joint", "concatenate", "average")}
    pair = references(0, 1)
    alone = [made["joint"].encode([reference]).tokens for reference in pair]
    joint, side_by_side, average = (adapter.encode(pair).tokens for adapter in made.values())
    assert joint.shape == average.shape == (1, 1, 4, 32)
    torch.testing.assert_close(side_by_side, torch.cat(alone, dim=1))
    torch.testing.assert_close(average, (alone[0] + alone[1]) / 2)
    assert (joint - average).abs().max() > 1e-2
    both = [Reference((pair[0].images[0], pair[1].images[0]))]
    assert torch.equal(made["joint"].encode(both).tokens, joint)


def test_scales_of_references(pipe):
    joint, separate, average = (easyref_adapter(pipe, combine=name) for name in ("joint", "concatenate", "average"))
    dog, cat, none = references(0, scale=0.5)[0], references(1, scale=0.25)[0], references(2, scale=0.0)[0]
    kept = joint.encode([dog, none])
    assert torch.equal(kept.tokens, joint.encode([dog]).tokens)
    assert kept.strengths.tolist() == [[0.5]]
    assert separate.encode([dog, cat]).strengths.tolist() == [[0.5, 0.25]]
    weighted, alone = average.encode([dog, cat]), separate.encode([dog, cat]).tokens
    torch.testing.assert_close(weighted.tokens[:, 0], (alone[:, 0] * 2 + alone[:, 1]) / 3)
    with pytest.raises(Refused, match="have one scale"):
        joint.encode([dog, cat])
    with pytest.raises(Refused, match="all references have scale 0"):
        joint.encode([none])
    with pytest.raises(Refused, match="no references"):
        joint.encode([])
    joint.tokenizer = None
    with pytest.raises(Refused, match=r"set adapter\.tokenizer"):
        joint.encode([dog])


def by_hand(pipe, adapter, given, scale, guidance_scale, **options):
    """Each of the three parts from a UNet call without the others, and the formula."""
    calls = []
    hook = pipe.unet.register_forward_hook(lambda _, __, out: calls.append(out[0]))
    with adapter.generation(adapter.encode(given)):
        tiny.generate(pipe, "", negative_prompt="", guidance_scale=2.0, **options)
    with adapter.generation(adapter.encode(given, prompt="a dog")):
        tiny.generate(pipe, "a dog", guidance_scale=1.0, **options)
    hook.remove()
    (neither, alone), both = calls[0].chunk(2), calls[1]
    return neither + scale * (alone - neither) + guidance_scale * (both - alone)


def test_reference_guidance_is_its_formula_and_with_equal_scales_the_pipelines_own(pipe, adapter, monkeypatch):
    adapter.promptless = True
    given = references(0, 1)
    latents = torch.randn(1, 4, 24, 40, generator=torch.Generator().manual_seed(0))
    options = {"height": 48, "width": 80, "latents": latents, "num_inference_steps": 1}
    wanted = by_hand(pipe, adapter, given, 2.5, 4.0, **options)
    conditions = adapter.encode(given, prompt="a dog")
    seen, step = [], pipe.scheduler.step
    monkeypatch.setattr(pipe.scheduler, "step", lambda noise, *a, **k: seen.append(noise) or step(noise, *a, **k))

    def run(scale):
        guided = reference_guidance(pipe, scale) if scale else contextlib.nullcontext()
        with adapter.generation(conditions), guided:
            tiny.generate(pipe, "a dog", negative_prompt="", guidance_scale=4.0, **options)

    for scale in (2.5, 4.0, None):
        run(scale)
    torch.testing.assert_close(seen[0], wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen[1], seen[2], atol=1e-4, rtol=1e-4)
    assert (seen[0] - seen[1]).abs().max() > 1e-2
    assert not pipe.unet._forward_hooks
    with adapter.generation(conditions), reference_guidance(pipe, 3.0):
        unguided = tiny.generate(pipe, "a dog", guidance_scale=1.0, **options)
        with pytest.raises(Refused, match="guided by references already"), reference_guidance(pipe, 2.0):
            pass
    with adapter.generation(conditions):
        assert np.array_equal(tiny.generate(pipe, "a dog", guidance_scale=1.0, **options), unguided)
    adapter.promptless = False
    with adapter.generation(adapter.encode(given, prompt="a dog")), reference_guidance(pipe, 2.0):
        with pytest.raises(Refused, match=r"set adapter\.promptless = True"):
            tiny.generate(pipe)
    with pytest.raises(Refused, match="needs the pipeline"), reference_guidance(pipe.unet, 2.0):
        pass


def test_reference_guidance_counts_other_adapters_as_references(pipe, adapter):
    other = ip_adapter(pipe).attach(pipe)
    conditions = adapter.encode(references(0)), other.encode(references(1))
    runs = []
    for scale in (5.0, 2.0):
        with adapter.generation(conditions[0]), other.generation(conditions[1]), reference_guidance(pipe, scale):
            runs.append(tiny.generate(pipe, num_inference_steps=1))
    with adapter.generation(conditions[0]), other.generation(conditions[1]):
        own = tiny.generate(pipe, num_inference_steps=1)
    np.testing.assert_allclose(runs[0], own, atol=1e-2)
    assert np.abs(runs[1] - own).max() > 10 * np.abs(runs[0] - own).max()
    other.detach()


@pytest.mark.compiled
@pytest.mark.parametrize("fuse", [True, False])
def test_compiled_blocks_see_the_lora_that_came_after_they_were_compiled(fuse):
    pipe = tiny.sdxl_pipe()
    adapter = easyref_adapter(pipe).attach(pipe)
    adapter.fuse_lora = fuse
    wanted = conditioned(pipe, adapter, references(0, 1))
    adapter.detach()
    torch._dynamo.reset()
    pipe.unet.compile_repeated_blocks(backend="eager", fullgraph=True)
    plain = tiny.generate(pipe)
    got = conditioned(pipe, adapter.attach(pipe), references(0, 1))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    np.testing.assert_allclose(tiny.generate(pipe), plain, atol=1e-5)
    torch._dynamo.reset()


def test_gradients_reach_every_weight(pipe):
    adapter = easyref_adapter(pipe).attach(pipe).train().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 4, 16, 24, generator=generator)
    text, pooled = torch.randn(2, 77, 32, generator=generator), torch.randn(2, 16, generator=generator)
    with adapter.generation(adapter.encode(references(0, 1), prompt="dogs"), halves=("negative", "positive")):
        added = {"text_embeds": pooled, "time_ids": torch.ones(2, 6)}
        out = pipe.unet(noise, torch.tensor([10, 500]), text, added_cond_kwargs=added, return_dict=False)[0]
        assert adapter._switch.fused == 0
        out.square().mean().backward()
    lost = [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert lost == []
    assert not adapter.eval().encode(references(0)).tokens.requires_grad
    adapter.detach()


def test_saved_and_read_again_it_reads_references_the_same(pipe, tmp_path):
    adapter = easyref_adapter(pipe)
    adapter.save_pretrained(tmp_path)
    again = EasyRef.from_pretrained(tmp_path)
    wanted = adapter.encode(references(0, 1), prompt="a dog")
    got = again.encode(references(0, 1), prompt="a dog")
    assert torch.equal(got.tokens, wanted.tokens)
    assert torch.equal(got.negative_tokens, wanted.negative_tokens)


def test_another_base_is_refused_and_stays_as_it_is(pipe):
    other = tiny.sd_pipe()
    processors = other.unet.attn_processors
    with pytest.raises(Refused, match="another base"):
        easyref_adapter(pipe).attach(other)
    assert other.unet.attn_processors == processors
    assert not any(module._forward_hooks for module in other.unet.modules())
