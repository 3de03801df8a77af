"""What of an adapter is not trained is held in the recipe's precision, and saved whole; what is trained is in fp32."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from traindata import recipe, write_models, write_videos

from refloom.inference.adapters import kinds
from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints import weights
from refloom.training.methods import method
from refloom.training.methods.known import METHODS
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint
from refloom.training.run import log as run_log
from refloom.training.run.loop import train

EPS = torch.finfo(torch.bfloat16).eps
MORE = ("steps=2", "log_every=1", "checkpoints.every=1", "optimizer.lr=1e-3")
Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("work")
    write_models(folder)
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(folder / "qwen")
    model.to(torch.bfloat16).float().save_pretrained(folder / "rounded")  # as the published weights are
    transformers.AutoTokenizer.from_pretrained(folder / "qwen").save_pretrained(folder / "rounded")
    url = write_videos(folder / "samples")
    return lambda name, *more: recipe(
        name, folder, url, *MORE, *(one.replace("ROUNDED", str(folder / "rounded")) for one in more)
    )


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in run_log.read(run)]


@pytest.mark.parametrize(("precision", "held"), [("bf16", torch.bfloat16), ("no", torch.float32)])
def test_frozen_parts_are_in_the_recipes_precision_and_trained_ones_in_fp32(
    precision: str, held: torch.dtype, make: Make
) -> None:
    one = make("easyref/1-alignment", f"precision='{precision}'")
    with METHODS[one.method].ready(one, torch.device("cpu")) as adapter:
        frozen = {parameter.dtype for parameter in adapter.parameters() if not parameter.requires_grad}
        trained = {parameter.dtype for parameter in adapter.parameters() if parameter.requires_grad}
        small = sum(one.nbytes for one in adapter.parameters() if not one.requires_grad)
        numbers = sum(one.numel() for one in adapter.parameters() if not one.requires_grad)
    assert (frozen, trained) == ({held}, {torch.float32})
    assert small == numbers * held.itemsize


def test_the_loss_is_that_of_frozen_parts_in_fp32_within_the_rounding_of_their_weights(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = ("precision=bf16", "models.language_model=ROUNDED")
    for name, more in (("any", ("precision=bf16",)), ("rounded", rounded)):
        train(make("easyref/1-alignment", *more, "steps=1"), tmp_path / name)
    monkeypatch.setattr(method, "hold_frozen", lambda *_: None)
    for name, more in (("any", ("precision=bf16",)), ("rounded", rounded)):
        train(make("easyref/1-alignment", *more, "steps=1"), tmp_path / f"{name}-whole")
    assert losses(tmp_path / "any") == pytest.approx(losses(tmp_path / "any-whole"), rel=EPS)
    # what is in bf16 already loses nothing: autocast reads the same numbers, and what layers add up is in fp32
    assert losses(tmp_path / "rounded") == losses(tmp_path / "rounded-whole")


def test_checkpoints_and_adapters_are_the_same_kind_of_files_and_lose_nothing(make: Make, tmp_path: Path) -> None:
    for precision in ("bf16", "no"):
        one = make("easyref/1-alignment", f"precision='{precision}'", "optimizer.lr=0", "steps=1")
        adapter = train(one, tmp_path / precision)
        assert {path.name for path in adapter.iterdir()} == {"adapter.safetensors", "config.json", "tokenizer"}
    half, whole = (weights.read_folder(tmp_path / name / "adapter") for name in ("bf16", "no"))
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert half.keys() == whole.keys()
    frozen = tensorfile.safetensors_shapes(tmp_path / "no" / weights.FROZEN_FILE)
    assert len(frozen) > 20
    assert all(torch.equal(half[name], whole[name]) for name in frozen)  # not as bf16 would have rounded them
    assert any(not torch.equal(half[name].bfloat16().float(), half[name]) for name in frozen)
    for name in ("bf16", "no"):
        for saved in checkpoint.complete(tmp_path / name):
            kept = saved.path / checkpoint.ADAPTER / weights.FROZEN_FILE
            assert kept.samefile(tmp_path / name / weights.FROZEN_FILE)
            assert {value.dtype for value in weights.read_folder(saved.path / checkpoint.ADAPTER).values()} == {
                torch.float32
            }
    assert kinds.from_pretrained(tmp_path / "bf16" / "adapter").kind == "easyref"


def test_a_run_in_half_precision_goes_on_to_the_same_bits_and_makes_pictures(make: Make, tmp_path: Path) -> None:
    validated = ("validation.every=2", "validation.steps=1", "validation.samples=0", "validation.side_px=64")
    prompts = 'validation.prompts=[{"prompt": "a cup", "references": [{"images": ["PICTURE"]}]}]'
    Image.new("RGB", (48, 48), (200, 30, 30)).save(tmp_path / "red.png")
    one = make(
        "easyref/1-alignment", "precision=bf16", *validated, prompts.replace("PICTURE", str(tmp_path / "red.png"))
    )
    train(one, tmp_path / "run")
    train(one, tmp_path / "again", resume=str(checkpoint.complete(tmp_path / "run")[0].path))
    assert losses(tmp_path / "again") == losses(tmp_path / "run")[1:]
    ours, theirs = (weights.read_folder(tmp_path / name / "adapter") for name in ("run", "again"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (tmp_path / "run" / "validation" / "step-000000002" / "0.png").is_file()


@pytest.mark.parametrize("name", ["mip/sdxl", "mip/sdxl_plus"])
def test_other_recipes_with_frozen_parts_train_in_bf16_as_with_frozen_parts_in_fp32(
    name: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(name, "precision=bf16", "steps=1")
    train(one, tmp_path / "half")
    monkeypatch.setattr(method, "hold_frozen", lambda *_: None)
    train(one, tmp_path / "whole")
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "whole"), rel=EPS)
