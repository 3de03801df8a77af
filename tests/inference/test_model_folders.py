"""Folders of models that libraries cannot load: the file that is the cause, in our words, and what to do about it."""

import json
import re
import shutil
from pathlib import Path

import httpx2
import pytest
import tinypipes as tiny
from huggingface_hub.errors import HfHubHTTPError

from refloom.inference.checkpoints.hub import reported
from refloom.inference.checkpoints.modelfolder import trouble
from refloom.inference.loading import load_base, load_image_encoder, load_tokenizer, load_unet_shapes
from refloom.schemas.errors import JobStopped, Refused

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 143607619\n"
PAGE = "<!DOCTYPE html><html></html>"
LIBRARY = re.compile(
    r"\n|weights_only|use_safetensors=|huggingface\.co/|from_pretrained|trust_remote|Traceback|Error\b"
)
"""What libraries say, which is never ours."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny.sd_pipe().save_pretrained(folder / "base", safe_serialization=True)
    tiny.image_encoder().save_pretrained(folder / "encoder")
    return folder


@pytest.fixture
def models(saved: Path, tmp_path: Path) -> Path:
    """The base and the encoder, to be spoilt."""
    return shutil.copytree(saved, tmp_path / "models")


LOADERS = {"base": load_base, "encoder": load_image_encoder}
WEIGHTS = {"base": "unet/diffusion_pytorch_model.safetensors", "encoder": "model.safetensors"}
CONFIG = {"base": "unet/config.json", "encoder": "config.json"}


def refusal(models: Path, which: str) -> str:
    with pytest.raises(Refused, match=r"cannot be loaded|describes no") as caught:
        LOADERS[which](models / which)
    said = str(caught.value)
    assert not LIBRARY.search(said), said
    return said


@pytest.mark.parametrize("which", LOADERS)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "it is a pointer of git-LFS, not the file itself: run `git lfs pull`"),
        (PAGE, "it is a web page"),
        ("", "it is empty"),
        (None, "it is cut off"),
    ],
    ids=["pointer", "page", "empty", "cut"],
)
def test_weights_that_are_something_else_are_named(models: Path, which: str, content: str | None, said: str):
    file = models / which / WEIGHTS[which]
    if content is None:
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.write_text(content)
    assert f"{WEIGHTS[which]}: {said}" in refusal(models, which)


@pytest.mark.parametrize("which", LOADERS)
def test_json_files_and_missing_weights_are_named(models: Path, which: str):
    folder = models / which
    weights, config = folder / WEIGHTS[which], folder / CONFIG[which]
    kept = config.read_text()
    config.write_text(kept[:20])
    assert f"{CONFIG[which]}: it is no json, or cut off" in refusal(models, which)
    config.write_text(kept)
    weights.rename(weights.with_name("pytorch_model.bin"))
    assert "pytorch_model.bin and no safetensors; pickles can run code" in refusal(models, which)


def test_values_that_no_library_knows_are_said_without_its_text(models: Path):
    file = models / "base" / CONFIG["base"]
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"down_block_types": ["NoSuchBlock2D"] * len(values["down_block_types"])}))
    assert "cannot make what its json files describe" in refusal(models, "base")
    with pytest.raises(Refused, match="describes no UNet2DConditionModel: its values are of another model") as caught:
        load_unet_shapes(models / "base")
    assert not LIBRARY.search(str(caught.value))


def test_missing_shards_of_a_model_are_named(models: Path):
    folder = models / "encoder"
    name = "model-00001-of-00002.safetensors"
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert f"names shards that are not beside it: {name}" in refusal(models, "encoder")


def test_a_folder_without_a_tokenizer_is_told_so(models: Path):
    for folder, said in ((models / "encoder", "no tokenizer.json"), (models / "base/tokenizer", "tokenizer")):
        for file in folder.glob("*token*"):
            file.write_text("{")
        with pytest.raises(Refused, match=said) as caught:
            load_tokenizer(folder)
        assert not LIBRARY.search(str(caught.value))


def test_a_folder_that_is_none_is_told_so(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    assert "it is a file: give the folder" in trouble(tmp_path / "file", "diffusers")
    assert "there is no such folder" in trouble(tmp_path / "gone", "diffusers")
    assert "it has no config.json" in trouble(tmp_path, "diffusers")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "the system says No space left on device"),
        (httpx2.ConnectTimeout("timed out\nsee https://example.org"), "the Hub does not answer: ConnectTimeout"),
        (RuntimeError("Data processing error: a\nlong advice"), "the Hub's library gave up: RuntimeError"),
        (
            HfHubHTTPError(
                "a\nlong advice", response=httpx2.Response(503, request=httpx2.Request("GET", "http://hub"))
            ),
            "the Hub answered 503",
        ),
    ],
)
def test_the_hubs_library_is_not_quoted(error: Exception, said: str):
    with pytest.raises(JobStopped, match=re.escape(said)) as caught, reported("me/model", to="read"):
        raise error
    assert "\n" not in str(caught.value)
    assert "advice" not in str(caught.value)
