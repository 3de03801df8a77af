"""Files of a face pack: each must be the network that its name says, whatever else insightface would take it for."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxgraphs import constant, save, save_detector, save_identity, save_points
from tinymodels import FACES as ENTRY
from tinymodels import GRAPHS as NAMES
from tinymodels import put_faces, use

from refloom.inference.models import registry
from refloom.schemas.errors import Refused

DETECTOR, IDENTITY, POINTS = NAMES
GIT_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 143607619\n"


def flat(file: Path, side: int, width: int, *, value: float = 0.0) -> None:
    """A graph of one input and one row of numbers, as genderage.onnx, 2d106det.onnx and the like are."""
    weights = np.zeros((3, width))
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["row"]),
        helper.make_node("Gemm", ["row", "weights", "bias"], ["fc1"]),
    ]
    constants = [constant("weights", weights), constant("bias", np.full(width, value))]
    save(file, nodes, constants, ["n", 3, side, side], {"fc1": ["n", width]})


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put_faces(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def folder(graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pack, to be spoilt."""
    return shutil.copytree(graphs, use(tmp_path, monkeypatch) / ENTRY.name)


def refusal(name: str) -> str:
    with pytest.raises(
        Refused, match=rf"weights of {ENTRY.name} are damaged: {name}: .*; get them again: .*curl"
    ) as one:
        ENTRY.load()
    return str(one.value)


STAND_INS: dict[str, Callable[[Path], object]] = {
    "detector": save_detector,
    "identity": save_identity,
    "points": save_points,
    "2d106det": lambda file: flat(file, 192, 212),
    "genderage": lambda file: flat(file, 96, 3),
    "a smaller identity": lambda file: flat(file, 112, 128),
    "an identity of larger crops": lambda file: flat(file, 224, 512),
    "five points alone": lambda file: flat(file, 192, 10),
    "a detector without points": lambda file: save_detector(file, points=False),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("instead", STAND_INS)
def test_another_network_in_a_files_place_is_refused(folder: Path, name: str, instead: str):
    true = {DETECTOR: "detector", IDENTITY: "identity", POINTS: "points"}[name]
    STAND_INS[instead](folder / name)
    if instead == true:
        ENTRY.load()
        return
    what = {DETECTOR: "a detector of faces with five", IDENTITY: "an identity", POINTS: "a network of 68 points"}[name]
    assert f"it is not {what}" in refusal(name)


def test_two_files_that_were_mixed_up_are_refused(folder: Path):
    (folder / POINTS).rename(folder / "x")
    (folder / IDENTITY).rename(folder / POINTS)
    (folder / "x").rename(folder / IDENTITY)
    assert "it is not an identity network, which takes pictures of 112x112 px and gives rows of 512" in refusal(
        IDENTITY
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GIT_LFS, "pointer of git-LFS.*run `git lfs pull`"),
        ("<!DOCTYPE html><html></html>", "web page"),
        ("", "it is empty"),
        ("half a download", "no ONNX graph, or cut off"),
    ],
    ids=["pointer", "page", "empty", "text"],
)
def test_the_cause_of_a_file_that_is_no_graph_is_said(folder: Path, name: str, text: str, said: str):
    (folder / name).write_text(text)
    with pytest.raises(Refused, match=f"{name}: .*{said}"):
        ENTRY.load()


@pytest.mark.parametrize(("name", "side", "width"), [(IDENTITY, 112, 512), (POINTS, 192, 3309)])
def test_networks_that_give_no_numbers_are_refused(folder: Path, name: str, side: int, width: int):
    flat(folder / name, side, width, value=float("nan"))
    assert "values that are no numbers" in refusal(name)


def test_the_shape_that_a_graph_gives_counts_and_not_the_one_that_it_declares(folder: Path):
    """Published graphs declare unknown sizes, or those of another batch."""
    flat(folder / POINTS, 192, 212)
    graph = onnx.load(folder / POINTS)
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "m"
    onnx.save(graph, folder / POINTS)
    assert "68 points in space" in refusal(POINTS)
    save_points(folder / POINTS)
    graph = onnx.load(folder / POINTS)
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "m"
    onnx.save(graph, folder / POINTS)
    ENTRY.load()


def test_dlibs_files_are_told_apart_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entry = registry.by_name("face", "dlib")
    if entry.present() is not None:
        pytest.skip(entry.describe_absence())
    landmarks, identity = entry.files()
    for pair in ((identity, identity), (landmarks, landmarks), (identity, landmarks)):
        monkeypatch.setattr(type(entry), "files", lambda _, pair=pair: pair)
        with pytest.raises(Refused, match=r"weights of dlib are damaged: .*reinstall them"):
            entry.load()
    (pointer := tmp_path / "five.dat").write_text(GIT_LFS)
    monkeypatch.setattr(type(entry), "files", lambda _: (pointer, identity))
    with pytest.raises(Refused, match=r"five\.dat: it is a pointer of git-LFS"):
        entry.load()
