"""Training in two processes, with DDP and with ZeRO: as in one, from the same samples to the same weights."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from places import ROOT, SUPPORT
from spreading import AVERAGE, averaged, every, pictured, spread_recipe, straight
from traindata import RECIPES, settings, write_videos

from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints import weights
from refloom.schemas.errors import Refused
from refloom.schemas.pictures import decode
from refloom.training.launch import config_file, names
from refloom.training.run import checkpoint
from refloom.training.run import log as run_log
from refloom.training.run.loop import train
from refloom.training.run.preflight import TrainingPlan
from refloom.training.run.zero import settings as zero_settings
from refloom.training.watch import validation

processes = pytest.mark.processes

ADAPTER = f"{checkpoint.ADAPTER}/{weights.WEIGHTS_FILE}"
LONGEST_S = 600
"""On a machine that does other work besides; alone they take a tenth."""


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest.fixture(scope="module")
def work(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, samples and a run of one process."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "models").symlink_to(models)
    write_videos(folder / "samples", held_out=1)
    straight(folder, folder / "alone", (AVERAGE,))
    return folder


def seen(run: Path) -> list[list[object]]:
    return sorted(one for file in run.glob("seen-*.json") for one in json.loads(file.read_text("utf-8")))


def lines(run: Path, what: str) -> list[float]:
    return [line[what] for line in run_log.read(run)]


def apart(run: Path, other: Path, file: str = ADAPTER) -> float:
    """How far the last checkpoints are from each other: the largest relative distance of a tensor."""
    one, two = (tensorfile.read_safetensors(checkpoint.complete(at)[-1].path / file) for at in (run, other))
    assert one.keys() == two.keys()
    return max(float((one[key] - two[key]).norm() / two[key].norm().clamp(min=1e-12)) for key in one)


@dataclass(frozen=True, slots=True)
class Launched:
    """What two processes have done; see `spreading.whole`."""

    strategy: str
    out: Path


@pytest.fixture(scope="module", params=["ddp", "zero2", "zero3"])
def launched(request: pytest.FixtureRequest, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Launched once for each strategy: libraries take longer to import than all that is done."""
    strategy, out = request.param, tmp_path_factory.mktemp("launched")
    starter = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config_file(f"{strategy}-cpu-x2")]
    command = [*starter, "--main_process_port", free_port(), SUPPORT / "spreading.py", strategy, work, out]
    done = subprocess.run(command, env=environment(), timeout=LONGEST_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return Launched(strategy, out)


@processes
def test_two_processes_train_and_go_on_as_one_does(launched: Launched, work: Path, tmp_path: Path) -> None:
    average = averaged(launched.strategy)
    alone, two = work / "alone", launched.out / "straight"

    shares = [json.loads((two / f"seen-{rank}.json").read_text("utf-8")) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1]) == 8
    assert seen(two) == seen(alone)
    assert [saved.step for saved in checkpoint.complete(two)] == [2, 4]
    assert checkpoint.complete(two)[-1].state() == checkpoint.complete(alone)[-1].state()
    assert min(lines(alone, "gradient_norm")) > 0.02  # all are clipped
    for run in (two, launched.out / "of-one"):
        since = -len(lines(run, "loss"))
        for what in ("loss", "gradient_norm", "lr"):
            assert lines(run, what) == pytest.approx(lines(alone, what)[since:], rel=1e-5)
        assert apart(run, alone) < 1e-5
        # gradients of the gates are sums of what nearly cancels
        assert apart(run, alone, checkpoint.OPTIMIZER) < 1e-3
        if average:
            assert apart(run, alone, checkpoint.AVERAGE) < 1e-5
    exported = [tensorfile.read_safetensors(run / ADAPTER) for run in (two, launched.out / "again")]
    assert all(torch.equal(exported[0][key], exported[1][key]) for key in exported[0])
    for file in (ADAPTER, checkpoint.OPTIMIZER, *([checkpoint.AVERAGE] if average else [])):
        assert apart(launched.out / "again", two, file) == 0, file

    train(spread_recipe(work, *average), tmp_path / "one-of-two", resume=str(checkpoint.complete(two)[0].path))
    assert apart(tmp_path / "one-of-two", alone) < 1e-5

    assert lines(launched.out / "bad", "bad_in_a_row") == [0, 1, 2]
    for rank in (0, 1):
        assert "2 steps in a row" in (launched.out / "bad" / f"stopped-{rank}").read_text("utf-8")
        assert "not shared evenly by 2 processes" in (launched.out / f"refused-{rank}").read_text("utf-8")
    bad = tensorfile.read_safetensors(checkpoint.complete(launched.out / "bad")[-1].path / ADAPTER)
    assert all(tensor.isfinite().all() for tensor in bad.values())


@pytest.fixture(scope="module")
def every_alone(work: Path) -> Path:
    """Every recipe in one process."""
    every(work, work / "every")
    return work / "every"


@processes
def test_every_recipe_trains_in_two_processes_as_in_one(launched: Launched, every_alone: Path) -> None:
    two = launched.out / "every"
    for name in RECIPES:
        for what in ("loss", "gradient_norm"):
            assert lines(two / name, what) == pytest.approx(lines(every_alone / name, what), rel=1e-5), name
        # what began at 0, as a half of a LoRA, is as large as the steps that AdamW makes of rounding
        assert apart(two / name, every_alone / name) < 1e-3, name


@processes
@pytest.mark.parametrize("launched", ["ddp"], indirect=True)
def test_two_processes_share_the_cases_of_a_validation(launched: Launched, work: Path, tmp_path: Path) -> None:
    pictured(work, tmp_path / "alone")
    ours, theirs = made(launched.out / "pictured"), made(tmp_path / "alone")
    assert list(ours) == list(theirs) == [0, 2, 4]
    for one, other in zip(ours[0], theirs[0], strict=True):  # the weights are the same yet
        # the last bit of a product depends on the process: on its threads and where in memory its factors lie
        assert np.abs(decode(one).astype(int) - decode(other)).max() <= 2
    assert [len(many) for many in ours.values()] == [3, 3, 3]


def made(run: Path) -> dict[int, list[bytes]]:
    return {step: [file.read_bytes() for file in sorted(folder.iterdir())] for step, folder in validation.steps(run)}


def pair(work: Path, run: Path, *more: str) -> list[subprocess.Popen[bytes]]:
    """Two processes as a job manager starts them, without a launcher that answers for them; both are at work."""
    told = settings("mip/sdxl", work / "models", str(work / "samples"), "steps=100000", "batch.micro=1", "log_every=1")
    command = [sys.executable, "-m", "refloom.training", "--config", "debug/mip/sdxl", "--out", str(run), *more]
    command += [part for one in told for part in ("--set", one)]
    same = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    ours = [{"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2", **same} for rank in ("0", "1")]
    before = len(run_log.read(run))
    both = [subprocess.Popen(command, env=environment(**one), stderr=subprocess.PIPE) for one in ours]
    end = time.monotonic() + LONGEST_S
    while len(run_log.read(run)) <= before:
        assert time.monotonic() < end
        assert all(one.poll() is None for one in both), [one.communicate()[1][-2000:] for one in both]
        time.sleep(0.1)
    return both


@processes
def test_a_signal_to_one_of_two_processes_saves_and_ends_both(work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    both = pair(work, run)
    for _ in range(2):  # by a job manager, and passed on by a launcher
        both[1].send_signal(signal.SIGTERM)
    errors = [one.communicate(timeout=LONGEST_S)[1].decode() for one in both]
    assert [one.returncode for one in both] == [3, 3], errors
    assert all("as asked, and saved: go on with --resume latest" in text for text in errors)
    assert checkpoint.complete(run)[-1].step == lines(run, "step")[-1]


@processes
def test_one_process_that_dies_ends_the_other(work: Path, tmp_path: Path) -> None:
    both = pair(work, tmp_path / "run")
    both[1].kill()
    _, error = both[0].communicate(timeout=LONGEST_S)
    assert both[0].returncode not in (0, None), error
    both[1].communicate()


def test_the_configs_launch_what_they_are_named_after() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    sizes = {"one-gpu": (1, 1), "8": (1, 8), "4x8": (4, 32), "cpu-x2": (1, 2)}
    kinds = {"one": "NO", "ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    for name in names():
        kind, _, size = name.partition("-")
        found = load_config_from_file(str(config_file(name)))
        assert (found.num_machines, found.num_processes) == sizes[name if name in sizes else size]
        assert found.distributed_type == kinds[kind]
        assert found.mixed_precision is None  # the recipe says it
        assert found.deepspeed_config.get("zero_stage") == ({"zero2": 2, "zero3": 3}.get(kind))
    with pytest.raises(Refused, match="did you mean zero2-8"):
        config_file("zero2_8")


WRONG = {
    (2, "precision=fp16", ""): "set precision=bf16",
    (2, "optimizer.eight_bit=true", ""): "set optimizer.eight_bit=false",
    (3, "ema=0.9", ""): "take stage 2, or set ema=null",
    (0, "steps=1", ""): "set zero_stage to 2 or 3",
    (2, "steps=1", "gradient_clipping"): "DeepSpeed's config says gradient_clipping=7, the recipe 1.0",
    (2, "steps=1", "train_micro_batch_size_per_gpu"): "says train_micro_batch_size_per_gpu=7, the recipe 2",
    (2, "steps=1", "optimizer"): "has an optimizer of its own",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_deepspeed_cannot_do_is_refused_with_the_remedy(case: tuple[int, str, str]) -> None:
    stage, setting, key = case
    one = spread_recipe(Path("nowhere"), "optimizer.clip=1.0", "batch.micro=2", setting)
    asked = {"zero_optimization": {"stage": stage}, **({key: 7} if key else {})}
    plan = TrainingPlan(None, 1, 10, 10)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=WRONG[case]):
        zero_settings(one, plan, asked)
