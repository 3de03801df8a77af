"""What verify says of samples with a target: places, roles, subjects, and sides of the split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from crossing import crossed, crosses, image

from refloom.schemas.dataset import Dataset
from refloom.schemas.findings import Findings
from refloom.schemas.samplechecks import check_sides, sample_problems

Row = dict[str, Any]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return crossed(tmp_path_factory.mktemp("checked"))


def _with(name: str, value: Any) -> Callable[[Row], Row]:
    return lambda row: row | {name: value}


def _roles(row: Row) -> Row:
    return row | {"pictures": [picture | {"role": "target"} for picture in row["pictures"]]}


def _unseen(row: Row) -> Row:
    first, *others = row["subjects"]
    return row | {"subjects": [first | {"appearances": first["appearances"][1:]}, *others]}


def _alone(row: Row) -> Row:
    return row | {"subjects": row["subjects"][:1]}


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (_with("target", 9), "its target is picture 9"),
        (_with("target", 1), "the roles of its pictures say otherwise"),
        (_with("target", None), "the roles of its pictures say otherwise"),
        (_roles, "the roles of its pictures say otherwise"),
        (_with("sample_id", "cross/other"), "its first picture is not its target"),
        (_with("instructions", [{"text": "x", "from": "source", "references": [0]}]), "no reference of it"),
        (_with("instructions", [{"text": "x", "from": "source", "references": [7]}]), "no reference of it"),
        (_unseen, "is not seen on the target first"),
        (_alone, "1 subjects, where a cross sample has two and more"),
    ],
)
def test_a_broken_cross_sample_is_found(dataset, break_it, words):
    row = crosses(dataset)[f"cross/{image(1)}"]
    assert sample_problems(row) == []
    assert any(words in problem for problem in sample_problems(break_it(row)))


def test_pictures_on_two_sides_of_the_split_are_found(tmp_path):
    dataset = crossed(tmp_path)
    sound = Findings()
    check_sides(dataset, sound)
    assert (sound.problems, sound.checked["sides of cross samples"]) == ([], 3)
    (path,) = Path(dataset.url).glob("splits/*.parquet")
    table = pq.read_table(path)
    sides = ["validation" if name == image(4) else "train" for name in table["image_id"].to_pylist()]
    pq.write_table(table.set_column(table.schema.get_field_index("split"), table.schema.field("split"), [sides]), path)
    found = Findings()
    check_sides(Dataset(dataset.url), found)
    assert found.problems == [
        f"cross/{image(number)}: its pictures lie on several sides of the split" for number in (1, 5)
    ]
