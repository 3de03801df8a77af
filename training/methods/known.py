"""All that can be trained, by name: adapters, and the tiny bases."""

from training.bases.clip import Clip
from training.bases.pipeline import Pipeline
from training.bases.qwen import Qwen
from training.methods.easyref import EasyRef
from training.methods.ezigen import EZIGen
from training.methods.heads import MIP, IPAdapter
from training.methods.method import Method
from training.methods.ms_diffusion import MSDiffusion
from training.methods.task import Task

METHODS: dict[str, Method] = {
    method.kind: method for method in (EasyRef(), EZIGen(), IPAdapter(), MIP(), MSDiffusion())
}

TASKS: dict[str, Task] = {**METHODS, **{task.kind: task for task in (Clip(), Pipeline(), Qwen())}}
