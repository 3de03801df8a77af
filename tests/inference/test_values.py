"""Every value that a user can give is judged before anything is loaded, in one line that says what to do."""

import argparse
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from PIL import Image

from refloom import cli
from refloom.inference import ranges
from refloom.inference.adapters.reference import Reference
from refloom.inference.basefacts import BaseFacts
from refloom.inference.ranges import check_adapter
from refloom.inference.request import Request
from refloom.schemas.errors import Refused

LAYERS = 12
BASE = {
    "model_index.json": {"_class_name": "StableDiffusionXLPipeline"},
    "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
    "text_encoder/config.json": {"num_hidden_layers": LAYERS},
    "text_encoder_2/config.json": {"num_hidden_layers": 32},
    "scheduler/scheduler_config.json": {"num_train_timesteps": 1000, "prediction_type": "epsilon"},
}
UNREAD = "cannot be loaded"
"""What is said of a base of configs alone, once nothing is wrong with the values."""


def write_json(file, values):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A base and adapters without weights: whoever loads one of them is found out."""
    root = tmp_path_factory.mktemp("shop")
    for name, values in BASE.items():
        write_json(root / "base" / name, values)
    for kind in ("ms_diffusion", "easyref", "ezigen", "ip_adapter", "mip"):
        write_json(root / kind / "config.json", {"kind": kind, "format": 1})
        (root / kind / "adapter.safetensors").touch()
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(root / "cat.png")
    Image.fromarray(np.full((8, 12, 3), 255, np.uint8)).save(root / "wide.png")
    return root


def generate(shop, tmp_path, *more, adapter="ms_diffusion", command="generate"):
    given = ["--base", shop / "base", "--adapter", shop / adapter, "--device", "cpu", "--out", tmp_path / "out"]
    if not any(str(one) == "--reference" for one in more):
        given += ["--reference", f"{shop}/cat.png:cat"]
    return [command, *given, "--prompt", "a cat", *more]


def refused(outcome, *words):
    code, printed, error = outcome
    said = error.removeprefix("refloom: ")
    assert (code, printed) == (2, "")
    assert said.count("\n") == 1, said
    assert UNREAD not in said
    for word in words:
        assert word in said


NUMBERS = ("nan", "inf", "-inf", "-1", "many", "", "1e9")
OPTIONS = {
    "--scale": NUMBERS,
    "--guidance-scale": NUMBERS,
    "--reference-guidance-scale": NUMBERS,
    "--steps": (*NUMBERS, "0", "2.5", "1001"),
    "--images": (*NUMBERS, "0", "2.5"),
    "--height": (*NUMBERS, "0", "2.5", "99999999"),
    "--width": (*NUMBERS, "0", "2.5", "99999999"),
    "--seed": (*NUMBERS, "2.5", "4294967296"),
}


@pytest.mark.parametrize(("option", "value"), [(name, value) for name, many in OPTIONS.items() for value in many])
def test_an_option_out_of_range_is_refused_with_its_name_value_and_range(call, shop, tmp_path, option, value):
    outcome = call(*generate(shop, tmp_path, f"{option}={value}"))
    refused(outcome, option, f"not '{value}'" if value in ("many", "") else ", not ", "number")
    assert not (tmp_path / "out").exists()


SETTINGS = {
    "ms_diffusion": {
        "mask_threshold": ("words", "5", "-0.1", ".nan", "nan", ".inf", "true", "[1]"),
        "start_step": ("-3", "0", "soon", "2.5", ".nan", "true", "null", "1001"),
        "scale": ("-1", ".nan", ".inf", "much", "null", "1000"),
        "faithful": ("1", "maybe", "null", "2.0"),
        "clip_skip": ("50", "-1", "12", "1.5", "one", ".nan"),
        "eta": ("-0.1", "2", ".nan", "half"),
        "guidance_rescale": ("-0.1", "1.5", ".inf", "much"),
        "output_type": ("latent", "np", "pt", "jpeg", "5"),
        "denoising_end": ("-1", "2", ".nan", "late"),
        "original_size": ("5", "[1]", "[-1, 5]", "[a, b]", "[.nan, 1]"),
    },
    "easyref": {
        "lora_scale": ("-1", ".nan", ".inf", "much"),
        "limit": ("0", "-1", "2.5", "few", ".nan"),
        "fuse_lora": ("1", "maybe", "null"),
        "promptless": ("0", "maybe"),
    },
    "ezigen": {
        "in_negative": ("1", "maybe"),
        "split_ratio": ("0", "-1", "1.1", ".nan", "late"),
        "sim_threshold": ("2", "-2", ".nan", "same"),
        "iterations": ("-1", "2.5", "many", ".nan", "1001"),
    },
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, some in SETTINGS.items() for name, many in some.items() for value in many],
)
def test_a_setting_out_of_range_is_refused_before_any_model_is_read(call, shop, tmp_path, kind, name, value):
    outcome = call(*generate(shop, tmp_path, "--set", f"{name}={value}", adapter=kind))
    refused(outcome, name, ", not ")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--set", "mask_treshold=0.5"], "did you mean mask_threshold?"),
        (["--set", "clipskip=1"], "did you mean clip_skip?"),
        (["--set", "split_ratio=0.4"], "takes no split_ratio"),
        (["--set", "image_encoder=5"], "takes no image_encoder"),
        (["--set", "training=true"], "takes no training"),
        (["--set", "seed=3"], "an option of its own"),
        (["--set", "height=64"], "an option of its own"),
        (["--height", "100"], "the height is a multiple of 8, not 100: 96 is the nearest"),
        (["--width", "4"], "the width is a multiple of 8, not 4: 8 is the nearest"),
        (["--height", "16384", "--width", "16384"], "more than 100,000,000 pixels"),
        (["--kind", "ms_difusion"], "did you mean ms_diffusion?"),
        (["--kind", "mip"], "of kind ms_diffusion, not mip"),
        (["--tokenizer", "./gone"], "there is no tokenizer ./gone"),
        (["--image-encoder", "./gone"], "there is no image encoder ./gone"),
        (["--face-model", "dlibb"], "did you mean dlib"),
        (["--device", "tpu"], "there is no device tpu"),
        (["--reference", "CAT:cat:scale=nan"], "the scale is a number from 0 to 100, not nan"),
        (["--reference", "CAT:cat:scale=-1"], "the scale is a number from 0 to 100, not -1"),
        (["--reference", "CAT:cat:scale=big"], "the scale is a number from 0 to 100, not 'big'"),
        (["--reference", "CAT:cat:0,0,1,1.5"], "0 <= x1 < x2 <= 1"),
        (["--reference", "CAT:cat:0,0,1,1e999"], "0 <= x1 < x2 <= 1"),
        (["--guidance-scale", "1", "--reference-guidance-scale", "2"], "nothing is guided"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_model_is_read(call, shop, tmp_path, given, words):
    given = [one.replace("CAT", f"{shop}/cat.png") for one in given]
    refused(call(*generate(shop, tmp_path, *given)), words)


def test_values_in_range_come_as_far_as_the_models(call, shop, tmp_path):
    """Else the tests above would show nothing."""
    fine = ["--scale", "0", "--steps", "1000", "--guidance-scale", "0", "--height", "8", "--seed", "4294967295"]
    fine += [
        "--set",
        "mask_threshold=5e-1",
        "--set",
        "start_step=1",
        "--set",
        "clip_skip=11",
        "--set",
        "output_type=pil",
    ]
    code, _, error = call(*generate(shop, tmp_path, *fine))
    assert (code, UNREAD in error) == (2, True)


def test_an_edit_is_judged_before_any_model_is_read(call, shop, tmp_path):
    cat, wide = shop / "cat.png", shop / "wide.png"

    def edit(source, mask, *more, adapter="ezigen"):
        given = ["--source", source, "--mask", mask, *more]
        return call(*generate(shop, tmp_path, *given, adapter=adapter, command="edit"))

    refused(edit(cat, wide), "the mask is 12x8, the picture 8x8")
    refused(edit(shop / "gone.png", cat), "gone.png cannot be read")
    refused(edit(cat, cat), "the mask has nothing set")
    refused(edit(wide, wide, adapter="mip"), "no editing of its own")
    refused(edit(wide, wide, "--set", "iterations=-1"), "iterations is a whole number from 0 to 1000, not -1")


def test_converting_is_judged_before_any_model_is_read(call, shop, tmp_path):
    def convert(adapter, name, *more):
        return call("convert", shop / adapter, tmp_path / name, *more)

    refused(convert("mip", "x.safetensors", "--format", "diffusers"), "plain IP-Adapters alone")
    refused(convert("mip", "x.safetensors", "--format", "lora"), "only EasyRef has a LoRA")
    refused(convert("mip", "x", "--tokenizer", shop / "base"), "reads references without tokenizer")
    refused(convert("cat.png", "x", "--kind", "mipp", "--base", shop / "base"), "did you mean mip?")
    refused(convert("gone", "x"), "there is no adapter")
    refused(convert("mip", "x", "--format", "diffusers"), "must end in .safetensors")


@pytest.mark.parametrize(
    "given",
    [
        ("ui", "--port", "65536"),
        ("ui", "--port", "-1"),
        ("ui", "--scale", "nan"),
        ("evaluate", "--limit", "0"),
        ("evaluate", "--references", "-1"),
        ("evaluate", "--batch", "0"),
        ("evaluate", "--seed", "-1"),
        ("evaluate", "--guidance-scale", "inf"),
        ("evaluate", "--workers", "-1"),
        ("evaluate", "--item-timeout", "nan"),
        ("evaluate", "--item-timeout", "0"),
        ("heldout", "--samples", "0"),
        ("heldout", "--samples", "1"),
        ("heldout", "--samples", "-4"),
        ("heldout", "--samples", "all"),
        ("cache", "--variants", "0"),
        ("cache", "--batch", "0"),
        ("browse", "--port", "70000"),
    ],
)
def test_other_commands_judge_their_options_too(call, given):
    command, option, value = given
    refused(call(command, f"{option}={value}"), option, ", not ", value)


def test_no_option_of_a_command_about_models_is_a_number_without_a_range():
    commands = next(one for one in cli.build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    for name in ("generate", "edit", "evaluate", "convert", "ui", "train", "heldout", "cache"):
        for action in commands.choices[name]._actions:
            assert action.type not in (int, float), f"{name} {action.option_strings}"


def facts(pipeline=StableDiffusionXLPipeline, factor=8, layers=LAYERS, **scheduler):
    return BaseFacts(pipeline, factor, layers, {"num_train_timesteps": 1000, **scheduler})


BAD_NUMBERS = (math.nan, math.inf, -math.inf, -0.5, "1", True, [1.0], 1e9)
BAD_WHOLE = (math.nan, -1, 2.5, "3", True, [1])
REQUESTS = {
    "guidance_scale": BAD_NUMBERS,
    "reference_guidance_scale": BAD_NUMBERS,
    "num_inference_steps": (*BAD_WHOLE, 0, 1001),
    "num_images_per_prompt": (*BAD_WHOLE[:-1], 0, None, 10**9),
    "height": (*BAD_WHOLE, 0, 10**9),
    "width": (*BAD_WHOLE, 0, 10**9),
    "seed": (math.nan, -1, 2.5, "3", True, 1 << 32, [-1]),
    "prompt": (5, ["a cat", 5], [], None),
    "negative_prompt": (5, [5]),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, many in REQUESTS.items() for value in many])
def test_an_argument_of_generate_out_of_range_is_refused(name, value):
    with pytest.raises(Refused, match=name.split("_")[-1]) as refusal:
        Request(**({"prompt": "a cat"} | {name: value}))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", sorted(ranges.OPTIONS))
def test_an_option_of_a_pipeline_or_loop_out_of_range_is_refused(name):
    for value in (math.nan, -5, "words", {}, []):
        with pytest.raises(Refused, match=f"{name} is "):
            Request(prompt="a cat", options={name: value})


@pytest.mark.parametrize(
    ("base", "given", "message"),
    [
        (
            facts(),
            {"clip_skip": 50},
            "clip_skip is a whole number from 0 to 11, not 50: the text encoder has 12 layers",
        ),
        (facts(factor=16), {"height": 24}, "multiple of 16, not 24"),
        (facts(num_train_timesteps=500), {"num_inference_steps": 501}, "trained with 500 steps"),
        (facts(StableDiffusionXLImg2ImgPipeline), {"strength": 0.1, "num_inference_steps": 9}, "from 10"),
        (facts(StableDiffusionXLImg2ImgPipeline), {"num_inference_steps": 3}, "less than one step"),  # its own is 0.3
        (facts(StableDiffusionXLImg2ImgPipeline), {"strength": 0.01}, "less than one step"),  # its own steps are 50
        (facts(rescale_betas_zero_snr=True), {}, "give v_prediction"),
        (facts(rescale_betas_zero_snr=True, prediction_type="epsilon"), {}, "give v_prediction"),
    ],
)
def test_what_this_base_cannot_do_is_refused(base, given, message):
    with pytest.raises(Refused, match=message):
        base.check(given)


def test_what_this_base_can_do_is_not_refused():
    facts(rescale_betas_zero_snr=True, prediction_type="v_prediction").check({"height": 1024, "clip_skip": 11})
    image_to_image = facts(StableDiffusionXLImg2ImgPipeline)
    for fine in ({}, {"strength": 0.1, "num_inference_steps": 10}, {"strength": 1.0, "num_inference_steps": 1}):
        image_to_image.check(fine)


PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(({"scale": value}, "the scale of") for value in (math.nan, math.inf, -1.0, "1", None, True, 1e9)),
        *(({"phrase": value}, "has the phrase") for value in (5, ["cat"], b"cat")),
        *(
            ({"boxes": value}, "boxes?")
            for value in (5, "0011", [], [()], [0, 0, 1], [0, 0, 1, math.nan], [0, 0, 1, math.inf], [0, 0, 0, 1])
        ),
        *(({"boxes": value}, "boxes?") for value in ([-0.1, 0, 1, 1], [0, 0, 9, 9], [0, 0, True, 1], ["0", 0, 1, 1])),
        *(({"images": value}, "not a|no image|shape") for value in (5, None, [], [5], PIXELS[0], PIXELS.astype(float))),
        *(({"masks": value}, "mask|picture") for value in (5, [], PIXELS[..., 0], np.full((2, 2), math.nan))),
        *(({"crop": value}, "crop") for value in ("head", 5, True, "")),
    ],
)
def test_a_reference_out_of_range_is_refused(given, message):
    with pytest.raises(Refused, match=message) as refusal:
        Reference(**({"images": PIXELS} | given))
    assert "\n" not in str(refusal.value)


def test_boxes_may_be_arrays_and_numbers_of_any_library():
    assert Reference(PIXELS, boxes=np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)).boxes[1] == (0.5, 0, 1, 1)
    assert Reference(PIXELS, boxes=np.array([0, 0, 0.5, 1]), scale=np.float32(0.5)).scale == 0.5


@pytest.mark.parametrize("kind", ["ip_adapter", "mip", "ms_diffusion", "easyref", "ezigen"])
def test_an_adapter_that_was_set_out_of_range_is_refused_by_whatever_runs_it(kind):
    fine = {"faithful": False, "scale": 1.0, "mask_threshold": None, "start_step": 5, "lora_scale": 1.0}
    fine |= {"fuse_lora": True, "promptless": False, "limit": None, "in_negative": True}
    check_adapter(SimpleNamespace(kind=kind, **fine))
    for name in ranges.of_adapter(kind):
        for value in (math.nan, -3, "words", 5.5e9):
            with pytest.raises(Refused, match=f"the {kind} adapter's {name} is "):
                check_adapter(SimpleNamespace(kind=kind, **(fine | {name: value})))


@pytest.mark.parametrize(
    ("field", "value"),
    [("height", math.nan), ("width", 0.5), ("steps", -1.0), ("images", None), ("seed", -2), ("guidance", math.inf)],
)
def test_a_field_of_the_page_is_judged_like_an_argument(field, value):
    pytest.importorskip("gradio")
    from refloom.inference.page import Studio

    class Pipeline:
        """As far as the page goes: it asks for a `Request`."""

        adapter = SimpleNamespace(scale=1.0)

        def generate(self, prompt, negative, **arguments):
            Request(prompt=prompt, negative_prompt=negative, **arguments)
            raise AssertionError("nothing was refused")

    fine = {"prompt": "a cat", "negative": "", "height": 64.0, "width": 64, "images": 1.0, "steps": 2, "guidance": 5}
    fine |= {"reference_guidance": 0, "strength": 1.0, "seed": None}
    with pytest.raises(AssertionError, match="nothing was refused"):
        Studio(Pipeline(), {}).generate(fine, None)
    with pytest.raises(Refused, match=", not "):
        Studio(Pipeline(), {}).generate(fine | {field: value}, None)
