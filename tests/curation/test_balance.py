"""Caps and shares: no limit is passed, nothing could be added, validation keeps its share, and growth moves little."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.curation.config import Curation
from refloom.curation.select.balance import AXES, Balance, Balanced, Ranked, balanced, draw, limits, parted
from refloom.schemas.errors import Refused
from refloom.schemas.settings import load

Row = dict[str, Any]


def candidates(rows: list[Row]) -> Ranked:
    """Rows with any of the axes, a split and a score, as columns."""
    return Ranked(
        ids=[row.get("id", f"image/{number:05d}") for number, row in enumerate(rows)],
        strata={axis: [row.get(axis) for row in rows] for axis in AXES},
        splits=[row.get("split", "train") for row in rows],
        scores=np.array([row.get("score", np.nan) for row in rows], np.float64),
    )


def kept(rows: list[Row], **config: Any) -> list[Row]:
    result = balanced(candidates(rows), Balance(**config))
    return [row for row, stays in zip(rows, result.kept, strict=True) if stays]


def of(source: str, count: int, **more: Any) -> list[Row]:
    return [{"id": f"image/{source}/{number}", "source": source, "kind": "image", **more} for number in range(count)]


# -- caps ------------------------------------------------------------------------------------------------------------


def test_without_a_limit_everything_stays_and_nothing_is_said_of_it():
    result = balanced(candidates(of("coco", 5)), Balance())
    assert result.kept.all()
    assert set(result.full) == {()}


def test_a_cap_keeps_the_lowest_hashes_of_each_source_and_says_which_caps_are_full():
    rows = of("coco", 30) + of("sa1b", 4)
    result = balanced(candidates(rows), Balance(max_per_source=10, seed=7))
    lowest = sorted((draw(row["id"], 7), row["id"]) for row in rows if row["source"] == "coco")[:10]
    stay = {row["id"] for row, stays in zip(rows, result.kept, strict=True) if stays}
    assert stay == {name for _, name in lowest} | {row["id"] for row in rows if row["source"] == "sa1b"}
    assert result.full == [("source/coco",)] * 30 + [()] * 4


def test_a_named_cap_wins_over_the_general_one():
    rows = of("coco", 9) + of("sa1b", 9) + of("vos", 9)
    found = Counter(row["source"] for row in kept(rows, max_per_source=5, caps={"source/sa1b": 7, "source/vos": 0}))
    assert found == {"coco": 5, "sa1b": 7}


_ROW = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["coco", "sa1b", "vos"]),
        "kind": st.sampled_from(["image", "video", "group"]),
        "category": st.sampled_from([None, "cat", "dog"]),
        "split": st.sampled_from(["train", "train", "train", "validation"]),
        "score": st.floats(0, 1),
    }
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(_ROW, max_size=40),
    st.none() | st.integers(0, 12),
    st.none() | st.integers(0, 12),
    st.none() | st.integers(0, 12),
    st.none() | st.integers(0, 30),
    st.sampled_from(["hash", "quality"]),
)
def test_no_limit_is_passed_and_none_that_goes_could_have_stayed(rows, source, kind, category, whole, by):
    config = Balance(max_per_source=source, max_per_kind=kind, max_per_category=category, max_samples=whole, by=by)
    table = candidates(rows)
    result = balanced(table, config)
    assert result.kept[[not strata for strata in result.full]].all()
    room = _room(table, result, config)
    assert all(left >= 0 for left in room.values())
    for row in np.flatnonzero(~result.kept):
        assert any(room[stratum, table.splits[row]] == 0 for stratum in result.full[row])


def _room(table: Ranked, result: Balanced, config: Balance) -> dict[tuple[str, str], int]:
    """What is left of the limit of each full stratum, in each split."""
    room: dict[tuple[str, str], int] = {}
    for axis, values in {"samples": ["all"] * len(table.ids), **table.strata}.items():
        counts = Counter(value for value in values if value is not None)
        for value, limit in limits(axis, counts, config).items():
            if limit < counts[value]:
                mine = [row for row, other in enumerate(values) if other == value]
                parts = parted(limit, Counter(table.splits[row] for row in mine))
                stay = Counter(table.splits[row] for row in mine if result.kept[row])
                room |= {(f"{axis}/{value}", split): part - stay[split] for split, part in parts.items()}
    return room


# -- validation ------------------------------------------------------------------------------------------------------


def test_train_and_validation_are_capped_in_their_own_proportion():
    rows = of("coco", 900) + [row | {"id": row["id"] + "v"} for row in of("coco", 100, split="validation")]
    assert Counter(row.get("split", "train") for row in kept(rows, max_per_source=50)) == {"train": 45, "validation": 5}


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 10_000), min_size=1), st.floats(0, 0.999))
def test_a_limit_is_parted_wholly_and_nobody_gets_more_than_it_has(counts, share):
    limit = int(share * sum(counts.values()))
    parts = parted(limit, counts)
    assert sum(parts.values()) == limit
    assert all(0 <= parts[name] <= counts[name] for name in counts)
    if limit >= len(counts):
        assert min(parts.values()) >= 1


# -- shares ----------------------------------------------------------------------------------------------------------


def test_shares_take_as_many_as_the_scarcest_allows():
    rows = of("coco", 10) + of("sa1b", 100) + of("vos", 50)
    found = Counter(row["source"] for row in kept(rows, shares={"source/coco": 1, "source/sa1b": 3}))
    assert found == {"coco": 10, "sa1b": 30, "vos": 50}  # vos is not named


def test_a_cap_makes_its_stratum_scarce_and_a_source_that_is_absent_does_not():
    rows = of("coco", 10) + of("sa1b", 100)
    shares = {"source/coco": 1, "source/sa1b": 1, "source/easyref": 5}
    assert Counter(row["source"] for row in kept(rows, shares=shares, max_per_source=4)) == {"coco": 4, "sa1b": 4}


def test_a_share_of_0_takes_none_and_limits_nobody_else():
    rows = of("coco", 10) + of("sa1b", 8)
    assert Counter(row["source"] for row in kept(rows, shares={"source/coco": 1, "source/sa1b": 0})) == {"coco": 10}


# -- order -----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_a_larger_dataset_only_pushes_out_what_is_drawn_later(seed, more):
    rows = of("coco", 40)
    before = {row["id"] for row in kept(rows, max_per_source=15, seed=seed)}
    after = {row["id"] for row in kept(of("coco", 40 + more), max_per_source=15, seed=seed)}
    assert len(before - after) <= more
    assert before >= after & {row["id"] for row in rows}, "nothing comes back"


def test_the_order_of_rows_does_not_matter_and_the_seed_does():
    rows = of("coco", 40)
    one, turned, other = (
        {row["id"] for row in kept(listed, max_per_source=15, seed=seed)}
        for listed, seed in ((rows, 0), (rows[::-1], 0), (rows, 1))
    )
    assert one == turned != other


def test_a_larger_cap_keeps_what_a_smaller_one_keeps():
    rows = of("coco", 40)
    small, large = ({row["id"] for row in kept(rows, max_per_source=cap)} for cap in (10, 20))
    assert small < large


def test_by_quality_the_best_stay_and_what_has_no_score_goes_first():
    rows = [{"id": f"image/{score}", "kind": "image", "source": "coco", "score": score} for score in (0.2, 0.9, 0.5)]
    rows.append({"id": "image/none", "kind": "image", "source": "coco"})
    assert [row["id"] for row in kept(rows, max_per_source=2, by="quality")] == ["image/0.9", "image/0.5"]
    assert len(kept(rows, max_per_source=3, by="quality")) == 3
    assert "image/none" not in {row["id"] for row in kept(rows, max_per_source=3, by="quality")}


def test_by_quality_kinds_are_ranked_on_their_own_scale():
    """Similarities of groups lie above qualities of objects; groups would take a whole source."""
    rows = [{"id": f"image/{n}", "kind": "image", "source": "coco", "score": 0.3 + n / 100} for n in range(10)]
    rows += [{"id": f"group/{n}", "kind": "group", "source": "coco", "score": 0.9 + n / 1000} for n in range(10)]
    found = kept(rows, max_per_source=6, by="quality")
    assert Counter(row["kind"] for row in found) == {"image": 3, "group": 3}
    assert {row["id"] for row in found} == {f"{kind}/{n}" for kind in ("image", "group") for n in (7, 8, 9)}


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("balance.by=luck", "hash or quality"),
        ("balance.max_per_source=-1", "0 or more"),
        ("balance.caps={coco: 3}", "source/coco"),
        ("balance.shares={colour/red: 1}", "no stratum"),
        ("balance.shares={source/coco: 0}", "nothing would stay"),
        ("balance.max_per_soruce=3", "did you mean balance.max_per_source"),
        ("pairs.min_mean_similarity=high", "is a number"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(setting, said):
    with pytest.raises(Refused, match=said):
        load(Curation, None, [setting])
