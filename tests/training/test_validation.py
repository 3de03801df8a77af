"""Pictures from fixed references while a run goes on, and the run's page: made as inference makes them, and without a
trace in what is trained."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import ip_adapter
from PIL import Image
from traindata import CUP, RECIPES, recipe, write_videos

from refloom.inference.adapters.reference import Reference
from refloom.inference.checkpoints import weights
from refloom.inference.pipeline import ReferencePipeline
from refloom.schemas.errors import Refused
from refloom.training.methods import method
from refloom.training.run import checkpoint
from refloom.training.run import log as run_log
from refloom.training.run.loop import train
from refloom.training.watch import validation

FAST = ("validation.steps=2", "validation.guidance_scale=3")
RICH = ("steps=4", "log_every=2", "ema=0.5", "optimizer.lr=1e-2", "trackers=[tensorboard]", "checkpoints.every=3")
SHOWN = ("validation.every=2", "validation.samples=2", "validation.seed=5")


def prompts(models: Path) -> tuple[str, ...]:
    one = {"prompt": "a cup", "references": [{"images": [str(models / CUP)], "phrase": "cup"}]}
    return (f"validation.prompts={json.dumps([one])}", "validation.side_px=64")


def made(run: Path) -> dict[int, list[bytes]]:
    return {step: [file.read_bytes() for file in sorted(folder.iterdir())] for step, folder in validation.steps(run)}


@pytest.fixture(scope="module")
def validated(models: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("validated") / "run"
    train(recipe("mip/sdxl", models, url, *RICH, *FAST, *SHOWN, *prompts(models)), run)
    return run


def test_validation_leaves_no_trace_in_what_is_trained(models: Path, url: str, validated: Path, tmp_path: Path) -> None:
    train(recipe("mip/sdxl", models, url, *RICH), tmp_path / "run")
    assert not (tmp_path / "run" / validation.FOLDER).exists()
    for ours, theirs in zip(checkpoint.complete(validated), checkpoint.complete(tmp_path / "run"), strict=True):
        for file in (f"{checkpoint.ADAPTER}/{weights.WEIGHTS_FILE}", checkpoint.OPTIMIZER, checkpoint.AVERAGE):
            assert (ours.path / file).read_bytes() == (theirs.path / file).read_bytes(), file
    for ours, theirs in zip(run_log.read(validated), run_log.read(tmp_path / "run"), strict=True):
        assert ours["loss"] == theirs["loss"]


def test_pictures_are_those_of_the_saved_adapter_and_change_with_it(models: Path, validated: Path) -> None:
    pictures = made(validated)
    assert list(pictures) == [0, 2, 4]
    assert all(len(many) == 3 for many in pictures.values())
    assert len({many[0] for many in pictures.values()}) == 3, "training makes a difference"
    pipeline = ReferencePipeline.from_pretrained(
        models / "sdxl", validated / checkpoint.ADAPTER, image_encoder=models / "clip"
    )
    pipeline.set_references([Reference(models / CUP, "cup")])
    options = {"height": 64, "width": 64, "num_inference_steps": 2, "guidance_scale": 3.0, "seed": 5}
    again = np.asarray(pipeline.generate("a cup", **options).images[0])
    last = validated / validation.FOLDER / "step-000000004" / "0.png"
    assert np.array_equal(np.asarray(Image.open(last)), again)  # of the averaged weights, which are what is exported
    assert list(validated.rglob("events.out.tfevents.*"))


def test_cases_are_of_the_validation_split_and_written_down(validated: Path) -> None:
    folder = validated / validation.FOLDER
    cases = json.loads((folder / validation.CASES).read_text())
    assert [case["seed"] for case in cases] == [5, 6, 7]
    held_out = [case["sample_id"] for case in cases[1:]]
    assert cases[0]["sample_id"] is None
    assert len(set(held_out)) == 2
    assert set(held_out) <= {f"video/test-{number}/0" for number in range(12, 18)}
    for case in cases:
        files = [image for one in case["references"] for image in one["images"]]
        files += [case["target"]] if case["target"] else []
        assert files
        assert all(Image.open(folder / file).size[0] > 0 for file in files)
    assert [one["phrase"] for one in cases[0]["references"]] == ["cup"]


def test_the_tracker_has_the_pictures(validated: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[int]] = {}
    for file in validated.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file), size_guidance={"images": 0})
        events.Reload()
        for name in events.Tags()["images"]:
            found.setdefault(name, []).extend(event.step for event in events.Images(name))
    assert found == {f"validation/{at}": [0, 2, 4] for at in range(3)}


@pytest.mark.parametrize("name", RECIPES)
def test_every_method_makes_the_same_pictures_of_the_same_weights(
    name: str, models: Path, url: str, tmp_path: Path
) -> None:
    more = ("steps=2", "log_every=1", "optimizer.lr=0", "validation.every=2", "validation.samples=1")
    one = recipe(name, models, url, *more, *FAST)
    states = []
    train(one, tmp_path / "run", show=lambda _: states.append(torch.random.get_rng_state()))
    pictures = made(tmp_path / "run")
    assert list(pictures) == [0, 2]
    assert pictures[0] == pictures[2]
    assert torch.equal(*states)
    shown = np.asarray(Image.open(tmp_path / "run" / validation.FOLDER / "step-000000000" / "0.png"))
    (case,) = validation.cases(one)
    assert shown.shape == (*case.size, 3)
    assert shown.std() > 1


def test_in_half_precision_stock_pipelines_get_a_vae_that_fits_and_training_keeps_its_own(
    models: Path, url: str, tmp_path: Path
) -> None:
    more = ("steps=2", "log_every=1", "precision=bf16", "optimizer.lr=1e-3", "checkpoints.every=1")
    train(recipe("ip_adapter", models, url, *more, *FAST, "validation.every=1", *prompts(models)), tmp_path / "run")
    assert len(made(tmp_path / "run")) == 3
    train(recipe("ip_adapter", models, url, *more), tmp_path / "without")
    ours, theirs = (checkpoint.complete(tmp_path / name)[-1].path for name in ("run", "without"))
    file = f"{checkpoint.ADAPTER}/{weights.WEIGHTS_FILE}"
    assert (ours / file).read_bytes() == (theirs / file).read_bytes()


def test_adapter_and_pipeline_are_as_before_even_if_a_picture_cannot_be_made() -> None:
    adapter = ip_adapter(tiny.sdxl_pipe())
    adapter.attach(tiny.sdxl_pipe()).train()
    before = dict(vars(adapter.pipe))
    with pytest.raises(ZeroDivisionError), validation.as_in_inference(adapter):
        assert not adapter.training
        assert not torch.is_grad_enabled()
        adapter.pipe.scheduler.set_timesteps(3)
        adapter.pipe._num_timesteps = 3
        raise ZeroDivisionError
    assert all(module.training for module in adapter.modules())
    assert vars(adapter.pipe) == before
    assert adapter.pipe.scheduler.num_inference_steps is None


WRONG = {
    "validation.every=1": "nothing to make pictures of",
    "validation.samples=0 validation.every=0": "validation.every is a whole number from 1",
    "validation.every=1 validation.samples=3 data.sources=TRAIN": "no samples of split 'validation'",
    "validation.every=1 validation.prompts=[{prompt: x, references: [{images: [nowhere.jpg]}]}]": "nowhere.jpg",
    "validation.every=1 validation.prompts=[{prompt: x, references: []}]": "has no references",
    "validation.evry=1": "did you mean validation.every",
}


@pytest.mark.parametrize("setting", WRONG)
def test_what_cannot_be_validated_is_refused_before_any_model_is_loaded(
    setting: str, models: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method, "load_frozen", lambda *_: pytest.fail("a model was loaded"))
    train_only = write_videos(tmp_path / "train", 1) if "TRAIN" in setting else ""
    overrides = setting.replace("TRAIN", f"[{{url: '{train_only}'}}]").replace(" data.", "\ndata.")
    overrides = overrides.replace(" validation.", "\nvalidation.")
    with pytest.raises(Refused, match=WRONG[setting]):
        train(recipe("mip/sdxl", models, url, *overrides.splitlines()), tmp_path / "run")


def test_a_resumed_run_drops_the_pictures_of_steps_it_does_again(
    models: Path, url: str, validated: Path, tmp_path: Path
) -> None:
    one, run = recipe("mip/sdxl", models, url, *RICH, *FAST, *SHOWN, *prompts(models)), tmp_path / "run"
    shutil.copytree(validated, run)
    late = run / validation.FOLDER / "step-000000004" / "0.png"
    late.write_bytes(b"of weights that are gone")
    checkpoint_4 = checkpoint.complete(run)[-1]
    assert checkpoint_4.step == 4
    (checkpoint_4.path / "complete.json").unlink()
    train(one, run, resume="latest")
    assert made(run) == made(validated)
