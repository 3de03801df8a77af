"""Ids and references as pure functions: no two things of one id, and a reference means what it says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloom.ingest import naming, references, videos
from refloom.ingest.naming import Named
from refloom.ingest.references import References

TEXTS = ["", "1", "01", "1~2", "~1", "whole", "caf\u00e9", "cafe\u0301", "a#b", "a%23b", " 1"]
IDS = st.sampled_from([None, True, False, 1.0, 1.5, [1], *range(-3, 12), *TEXTS])


@given(st.lists(st.tuples(IDS, st.integers(0, 2)), max_size=12))
@settings(max_examples=300, deadline=None)
def test_annotations_that_differ_have_ids_that_differ(rows):
    records = [{"id": identity, "what": what} for identity, what in rows]
    named = naming.of_annotations(records)
    by_id: dict[Named, int] = {}
    for place, name in enumerate(named):
        assert name.identity
        assert name.identity != "whole"
        assert name not in by_id, "no two rows of one id and occurrence"
        by_id[name] = place
        if name.occurrence:
            first = records[by_id[Named(name.identity, 0)]]
            assert repr(first) == repr(records[place]) or references.text(first["id"]) == references.text(
                records[place]["id"]
            )
    assert len({name.identity for name in named}) >= len({repr(record) for record in records if record["id"] == 1})


@given(st.lists(st.tuples(st.integers(0, 5), st.lists(st.sampled_from("abc"), min_size=1, max_size=3)), max_size=12))
def test_every_key_has_one_id_and_no_two_keys_share_it(claims):
    suggestions = dict(claims[::-1])
    named = naming.distinct([(key, suggestions[key]) for key, _ in claims], taken=["a"])
    given_ids = {key: name.identity for (key, _), name in zip(claims, named, strict=True)}
    assert len(set(given_ids.values())) == len(given_ids)
    assert "a" not in given_ids.values()
    for place, (key, _) in enumerate(claims):
        assert named[place] == (given_ids[key], sum(earlier == key for earlier, _ in claims[:place]))


@pytest.mark.parametrize(
    ("held", "asked", "found"),
    [
        ([1, "1"], 1, 0),
        ([1, "1"], "1", 1),
        (["1", 1], 1.0, 1),
        ([1], "1", 0),
        (["1"], 1, 0),
        (["1"], 1.0, 0),
        (["01"], 1, None),
        ([1], "01", None),
        ([True], 1, None),
        ([1], True, None),
        ([None], None, None),
        ([[1]], [1], None),
        ([0], 0, 0),
        ([1, 1], 1, 0),
        ([float("nan")], float("nan"), None),
        ([10**30], str(10**30), 0),
    ],
)
def test_a_reference_means_its_own_type_first(held, asked, found):
    assert References((value, place) for place, value in enumerate(held)).get(asked) == found


@pytest.mark.parametrize(
    ("folders", "titles"),
    [
        (["a", "b"], ["a", "b"]),
        (["JPEGImages/a", "JPEGImages/b"], ["a", "b"]),
        (["train/a", "valid/a"], ["train/a", "valid/a"]),
        (["x/train/a/img1", "x/valid/a/img1", "x/b/img1"], ["train/a", "valid/a", "b"]),
        (["img1"], ["img1"]),
        (["", ""], ["7", "7~2"]),
        (["a/b", "b"], ["a/b", "b"]),
        (["a/img1", "a"], ["a", "a~2"]),
        (["a#b", "a%23b"], ["a%23b", "a%2523b"]),
    ],
    ids=str,
)
def test_titles_of_videos(folders, titles):
    found = videos.titles([videos.Video(place, folder, "7") for place, folder in enumerate(folders)])
    assert found == titles


@given(st.lists(st.lists(st.sampled_from(["a", "b", "img1", "A", "frames"]), max_size=4), max_size=8))
def test_no_two_videos_have_one_title(folders):
    found = videos.titles([videos.Video(place, "/".join(parts), "7") for place, parts in enumerate(folders)])
    assert len(set(found)) == len(folders)


@given(st.lists(st.sampled_from(["0.jpg", "0.png", "00.jpg", "a/0.jpg", "b/0.jpg", "0.png.jpg", "x.jpg"]), max_size=8))
def test_no_two_frames_have_one_name(paths):
    names = dict(zip(paths, videos.frames(paths), strict=True))
    assert len(set(names.values())) == len(names)
    numbers = [number for number in dict(zip(paths, videos.numbers(paths), strict=True)).values() if number is not None]
    assert len(set(numbers)) == len(numbers)
