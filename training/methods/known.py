"""All that can be trained, by name: adapters, and the tiny bases."""

from refloom.training.methods.easyref import EasyRef
from refloom.training.methods.ezigen import EZIGen
from refloom.training.methods.heads import MIP, IPAdapter
from refloom.training.methods.method import Method
from refloom.training.methods.ms_diffusion import MSDiffusion
from refloom.training.methods.task import Task
from refloom.training.tinymodels.clip import Clip
from refloom.training.tinymodels.pipeline import Pipeline
from refloom.training.tinymodels.qwen import Qwen

METHODS: dict[str, Method] = {
    method.kind: method for method in (EasyRef(), EZIGen(), IPAdapter(), MIP(), MSDiffusion())
}

TASKS: dict[str, Task] = {**METHODS, **{task.kind: task for task in (Clip(), Pipeline(), Qwen())}}
