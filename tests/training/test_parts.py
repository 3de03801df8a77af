"""The pure parts of training: objective, learning rates, optimiser state, averages, and which checkpoints stay."""

from pathlib import Path

import pytest
import tinypipes as tiny
import torch
from diffusers import EulerDiscreteScheduler
from torch import nn

from refloom.schemas.errors import Refused
from refloom.training.data.draws import timesteps
from refloom.training.recipes.recipe import Checkpoints, Objective, Optimizer
from refloom.training.run import checkpoint, optimizer
from refloom.training.run.ema import MovingAverage
from refloom.training.run.objective import Diffusion, snr_weights


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_what_is_predicted_are_the_schedulers(prediction: str) -> None:
    diffusion = Diffusion(tiny.scheduler(), Objective(prediction=prediction))
    torch.manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 4, 4)
    when = torch.tensor([1, 500, 999])
    noisy = diffusion.scheduler.add_noise(latents, noise, when)
    torch.testing.assert_close(diffusion.noisy(latents, noise, when), noisy)
    wanted = noise if prediction == "epsilon" else diffusion.scheduler.get_velocity(latents, noise, when)
    assert float(diffusion.losses(wanted, latents, noise, when).max()) < 1e-10
    assert diffusion.losses(wanted + 2, latents, noise, when).tolist() == pytest.approx([4] * len(when), rel=1e-5)


def test_a_base_that_predicts_something_else_needs_to_be_told() -> None:
    with pytest.raises(Refused, match="set objective"):
        Diffusion(EulerDiscreteScheduler(prediction_type="sample"), Objective())


def test_timesteps_are_drawn_from_those_that_are_asked_for() -> None:
    asked = Diffusion(tiny.scheduler(), Objective(timesteps=(400, 402))).timesteps
    drawn = timesteps(3, range(200), *asked)
    assert set(drawn.tolist()) == {400, 401}
    assert Diffusion(tiny.scheduler(), Objective()).timesteps == (0, 1000)
    with pytest.raises(Refused, match="the base has 1000 timesteps"):
        Diffusion(tiny.scheduler(), Objective(timesteps=(0, 1001)))
    with pytest.raises(ValueError, match="a lowest one"):
        Objective(timesteps=(5, 5))


def test_min_snr_weighs_the_pictures_error_by_at_most_gamma() -> None:
    snr = torch.tensor([100.0, 5.0, 0.1])
    # the picture's error is that of the noise / SNR, and that of the velocity / (SNR + 1)
    assert snr_weights(snr, 5.0, "epsilon").tolist() == pytest.approx([0.05, 1.0, 1.0])
    assert snr_weights(snr, 5.0, "v_prediction").tolist() == pytest.approx([5 / 101, 5 / 6, 0.1 / 1.1])
    assert snr_weights(snr, None, "epsilon").tolist() == [1, 1, 1]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"head": nn.Linear(2, 3), "layers": nn.ModuleDict({"one": nn.Linear(3, 1)})})


def test_groups_have_the_rate_of_the_longest_prefix_and_vectors_may_keep_their_size() -> None:
    settings = Optimizer(lr=1.0, lrs={"layers": 2.0, "layers.one.bias": 3.0}, weight_decay=0.5, decay_vectors=False)
    found = optimizer.groups(optimizer.tune(net(), ["head", "layers"]), settings)
    assert {name: (one["lr"], one["weight_decay"]) for one in found for name in one["names"]} == {
        "head.weight": (1.0, 0.5),
        "head.bias": (1.0, 0.0),
        "layers.one.weight": (2.0, 0.5),
        "layers.one.bias": (3.0, 0.0),
    }


def test_only_what_is_named_is_trained_by_whole_parts_of_names() -> None:
    module = net()
    assert list(optimizer.tune(module, ["layers.one"])) == ["layers.one.weight", "layers.one.bias"]
    assert [name for name, one in module.named_parameters() if one.requires_grad] == [
        "layers.one.weight",
        "layers.one.bias",
    ]
    with pytest.raises(Refused, match="did you mean head"):
        optimizer.tune(module, ["hea"])
    with pytest.raises(Refused, match="nothing is trained"):
        optimizer.tune(module, [])


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_rates_rise_and_fall(schedule: str, wanted: list[float]) -> None:
    settings = Optimizer(schedule=schedule, warmup_steps=2)
    assert [optimizer.factor(step, 6, settings) for step in range(6)] == pytest.approx(wanted, abs=1e-6)


def test_the_optimisers_state_belongs_to_names() -> None:
    def stepped(module: nn.Module, adamw: torch.optim.Optimizer) -> None:
        sum(parameter.square().sum() for parameter in module.parameters()).backward()
        adamw.step()
        adamw.zero_grad()

    one, other = net(), net()
    settings = Optimizer(lrs={"head": 1e-2})
    first, second = (optimizer.build(optimizer.tune(module, ["head", "layers"]), settings) for module in (one, other))
    stepped(one, first)
    saved = {key: tensor.clone() for key, tensor in optimizer.state_tensors(first).items()}
    assert {key.rpartition("|")[0] for key in saved} == set(dict(one.named_parameters()))
    other.load_state_dict(one.state_dict())
    optimizer.load_state(second, dict(reversed(saved.items())))
    stepped(one, first)
    stepped(other, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    third = optimizer.build(optimizer.tune(net(), ["layers"]), Optimizer())
    with pytest.raises(Refused, match="of other parameters: head"):
        optimizer.load_state(third, saved)


def test_an_average_follows_slowly_and_stands_in_for_a_while() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = MovingAverage({"weight": module.weight}, 0.5)
    nn.init.ones_(module.weight)
    average.update(0)
    assert average.averages["weight"].item() == pytest.approx(0.9)  # it begins with a decay of 1 / 10
    average.update(1000)
    assert average.averages["weight"].item() == pytest.approx(0.95)
    with average.in_place():
        assert module.weight.item() == pytest.approx(0.95)
    assert module.weight.item() == 1


def saved(run: Path, step: int, keep: Checkpoints) -> checkpoint.Checkpoint:
    return checkpoint.write(run, step, lambda folder: checkpoint.write_state(folder, {"step": step}), keep)


def test_the_last_checkpoints_stay_and_every_so_many_for_good(tmp_path: Path) -> None:
    keep = Checkpoints(keep_last=2, keep_every=20)
    for step in range(10, 80, 10):
        saved(tmp_path, step, keep)
    assert [one.step for one in checkpoint.complete(tmp_path)] == [20, 40, 60, 70]
    assert checkpoint.find(tmp_path, "latest").state()["step"] == 70


def test_a_checkpoint_that_was_cut_off_is_none(tmp_path: Path) -> None:
    keep = Checkpoints()
    whole, marked, cut = (saved(tmp_path, step, keep).path for step in (1, 2, 3))
    (marked / "complete.json").unlink()
    (cut / "state.json").write_text("{")

    def fail(folder: Path) -> None:
        (folder / "half").write_text("h")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        checkpoint.write(tmp_path, 4, fail, keep)
    assert [one.path for one in checkpoint.complete(tmp_path)] == [whole]
    with pytest.raises(Refused, match="is no complete checkpoint"):
        checkpoint.find(tmp_path, str(cut))
    with pytest.raises(Refused, match="no complete checkpoint to resume"):
        checkpoint.find(tmp_path / "elsewhere", "latest")
