"""Whatever a stranger writes into the json of an adapter, a base or an encoder: it loads, or is one of our errors."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import tinypipes as tiny
from adapting import ip_adapter
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from strangers import changed, seldom, spoilt
from torch import zeros

from refloom.inference import foresight
from refloom.inference.adapters import kinds
from refloom.inference.basefacts import BaseFacts
from refloom.inference.checkpoints import cause as filecause
from refloom.inference.checkpoints import weights
from refloom.inference.checkpoints.modelfolder import trouble
from refloom.inference.checkpoints.tensors import index
from refloom.inference.loading import load_image_encoder, load_unet_shapes
from refloom.schemas.errors import RefloomError
from refloom.training.run.frozen import read_encoder_widths

# nothing large: a model of a thousand million layers would only be long in the making
VALUES = st.sampled_from([None, True, 0, 1, -1, 2, 0.5, float("nan"), "", "x", [], {}, [1], ["x"], [None], {"a": 1}])


def text(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    pipe = tiny.sd_pipe()
    pipe.unet.save_pretrained(folder / "base/unet")
    ip_adapter(pipe).save_pretrained(folder / "adapter")
    tiny.image_encoder().save_pretrained(folder / "encoder")
    return folder


@pytest.fixture(scope="module")
def configs(models) -> dict[str, dict]:
    """By folder; read once."""
    return {
        name: json.loads((models / name / "config.json").read_text()) for name in ("adapter", "base/unet", "encoder")
    }


def draw(data: st.DataObject, document: dict) -> bytes:
    return data.draw(st.one_of(changed(document, VALUES).map(text), spoilt(text(document)), st.binary(max_size=30)))


@seldom
@given(data=st.data())
def test_any_config_of_an_adapter(models, configs, data):
    (models / "adapter/config.json").write_bytes(draw(data, configs["adapter"]))
    for read in (
        kinds.from_pretrained,
        lambda folder: foresight.kind_of_adapter(str(folder), None),
        weights.read_config,
    ):
        with suppress(RefloomError):
            read(models / "adapter")


@seldom
@given(data=st.data())
def test_any_config_of_a_base(models, configs, data):
    raw = draw(data, configs["base/unet"])
    (models / "base/unet/config.json").write_bytes(raw)
    with suppress(RefloomError):
        load_unet_shapes(models / "base")
    for name in ("model_index.json", "vae/config.json", "scheduler/scheduler_config.json", "text_encoder/config.json"):
        (models / "base" / name).parent.mkdir(exist_ok=True)
        (models / "base" / name).write_bytes(raw)
    with suppress(RefloomError):
        BaseFacts.read(models / "base")
    assert isinstance(trouble(models / "base", "diffusers"), str)
    for name in ("vae", "scheduler", "text_encoder"):
        shutil.rmtree(models / "base" / name)


@seldom
@given(data=st.data())
def test_any_config_of_an_encoder(models, configs, data):
    (models / "encoder/config.json").write_bytes(draw(data, configs["encoder"]))
    for read in (load_image_encoder, read_encoder_widths):
        with suppress(RefloomError):
            read(str(models / "encoder"))


INDEX = {"metadata": {"total_size": 4}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}


@seldom
@given(raw=st.one_of(changed(INDEX).map(text), spoilt(text(INDEX))))
def test_any_index_of_shards(tmp_path, raw):
    (tmp_path / "model.safetensors.index.json").write_bytes(raw)
    with suppress(RefloomError):
        assert all(isinstance(name, str) for name in index(tmp_path / "model.safetensors.index.json").values())


@seldom
@given(data=st.data())
def test_any_header_of_tensors(tmp_path, data):
    file = tmp_path / "one.safetensors"
    save_file({"a": zeros(2), "b": zeros(3)}, file)
    file.write_bytes(data.draw(spoilt(file.read_bytes())))
    problem = filecause.problem(file, filecause.SAFETENSORS)
    assert problem is None or isinstance(problem, str)


@pytest.mark.parametrize("name", ["adapter", "encoder", "base/unet"])
@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 5_000, b"\xff\xfe", b"", b"null", b"1e999", b'"x"'])
def test_json_of_any_depth_or_kind_is_refused(models, configs, name, raw):
    (models / name / "config.json").write_bytes(raw)
    readers = {
        "adapter": (kinds.from_pretrained, weights.read_config),
        "encoder": (load_image_encoder, read_encoder_widths),
        "base/unet": (lambda folder: load_unet_shapes(Path(folder).parent),),
    }
    for read in readers[name]:
        with pytest.raises(RefloomError):
            read(str(models / name)) if name == "encoder" else read(models / name)
