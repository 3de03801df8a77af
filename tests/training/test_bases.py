"""Tiny bases: the same loop trains them, they resume to the same bits, and what they save loads where it is wanted."""

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from traindata import sources, write_videos

from refloom.inference.adapters.reference import Reference
from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.loading import load_base, load_image_encoder
from refloom.schemas.errors import Refused
from refloom.training.data.loader import Loader
from refloom.training.methods.known import TASKS
from refloom.training.recipes import book
from refloom.training.recipes.recipe import Recipe
from refloom.training.run import checkpoint
from refloom.training.run import log as run_log
from refloom.training.run.latents import posterior_of
from refloom.training.run.loop import train
from refloom.training.run.step import pixels_of
from refloom.training.tinymodels.clip import contrast
from refloom.training.tinymodels.pipeline import spread
from refloom.training.views.base import Base

NAMES = ("clip", "qwen2vl", "sd", "sdxl")
SMALL = ("batch.samples=4", "batch.micro=4", "log_every=1", "checkpoints.every=1", "checkpoints.keep_last=9")


def recipe(name: str, url: str, *more: str) -> Recipe:
    return book.load(f"base/tiny/{name}", [sources(url), *SMALL, *more])


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    found = [(file.parent.name, tensorfile.read_safetensors(file)) for file in files]
    return {f"{part}.{key}": tensor for part, many in found for key, tensor in many.items()}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_videos(tmp_path_factory.mktemp("data") / "samples", units=1, rows=4)


@pytest.fixture(scope="module")
def trained(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two steps."""
    root = tmp_path_factory.mktemp("bases")
    for name in NAMES:
        train(recipe(name, url, "steps=2"), root / name)
    return {name: root / name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_base_is_trained_and_resumes_to_the_same_bits(
    name: str, url: str, trained: dict[str, Path], tmp_path: Path
) -> None:
    one, run = recipe(name, url, "steps=2"), Path(shutil.copytree(trained[name], tmp_path / "run"))
    first, last = (saved.path for saved in checkpoint.complete(run))
    before, after = tensors(first / checkpoint.ADAPTER), tensors(last / checkpoint.ADAPTER)
    still = {key for key in after if torch.equal(before[key], after[key])}
    trained = sum(len(list(part.parameters())) for part in [TASKS[one.method].shapes(one)])
    assert len(still) < 0.1 * trained, sorted(still)  # some biases have no gradient: what they add is normed away
    losses = [line["loss"] for line in run_log.read(run)]
    train(one, run, resume=str(first))
    assert [line["loss"] for line in run_log.read(run)] == losses
    again = tensors(checkpoint.complete(run)[-1].path / checkpoint.ADAPTER)
    assert again.keys() == after.keys()
    assert all(torch.equal(again[key], after[key]) for key in after)


def test_what_is_saved_is_what_recipes_of_adapters_name(url: str, trained: dict[str, Path], tmp_path: Path) -> None:
    saved = {name: run / checkpoint.ADAPTER for name, run in trained.items()}
    for name, models in {
        "ip_adapter": {"base": "sdxl", "image_encoder": "clip"},
        "ezigen": {"base": "sd"},
        "easyref/3-multi": {"base": "sdxl", "language_model": "qwen2vl"},
    }.items():
        named = [f"models.{role}={saved[model]}" for role, model in models.items()]
        small = ("batch.samples=2", "batch.micro=1", "steps=1")
        train(book.load(f"tiny/{name}", [sources(url), *small, *named]), tmp_path / "adapters" / name)
    pipe = load_base(saved["sdxl"])
    images = pipe("a cup", height=64, width=64, num_inference_steps=1, output_type="np").images
    assert images.shape == (1, 64, 64, 3)
    assert load_image_encoder(saved["clip"]).side == 64


@pytest.mark.parametrize("setting", ["models.base=x", "models.image_encoder=x", "models.vae=x"])
def test_a_base_is_told_of_no_other_model(setting: str, url: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"leave out {setting.partition('=')[0]}"):
        train(recipe("clip", url, setting), tmp_path / "run")


def test_a_base_goes_on_from_its_own_kind_alone(url: str, trained: dict[str, Path], tmp_path: Path) -> None:
    clip = trained["clip"] / checkpoint.ADAPTER
    with pytest.raises(Refused, match="has no model_index"):
        train(recipe("sd", url, f"models.start={clip}"), tmp_path / "sd")
    with pytest.raises(Refused, match="other sizes than the recipe's"):
        train(recipe("clip", url, f"models.start={clip}", "adapter.projection=32"), tmp_path / "other")


def test_one_of_four_pictures_teaches_the_vae_and_all_teach_the_unet(url: str) -> None:
    one = recipe("sdxl", url)
    with Loader(one.data.sources, one.view, one.loading) as loader:
        examples = next(loader).examples
    base = TASKS[one.method]
    with base.ready(one, torch.device("cpu")) as trained:
        step, found = base.step(trained, one), []
        for shown in (examples[-1], examples[0]):  # in place of one that does not teach the VAE
            trained.zero_grad()
            with ExitStack() as conditioned:
                step([*examples[:3], replace(shown, position=3)], conditioned).backward()
            found.append([part.conv_in.weight.grad.clone() for part in (trained.vae.encoder, trained.unet)])
    (vae, unet), (other_vae, other_unet) = found
    assert vae.abs().max() > 0
    torch.testing.assert_close(vae, other_vae)
    assert not torch.allclose(unet, other_unet, rtol=1e-3)


def vae_of(name: str, url: str, *more: str) -> Recipe:
    """A recipe of toys, small, whose VAE is that of base/tiny."""
    small = ("adapter.vae_channels=[8, 16, 16]", "adapter.unet_channels=[8, 16, 16]", "ema=null")
    return book.load(f"base/toys/{name}", [sources(url), *SMALL, *small, *more])


def test_a_vae_is_trained_by_itself_and_a_base_on_it_leaves_it_as_it_is(url: str, tmp_path: Path) -> None:
    alone = vae_of("vae", url, "steps=1")
    made = train(alone, tmp_path / "vae")
    with TASKS["pipeline"].ready(alone, torch.device("cpu")) as new:
        unet = tensorfile.read_safetensors(made / "unet" / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(tensor, unet[name]) for name, tensor in new.unet.state_dict().items())
    kept = tensorfile.read_safetensors(made / "vae" / "diffusion_pytorch_model.safetensors")
    one = vae_of("sdxl", url, "steps=1", f"models.vae={made / 'vae'}")
    based = train(one, tmp_path / "sdxl")
    after = tensorfile.read_safetensors(based / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(kept[name], after[name]) for name in kept)
    with pytest.raises(Refused, match=r"set models\.vae to"):
        train(vae_of("sdxl", url), tmp_path / "none")
    with pytest.raises(Refused, match=r"of other sizes than the recipe's: set adapter\.vae_channels"):
        train(replace(one, adapter=replace(one.adapter, vae_channels=(8, 8, 8))), tmp_path / "other")


def test_a_vae_that_is_not_trained_reads_each_picture_once(url: str, tmp_path: Path) -> None:
    made = train(vae_of("vae", url, "steps=1"), tmp_path / "vae")
    one = vae_of("sdxl", url, f"models.vae={made / 'vae'}")
    with Loader(one.data.sources, one.view, one.loading) as loader:
        examples = next(loader).examples
    base = TASKS[one.method]
    with base.ready(one, torch.device("cpu")) as trained:
        trained.vae.requires_grad_(False)
        step, read = base.step(trained, one), []
        trained.vae.encoder.register_forward_hook(lambda module, given, found: read.append(len(given[0])))
        losses = [step(examples, ExitStack()).item() for _ in range(2)]
        same = {example.target.tobytes() for example in examples}
        assert read == [len(same)]
        assert losses[0] == losses[1]
        twice = step._posteriors([examples[0], examples[0]])
        torch.testing.assert_close(
            twice[0].float(), posterior_of(trained.pipe, pixels_of(examples[:1]))[0], rtol=2e-3, atol=2e-3
        )


def test_two_looks_at_one_subject_are_of_two_pictures(url: str) -> None:
    one = book.load("base/toys/clip", [sources(url), *SMALL])
    with Loader(one.data.sources, one.view, one.loading) as loader:
        examples = next(loader).examples
    for example in examples:
        here, there = example.references[0].images
        assert here.shape[2] == there.shape[2] == 3
        assert here.shape != there.shape or (here != there).any()
    base = TASKS[one.method]
    with base.ready(one, torch.device("cpu")) as trained:
        step = base.step(trained, one)
        right = step(examples, ExitStack()).item()
        blank = [replace(example, references=(Reference((example.target, example.target)),)) for example in examples]
        assert step(blank, ExitStack()).item() != pytest.approx(right)


def test_a_run_that_was_begun_before_there_were_looks_goes_on() -> None:
    without, with_looks = Base().settings(), Base(twice=True).settings()
    assert set(without) == {"view", "flip", "random_crop", "dropout"}
    assert set(with_looks) - set(without) == {"twice", "look_px"}


def test_partners_are_found_by_their_direction() -> None:
    one = torch.eye(4, 8)
    assert float(contrast(one, 3 * one, torch.tensor(50.0))) < 1e-3
    assert float(contrast(one, one.roll(1, 0), torch.tensor(50.0))) > 10
    assert float(contrast(one, torch.ones(4, 8), torch.tensor(50.0))) == pytest.approx(np.log(4), rel=1e-3)


def test_latents_are_pushed_to_a_variance_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    noise, logvar = torch.randn(64, 4, 8, 8, generator=generator), torch.full((64, 4, 8, 8), 2 * np.log(0.05))
    assert float(spread(noise, logvar)) < 1e-3
    assert float(spread(2 * noise, logvar)) == pytest.approx(1, rel=0.05)
    assert float(spread(noise + 3, logvar)) == pytest.approx(9, rel=0.05)
    assert float(spread(noise, logvar + 2)) == pytest.approx(1, rel=0.05)
