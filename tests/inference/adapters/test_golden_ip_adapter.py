"""IP-Adapter against tensors that its published code computed (tests/golden/README.md)."""

import pytest
from goldens import Golden, Layers, run, same

from refloom.inference.adapters import published, tokens
from refloom.inference.adapters.reference import Reference

PROMPTS = ("a photo of a dog", "a cat on the grass")
CASES = {
    # name: pipeline, pictures and prompts, images per prompt, scale, the call whose layers are compared
    "plain": ("pipe", (0, 1), 2, 0.7, 1),
    "plus": ("pipe", (0,), 1, 0.6, 1),
    "sd": ("sd_pipe", (1,), 1, 1.0, None),
}


@pytest.fixture(scope="module")
def golden():
    return Golden("ip_adapter")


@pytest.mark.parametrize("name", CASES)
def test_tokens_layers_and_every_step_are_the_published_ones(golden, tmp_path, name):
    kind, chosen, samples, scale, call = CASES[name]
    pipe = getattr(golden, kind)()
    adapter = published.read_ip_adapter(golden.adapter_file(name, tmp_path), pipe.unet, head_width=8)
    adapter.image_encoder, adapter.scale = golden.vision(), scale
    adapter.requires_grad_(False).attach(pipe)
    each = [adapter.encode([Reference((golden.image(at),))]) for at in chosen]
    conditioning = tokens.stack(each)
    same(conditioning.tokens[:, 0], golden[f"{name}.tokens"])
    same(conditioning.negative_tokens[:1, 0], golden[f"{name}.null"])
    watch = Layers(pipe.unet, call)
    wanted = golden.under(f"{name}.latents")
    prompts = [PROMPTS[at] for at in chosen]
    noise = golden[f"noise.{len(chosen) * samples}"]
    with adapter.generation(conditioning):
        steps = run(pipe, prompts, noise=noise, steps=len(wanted), samples=samples)
    layers = watch.close()
    if call is not None:
        expected = golden.under(f"{name}.layer")
        assert set(layers) == set(expected) == set(adapter.config.layers)
        for path, output in layers.items():
            same(output[[samples - 1, len(output) - 1]], expected[path])
    for at, latents in enumerate(steps):
        same(latents, wanted[str(at)])
    plain = run(pipe, prompts, noise=noise, steps=len(wanted), samples=samples)
    assert (plain[-1] - steps[-1]).abs().max() > 0.05
