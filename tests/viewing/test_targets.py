"""Cross samples to eyes: target and references told apart, pairs with their numbers, in the report and in browse."""

import re
from typing import Any

import pytest
from crossing import crossed, crosses, image

from refloom.schemas.dataset import Dataset
from refloom.viewing.browse.grid import results
from refloom.viewing.browse.index import build
from refloom.viewing.browse.library import Library
from refloom.viewing.browse.pages import sample_page
from refloom.viewing.browse.query import Query
from refloom.viewing.report import report
from refloom.viewing.targets import note, pairs_with

NAME = f"cross/{image(1)}"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return crossed(tmp_path_factory.mktemp("seen"))


def text(markup: Any) -> str:
    return re.sub(r"<[^>]+>", " ", str(markup))


def test_each_pair_with_the_target_has_its_numbers():
    subject = {
        "appearances": [{"picture": 0}, {"picture": 1}, {"picture": 2}],
        "similarity": [0.9, 0.8, 0.7],
        "pair_pose_change": [0.1, None, 0.3],
    }
    assert pairs_with(subject, 0, 1) == [{"similarity": 0.9, "faces": None, "pose": 0.1}]
    assert pairs_with(subject, 0, 2) == [{"similarity": 0.8, "faces": None, "pose": None}]
    assert pairs_with(subject, 1, 2) == [{"similarity": 0.7, "faces": None, "pose": 0.3}]
    bare = subject | {"similarity": None, "pair_pose_change": None}
    assert pairs_with(bare, 0, 2) == [dict.fromkeys(("similarity", "faces", "pose"))]
    faces = [{"picture": n, "face": {"embedding": one}} for n, one in enumerate(([0.6, 0.8], [0.8, 0.6], None))]
    assert pairs_with(bare | {"appearances": faces}, 0, 1)[0]["faces"] == pytest.approx(0.96)
    assert pairs_with(bare | {"appearances": faces}, 0, 2)[0]["faces"] is None
    row = {"target": 0, "subjects": [subject]}
    assert text(note(row, 0)).split() == ["target"]
    assert text(note(row, 1)).split() == ["reference", "1", "similarity", "0.900,", "pose", "0.100"]
    assert text(note(row, 2)).split() == ["reference", "1", "similarity", "0.800"]
    assert note(row | {"target": None}, 1) is None
    assert note({"subjects": [subject]}, 1) is None, "samples of before have no such column"


def test_the_report_shows_cross_samples(dataset, tmp_path):
    report(dataset, str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Cross samples" in page
    assert page.count('class="part target"') == len(crosses(dataset)) == 3
    found = next(part for part in page.split("<article")[1:] if NAME in part)
    assert found.count('class="part reference"') == len(crosses(dataset)[NAME]["pictures"]) - 1
    changes = [subject["pair_pose_change"][0] for subject in crosses(dataset)[NAME]["subjects"]]
    assert all(f"pose {change:.3f}" in found for change in changes)
    assert "cross" in text(page.split('id="funnel"')[1][:20000]), "the funnel counts the kind"


def test_browse_finds_and_shows_cross_samples(dataset):
    index = build(dataset)
    grid = str(results(index, Query(view="samples", kind="cross")))
    assert grid.count('class="tile cell"') == 3
    library = Library(dataset, index)
    page = sample_page(library, "data", index.listings["samples"].ids.to_pylist().index(NAME))
    assert page is not None
    assert page.count('<figure class="target"') == 1
    assert page.count('<figure class="reference"') == len(crosses(dataset)[NAME]["pictures"]) - 1
    assert page.count("pose 0.") >= 2
    plain = sample_page(library, "data", index.listings["samples"].ids.to_pylist().index(f"image/{image(1)}"))
    assert plain is not None
    assert "reference" not in text(plain)
