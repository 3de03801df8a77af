"""No call in refloom runs code out of data: every Auto class, pipeline, pickle, archive and import is seen here."""

import pytest
from codecalls import ALLOWED, ROOT, findings, sources


@pytest.mark.parametrize(
    "line",
    [
        "from transformers import AutoTokenizer\nAutoTokenizer.from_pretrained(folder)",
        "from transformers import AutoTokenizer as A\nA.from_pretrained(folder, trust_remote_code=True)",
        "import transformers\ntransformers.AutoModel.from_pretrained(folder, trust_remote_code=given)",
        "import transformers as t\nt.AutoConfig.from_pretrained(folder, **options)",
        "from transformers import AutoModel\nAutoModel.from_config(config)",
        "kind = find()\nkind.from_pretrained(folder, local_files_only=True)",
        "find('x').from_pretrained(folder)",
        "from diffusers import DiffusionPipeline\nDiffusionPipeline.from_pretrained(folder)",
        "from diffusers import DiffusionPipeline\nDiffusionPipeline.download(name)",
        "from diffusers import StableDiffusionPipeline\nStableDiffusionPipeline.from_single_file(file)",
        "from transformers import pipeline\npipeline('image-to-text', model=folder)",
        "import transformers\ntransformers.pipeline('x')",
        "from transformers import pipeline as p\np('x')",
        "from datasets import load_dataset\nload_dataset(folder)",
        "import datasets\ndatasets.load_dataset(folder, trust_remote_code=True)",
        "import torch\ntorch.load(file)",
        "import torch\ntorch.load(file, weights_only=False)",
        "from torch import load\nload(file)",
        "import torch as t\nt.load(file)",
        "import torch\ntorch.jit.load(file)",
        "import torch\ntorch.hub.load('a/b', 'c')",
        "import numpy as np\nnp.load(file)",
        "import numpy\nnumpy.load(file, allow_pickle=True)",
        "import pickle\npickle.load(file)",
        "from pickle import loads\nloads(data)",
        "import pickle as p\np.loads(data)",
        "import pickle\nclass Mine(pickle.Unpickler):\n    pass",
        "from pickle import Unpickler\nUnpickler(file).load()",
        "import cloudpickle\ncloudpickle.loads(data)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import yaml\nyaml.unsafe_load(text)",
        "import joblib\njoblib.load(file)",
        "eval(text)",
        "exec(text)",
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module\nimport_module(name)",
        "import tarfile\ntarfile.open(file)",
        "archive.extractall(folder)",
        "from PIL import Image\nImage.open(file)",
        "import open_clip\nopen_clip.create_model(name)",
        "import subprocess\nsubprocess.run(words)",
        "import os\nos.system(words)",
        "spec.loader.exec_module(module)",
    ],
)
def test_a_call_that_could_run_code_is_found(line):
    assert findings(line), line


@pytest.mark.parametrize(
    "line",
    [
        "from transformers import AutoTokenizer\nAutoTokenizer.from_pretrained(folder, trust_remote_code=False)",
        "from transformers import pipeline\npipeline('x', trust_remote_code=False)",
        "from refloom.training.tinymodels import newpipelines as pipelines\npipelines.pipeline(sizes, seed=0)",
        "import torch\ntorch.load(file, weights_only=True)",
        "import numpy as np\nnp.load(file, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)",
        "model.eval()",
        "import re\nre.compile('x')",
    ],
)
def test_a_call_that_cannot_is_not(line):
    assert not findings(line), line


def test_no_call_of_refloom_runs_code_out_of_data():
    found = [one for path in sources() for one in findings(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())]
    assert not found, "\n".join(map(str, found))


def test_every_exception_is_still_needed():
    for name, calls in ALLOWED.items():
        texts = [path.read_text("utf-8") for path in sources() if path.name == name]
        assert all(any(call.rpartition(".")[2] in text for text in texts) for call in calls), name
