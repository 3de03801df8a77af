"""Training: a run resumes to the same bits, stops when asked, and loads for inference; what does not fit is refused."""

import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from traindata import recipe

from refloom.inference.adapters.reference import Reference
from refloom.inference.checkpoints import weights
from refloom.inference.pipeline import ReferencePipeline
from refloom.schemas.errors import JobStopped, Refused
from refloom.training.methods import method
from refloom.training.run import checkpoint
from refloom.training.run import log as run_log
from refloom.training.run.loop import train
from refloom.training.run.objective import Diffusion
from refloom.training.run.strategy import Strategy

RICH = (
    "steps=4",
    "log_every=1",
    "checkpoints.every=3",
    "ema=0.9",
    "objective.noise_offset=0.05",
    "objective.min_snr_gamma=5",
    "optimizer.schedule=cosine",
    "optimizer.warmup_steps=1",
    "optimizer.lr=1e-3",
    "view.dropout={text: 0.2, image: 0.2, both: 0.2}",
    "trackers=[tensorboard]",
)
"""All that has a state, or could have."""


def tensors(adapter: Path) -> dict[str, torch.Tensor]:
    return weights.read_folder(adapter)


@pytest.fixture(scope="module")
def straight(models: Path, url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that nothing disturbs."""
    run = tmp_path_factory.mktemp("straight") / "run"
    train(recipe("mip/sdxl", models, url, *RICH), run)
    return run


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in run_log.read(run)]


def test_a_run_that_is_asked_to_stop_saves_and_goes_on_to_the_same_bits(
    models: Path, url: str, straight: Path, tmp_path: Path
) -> None:
    one, run = recipe("mip/sdxl", models, url, *RICH), tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)

    def ask(line: dict[str, object]) -> None:
        if line["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(JobStopped, match="after step 2 as asked"):
        train(one, run, show=ask)
    assert signal.getsignal(signal.SIGTERM) == before
    assert [saved.step for saved in checkpoint.complete(run)] == [2]
    with pytest.raises(Refused, match="--resume latest"):
        train(one, run)
    train(one, run, resume="latest")
    assert losses(run) == losses(straight)
    ours, theirs = (checkpoint.complete(folder)[-1] for folder in (run, straight))
    assert ours.step == theirs.step == 4
    for file in (f"{checkpoint.ADAPTER}/{weights.WEIGHTS_FILE}", checkpoint.OPTIMIZER, checkpoint.AVERAGE):
        assert (ours.path / file).read_bytes() == (theirs.path / file).read_bytes(), file
    assert ours.state() == theirs.state()
    averaged, last = tensors(run / checkpoint.ADAPTER), tensors(ours.path / checkpoint.ADAPTER)
    assert any(not torch.equal(averaged[key], last[key]) for key in last)  # what is exported is the average
    assert list(run.rglob("events.out.tfevents.*"))


def test_how_a_batch_is_cut_what_is_kept_and_how_it_lies_does_not_matter(
    models: Path, url: str, straight: Path, tmp_path: Path
) -> None:
    more = ("batch.micro=4", "gradient_checkpointing=true", "channels_last=true", "trackers=[]")
    train(recipe("mip/sdxl", models, url, *RICH, *more), tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(straight), rel=1e-5)
    one, other = (tensors(folder / checkpoint.ADAPTER) for folder in (tmp_path / "run", straight))
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-5)


def test_in_half_precision_what_is_trained_stays_whole_and_makes_pictures(
    models: Path, url: str, tmp_path: Path
) -> None:
    one = recipe("ip_adapter", models, url, "steps=2", "precision=bf16", "optimizer.lr=1e-3")
    adapter = train(one, tmp_path / "run")
    assert {tensor.dtype for tensor in tensors(adapter).values()} == {torch.float32}
    pipeline = ReferencePipeline.from_pretrained(models / "sdxl", adapter, image_encoder=models / "clip", device="cpu")
    pipeline.set_references([Reference(torch.zeros(40, 40, 3, dtype=torch.uint8).numpy())])
    options = {"height": 64, "width": 64, "num_inference_steps": 1, "output_type": "latent", "seed": 0}
    given = pipeline.generate("a dog", **options).images
    pipeline.adapter.scale = 0.0
    assert not torch.equal(torch.as_tensor(given), torch.as_tensor(pipeline.generate("a dog", **options).images))


def test_losses_that_are_not_finite_leave_the_weights_finite_and_stop_the_run(
    models: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Diffusion.weights

    def sometimes(self: Diffusion, timesteps: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return found(self, timesteps) * (1.0 if len(calls) <= 3 else float("nan"))

    calls: list[int] = []  # one to count operations, then two in each step
    monkeypatch.setattr(Diffusion, "weights", sometimes)
    one = recipe("mip/sdxl", models, url, "log_every=1", "max_bad_steps=2", "steps=9", "checkpoints.every=1")
    with pytest.raises(JobStopped, match="2 steps in a row"):
        train(one, tmp_path / "run")
    assert [line["bad_in_a_row"] for line in run_log.read(tmp_path / "run")] == [0, 1, 2]
    last = checkpoint.complete(tmp_path / "run")[-1]
    assert last.step == 2
    assert all(tensor.isfinite().all() for tensor in tensors(last.path / checkpoint.ADAPTER).values())


@pytest.mark.parametrize("limit", [1.0, None])
@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_one_gradient_that_is_not_finite_makes_all_of_them_nothing(limit: float | None, bad: float) -> None:
    trained = torch.nn.ParameterDict({"a": torch.ones(2), "b": torch.ones(2), "untouched": torch.ones(2)})
    adamw = torch.optim.AdamW(trained.parameters())
    spread = Strategy(Accelerator(cpu=True))
    spread.prepare(trained, dict(trained), adamw)
    trained["a"].grad, trained["b"].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 12.0])
    assert spread.clipped(limit) == 13
    assert trained["a"].grad.tolist() == ([3, 4] if limit is None else pytest.approx([3 / 13, 4 / 13], rel=1e-6))
    trained["b"].grad = torch.tensor([bad, 1.0])
    assert not spread.clipped(limit).isfinite()
    assert [trained[name].grad.tolist() for name in "ab"] == [[0, 0], [0, 0]]


WRONG = {
    "batch.samples=5": "5 samples is not shared evenly by 1 processes with 2 at a time: set batch.micro=1",
    "data.sources=[]": "set data.sources",
    "models.base=''": "set models.base",
    "models.image_encoder=null": "set models.image_encoder",
    "adapter.image_width=24": "gives pooled features of width 20, the recipe wants 24.*set adapter.image_width=20",
    "tuned=[image_proj, layer]": "tuned names 'layer'.*did you mean layers",
    "optimizer.lrs={imageproj: 1}": "optimizer.lrs names 'imageproj'",
    "tuned=[layers]": "set models.start",
    "precision=fp16": "fp16 needs a GPU",
    "trackers=[nowhere]": "the tracker nowhere is not installed",
    "optimizer.eight_bit=true": "needs bitsandbytes",
    "view.subjects=3": "accepts none of the samples",
}


@pytest.mark.parametrize("setting", WRONG)
def test_what_does_not_fit_is_refused_before_any_model_is_loaded(
    setting: str, models: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting == "precision=fp16" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(method, "load_frozen", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(Refused, match=WRONG[setting]):
        train(recipe("mip/sdxl", models, url, setting), tmp_path / "run")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_base_of_another_family_is_refused_before_any_model_is_loaded(
    models: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method, "load_frozen", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(Refused, match="none of Stable Diffusion 1 or 2, which EZIGen needs"):
        train(recipe("ezigen", models, url, f"models.base={models / 'sdxl'}"), tmp_path / "run")


def test_stages_go_on_from_one_another(models: Path, url: str, tmp_path: Path) -> None:
    first = train(recipe("easyref/1-alignment", models, url, "steps=1"), tmp_path / "first")
    more = ("steps=1", f"models.start={first}", "models.language_model=null", "optimizer.lr=0")
    second = train(recipe("easyref/2-single", models, url, *more), tmp_path / "second")
    one, other = tensors(first), tensors(second)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert {key.split(".")[0] for key in set(other) - set(one)} == {"lora"}
