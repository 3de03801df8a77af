"""EZIGen against tensors that the published code computed; tests/golden/ezigen.md tells how."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from places import GOLDEN
from safetensors.torch import load_file
from transformers import CLIPTextModel

from refloom.inference.adapters import windows
from refloom.inference.adapters.ezigen import adapter as ezigen
from refloom.inference.adapters.ezigen import inversion
from refloom.inference.adapters.ezigen import loops as transfer
from refloom.inference.adapters.ezigen import referenceunet as reference_unet
from refloom.inference.adapters.ezigen import schedule as splits
from refloom.inference.adapters.ezigen.adapter import EZIGen, EZIGenConfig
from refloom.inference.adapters.reference import Reference
from refloom.inference.checkpoints.weights import load_strict

PROMPT = "a dog on the grass"
OPTIONS = {"num_inference_steps": 10, "split_ratio": 0.5}


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "ezigen.safetensors")


def part(golden, name) -> dict[str, torch.Tensor]:
    """The tensors of a part, those of weights in fp32."""
    tensors = {key.removeprefix(name): tensor for key, tensor in golden.items() if key.startswith(name)}
    return {key: tensor.float() if tensor.dtype == torch.float16 else tensor for key, tensor in tensors.items()}


@pytest.fixture(scope="module")
def adapter(golden):
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=16,
        use_linear_projection=True,
    )
    vae, text_encoder = tiny.vae(), CLIPTextModel(tiny.text_config(16))
    text = part(golden, "text.")
    table = "embeddings.token_embedding.weight"
    text[table] = torch.zeros(49408, 16).index_copy(0, text.pop("ids"), text[table])
    for module, tensors in ((unet, part(golden, "unet.")), (vae, part(golden, "vae.")), (text_encoder, text)):
        module.load_state_dict(tensors)
        module.eval().requires_grad_(False)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tiny.tokenizer(),
        unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    adapter = EZIGen(EZIGenConfig(**ezigen.config_values(unet), resolution=16))
    tensors = part(golden, "adapter.")
    weights = tensors.pop("learnable_weights")
    load_strict(adapter, {f"layers.{k}": v for k, v in tensors.items()} | {"learnable_weights": weights}, "golden")
    adapter.requires_grad_(False).faithful = True
    return adapter.attach(pipe)


def encoded(adapter, golden, seed):
    """As the published code reads the subject: with torch's own generator, which then goes on in the loops."""
    subject = Reference((golden["input.subject"].numpy(),), "a photo of a dog.")
    return adapter.encode([subject], generator=torch.default_generator.manual_seed(seed))


def assert_equal(ours, theirs):
    """To 1e-5 of the tensor's own size, in fp32."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1.0, theirs.abs().max().item()))


def run(adapter, golden, how, *given, **options):
    """The method with the published script's seeds; the latents that each of its passes ends with, and the result."""
    conditioning, latents = encoded(adapter, golden, 31), {}

    def keep(_, step, timestep, kwargs):
        if not step:
            latents[len(latents)] = None
        latents[len(latents) - 1] = kwargs["latents"]
        return kwargs

    generator = torch.Generator().manual_seed(7)
    if how == adapter.edit:  # the published script has first made a picture of 10 steps, and goes on from there
        for _ in range(11):
            torch.randn(1, 4, 8, 8, generator=generator)
    done = how(conditioning, *given, generator=generator, callback_on_step_end=keep, **OPTIONS, **options)
    return list(latents.values()), done


def test_reference_features(adapter, golden):
    seen = encoded(adapter, golden, 21).features
    for value, wanted in zip(seen.values(), part(golden, "features.").values(), strict=True):
        assert_equal(value[0], wanted)


def test_the_stream_after_the_adapter_in_each_layer_and_the_whole_call(adapter, golden):
    seen, unet = [], adapter.pipe.unet
    blocks = reference_unet.transformer_blocks(unet).values()
    conditioning = encoded(adapter, golden, 21)
    hooks = [block.norm2.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone())) for block in blocks]
    with torch.no_grad(), adapter.generation(conditioning, halves=("positive",)):
        out = unet(golden["call.latents"], 500, encoder_hidden_states=golden["call.text"], return_dict=False)[0]
    for hook in hooks:
        hook.remove()
    wanted = part(golden, "call.after_adapter.")
    assert len(seen) == len(wanted) == 7
    for at, value in enumerate(seen):
        assert_equal(value, wanted[str(at)])
    assert_equal(out, golden["call.out"])


def test_the_adapter_in_all_steps(adapter, golden):
    pipe, latents = adapter.pipe, []
    stock, pipe.scheduler = pipe.scheduler, reference_unet.ancestral(pipe.scheduler)
    with adapter.generation(encoded(adapter, golden, 31)):
        latents = pipe(
            PROMPT,
            negative_prompt=transfer.FIRST_NEGATIVE,
            num_inference_steps=10,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(7),
            output_type="latent",
        ).images
    pipe.scheduler = stock
    assert_equal(latents, golden["generate.whole"])


def test_a_whole_generation(adapter, golden):
    (first, loop), done = run(adapter, golden, adapter.generate, PROMPT, guidance_scale=4.0, iterations=1)
    assert_equal(first, golden["generate.first"])
    assert np.array_equal(done.passes[0][0], golden["generate.first_image"])
    assert_equal(loop, golden["generate.loop"])
    assert np.abs(done.images[0].astype(int) - golden["generate.loop_image"].numpy()).max() <= 1
    assert adapter.window == windows.StepWindow()


def test_a_whole_edit(adapter, golden):
    source, mask = golden["input.source"].numpy(), golden["input.mask"].numpy() / 255
    latents, done = run(adapter, golden, adapter.edit, source, mask, PROMPT, iterations=2)
    for at in range(2):
        assert_equal(latents[at], golden[f"edit.loop.{at}"])
        assert np.abs(done.passes[at + 1][0].astype(int) - golden[f"edit.image.{at}"].numpy()).max() <= 1
    assert done.images[0].shape == (16, 23, 3)


def test_inversion(adapter, golden):
    wanted = part(golden, "edit.trajectory.")
    assert_equal(inversion.exceptional_states(adapter.pipe), golden["edit.exceptional"])
    way = inversion.invert(adapter.pipe, wanted["0"], steps=10, stop=5)
    assert len(way) == len(wanted)
    for at, latents in enumerate(way):
        assert_equal(latents, wanted[str(at)])


@pytest.mark.parametrize("share", [0.2, 0.4, 0.5, 0.7, 0.8])
def test_schedule_tables(golden, share):
    table = {key: tensor.tolist() for key, tensor in part(golden, f"table.{share}.").items()}
    scheduler = reference_unet.ancestral()
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == table["timesteps"]
    ours = splits.split(table["timesteps"], share, faithful=True)
    assert ours == splits.Split(table["first_active"], tuple(table["loop_timesteps"]), table["noise"])
    inverse = inversion.inverse_scheduler(scheduler, 50).timesteps.tolist()
    assert inverse == golden["table.inverse_timesteps"].tolist()
    way = splits.trajectory(ours, inverse, share, faithful=True)
    assert way == splits.Trajectory(table["stop"], tuple(table["background"]))
