"""ZeRO-3 with weights that are really in parts: a checkpoint holds them whole.

DeepSpeed leaves weights of few numbers whole in every process, as all of a tiny adapter are, unless it is told not to.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT, SUPPORT
from spreading import straight
from traindata import write_videos

from refloom.inference.checkpoints import tensors as tensorfile
from refloom.inference.checkpoints import weights
from refloom.training.launch import config_file
from refloom.training.run import checkpoint

DEEPSPEED = {
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_model_persistence_threshold": 0},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
}
LONGEST_S = 600


@pytest.mark.processes
def test_a_checkpoint_holds_weights_that_are_in_parts_while_they_are_trained(models: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(models)
    write_videos(tmp_path / "samples", held_out=1)
    straight(tmp_path, tmp_path / "alone", ())
    (tmp_path / "deepspeed.json").write_text(json.dumps(DEEPSPEED))
    known = Path(config_file("zero3-cpu-x2")).read_text("utf-8")
    config = "\n".join(line for line in known.splitlines() if not line.startswith("deepspeed_config"))
    told = f"{{deepspeed_config_file: {tmp_path}/deepspeed.json, zero3_init_flag: false}}"
    (tmp_path / "launch.yaml").write_text(f"{config}\ndeepspeed_config: {told}\n")

    path = os.pathsep.join([str(ROOT), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "launch.yaml")]
    command = [*launch, "--main_process_port", "0", SUPPORT / "parted.py", tmp_path, tmp_path / "two"]
    done = subprocess.run(command, env=environment, timeout=LONGEST_S, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]

    alone, two = (
        tensorfile.read_safetensors(
            checkpoint.complete(tmp_path / name)[-1].path / checkpoint.ADAPTER / weights.WEIGHTS_FILE
        )
        for name in ("alone", "two")
    )
    assert alone.keys() == two.keys()
    for name, tensor in alone.items():
        assert two[name].shape == tensor.shape, name
        assert float((two[name] - tensor).norm() / tensor.norm().clamp(min=1e-12)) < 1e-5, name
    for rank in (0, 1):
        seen = json.loads((tmp_path / "two" / f"numbers-{rank}.json").read_text("utf-8"))
        assert seen
        for before, inside, after in seen:
            assert before == after == 0  # numbers of a weight in parts are those of no tensor
            assert inside > 0
