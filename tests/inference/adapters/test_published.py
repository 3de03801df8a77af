"""Published checkpoints: read strictly, with the published numbers of parameters, and written for diffusers."""

import pytest
import tinypipes as tiny
import torch
import truesizes
from adapting import easyref_adapter, ezigen_adapter, ip_adapter, mip_adapter, ms_adapter, nested, references
from tinymodels import Touches

from refloom.inference.adapters import kinds, published, tokens
from refloom.inference.adapters.easyref.checkpoint import read_easyref
from refloom.inference.adapters.ip_adapter import heads
from refloom.inference.adapters.ip_adapter.adapter import IPAdapter, IPAdapterConfig
from refloom.inference.adapters.ip_adapter.heads import HeadConfig
from refloom.inference.adapters.mip.adapter import MIPAdapter
from refloom.inference.adapters.ms_diffusion import adapter as ms_diffusion
from refloom.inference.adapters.ms_diffusion.adapter import MSDiffusion, MSDiffusionConfig
from refloom.inference.adapters.vision import ClipVision
from refloom.schemas.errors import Refused

READERS = {
    "ip_adapter": (ip_adapter, published.read_ip_adapter),
    "mip": (mip_adapter, published.read_mip),
    "ms_diffusion": (ms_adapter, published.read_ms_diffusion),
}


@pytest.fixture(scope="module")
def pipe():
    return tiny.sdxl_pipe()


def count(module: torch.nn.Module, only: str = "") -> int:
    return sum(parameter.numel() for name, parameter in module.named_parameters() if only in name)


def test_in_their_true_size_they_have_the_published_numbers_of_parameters():
    sdxl = truesizes.sdxl()
    values = {name: heads.config_values(sdxl, head=name, image_width=1280) for name in ("plain", "plus")}
    plain, plus = (IPAdapter.on_meta(IPAdapterConfig(**values[name])) for name in ("plain", "plus"))
    assert count(plain, "_ip.") == count(plus, "_ip.") == 340_787_200
    assert count(plain, "image_proj") == 1280 * 4 * 2048 + 4 * 2048 + 2 * 2048
    mip = MIPAdapter.on_meta(HeadConfig(**values["plus"]))
    assert (count(mip, "text_to_weight"), count(mip, "_ip.")) == (83_200, 340_787_200)
    ms = MSDiffusion.on_meta(MSDiffusionConfig(**ms_diffusion.config_values(sdxl)))
    assert count(ms) == 459_730_816
    assert count(ms, "image_proj") == 118_943_616
    assert count(ms, "latent_") + count(ms, "grounding_latents") == 35_508_352
    widths = list(tokens.layers_of(sdxl).values())
    assert (widths.count(640), widths.count(1280), len(widths)) == (10, 60, 70)


def test_key_maps_cover_every_key_of_the_true_size_once():
    """Odd numbers 1 to 139 in the order of `unet.attn_processors`, and the heads' names of the spec (B1.1, B.1.2)."""
    sdxl = truesizes.sdxl()
    order = list(sdxl.attn_processors)
    paths = published.cross_attention_paths(tokens.layers_of(sdxl))
    assert list(paths) == list(range(1, 140, 2))
    assert all(order[number] == f"{path}.processor" for number, path in paths.items())
    perceiver = {f"layers.{i}.0.{name}" for i in range(4) for name in ("to_q.weight", "to_kv.weight", "to_out.weight")}
    perceiver |= {f"layers.{i}.0.norm{n}.{x}" for i in range(4) for n in (1, 2) for x in ("weight", "bias")}
    perceiver |= {f"layers.{i}.1.{x}" for i in range(4) for x in ("0.weight", "0.bias", "1.weight", "3.weight")}
    linear = [f"{name}.{x}" for name in ("proj_in", "proj_out", "norm_out") for x in ("weight", "bias")]
    grounding = [
        f"{n}.{x}"
        for n in ("latent_proj.0", "latent_proj.2", "latent_norm", "attention_norm")
        for x in ("weight", "bias")
    ]
    layers = {f"{number}.to_{x}_ip.weight" for number in range(1, 140, 2) for x in "kv"}
    mip_values = heads.config_values(sdxl, head="plus", image_width=1280)
    of_mip = nested(MIPAdapter.on_meta(HeadConfig(**mip_values)))
    assert set(of_mip["image_proj"]) == {*perceiver, *linear, "latents"}
    assert set(of_mip["ip_adapter"]) == layers | {f"{number}.text_to_weight.weight" for number in range(1, 140, 2)}
    of_ms = nested(MSDiffusion.on_meta(MSDiffusionConfig(**ms_diffusion.config_values(sdxl))))
    assert set(of_ms) == {"image_proj", "ms_adapter", "dummy_image_tokens"}
    assert set(of_ms["image_proj"]) == {*perceiver, *linear, *grounding, "grounding_latents"}
    assert set(of_ms["ms_adapter"]) == layers


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("head", ["plain", "plus"])
def test_a_checkpoint_comes_back_as_the_adapter_that_it_was(pipe, tmp_path, kind, head):
    make, read = READERS[kind]
    adapter = make(pipe) if kind == "ms_diffusion" else make(pipe, head=head)
    torch.save({name: _half(part) for name, part in nested(adapter).items()}, tmp_path / "model.bin")
    again = read(tmp_path / "model.bin", pipe.unet, head_width=8)
    relevant = "resampler" if head == "plain" else "-"  # a plain head has no resampler to read the sizes of
    for name, value in vars(adapter.config).items():
        assert relevant in name or getattr(again.config, name) == value, name
    state = adapter.state_dict()
    assert set(again.state_dict()) == set(state)
    assert all(torch.equal(tensor, state[key].half().float()) for key, tensor in again.state_dict().items())


def _half(part):
    return {key: tensor.half() for key, tensor in part.items()} if isinstance(part, dict) else part.half()


def test_what_does_not_belong_is_refused_by_name(pipe, tmp_path):
    file = tmp_path / "model.bin"
    parts = nested(ip_adapter(pipe))

    def refused(changed, match, read=published.read_ip_adapter, unet=pipe.unet):
        torch.save(changed, file)
        with pytest.raises(Refused, match=match):
            read(file, unet, head_width=8)

    layers = parts["ip_adapter"]
    refused(parts | {"ip_adapter": layers | {"2.to_k_ip.weight": layers["1.to_k_ip.weight"]}}, r"1 unknown: 2\.to_k_ip")
    refused(
        parts | {"ip_adapter": {k: v for k, v in layers.items() if k != "3.to_v_ip.weight"}}, "1 missing: layers.down"
    )
    refused(parts | {"extra": layers}, "holds extra, image_proj, ip_adapter")
    refused(parts | {"image_proj": {"proj.0.weight": torch.zeros(1)}}, "FaceID variants are not supported")
    refused(parts, "belongs to another base", unet=tiny.sd_unet())
    refused(nested(mip_adapter(pipe)), "read it as kind mip")
    refused(parts, "read it as kind ip_adapter", read=published.read_mip)
    refused(parts, "another method's", read=published.read_ms_diffusion)
    refused({"image_proj": {}, "ip_adapter": {"a": 1}}, "something else than tensors")
    refused([1], "not a mapping")
    file.write_bytes(b"no checkpoint")
    with pytest.raises(Refused, match="cannot be read"):
        published.read_ip_adapter(file, pipe.unet)


@pytest.mark.parametrize(
    ("read", "hidden"),
    [
        (published.read_ip_adapter, lambda bomb: {"image_proj": bomb, "ip_adapter": {}}),
        (read_easyref, lambda bomb: {"module": {"mllm_final_layer.reference_tokens": bomb}}),
    ],
    ids=["ip_adapter", "easyref"],
)
def test_code_inside_a_checkpoint_is_not_run(pipe, tmp_path, read, hidden):
    torch.save(hidden(Touches(tmp_path / "ran")), tmp_path / "model.bin")
    with pytest.raises(Refused, match="cannot be read as tensors"):
        read(tmp_path / "model.bin", pipe.unet)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("head", "seeds"), [("plain", (0,)), ("plus", (0, 1))])
def test_diffusers_reads_what_we_write_and_computes_the_same(tmp_path, head, seeds):
    """Its own IP-Adapter on the same weights, one and two images: every UNet call in fp32, a whole run in float64.

    Guidance and noise levels multiply rounding errors of a run, so that in fp32 the calls are what is compared. A
    strength is held in fp32, so it is one that fp32 has exactly.
    """
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        pipe, theirs = tiny.sdxl_pipe().to(dtype), tiny.sdxl_pipe().to(dtype)
        adapter = wide(ip_adapter(pipe, head=head)).to(dtype)
        adapter.image_encoder = ClipVision(tiny.image_encoder().to(dtype))
        published.write_ip_adapter(adapter, tmp_path / "ip.safetensors")
        adapter.scale = 0.75
        options = {"height": 48, "width": 80, "latents": torch.randn(1, 4, 24, 40, dtype=dtype)}
        with adapter.attach(pipe).generation(adapter.encode(references(*seeds))):
            ours, our_calls = run(pipe, options)
        theirs.load_ip_adapter(
            str(tmp_path),
            subfolder="",
            weight_name="ip.safetensors",
            image_encoder_folder=None,
            low_cpu_mem_usage=False,
        )
        theirs.set_ip_adapter_scale(0.75)
        vision = adapter.image_encoder
        pixels = heads.clip_pixels([reference.images[0] for reference in references(*seeds)], vision.side)
        read_by = vision.pooled if head == "plain" else vision.patches
        null = torch.zeros_like(read_by(pixels)) if head == "plain" else read_by(torch.zeros_like(pixels))
        embeds = [torch.stack([null, read_by(pixels)])]
        out, their_calls = run(theirs, options | {"ip_adapter_image_embeds": embeds})
        torch.testing.assert_close(our_calls[0], their_calls[0], atol=tolerance, rtol=0)
        if dtype == torch.float64:
            torch.testing.assert_close(ours, out, atol=tolerance, rtol=0)
        adapter.detach()
        assert (ours - run(pipe, options)[0]).abs().max() > 1e-2


def run(pipe, options) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Latents of a run, and what the UNet said in each call, both halves."""
    calls = []
    hook = pipe.unet.register_forward_hook(lambda _, __, out: calls.append(out[0]))
    out = pipe("a dog and a cat", num_inference_steps=3, output_type="latent", **options).images
    hook.remove()
    return out, calls


def wide(adapter):
    """The same kind with four layers and heads of 64, which diffusers takes for granted."""
    values = vars(adapter.config) | {"resampler_depth": 4, "resampler_heads": 1, "resampler_head_width": 64}
    other = IPAdapter(IPAdapterConfig(**values))
    tiny.randomise(other, 3)
    other.image_encoder = adapter.image_encoder
    return other.requires_grad_(False)


def test_a_mip_checkpoint_is_a_plain_ip_adapter_for_diffusers(pipe, tmp_path):
    adapter = mip_adapter(pipe)
    theirs = tiny.sdxl_pipe()
    theirs.load_ip_adapter(nested(adapter), subfolder="", weight_name="", image_encoder_folder=None)
    assert theirs.unet.config.encoder_hid_dim_type == "ip_image_proj"


@pytest.mark.parametrize(
    ("make_pipe", "make"),
    [
        (tiny.sdxl_pipe, ip_adapter),
        (tiny.sdxl_pipe, mip_adapter),
        (tiny.sdxl_pipe, ms_adapter),
        (tiny.sdxl_pipe, easyref_adapter),
        (tiny.sd_pipe, ezigen_adapter),
    ],
    ids=["ip_adapter", "mip", "ms_diffusion", "easyref", "ezigen"],
)
def test_a_folder_names_its_kind_and_holds_the_same_adapter(tmp_path, make_pipe, make):
    adapter = make(make_pipe())
    adapter.save_pretrained(tmp_path)
    again = kinds.from_pretrained(tmp_path)
    assert type(again) is type(adapter)
    assert again.config == adapter.config
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in adapter.state_dict().items())


def test_a_kind_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(Refused, match="did you mean mip"):
        kinds.adapter_class("mipp")
