"""All that can be trained, by name: adapters, tiny bases, and what judges pictures. Each is imported when asked for."""

from collections.abc import Mapping

from refloom.inference.adapters.kinds import Parts
from refloom.training.methods.method import Method
from refloom.training.methods.trainable import Trainable

BASES = {
    "clip": "refloom.training.tinymodels.clip:TASK",
    "judge": "refloom.training.tinymodels.judge:TASK",
    "pipeline": "refloom.training.tinymodels.pipeline:TASK",
    "qwen2vl": "refloom.training.tinymodels.qwen:TASK",
}

METHODS: Mapping[str, Method] = Parts("trainer", {})
TASKS: Mapping[str, Trainable] = Parts("trainer", BASES)
