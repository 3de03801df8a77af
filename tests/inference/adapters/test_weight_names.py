"""Names in checkpoints: prefixes and extras of training programs are understood, another method's file is named."""

import re

import checkpoints
import pytest
import torch
from checkpoints import KINDS, flat, in_training, nested, pickled, read, same, stored

from refloom.inference.adapters import names, published
from refloom.inference.checkpoints.keyreport import KeyReport
from refloom.schemas.errors import Refused
from refloom.schemas.wording import MOST_NAMED, some

TOKENS = ("ip_adapter", "mip", "ms_diffusion")
"""Kinds whose files have parts."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Every kind's adapter, as read from a plain safetensors file."""
    folder = tmp_path_factory.mktemp("plain")
    return {kind: read(kind, stored(folder / f"{kind}.safetensors", flat(kind))) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["flat pickle", "nested pickle", "wrapped", "counted", "DDP", "compiled"])
def test_what_training_programs_put_around_names_is_understood(plain, tmp_path, kind, form):
    tensors, one = flat(kind), torch.tensor(7)
    made = {
        "flat pickle": lambda: tensors,
        "nested pickle": lambda: nested(tensors),
        "wrapped": lambda: {"state_dict": tensors, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "lr": 1.0},
        "counted": lambda: nested(tensors) | {"global_step": 3, "epoch": one},
        "DDP": lambda: {f"module.{key}": tensor for key, tensor in tensors.items()} | {"global_step": one},
        "compiled": lambda: {f"module._orig_mod.{key}": tensor for key, tensor in tensors.items()},
    }[form]()
    assert same(read(kind, pickled(tmp_path / "model.bin", made)), plain[kind])
    if form in ("DDP", "compiled"):
        assert same(read(kind, stored(tmp_path / "model.safetensors", made)), plain[kind])


@pytest.mark.parametrize("kind", TOKENS)
def test_wrappers_of_one_part_are_understood(plain, tmp_path, kind):
    parts = nested(flat(kind))
    parts["image_proj"] = {f"module.{key}": tensor for key, tensor in parts["image_proj"].items()}
    assert same(read(kind, pickled(tmp_path / "model.bin", parts)), plain[kind])


def test_an_ezigen_with_the_prefix_of_its_unet_is_read(plain, tmp_path):
    unet = checkpoints.pipe("ezigen").unet.state_dict()
    whole = {f"unet.{key}": tensor for key, tensor in (unet | flat("ezigen")).items()}
    assert same(read("ezigen", stored(tmp_path / "model.safetensors", whole)), plain["ezigen"])


@pytest.mark.parametrize("kind", TOKENS)
def test_a_whole_training_checkpoint_is_read(plain, tmp_path, kind):
    """With its base, with the layers as they lie in the UNet, or both, as pickles have them."""
    tensors = in_training(kind)
    order = [name.removesuffix(".processor") for name in checkpoints.pipe(kind).unet.attn_processors]
    inside = {}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        number, _, name = rest.partition(".")
        if part == "adapter_modules":
            key = f"unet.{order[int(number)]}.processor.{name}"
        inside[key] = tensor
    for at, form in enumerate((tensors, inside, tensors | inside)):
        assert same(read(kind, stored(tmp_path / f"{at}.safetensors", form)), plain[kind])
    alias = next(key for key in inside if ".processor.to_k_ip" in key)
    odd = tensors | inside | {alias: inside[alias] + 1}
    with pytest.raises(Refused, match=r"is damaged: .* must repeat another tensor"):
        read(kind, stored(tmp_path / "odd.safetensors", odd))
    other = tensors | {"unet.conv_in.weight": torch.zeros(2, 4, 3, 3)}
    with pytest.raises(Refused, match=r"another base model: unet\.conv_in\.weight"):
        read(kind, stored(tmp_path / "other.safetensors", other))


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("by", KINDS)
def test_a_file_of_another_method_is_refused_with_the_kind_to_read_it_as(tmp_path, of, by):
    assert names.kind_of(flat(of)) == of
    if of == by:
        return
    for file in (stored(tmp_path / "m.safetensors", flat(of)), pickled(tmp_path / "m.bin", nested(flat(of)))):
        with pytest.raises(Refused, match=rf"m\.\w+ is no checkpoint of {by} .*read it as kind {of}$"):
            read(by, file)


@pytest.mark.parametrize("kind", TOKENS)
def test_training_checkpoints_of_another_method_are_told_too(kind):
    assert names.kind_of(in_training(kind)) == kind


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("layers.down_blocks.1.attentions.0.to_k_ip.weight", "give its folder"),
        ("ip_adapter.1.to_q_lora.down.weight", "FaceID, which is not supported"),
        ("unet.down_blocks.0.attn1.to_q.lora_A.weight", "a LoRA"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a whole Stable Diffusion checkpoint"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("vision_model.embeddings.class_embedding", "a CLIP model"),
        ("down_blocks.0.resnets.0.conv1.weight", "a UNet, a base without an adapter"),
    ],
)
def test_files_of_no_adapter_are_named(tmp_path, key, what):
    with pytest.raises(Refused, match=what):
        read("ip_adapter", stored(tmp_path / "m.safetensors", {key: torch.ones(2)}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_names_ten_keys_at_most_however_many_are_wrong(tmp_path, kind):
    few = dict(list(flat(kind).items())[::3])
    many = few | {f"{'x' * 500}.{at}.to_k_ip.weight": torch.ones(1) for at in range(300)}
    with pytest.raises(Refused) as caught:
        read(kind, pickled(tmp_path / "m.bin", many))
    assert len(str(caught.value)) < 3000
    assert "\n" not in str(caught.value)


def test_a_report_of_all_three_kinds_of_differences_names_ten_keys_at_most():
    report = str(KeyReport(*[tuple(f"key{at}" for at in range(40))] * 3))
    assert len(re.findall(r"key\d+", report)) <= MOST_NAMED
    assert report.count("and 37 more") == 3


def test_lists_in_messages_are_short_and_on_one_line():
    assert some(["a", "b"]) == "a, b"
    assert some(map(str, range(11))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"
    assert some(["a\nb\x1b[31m", "\ud800"]) == r"a\nb\x1b[31m, \ud800"
    assert len(some(["x" * 10_000])) == 100


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda tensor: tensor * float("nan"), "no numbers"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([0]), float("inf")), "no numbers"),
        (lambda tensor: tensor.long(), "int64, not of floating point"),
        (lambda tensor: tensor.to(torch.complex64), "complex64, not of floating point"),
        (lambda tensor: tensor[:0], "is empty"),
        (lambda tensor: tensor.reshape(-1), "shape|dimensions|fit|heads"),
    ],
    ids=["nan", "infinity", "whole", "complex", "empty", "shape"],
)
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, kind, spoil, said):
    tensors = flat(kind)
    key = next(key for key, tensor in tensors.items() if tensor.dim() == 2 and "to_k" in key)
    with pytest.raises(Refused, match=said) as caught:
        read(kind, stored(tmp_path / "m.safetensors", tensors | {key: spoil(tensors[key])}))
    if "fit" not in said:
        assert key in str(caught.value)


@pytest.mark.parametrize("key", ["1" * 5000, "-1", "²", "1e3", "", "\n"])
def test_numbers_of_layers_that_are_none_are_unknown_keys(tmp_path, key):
    parts = nested(flat("ip_adapter"))
    parts["ip_adapter"][f"{key}.to_k_ip.weight"] = torch.ones(1)
    with pytest.raises(Refused, match="1 unknown"):
        published.read_ip_adapter(pickled(tmp_path / "m.bin", parts), checkpoints.pipe("ip_adapter").unet)


def test_our_own_folder_with_values_that_are_no_numbers_is_refused(plain, tmp_path):
    from refloom.inference.adapters import kinds
    from refloom.inference.checkpoints import weights

    adapter = plain["ip_adapter"]
    adapter.save_pretrained(tmp_path)
    tensors = weights.read_folder(tmp_path)
    key = next(iter(tensors))
    weights.write_safetensors(tmp_path / weights.WEIGHTS_FILE, tensors | {key: tensors[key] * float("nan")})
    with pytest.raises(Refused, match=re.escape(key)):
        kinds.from_pretrained(tmp_path)
