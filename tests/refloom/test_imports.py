"""What is imported before it is needed: no library of models by what reads tables, plans batches or knows names."""

import subprocess
import sys
from pathlib import Path

import refloom

LIBRARIES = {
    *("torch", "torchvision", "timm", "transformers", "diffusers", "accelerate", "deepspeed", "open_clip"),
    *("segment_anything", "dlib", "insightface", "onnx", "onnxruntime", "gradio", "huggingface_hub"),
}
PACKAGES = (
    "schemas",
    "ingest",
    "curation",
    "refloom.training.recipes",
    "refloom.training.views",
    "refloom.training.data",
)
MODULES = (
    "refloom.cli.train",
    "refloom.cli.trainarguments",
    "refloom.training.run.checkpoint",
    "refloom.training.watch.preview",
)
NAMES = """
from refloom.inference.models import registry, captioners, embedders, faces, segmenters
for role in registry.ENTRIES:
    registry.resolve(role)
"""


def test_tables_recipes_and_the_registry_of_models_import_no_library_of_models():
    code = "import importlib, pkgutil, sys\n"
    code += f"for name in {PACKAGES}:\n"
    code += "    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f'{name}.'):\n"
    code += "        importlib.import_module(module.name)\n"
    code += f"for name in {MODULES}: importlib.import_module(name)\n"
    code += NAMES
    code += f"print(len(sys.modules), sorted({LIBRARIES!r} & set(sys.modules)))"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True, cwd=Path(refloom.__file__).parent)
    count, found = done.stdout.strip().split(" ", 1)
    assert int(count) > 300, "else nothing was imported"
    assert found == "[]"
