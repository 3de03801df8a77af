"""What a stranger writes into files of a dataset or of settings is an error in one line, or is taken."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from strangers import VALUES, changed, often, seldom, spoilt

from refloom.curation.config import Curation
from refloom.schemas import card, publication, yamls
from refloom.schemas.damage import Damage
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.errors import RefloomError
from refloom.schemas.lease import read_holder
from refloom.schemas.manifest import Manifest
from refloom.schemas.settings import load, set_value, to_dict
from refloom.schemas.shapes import misfit
from refloom.schemas.storage import Folder
from refloom.schemas.strict import check_levels, loads
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.schemas.verify import verify
from refloom.training.recipes import book


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A dataset of one unit with nothing in it but a rejected picture."""
    made = Dataset(str(tmp_path_factory.mktemp("strangers") / "data"), create=True)
    with UnitWriter(
        made.folder, UnitKey("ingest", "u-0", "folder.x", {"a": 1}, {"sha": "x"}, roots={"r": "/r"})
    ) as out:
        out.expect("image", 1)
        out.reject("image", "folder/bad", "truncated", "cut", file="bad.jpg")
    made.write_index()
    card.write(made)
    return Path(made.url)


INDEX = {"version": 1, "roots": {"r": "/r"}, "tables": {"images": {"rows": 0}}, "stages": {"ingest": {"units": 1}}}
MANIFEST = {
    "version": 1,
    "stage": "ingest",
    "unit": "u-0",
    "key": "folder.x",
    "config": {"a": {"b": [1]}},
    "source": {"sha": "x"},
    "stage_version": 1,
    "models": {"face": "dlib@1"},
    "inputs": {"images/u-0": "f", "objects/*": "f"},
    "tables": {"images": {"rows": 0, "fingerprint": "f"}, "source_groups": {"rows": 0, "fingerprint": "f"}},
    "items": {"image": {"input": 1, "kept": 0, "rejected": {"truncated": 1}, "failed": {}}},
    "files": [{"path": "ledger/ingest/unit-u-0-000.parquet", "rows": 1, "bytes": 3, "sha256": "x"}],
    "roots": {"r": "/r"},
}
LEASE = {"id": "x", "host": "h", "pid": 1, "started": 1.5, "beat": 2.5}


def text(value: object) -> bytes:
    return json.dumps(value).encode()


@often
@given(st.one_of(changed(INDEX).map(text), spoilt(text(INDEX)), st.binary(max_size=40)))
def test_any_dataset_json(place, data):
    (place / "dataset.json").write_bytes(data)
    with suppress(RefloomError):
        dataset = Dataset(str(place))
        assert dataset.units() == ["u-0"]
        dataset.derived_index()
        dataset.read("images")


@seldom
@given(st.one_of(changed(MANIFEST).map(text), spoilt(text(MANIFEST))))
def test_any_manifest(place, data):
    (place / "dataset.json").write_bytes(text(INDEX))
    path = place / "manifests/ingest/u-0.json"
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        with suppress(RefloomError):
            manifest = Manifest.from_json(data, "x.json")
            Damage(Folder(str(place))).of(manifest)
            assert Manifest.from_json(manifest.to_json(), "x.json").unit == manifest.unit
        for lenient in (False, True):
            dataset = Dataset(str(place), lenient=lenient)
            with suppress(RefloomError):
                for stage in STAGES:
                    for one in dataset.manifests(stage).values():
                        dataset.is_stale(one)
                        one.settings()
        with suppress(RefloomError):  # of another version
            assert isinstance(verify(Dataset(str(place), lenient=True), derived=True).sound, bool)
    finally:
        path.write_bytes(before)


@often
@given(st.one_of(changed(LEASE).map(text), spoilt(text(LEASE)), st.binary(max_size=40)))
def test_any_lease(tmp_path, data):
    folder = Folder(str(tmp_path))
    folder.write("runs/lease.json", data)
    holder = read_holder(folder)
    assert holder is None or isinstance(holder["beat"], int | float)


@often
@given(st.one_of(changed(to_dict(Curation())), VALUES))
def test_any_settings_of_curation(tmp_path, value):
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(value, allow_unicode=False), "utf-8")
    with suppress(RefloomError):
        load(Curation, str(file))


@often
@given(st.one_of(st.text(max_size=60), st.binary(max_size=60)))
def test_any_text_of_settings(tmp_path, data):
    file = tmp_path / "settings.yaml"
    file.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    with suppress(RefloomError):
        load(Curation, str(file))
    with suppress(RefloomError):
        set_value({}, data if isinstance(data, str) else data.decode("latin-1"))


@seldom
@given(changed(to_dict(book.load("debug/ip_adapter", []))))
def test_any_recipe(tmp_path, value):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(value), "utf-8")
    with suppress(RefloomError):
        book.load(str(file), [])


def _ten(number: int) -> str:
    return ", ".join([f"*a{number}"] * 10)


ODD_YAML = {
    "deep lists": "[" * 100_000,
    "deep mappings": "{a: " * 5_000,
    "a date that is none": "a: 2020-99-99",
    "a number of no base": "a: !!int 0x",
    "a tag of Python": "!!python/object/apply:os.system [id]",
    "a key that is a list": "? [a]\n: b",
    "a tag of another type": "!!set [1]",
    "an alias of nothing": "a: *b",
    "itself": "&a [*a]",
    "itself in a mapping": "&a {b: *a}",
    "a thousand million": "\n".join(
        ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30))]
    ),
    "control characters": "a: \x01",
    "two documents": "a: 1\n---\nb: 2",
    "a tab": "a:\n\t- b",
}


@pytest.mark.parametrize("what", ODD_YAML)
def test_odd_yaml_is_refused_in_one_line(tmp_path, what):
    with pytest.raises(ValueError, match=r".") as odd:
        yamls.loads(ODD_YAML[what])
    assert len(str(odd.value).splitlines()) == 1
    file = tmp_path / "settings.yaml"
    file.write_text(ODD_YAML[what])
    with pytest.raises(RefloomError, match="is not YAML"):
        load(Curation, str(file))


@often
@given(st.one_of(VALUES.map(text), st.binary(max_size=60), changed(MANIFEST).map(text)))
def test_any_manifest_of_a_publication(data):
    with suppress(ValueError):
        publication.parse(data)


def test_levels_are_counted_without_recursion():
    nested: list = []
    for _ in range(50_000):
        nested = [nested]
    with pytest.raises(ValueError, match="levels"):
        check_levels(nested)
    check_levels({"a": [{"b": [1]}]})
    with pytest.raises(ValueError, match=r"."):
        loads("[" * 150 + "]" * 150)
    loads("[" * 90 + "]" * 90)


def test_shapes_say_what_does_not_fit_and_where():
    shape = {"a": int, "b?": [{"c": (None, str)}], "d": {"*": float}}
    assert misfit({"a": 1, "d": {}}, shape) is None
    assert misfit({"a": 1, "b": [{"c": None}, {"c": "x"}], "d": {"x": 1, "y": 0.5}, "more": []}, shape) is None
    assert misfit({"a": True, "d": {}}, shape) == "a is not a whole number from 0"
    assert misfit({"a": 1, "b": [{"c": 3}], "d": {}}, shape) == "b[0].c is not null"
    assert misfit({"a": 1, "d": {"x": "1"}}, shape) == "d.x is not a number"
    assert misfit({"a": 1}, shape) == "it has no d"
    assert misfit([], shape) == "it is no object"
