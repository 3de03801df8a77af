"""What can be known of words, references and a Hub's configs is judged before any weight is read or fetched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from refloom.inference import assembly
from refloom.inference.adapters import phrases
from refloom.inference.adapters.kinds import METHODS, adapter_class
from refloom.inference.adapters.reference import Reference
from refloom.inference.checkpoints import hub
from refloom.schemas.errors import Refused
from refloom.training.methods.known import TASKS
from refloom.training.recipes import book

BASE = {
    "model_index.json": {"_class_name": "StableDiffusionXLPipeline"},
    "vae/config.json": {"block_out_channels": [1, 2, 3, 4]},
    "text_encoder/config.json": {"num_hidden_layers": 12},
    "text_encoder_2/config.json": {"num_hidden_layers": 32},
    "scheduler/scheduler_config.json": {"num_train_timesteps": 1000, "prediction_type": "epsilon"},
}
UNREAD = ("cannot be loaded", "holds no", "stopped (")
"""What is said once a weight is asked for."""


def write(folder, files):
    for name, values in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(values))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A base and adapters of configs alone, in folders and in the cache of a Hub that cannot be reached."""
    root = tmp_path_factory.mktemp("shop")
    write(root / "base", BASE)
    for kind in METHODS:
        config = {"config.json": {"kind": kind, "format": 1}}
        write(root / kind, config)
        (root / kind / "adapter.safetensors").touch()
        write(root / f"hub/models--me--{kind}/snapshots/1", config)
    write(root / "hub/models--me--base/snapshots/1", BASE)
    for folder in (root / "hub").iterdir():
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("1")
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(root / "cat.png")
    Image.fromarray(np.full((1, 201, 3), 9, np.uint8)).save(root / "thin.png")
    return root


@pytest.fixture
def offline(shop, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(shop / "hub"))


@pytest.fixture
def generate(call, shop, tmp_path):
    def run(*more, adapter, base=None, references=("cat.png:cat",), prompt="a cat"):
        at = str(shop / adapter) if "/" not in adapter else adapter
        line = ["generate", "--base", base or shop / "base", "--adapter", at, "--device", "cpu", "--prompt", prompt]
        given = [part for one in references for part in ("--reference", f"{shop}/{one}")]
        return call(*line, "--out", tmp_path / "out", *given, *more)

    return run


def judged(outcome, words):
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert words in outcome.err
    assert not any(said in outcome.err for said in UNREAD)


AUTO = ("--set", "mask_threshold=0.5")


@pytest.mark.parametrize(
    ("adapter", "references", "prompt", "more", "words"),
    [
        ("ms_diffusion", ["cat.png:dog"], "a cat", AUTO, "auto layout looks for 'dog'"),
        ("ms_diffusion", ["cat.png:cat", "cat.png:cat"], "a cat", AUTO, "as often as there are references"),
        ("ms_diffusion", ["cat.png:hot dog", "cat.png:dog"], "a hot dog", AUTO, "looks for 'dog'"),
        ("ms_diffusion", ["cat.png"], "a cat", (), "give each reference one"),
        ("mip", ["cat.png:cat", "cat.png"], "a cat", (), "give each one"),
        ("mip", ["cat.png:..."], "a cat", (), "names nothing"),
        ("easyref", ["cat.png:cat:scale=0"], "a cat", (), "all references have scale 0"),
        ("easyref", ["thin.png:cat"], "a cat", (), "thinner than 1 : 200"),
    ],
)
def test_references_are_judged_before_any_weight_is_read(generate, adapter, references, prompt, more, words):
    judged(generate(*more, adapter=adapter, references=references, prompt=prompt), words)


@pytest.mark.parametrize(
    ("references", "prompt", "more"),
    [
        (["cat.png:dog"], "a cat", ()),
        (["cat.png:dog"], "a cat", (*AUTO, "--set", "faithful=true")),
        (["cat.png:cat", "cat.png:cat"], "two cats", AUTO),
        (["cat.png:teddy bear"], "İ saw teddy bears", AUTO),
    ],
)
def test_references_that_the_method_takes_come_as_far_as_the_weights(generate, references, prompt, more):
    outcome = generate(*more, adapter="ms_diffusion", references=references, prompt=prompt)
    assert any(said in outcome.err for said in UNREAD), outcome.err


def test_every_prompt_is_looked_through(call, shop, tmp_path):
    line = ["generate", "--base", shop / "base", "--adapter", shop / "ms_diffusion", "--device", "cpu", *AUTO]
    line += ["--prompt", "a cat", "--prompt", "a dog", "--reference", f"{shop}/cat.png:cat", "--out", tmp_path / "out"]
    judged(call(*line), "the prompt 'a dog'")


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_a_reference_with_a_phrase_of_the_prompt_is_fine_with_every_method(kind):
    fine = [Reference(np.zeros((8, 8, 3), np.uint8), "cat")]
    adapter_class(kind).judge(fine, ["a cat"], {})


@pytest.mark.parametrize(
    ("prompt", "named"), [("a dog and a dog", ["dog", "dog"]), ("狗和猫", ["猫"]), ("two teddy bears", ["teddy bear"])]
)
def test_words_are_found_without_a_tokenizer_where_they_are_found_with_one(prompt, named):
    assert all(phrases.places(prompt, named))
    assert phrases.places(prompt, [*named, "horse"])[-1] is None


HUB = [
    (("--set", "mask_threshold=5"), "mask_threshold is"),
    (("--set", "split_ratio=0.4"), "takes no split_ratio"),
    (("--set", "clip_skip=12"), "the text encoder has 12 layers"),
    (("--height", "100"), "the height is a multiple of 8, not 100"),
    (("--kind", "mip"), "of kind ms_diffusion, not mip"),
    (("--tokenizer", "me/base"), "reads references without tokenizer"),
]


@pytest.mark.parametrize(("more", "words"), HUB)
@pytest.mark.parametrize(("base", "adapter"), [("me/base", "me/ms_diffusion"), (None, "me/ms_diffusion")])
def test_values_for_models_of_a_hub_are_judged_by_its_configs(offline, generate, more, words, base, adapter):
    judged(generate(*more, adapter=adapter, base=base), words)


def test_values_in_range_come_as_far_as_the_weights_of_a_hub(offline, generate):
    outcome = generate(adapter="me/ms_diffusion", base="me/base")
    assert any(said in outcome.err for said in UNREAD), outcome.err


def test_ranges_that_hold_for_all_are_judged_where_no_config_can_be_read(shop, tmp_path):
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text("{")
    made = assembly.Assembly(base=str(unknown), adapter=str(unknown), device="cpu")
    with pytest.raises(Refused, match="guidance_scale is"):
        made.look_ahead(arguments={"guidance_scale": float("nan")})


def test_a_conversion_from_a_hub_is_judged_by_its_config(offline, call, tmp_path):
    judged(call("convert", "me/mip", tmp_path / "x.safetensors", "--format", "diffusers"), "plain IP-Adapters alone")


@pytest.mark.parametrize(
    ("file", "change", "setting", "words"),
    [
        ("vae/config.json", {"block_out_channels": [1] * 5}, "data.side_px=72", "a multiple of 16, not 72"),
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True},
            "objective.prediction=epsilon",
            "give v_prediction",
        ),
    ],
)
def test_a_recipe_with_a_base_of_a_hub_is_judged_by_its_configs(
    shop, tmp_path, monkeypatch, file, change, setting, words
):
    cache = Path(shutil.copytree(shop / "hub", tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    write(cache / "models--me--base/snapshots/1", {file: BASE[file] | change})
    recipe = book.load("ip_adapter", ["models.base=me/base", "models.image_encoder=me/clip", setting])
    with pytest.raises(Refused, match=words):
        TASKS[recipe.method].check(recipe)


def test_the_configs_of_a_withdrawn_base_are_asked_for_where_they_are_now(monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "fetch", lambda name, patterns: asked.append((name, *patterns)) or "/nowhere")
    hub.configs(hub.locate("runwayml/stable-diffusion-v1-5", "base model"))
    (found,) = asked
    assert found[0] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert all(pattern.endswith(".json") for pattern in found[1:])
