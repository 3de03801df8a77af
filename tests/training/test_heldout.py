"""The held-out comparison: what is shuffled, what stays, and that equal references give equal losses."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import write_samples
from traindata import recipe, video, write_videos

from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Refused
from refloom.training.methods.known import METHODS
from refloom.training.methods.method import Method
from refloom.training.recipes import book
from refloom.training.run.loop import train
from refloom.training.views.example import Drops, Example, SizeCondition
from refloom.training.watch import heldout
from refloom.training.watch.heldout import compare, held_out, shuffled


def example(sample_id: str, *greys: int) -> Example:
    """With a phrase and a place for each reference, which is a picture of one grey."""
    references = tuple(
        Reference(np.full((8, 8, 3), grey, np.uint8), f"cup {at}", (0.0, 0.0, 0.5, 0.5))
        for at, grey in enumerate(greys)
    )
    sizes = SizeCondition((8, 8), (0, 0), (8, 8))
    return Example(sample_id, np.zeros((8, 8, 3), np.uint8), "a cup", references, (None,), Drops(), sizes, 0)


def greys(one: Example) -> list[int]:
    return [int(reference.images[0][0, 0, 0]) for reference in one.references]


def test_references_come_from_other_subjects_of_the_same_kind_of_sample() -> None:
    given = [
        example("video/ytvis/a/0", 1, 2),
        example("image/x", 3),
        example("video/ytvis/a/1", 4),
        example("video/ytvis/b/0", 5),
        example("image/y", 6),
    ]
    found = shuffled(given)
    assert [greys(one) for one in found] == [[5, 5], [6], [5], [1], [3]]
    for one, other in zip(given, found, strict=True):
        assert [(ref.phrase, ref.boxes) for ref in one.references] == [
            (ref.phrase, ref.boxes) for ref in other.references
        ]
        assert other.target is one.target
    with pytest.raises(Refused, match="only sample of its kind"):
        shuffled(given[:3])


def test_cross_samples_never_get_references_of_the_same_scene_and_others_subjects_where_there_are_any() -> None:
    def cross(name: str, grey: int, *shows: tuple[str, str]) -> Example:
        return replace(example(f"cross/{name}", grey), shows=frozenset(shows))

    one, same = ("video", "ytvis/a"), ("identity", "identity/x")
    given = [
        cross("ytvis/a/0", 1, one),
        cross("ytvis/a/5", 2, one, ("track", "ytvis/a#1")),
        cross("coco/1", 3, same),
        cross("coco/2", 4, same, ("image", "coco/2")),
        example("image/x", 5),
        example("image/y", 6),
    ]
    assert [greys(found) for found in shuffled(given)] == [[3], [3], [1], [1], [6], [5]]
    assert [greys(found) for found in shuffled(given[2:4])] == [[4], [3]], "one person, and nobody else is there"
    for shared in (one, ("image", "coco/2"), ("track", "ytvis/a#1")):
        with pytest.raises(Refused, match="only sample of its kind"):
            shuffled([cross("a", 1, shared), cross("b", 2, shared)])
    apart = [replace(found, dataset=str(at)) for at, found in enumerate(given[:2])]
    assert [greys(found) for found in shuffled(apart)] == [[2], [1]], "ids of two datasets say nothing of each other"


def test_held_out_cross_samples_say_what_they_show(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(number: int) -> tuple[Any, list[bytes]]:
        row, data = video(number)
        listed = [one | {"image_id": f"v/{number}/{at}", "video_id": f"v/{number % 2}"} for at, one in
                  enumerate(row["pictures"])]  # fmt: skip
        subjects = [one | {"identity": f"identity/{number}"} for one in row["subjects"]]
        told = {"sample_id": f"cross/v/{number}/0", "kind": "cross", "target": 0}
        return row | told | {"pictures": listed, "subjects": subjects}, data

    url = write_samples(tmp_path / "cross", 1, 4, make)
    monkeypatch.setattr(heldout, "SPLIT", "train")
    found = held_out(recipe("ms_diffusion", models, url, "data.kinds=[cross]"), 4)
    assert len(found) == 4
    for one, other in zip(found, shuffled(found), strict=True):
        number = one.sample_id.split("/")[2]
        assert {("video", f"v/{int(number) % 2}"), ("identity", f"identity/{number}")} <= one.shows
        assert ("image", f"v/{number}/2") in one.shows
        (giver,) = [each for each in found if each.references[0].images[0] is other.references[0].images[0]]
        assert int(giver.sample_id.split("/")[2]) % 2 != int(number) % 2


def test_equal_references_have_equal_losses_and_others_differ(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = write_videos(tmp_path / "samples", units=1, rows=4)
    one = recipe("ip_adapter", models, url, "steps=1", "optimizer.lr=1e-2")
    adapter = str(train(one, tmp_path / "run"))
    with pytest.raises(Refused, match="no samples of split 'validation'"):
        compare(one, adapter)
    monkeypatch.setattr(heldout, "SPLIT", "train")
    found = compare(one, adapter, timesteps=(500, 900))
    assert found.samples == 4
    assert found.shuffled - found.right == pytest.approx(found.difference)
    assert abs(found.difference) > 0
    monkeypatch.setattr(heldout, "shuffled", lambda examples: examples)
    same = compare(one, adapter, timesteps=(500, 900))
    assert (same.difference, same.error) == (0, 0)
    assert same.right == found.right


def test_samples_are_read_once_for_all_timesteps(models: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = recipe("ip_adapter", models, url)
    method = METHODS[one.method]
    conditions, read = type(method).conditions, []

    def counted(self: Method, adapter: Any, examples: Sequence[Example], seed: int) -> Any:
        read.append(len(examples))
        return conditions(self, adapter, examples, seed)

    with method.ready(one, torch.device("cpu")) as adapter, torch.no_grad():
        monkeypatch.setattr(type(method), "conditions", counted)
        examples, step = held_out(one, 4), method.step(adapter, one)
        moved = [replace(example, position=example.position + 100) for example in examples]
        early, late = torch.full((4,), 500), torch.full((4,), 900)
        with ExitStack() as conditioned:
            alone = step.losses(examples, early, conditioned)
        read.clear()
        with ExitStack() as conditioned:
            rounds = ((early, examples), (late, examples), (late, moved))
            first, second, third = step.rounds(examples, rounds, conditioned)
    assert read == [4]
    assert torch.equal(first, alone)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)  # noise belongs to positions


def test_datasets_that_use_the_same_ids_are_all_looked_at(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (write_videos(tmp_path / name, units=1, rows=3) for name in ("one", "other"))
    asked = recipe("ip_adapter", models, one)
    both = tuple(replace(asked.data.sources[0], url=url) for url in (one, other))
    monkeypatch.setattr(heldout, "SPLIT", "train")
    found = held_out(replace(asked, data=replace(asked.data, sources=both)), 5)
    assert len(found) == len({example.position for example in found}) == 5
    assert sorted(Counter(example.sample_id for example in found).values()) == [1, 2, 2]


def test_what_reads_no_references_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="pipeline reads no references"):
        compare(book.load("base/tiny/sdxl"), str(tmp_path))
