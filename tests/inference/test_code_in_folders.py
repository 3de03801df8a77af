"""Folders of models that bring code of their own: it is not run, nobody is asked, and the message says where it is."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tinypipes as tiny
from adapting import easyref_adapter
from transformers import PreTrainedTokenizerFast, dynamic_module_utils

from refloom.inference.adapters.easyref.adapter import EasyRef
from refloom.inference.loading import _TOKENIZER_FILES, load_base, load_image_encoder, load_tokenizer
from refloom.inference.nocode import code_of, without_code
from refloom.schemas.errors import Refused
from refloom.training.tinymodels.base import load_with_tokenizer

UNSAFE = re.compile(r"trust_remote|=True|y/N|run the custom code|\n")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that hostile code writes; whoever is asked says yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return tmp_path / "it_ran"


def code(ran: Path) -> str:
    return f"open({str(ran)!r}, 'w').close()\nclass Mine: pass\nclass MineConfig: pass\n"


def spoil(folder: Path, ran: Path, name: str, **values: object) -> Path:
    """Let a json file of a folder name code that lies beside it."""
    file = folder / name
    said = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(said | values))
    (file.parent / "mine.py").write_text(code(ran))
    return folder


def hostile_tokenizer(folder: Path, ran: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    spoil(folder, ran, "tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Mine", None]})
    spoil(folder, ran, "config.json", model_type="mine", auto_map={"AutoConfig": "mine.MineConfig"})
    return folder


def check(refusal: pytest.ExceptionInfo[Refused], ran: Path) -> str:
    said = str(refusal.value)
    assert not ran.exists()
    assert not UNSAFE.search(said), said
    return said


def test_a_tokenizer(tmp_path, ran):
    folder = hostile_tokenizer(tmp_path / "tokenizer", ran)
    with pytest.raises(Refused) as caught:
        load_tokenizer(folder)
    assert "config.json names code of its own (auto_map), which is never run" in check(caught, ran)


def test_a_language_model_to_start_from(tmp_path, ran):
    folder = hostile_tokenizer(tmp_path / "model", ran)
    with pytest.raises(Refused) as caught:
        load_with_tokenizer(PreTrainedTokenizerFast, folder)
    check(caught, ran)


def test_the_tokenizer_of_an_adapter(tmp_path, ran):
    adapter = easyref_adapter(tiny.sdxl_pipe())
    adapter.tokenizer = None
    adapter.save_pretrained(tmp_path / "adapter")
    hostile_tokenizer(tmp_path / "adapter" / "tokenizer", ran)
    with pytest.raises(Refused) as caught:
        EasyRef.from_pretrained(tmp_path / "adapter")
    assert "which is never run" in check(caught, ran)


def test_an_image_encoder_is_read_by_its_own_class(tmp_path, ran):
    tiny.image_encoder().save_pretrained(tmp_path / "encoder")
    spoil(
        tmp_path / "encoder", ran, "config.json", auto_map={"AutoModel": "mine.Mine", "AutoConfig": "mine.MineConfig"}
    )
    load_image_encoder(tmp_path / "encoder")
    assert not ran.exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "base"
    tiny.sd_pipe().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": ["mine", "Mine"]},
        {"unet": ["mine", "Mine"]},
        {"text_encoder": ["transformers", "AutoModel"]},
        {"tokenizer": ["transformers", "AutoTokenizer"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_base_with_a_part_of_its_own(saved, tmp_path, ran, changes):
    folder = shutil.copytree(saved, tmp_path / "base")
    part = next(iter(changes))
    spoil(folder, ran, "model_index.json", **changes)
    if part != "_class_name":
        (folder / part / "mine.py").write_text(code(ran))
    if part == "tokenizer":
        hostile_tokenizer(folder / "tokenizer", ran)
    if part == "text_encoder":
        spoil(folder / part, ran, "config.json", model_type="mine", auto_map={"AutoConfig": "mine.MineConfig"})
    with pytest.raises(Refused) as caught:
        load_base(folder)
    assert "names code of its own" in check(caught, ran)


def test_outside_the_block_transformers_is_as_it_was():
    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    with pytest.raises(ValueError), without_code():
        assert dynamic_module_utils.TIME_OUT_REMOTE_CODE == 0
        dynamic_module_utils.resolve_trust_remote_code(None, "x", False, True)
    assert before == dynamic_module_utils.TIME_OUT_REMOTE_CODE


def test_no_code_is_fetched_and_damaged_json_is_passed_over(tmp_path):
    assert not any(re.search(r"\.py$|^\*$", pattern) for pattern in _TOKENIZER_FILES)
    (tmp_path / "a.json").write_text("[" * 100_000)
    (tmp_path / "b.json").write_text('["auto_map"]')
    assert code_of(tmp_path) is None
    (tmp_path / "model_index.json").write_text('{"unet": ["**x", "Y"], "vae": ["\\u0000", "Z"], "a": [[], 1], "b": 3}')
    assert code_of(tmp_path) is None
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')
    assert str(code_of(tmp_path)).startswith("part/config.json names code of its own (auto_map)")
