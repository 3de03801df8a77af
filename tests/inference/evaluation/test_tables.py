"""Numbers by how many references were seen, and how far they may be off."""

import numpy as np
import pytest

from refloom.inference.evaluation import encoders, metrics, outcome
from refloom.inference.evaluation.cases import Benchmark, Case, FilePicture, Subject
from refloom.inference.evaluation.encoders import Chosen
from refloom.inference.evaluation.intervals import interval
from refloom.inference.models import registry

DINO = (metrics.BY_NAME["dino"],)
CHOSEN = {
    "dino": Chosen(registry.by_name("image_embedding", "efficientnet-lite0")),
    "detector": Chosen(None, why="none is there"),
}


def case_of(number: int, *references: int) -> Case:
    subjects = [Subject("cat", (FilePicture("x"),) * count, (FilePicture("x"),)) for count in references]
    return Case(f"c/{number}", "c", "a cat", tuple(subjects))


def row_of(number: int, value: float) -> dict:
    return {"case": f"c/{number}", "part": "c", "image": 0, "scores": {"dino": [value, 1]}, "remarks": {}}


@pytest.mark.parametrize(
    ("count", "name"), [(0, "0"), (1, "1"), (2, "2-3"), (3, "2-3"), (4, "4-5"), (5, "4-5"), (6, "6+"), (28, "6+")]
)
def test_every_number_of_references_has_its_table(count: int, name: str):
    assert outcome.band(count) == name


def test_tables_share_out_the_cases_by_what_the_adapter_saw_of_all_subjects():
    references = [(1,), (1, 1), (2, 1), (4,), (3, 2), (6,), (4, 4)]
    cases = tuple(case_of(n, *counts) for n, counts in enumerate(references))
    benchmark = Benchmark("b", "B", cases, 1, "samples")
    rows = [row_of(n, n / 10) for n in range(7)]
    tables = outcome.by_references(benchmark, DINO, rows, CHOSEN, None)
    assert [(table.references, table.cases, table.pictures) for table in tables] == [
        ("1", 1, 1),
        ("2-3", 2, 2),
        ("4-5", 2, 2),
        ("6+", 2, 2),
    ]
    assert [table.lines[0].value for table in tables] == pytest.approx([0, 0.15, 0.35, 0.55])
    assert sum(table.pictures for table in tables) == len(rows)
    limited = outcome.by_references(benchmark, DINO, rows, CHOSEN, 1)
    assert [(table.references, table.cases) for table in limited] == [("1", 3), ("2-3", 4)]


def test_tables_of_other_cases_averages_and_limits_have_other_protocols():
    cases = (case_of(0, 1), case_of(1, 2))
    rows = [row_of(0, 0.1), row_of(1, 0.2)]

    def ids(average, limit):
        tables = outcome.by_references(Benchmark("b", "B", cases, 1, average), DINO, rows, CHOSEN, limit)
        return [one for table in tables for one in (table.protocol, table.lines[0].protocol)]

    every = [*ids("samples", None), *ids("pairs", None), *ids("samples", 2)]
    assert len(set(every)) == len(every)
    assert ids("samples", None)[:2] == [
        "b/mean-over-samples/refs=all/shown=1",
        "dino/efficientnet-lite0/short-8:7-bicubic-centre/whole/cos/mean-over-samples/refs=all/shown=1",
    ]
    whole = encoders.protocol(DINO[0], CHOSEN["dino"], "samples", "all")
    assert whole not in every, "a part of the cases is never taken for all"


def test_two_pictures_of_a_case_are_one_case():
    benchmark = Benchmark("b", "B", (case_of(0, 1),), 2, "samples")
    (table,) = outcome.by_references(benchmark, DINO, [row_of(0, 0.1), row_of(0, 0.3)], CHOSEN, None)
    assert (table.cases, table.pictures, table.lines[0].interval) == (1, 2, None)


def test_the_interval_is_that_of_a_mean_of_cases():
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = interval([(str(n), "a", (float(value), 1)) for n, value in enumerate(values)], "samples")
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.002)
    again = interval([(str(n), "a", (float(value), 1)) for n, value in enumerate(values)], "samples")
    assert (low, high) == again, "nothing depends on the hour"


def test_pictures_of_one_case_do_not_narrow_the_interval():
    values = np.random.default_rng(1).normal(0.5, 0.1, 40)
    once = [(str(n), "a", (float(value), 1)) for n, value in enumerate(values)]
    assert interval(once, "samples") == pytest.approx(interval(once * 4, "samples"))
    assert interval(once[:1] * 4, "samples") is None
    assert interval([], "samples") is None


def test_the_interval_follows_each_average():
    scores = [("a1", "a", (1.0, 1)), ("a2", "a", (1.0, 9)), ("b1", "b", (0.0, 1)), ("b2", "b", (0.0, 9))]
    for how in ("samples", "pairs", "parts"):
        low, high = interval(scores, how)
        mean = metrics.average([(part, score) for _, part, score in scores], how)
        assert 0 <= low < mean < high <= 1
    heavy = [(str(n), "a", (float(n % 2), 1 if n % 2 else 99)) for n in range(100)]
    low, high = interval(heavy, "pairs")
    assert 0.005 < low < 0.01 < high < 0.02, "most pairs are of zeros"
    even = [(f"{part}{n}", part, (float(part == "a"), 1)) for part in "ab" for n in range(50)]
    low, high = interval(even, "parts")
    assert low == high == 0.5, "parts weigh alike, however often they are drawn"
    low, high = interval(even, "samples")
    assert low < 0.45 < 0.55 < high


def test_a_line_says_what_befell_single_subjects():
    benchmark = Benchmark("b", "B", (case_of(0, 1), case_of(1, 1)), 1, "samples")
    rows = [
        row_of(0, 0.1) | {"remarks": {"dino": {"missed": 1}}},
        row_of(1, 0.2) | {"remarks": {"dino": {"missed": 2}}},
    ]
    (line,) = outcome.summarise(benchmark, DINO, rows, CHOSEN, "all")
    assert line.remarks == {"missed": 3}
    assert line.said.endswith("; 3 subjects missed")
    assert line.spread == "0.1000 to 0.2000"
