"""EZIGen's weights in files: the published checkpoint, and its true size."""

import pytest
import tinypipes as tiny
import torch
import truesizes
from adapting import ezigen_adapter

from refloom.inference.adapters import published
from refloom.inference.adapters.ezigen import adapter as ezigen
from refloom.inference.adapters.ezigen.adapter import EZIGen, EZIGenConfig
from refloom.inference.checkpoints import weights
from refloom.schemas.errors import Refused


@pytest.fixture(scope="module")
def pipe():
    return tiny.sd_pipe()


@pytest.fixture
def adapter(pipe):
    return ezigen_adapter(pipe)


def test_the_true_size_has_the_published_parameters_and_every_key_of_the_checkpoint():
    adapter = EZIGen.on_meta(EZIGenConfig(**ezigen.config_values(truesizes.stable_diffusion_2())))
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 49_599_056
    assert list(adapter.config.layers.values()) == [320] * 2 + [640] * 2 + [1280] * 6 + [640] * 3 + [320] * 3
    parts = [f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)] + ["mid_block.attentions.0"]
    parts += [f"up_blocks.{i}.attentions.{j}" for i in (1, 2, 3) for j in range(3)]
    assert list(adapter.config.layers) == [f"{part}.transformer_blocks.0" for part in parts]
    names = [f"adapter.{x}.weight" for x in ("to_q", "to_k", "to_v", "to_out.0")]
    names += ["adapter.to_out.0.bias", "adapter_norm.weight", "adapter_norm.bias"]
    wanted = {f"layers.{part}.transformer_blocks.0.{name}" for part in parts for name in names}
    assert set(adapter.state_dict()) == wanted | {"learnable_weights"}


def checkpoint(folder, pipe, adapter, **changed):
    """As accelerate wrote the published one: the whole UNet with the adapter in its blocks."""
    tensors = {key.removeprefix("layers."): tensor for key, tensor in adapter.state_dict().items()}
    tensors = {key: tensor.half() for key, tensor in (pipe.unet.state_dict() | tensors).items()} | changed
    weights.write_safetensors(folder / "model.safetensors", {k: v for k, v in tensors.items() if v is not None})
    return folder


def test_of_a_published_checkpoint_the_adapter_is_read_strictly(pipe, adapter, tmp_path):
    again = published.read_ezigen(checkpoint(tmp_path, pipe, adapter), pipe.unet)
    assert again.config.layers == adapter.config.layers
    state = again.state_dict()
    assert set(state) == set(adapter.state_dict())
    assert all(torch.equal(state[key], tensor.half().float()) for key, tensor in adapter.state_dict().items())
    only = dict.fromkeys(pipe.unet.state_dict())
    file = checkpoint(tmp_path, pipe, adapter, **only) / "model.safetensors"
    assert torch.equal(published.read_ezigen(file, pipe.unet).learnable_weights, again.learnable_weights)

    block = "mid_block.attentions.0.transformer_blocks.0"
    for changed, message in (
        ({f"{block}.adapter.to_q.weight": None}, rf"1 missing: layers\.{block}\.adapter\.to_q\.weight"),
        ({f"{block}.adapter.gate": torch.zeros(1)}, rf"1 unknown: layers\.{block}\.adapter\.gate"),
        ({"learnable_weights": torch.ones(16)}, r"learnable_weights: \(16,\) is not \(7,\)"),
        ({"conv_in.weight": torch.zeros(8, 4, 1, 1)}, "another base model: conv_in.weight is"),
    ):
        with pytest.raises(Refused, match=message):
            published.read_ezigen(checkpoint(tmp_path, pipe, adapter, **changed), pipe.unet)
    file.write_bytes(b"none")
    with pytest.raises(Refused, match="cannot be read"):
        published.read_ezigen(tmp_path, pipe.unet)
