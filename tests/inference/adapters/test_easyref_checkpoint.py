"""EasyRef's published files: every key has its place, whatever else is refused, and the true size is the published."""

import pytest
import tinypipes as tiny
import torch
import truesizes
from adapting import TINY_QWEN, easyref_adapter

from refloom.inference.adapters.easyref import adapter as easyref
from refloom.inference.adapters.easyref.adapter import EasyRef, EasyRefConfig
from refloom.inference.adapters.easyref.checkpoint import own_key, read_easyref
from refloom.inference.checkpoints import weights
from refloom.schemas.errors import Refused


@pytest.fixture(scope="module")
def pipe():
    return tiny.sdxl_pipe()


def published_state(adapter, unet) -> dict[str, torch.Tensor]:
    """As the wrapper of the published training names its tensors (spec A2.4), with all aliases."""
    numbers = {name.removesuffix(".processor"): at for at, name in enumerate(unet.attn_processors)}
    state = {f"unet.{key}": tensor for key, tensor in unet.state_dict().items()}
    for key, tensor in adapter.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "image_proj":
            state[f"image_proj_model.{rest}"] = tensor
        elif key.startswith("reader.final."):
            state[f"mllm_final_layer.{key.removeprefix('reader.final.').replace('layer.', 'layers.0.', 1)}"] = tensor
        elif key.startswith("reader.trunk."):
            state[f"multimodal_llm.model.{key.removeprefix('reader.trunk.')}"] = tensor
        elif part == "reader":
            state[f"multimodal_llm.{rest}"] = tensor
        else:
            path, name, *more = rest.rsplit(".", 2 if part == "layers" else 3)
            name = f"{name}_lora" if part == "lora" else name
            suffix = ".".join([name, *more])
            state[f"unet.{path}.processor.{suffix}"] = tensor
            state[f"adapter_modules.{numbers[path]}.{suffix}"] = tensor
    state["multimodal_llm.lm_head.weight"] = state["multimodal_llm.model.embed_tokens.weight"]
    return state


def deduplicated(state) -> dict[str, torch.Tensor]:
    aliases = ("adapter_modules.", "multimodal_llm.lm_head.")
    return {key: tensor for key, tensor in state.items() if not key.startswith(aliases)}


def read(file, pipe, **options) -> EasyRef:
    return read_easyref(file, pipe.unet, qwen=TINY_QWEN, side=56, **options)


@pytest.mark.parametrize("rank", [3, 0])
def test_both_kinds_of_files_come_back_as_the_adapter_that_they_were(pipe, tmp_path, rank):
    adapter = easyref_adapter(pipe, lora_rank=rank)
    state = published_state(adapter, pipe.unet)
    weights.write_safetensors(tmp_path / "model.safetensors", deduplicated(state))
    torch.save({"module": state, "dp_world_size": 32, "epoch": None}, tmp_path / "mp_rank_00_model_states.pt")
    for name in ("model.safetensors", "mp_rank_00_model_states.pt"):
        again = read(tmp_path / name, pipe)
        assert again.config == adapter.config
        own = adapter.state_dict()
        assert set(again.state_dict()) == set(own)
        assert all(torch.equal(tensor, own[key]) for key, tensor in again.state_dict().items())
    half = read(tmp_path / "model.safetensors", pipe, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_what_does_not_belong_is_refused_by_name(pipe, tmp_path):
    state = published_state(easyref_adapter(pipe), pipe.unet)
    file = tmp_path / "model.pt"

    def refused(changed, match, wrap=True):
        torch.save({"module": changed} if wrap else changed, file)
        with pytest.raises(Refused, match=match):
            read(file, pipe)

    one = torch.zeros(1)
    mine = "mllm_final_layer.norm.weight"
    refused({key: tensor for key, tensor in state.items() if key != mine}, r"1 missing: reader\.final\.norm\.weight")
    unknown = ["unet.conv_in.extra", "surprise.weight", "adapter_modules.99.to_k_ip.weight"]
    unknown += ["multimodal_llm.model.layers.2.mlp.up_proj.weight"]
    refused(
        state | dict.fromkeys(unknown, one),
        r"4 unknown: unet\.conv_in\.extra, surprise\.weight, adapter_modules\.99\S+, reader\.trunk\.layers\.2",
    )
    refused(state | {"adapter_modules.1.to_k_ip.weight": one}, "damaged: adapter_modules.1.to_k_ip.weight must repeat")
    refused(state | {"multimodal_llm.lm_head.weight": one}, "damaged: multimodal_llm.lm_head.weight must repeat")
    lora = next(key for key in state if key.endswith("processor.to_q_lora.down.weight"))
    refused(state | {lora: state[lora][:2]}, r"ranks \[2, 3\]")
    refused({"image_proj": one}, "another method's")
    refused(state | {"a": 1}, "something else than tensors")
    torch.save({"module": state}, file)
    with pytest.raises(Refused, match=r"of another shape.*another language model"):
        read_easyref(file, pipe.unet, qwen=type(TINY_QWEN)(**vars(TINY_QWEN) | {"width": 24}), side=56)
    with pytest.raises(Refused, match="another base model"):
        read_easyref(file, tiny.sd_unet(), qwen=TINY_QWEN)


def test_in_its_true_size_it_has_the_published_numbers_of_parameters():
    """Spec A1.1; of the trunk its sums by part."""
    adapter = EasyRef.on_meta(EasyRefConfig(**easyref.config_values(truesizes.sdxl())))

    def count(*prefixes: str, only: str = "") -> int:
        named = adapter.named_parameters()
        return sum(p.numel() for name, p in named if name.startswith(prefixes) and only in name)

    assert count("lora.") == 185_794_560
    assert (count("lora.", only=".attn1."), count("lora.", only=".attn2.")) == (85_196_800, 100_597_760)
    assert count("layers.") == 340_787_200
    assert count("image_proj.") == 5_512_704
    assert count("reader.final.layer.") == 46_797_824
    assert count("reader.final.norm.") == 1_536
    assert count("reader.final.reference_tokens") == 98_304
    assert count("reader.trunk.layers.") == 27 * 46_797_824
    assert count("reader.trunk.embed_tokens.") == 151_936 * 1_536
    assert count("reader.trunk.norm.") == 1_536
    # stage 1 tunes about 393 M: the final layer, its tokens, the projector and the cross adapters
    assert count("reader.final.", "image_proj.", "layers.") == 393_197_568
    # Qwen2-VL's vision tower: 32 blocks of 1280, patches of 1176, a merger to 1536
    block = 2 * 2 * 1280 + 4 * 1280**2 + 4 * 1280 + 2 * 4 * 1280**2 + 5 * 1280
    merger = 2 * 1280 + 5120**2 + 5120 + 5120 * 1536 + 1536
    assert count("reader.visual.") == 1176 * 1280 + 32 * block + merger


def test_the_key_map_covers_every_key_of_the_true_size():
    sdxl = truesizes.sdxl()
    adapter = EasyRef.on_meta(EasyRefConfig(**easyref.config_values(sdxl)))
    state = published_state(adapter, sdxl)
    numbers = dict(enumerate(name.removesuffix(".processor") for name in sdxl.attn_processors))
    assert len(numbers) == 140
    frozen = set(sdxl.state_dict())
    reached: dict[str, int] = {}
    for key in state:
        own = own_key(key, numbers)
        if own is None:
            assert key == "multimodal_llm.lm_head.weight" or key.removeprefix("unet.") in frozen
        else:
            reached[own] = reached.get(own, 0) + 1
    assert set(reached) == set(adapter.state_dict())
    assert {own.split(".")[0] for own, times in reached.items() if times == 2} == {"layers", "lora"}
    assert max(reached.values()) == 2
