"""An adapter's life on a stock pipeline: on, off, two at once, in which rows and in which steps it acts."""

import shutil
from fractions import Fraction

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import conditioned, ip_adapter, latents_by_step, references
from diffusers.models.attention_processor import FusedAttnProcessor2_0

from refloom.inference.adapters import tokens, windows
from refloom.inference.adapters.attention import CrossAttention
from refloom.inference.adapters.ip_adapter.adapter import IPAdapter
from refloom.inference.adapters.reference import Reference
from refloom.inference.adapters.vision import ClipVision
from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints import weights
from refloom.schemas.errors import Refused


@pytest.fixture(scope="module")
def pipe():
    return tiny.sdxl_pipe()


def test_off_again_the_pipeline_is_the_very_one_it_was(pipe):
    processors = pipe.unet.attn_processors
    state = {key: tensor.clone() for key, tensor in pipe.unet.state_dict().items()}
    plain = tiny.generate(pipe)
    first, second = ip_adapter(pipe, 1), ip_adapter(pipe, 2)
    for order in ((first, second), (second, first)):
        first.attach(pipe)
        second.attach(pipe)
        assert isinstance(next(p for n, p in pipe.unet.attn_processors.items() if "attn2" in n), CrossAttention)
        assert list(pipe.unet.state_dict()) == list(state)
        assert not np.array_equal(conditioned(pipe, first, references(0)), plain)
        for adapter in order:
            adapter.detach()
        assert {n: id(p) for n, p in pipe.unet.attn_processors.items()} == {n: id(p) for n, p in processors.items()}
        assert not pipe.unet._forward_pre_hooks
        assert all(torch.equal(tensor, state[key]) for key, tensor in pipe.unet.state_dict().items())
        assert np.array_equal(tiny.generate(pipe), plain)


def test_one_of_two_leaves_and_the_other_stays(pipe):
    first, second = ip_adapter(pipe, 1), ip_adapter(pipe, 2)
    second.attach(pipe)
    alone = conditioned(pipe, second, references(0))
    first.attach(pipe)
    with first.generation(first.encode(references(5))):
        both = conditioned(pipe, second, references(0))
    first.detach()
    assert not np.array_equal(both, alone)
    assert np.array_equal(conditioned(pipe, second, references(0)), alone)
    second.detach()


@pytest.mark.parametrize("quiet", ["scale", "window", "reference", "no generation"])
def test_an_adapter_that_does_not_act_changes_no_bit(pipe, quiet):
    plain = tiny.generate(pipe)
    adapter = ip_adapter(pipe).attach(pipe)
    try:
        if quiet == "scale":
            adapter.scale = 0.0
        if quiet == "window":
            adapter.window = windows.StepWindow(2)
        scale = 0.0 if quiet == "reference" else 1.0
        if quiet == "no generation":
            conditioned(pipe, adapter, references(0))
            out = tiny.generate(pipe)
        else:
            with adapter.generation(adapter.encode(references(0, 1, scale=scale))):
                out = tiny.generate(pipe)
        assert np.array_equal(out, plain)
    finally:
        adapter.detach()


def test_keys_and_values_are_computed_once_a_generation_and_again_when_something_changes(pipe):
    adapter = ip_adapter(pipe).attach(pipe)
    layer, calls = adapter.layer(next(iter(adapter.config.layers))), []
    layer.to_k_ip.register_forward_hook(lambda *_: calls.append(1))
    conditioned(pipe, adapter, references(0), num_inference_steps=4)
    assert len(calls) == 1

    def halve(_, step, __, kwargs):
        adapter.scale = 0.5 if step == 1 else adapter.scale
        return kwargs

    conditioned(pipe, adapter, references(0), num_inference_steps=4, callback_on_step_end=halve)
    assert len(calls) == 3
    adapter.detach()


def test_a_batch_of_prompts_with_several_images_is_each_alone(pipe):
    adapter = ip_adapter(pipe).attach(pipe)
    prompts, seeds = ["a dog", "a cat"], [(0,), (1, 2)]
    latents = torch.randn(4, 4, 24, 40, generator=torch.Generator().manual_seed(0))
    options = {"height": 48, "width": 80}
    each = [adapter.encode(references(*some)) for some in seeds]
    with adapter.generation(tokens.stack(each)):
        batch = tiny.generate(pipe, prompts, num_images_per_prompt=2, latents=latents, **options)
    for at in range(4):
        with adapter.generation(each[at // 2]):
            alone = tiny.generate(pipe, prompts[at // 2], latents=latents[at : at + 1], **options)
        np.testing.assert_allclose(batch[at], alone[0], atol=2e-4)
    assert np.abs(batch[1] - batch[3]).max() > 0.01
    with adapter.generation(tokens.stack([*each, *each[:1]])), pytest.raises(Refused, match="4 rows"):
        tiny.generate(pipe, prompts, latents=latents[:2], **options)
    adapter.detach()


def test_without_guidance_and_with_guidance_cut_short_the_right_rows_are_conditioned(pipe):
    adapter = ip_adapter(pipe).attach(pipe)
    plain, off = conditioned(pipe, adapter, references(0), guidance_scale=1.0), tiny.generate(pipe, guidance_scale=1.0)
    assert np.abs(plain - off).max() > 0.01

    def cut(pipe, step, _, kwargs):
        if step == 0:
            pipe._guidance_scale = 0.0
            kwargs = {key: tensor.chunk(2)[-1] for key, tensor in kwargs.items()}
        return kwargs

    inputs = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
    out = conditioned(pipe, adapter, references(0), callback_on_step_end=cut, callback_on_step_end_tensor_inputs=inputs)
    assert np.isfinite(out).all()
    adapter.detach()


def test_two_images_of_a_subject_are_the_mean_of_their_tokens(pipe):
    adapter = ip_adapter(pipe).attach(pipe)
    pair = adapter.encode([Reference((tiny.picture(0), tiny.picture(1, 24, 88)))])
    alone = [adapter.encode([Reference((image,))]).tokens for image in (tiny.picture(0), tiny.picture(1, 24, 88))]
    torch.testing.assert_close(pair.tokens, (alone[0] + alone[1]) / 2)
    assert pair.tokens.shape == (1, 1, 4, 32)
    adapter.detach()


def test_a_window_leaves_the_steps_before_it_alone(pipe):
    adapter = ip_adapter(pipe).attach(pipe)
    adapter.window = windows.ShareWindow.last(0.5)
    plain = latents_by_step(lambda **options: tiny.generate(pipe, num_inference_steps=4, **options))
    for _ in range(2):  # a second run inside one generation starts at step 0 again
        late = latents_by_step(
            lambda **options: conditioned(pipe, adapter, references(0), num_inference_steps=4, **options)
        )
        assert [torch.equal(a, b) for a, b in zip(plain, late, strict=True)] == [True, True, False, False]
    with adapter.generation(adapter.encode(references(0))):
        runs = [tiny.generate(pipe, num_inference_steps=4) for _ in range(2)]
    assert np.array_equal(*runs)
    adapter.detach()


def test_windows_split_a_schedule_exactly():
    for share, first in ((0.2, 40), (0.4, 30), (0.5, 25), (0.7, 15), (0.8, 10), (0.9, 5), (1.0, 0)):
        late = windows.ShareWindow.last(share).resolve(50)
        assert (late.start, late.stop) == (first, 50)
    part = Fraction(3, 10)
    early, late = windows.ShareWindow(stop=part).resolve(7), windows.ShareWindow(start=part).resolve(7)
    assert [(step in early) + (step in late) for step in range(7)] == [1] * 7


def test_saved_and_read_again_it_is_the_same_adapter(pipe, tmp_path):
    adapter = ip_adapter(pipe, head="plus", combine="sum")
    adapter.save_pretrained(tmp_path / "a")
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["adapter.safetensors", "config.json"]
    again = IPAdapter.from_pretrained(tmp_path / "a")
    assert again.config == adapter.config
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), again.parameters(), strict=True))
    again.image_encoder = adapter.image_encoder
    a = conditioned(pipe, adapter.attach(pipe), references(0, 1))
    adapter.detach()
    b = conditioned(pipe, again.attach(pipe), references(0, 1))
    again.detach()
    assert np.array_equal(a, b)


def test_checkpoints_of_a_run_share_what_is_not_trained(pipe, tmp_path):
    adapter = ip_adapter(pipe)
    adapter.requires_grad_(False).layers.requires_grad_(True)
    frozen = tmp_path / weights.FROZEN_FILE
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        with torch.no_grad():
            next(adapter.layers.parameters()).add_(1)
        adapter.save_pretrained(folder, frozen=frozen)
    assert len({(folder / weights.FROZEN_FILE).stat().st_ino for folder in folders} | {frozen.stat().st_ino}) == 1
    trained = tensorfile.read_safetensors(folders[1] / weights.WEIGHTS_FILE)
    assert set(trained) == {f"layers.{name}" for name, _ in adapter.layers.named_parameters()}
    again = IPAdapter.from_pretrained(folders[1])
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), again.parameters(), strict=True))
    shutil.copyfile(frozen, folders[0] / weights.WEIGHTS_FILE)
    with pytest.raises(Refused, match="it is of two runs"):
        IPAdapter.from_pretrained(folders[0])
    adapter.save_pretrained(folders[1])
    assert sorted(file.name for file in folders[1].iterdir()) == ["adapter.safetensors", "config.json"]


def test_a_file_with_other_keys_is_refused_with_their_names(pipe, tmp_path):
    adapter = ip_adapter(pipe)
    adapter.save_pretrained(tmp_path)
    tensors = adapter.state_dict()
    lost = tensors.pop("image_proj.norm.bias")
    weights.write_safetensors(tmp_path / weights.WEIGHTS_FILE, tensors | {"image_proj.extra": lost})
    with pytest.raises(Refused, match=r"1 missing: image_proj\.norm\.bias; 1 unknown: image_proj\.extra"):
        IPAdapter.from_pretrained(tmp_path)


def test_another_base_is_refused_and_stays_as_it_is(pipe):
    other = tiny.sd_pipe()
    processors = other.unet.attn_processors
    with pytest.raises(Refused, match="another base"):
        ip_adapter(pipe).attach(other)
    assert other.unet.attn_processors == processors
    displaced = dict(pipe.unet.attn_processors)
    pipe.unet.set_attn_processor(FusedAttnProcessor2_0())
    with pytest.raises(Refused, match="has a FusedAttnProcessor2_0"):
        ip_adapter(pipe).attach(pipe)
    pipe.unet.set_attn_processor(displaced)


def test_the_wrong_image_encoder_is_refused(pipe):
    adapter = ip_adapter(pipe).attach(pipe)
    adapter.image_encoder = ClipVision(tiny.image_encoder(projection=12))
    with pytest.raises(Refused, match="width 20, this image encoder gives 12"):
        adapter.encode(references(0))
    adapter.detach()
