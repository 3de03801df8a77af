"""Samples that say their target, cross samples and directed records: it alone is the target, references come from other
pictures, and an instruction counts the references that are given. What says no target is drawn as it always was."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from loading import write_samples
from scenes import directed, scene, shows
from viewed import FRAMES, IMAGE, RECIPES, VIDEO, content, made

from refloom.schemas.errors import Refused
from refloom.schemas.storage import Folder
from refloom.training.data.catalogue import catalogue
from refloom.training.data.index import Index
from refloom.training.data.loader import Loader, Loading, Source
from refloom.training.data.sample import Sample
from refloom.training.views.base import Base
from refloom.training.views.cutouts import Cutout
from refloom.training.views.easyref import EasyRef
from refloom.training.views.example import Example
from refloom.training.views.ezigen import EZIGen
from refloom.training.views.instructions import assigned
from refloom.training.views.ip_adapter import IPAdapter
from refloom.training.views.mip import MIP
from refloom.training.views.ms_diffusion import MSDiffusion
from refloom.training.views.subjects import Seen, may_be_target
from refloom.training.views.view import View

APART = (
    {"cup": (20, 60, 100, 160), "dog": (150, 50, 250, 175)},  # the target: both as wide as 0.8 of their height
    {"cup": (20, 60, 120, 160)},  # 1.0
    {"dog": (30, 50, 150, 150)},  # 1.2
    {"cup": (60, 60, 200, 160)},  # 1.4
)
"""A target, and its subjects on pictures of their own; the shape of a subject says which picture it is of."""
CROSS = directed(scene("cross", APART))
COUNTED = "Put the dog of image 1 beside the cup of image 2."
ASKED = directed(scene("cross", APART), 0, (COUNTED, (2, 1)))
PLAIN = Cutout(side_px=256, flip=0)
CUTTING: dict[str, View] = {
    "mip": MIP(cutout=PLAIN),
    "ms_diffusion": MSDiffusion(cutout=PLAIN),
    "ezigen": EZIGen(cutout=PLAIN, paired_subjects=2),
}
"""Views whose references are cut-outs of subjects."""


def shape_of(image: np.ndarray) -> int:
    """Which picture of `APART` a cut-out is of."""
    shown = (image != 255).any(axis=-1)
    return round((float(shown.any(axis=0).sum() / shown.any(axis=1).sum()) - 0.8) / 0.2)


def origins(example: Example) -> list[int | None]:
    return [one for many in example.origins for one in many]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("target", [0, 2])
def test_the_said_picture_alone_is_the_target(name: str, target: int) -> None:
    sample = directed(scene("cross", FRAMES), target)
    assert RECIPES[name].targets(sample.row) == [target]
    for number in range(4):
        assert content(made(RECIPES[name], sample, number)[1]) == content(made(RECIPES[name], sample, number)[1])


@pytest.mark.parametrize("name", RECIPES)
def test_a_reference_is_never_a_target_nor_is_a_picture_that_is_not_there(name: str) -> None:
    row = scene("group", FRAMES).row
    roles = [None, "reference", None]
    listed = [one | {"role": role} for one, role in zip(row["pictures"], roles, strict=True)]
    assert RECIPES[name].targets(row | {"pictures": listed}) == [0, 2]
    for target in (1, 3, -1):
        assert isinstance(RECIPES[name].targets(row | {"pictures": listed, "target": target}), str)


def test_each_subject_is_cut_out_of_any_picture_of_its_own() -> None:
    for name, view in CUTTING.items():
        seen: dict[str, set[int | None]] = {"cup": set(), "dog": set()}
        for number in range(24):
            example = made(view, CROSS, number)[1]
            assert {one.phrase for one in example.references} == {"cup", "dog"}, name
            for reference, (origin,) in zip(example.references, example.origins, strict=True):
                assert shape_of(reference.images[0]) == origin, name
                seen[str(reference.phrase)].add(origin)
        assert seen == {"cup": {1, 3}, "dog": {2}}, name
    apart = scene("video", APART)
    assert all(len(made(CUTTING["ms_diffusion"], apart, n)[1].references) == 1 for n in range(6)), "one other picture"


def test_whole_pictures_come_from_references_alone() -> None:
    for view in (EasyRef(stage="multi", area_px=320 * 240), IPAdapter(area_px=320 * 240, references=3)):
        for number in range(8):
            example = made(view, CROSS, number)[1]
            assert len(set(origins(example))) == len(example.references[0].images) >= 2
            assert set(origins(example)) <= {1, 2, 3}
            for image, origin in zip(example.references[0].images, origins(example), strict=True):
                np.testing.assert_array_equal(image, CROSS.pixels(origin or 0))
    for view in (EasyRef(stage="alignment"), EasyRef(stage="single"), IPAdapter(others=False)):
        assert origins(made(view, CROSS)[1]) == [None], "as published, of the target itself"


def test_mip_cuts_out_of_the_target_where_the_recipe_says_so_or_nothing_else_is_there() -> None:
    never, always = MIP(cut_from="others", cutout=PLAIN), MIP(cut_from="target", cutout=PLAIN)
    assert not never.accepts(IMAGE.row)
    assert {origin for n in range(12) for origin in origins(made(never, VIDEO, n)[1])} == {0, 1, 2}
    for sample in (IMAGE, VIDEO):
        assert origins(made(MIP(), sample)[1]) == [None, None], "any picture may be the target: as published"
    example = made(always, CROSS)[1]
    assert origins(example) == [None, None]
    assert [shape_of(one.images[0]) for one in example.references] == [0, 0]
    half = directed(scene("cross", APART[:2]))
    assert isinstance(never.targets(half.row), str)
    assert sorted(origins(made(MIP(), half)[1]), key=str) == [1, None], "the dog is nowhere else"


def test_mip_prefers_subjects_that_other_pictures_show() -> None:
    three = {"cup": (10, 60, 100, 160), "dog": (105, 50, 200, 150), "car": (120, 155, 230, 235)}
    sample = directed(scene("cross", [three, {"cup": (20, 60, 120, 160)}, {"car": (30, 50, 150, 150)}]))
    pairs = {tuple(sorted(str(one.phrase) for one in made(MIP(), sample, n)[1].references)) for n in range(20)}
    assert pairs == {("car", "cup")}


def test_a_record_of_whole_pictures_is_read_by_the_views_of_whole_pictures() -> None:
    record = directed(scene("group", [{"cup": (0, 0, 320, 240)}] * 3), 1, ("The cup of image 1 in image 2.", (2, 0)))
    whole = [subject | {"kind": "whole", "phrase": None} for subject in record.row["subjects"]]
    sample = Sample(record.row | {"subjects": whole}, record._images)
    for view in (EasyRef(stage="multi", captions="instruction"), IPAdapter(references=2, captions="instruction")):
        assert view.targets(sample.row) == [1]
        example = made(view, sample)[1]
        assert (origins(example), example.caption) == ([2, 0], "The cup of image 1 in image 2.")
    assert not any(view.accepts(sample.row) for view in CUTTING.values()), "nothing in it has a name and an outline"


@pytest.mark.parametrize("name", CUTTING)
def test_bounds_hold_for_each_pair_of_target_and_reference(name: str) -> None:
    row = directed(scene("cross", APART, similarity=0.7)).row
    cups = row["subjects"][0] | {"similarity": [0.99, 0.7, 0.7], "pair_pose_change": [0.5, 0.1, 0.5]}
    sample = Sample(row | {"subjects": [cups, row["subjects"][1] | {"pair_pose_change": [None]}]}, CROSS._images)
    bounds = CUTTING[name].bounds  # type: ignore[attr-defined]
    for more, wanted in (({"max_similarity": 0.95}, {2, 3}), ({"min_pose_change": 0.2}, {1, 2})):
        one = replace(CUTTING[name], bounds=replace(bounds, **more))  # type: ignore[call-arg]
        assert {origin for n in range(12) for origin in origins(made(one, sample, n)[1])} == wanted


def test_ezigen_asks_for_no_order_of_time_where_the_target_is_said() -> None:
    assert EZIGen(forward=True, min_gap=3).targets(CROSS.row) == [0]
    assert len(made(EZIGen(), CROSS)[1].references) == 1, "published: one"


@pytest.mark.parametrize("name", [*CUTTING, "easyref", "ip_adapter"])
def test_an_instruction_comes_with_the_references_that_it_counts_in_its_order(name: str) -> None:
    whole = {"easyref": EasyRef(stage="multi", truncate=1.0), "ip_adapter": IPAdapter(references=2)}
    view: Any = (CUTTING | whole)[name]
    wanted = replace(view, captions="instruction")
    for number in range(8):
        example = made(wanted, ASKED, number)[1]
        assert (example.caption, example.instructed) == (COUNTED, True)
        assert origins(example) == [2, 1]
        if name in CUTTING:
            assert [one.phrase for one in example.references] == ["dog", "cup"]
            assert [shape_of(one.images[0]) for one in example.references] == [2, 1]
            for reference, mask in zip(example.references, example.masks, strict=True):
                assert mask is not None
                assert (mask & shows(example.target, str(reference.phrase))).sum() > 0.9 * mask.sum()
    drawn = [made(replace(view, captions="any"), ASKED, number)[1].instructed for number in range(40)]
    assert 8 < sum(drawn) < 32, "one of two texts"
    assert not any(made(view, ASKED, number)[1].instructed for number in range(8)), "only where a recipe asks for it"


@pytest.mark.parametrize("counted", [(0, 1), (2, 1, 3), (1, 9), (1, 3)], ids=str)
def test_an_instruction_whose_references_cannot_be_given_is_not_said(counted: tuple[int, ...]) -> None:
    """They are the target, too many, not there, or two pictures of one subject."""
    sample = directed(scene("cross", APART), 0, (COUNTED, counted))
    for view in CUTTING.values():
        example = made(replace(view, captions="instruction"), sample)[1]  # type: ignore[call-arg]
        assert (example.caption, example.instructed) == ("A cup and a dog and a car.", False)
    without = Sample(sample.row | {"target": None}, sample._images)
    whole: View = IPAdapter(references=2, captions="instruction")
    assert not made(whole, without)[1].instructed, "it asks for one picture, and any may be the target"


def test_instructions_that_count_nothing_fit_any_references() -> None:
    free = directed(scene("cross", APART, captions=()), 0, ("A dog with a cup.", ()))
    for view in (*CUTTING.values(), EasyRef(stage="alignment"), EasyRef(stage="multi"), IPAdapter()):
        example = made(replace(view, captions="instruction"), free)[1]  # type: ignore[call-arg]
        assert (example.caption, example.instructed) == ("A dog with a cup.", True)
    for view in (IPAdapter(), EasyRef(stage="multi", captioned=True), MSDiffusion(), MIP()):
        assert not view.accepts(free.row), "no caption, and instructions are not asked for"
    unnamed = directed(scene("cross", APART, captions=()), 0, ("Both of them, please.", (1, 2)))
    assert not MIP(captions="any").accepts(unnamed.row), "it names none of the two"
    assert MIP(captions="any", mentioned=False).accepts(unnamed.row)


def test_ms_diffusion_says_no_number_of_a_subject_that_the_crop_has_lost() -> None:
    wide = {"cup": (4, 40, 84, 140), "dog": (500, 60, 560, 120)}
    frames = [wide, {"cup": (20, 20, 120, 120)}, {"dog": (30, 20, 150, 120)}]
    sample = directed(scene("cross", frames, size=(600, 150)), 0, (COUNTED, (2, 1)))
    view = MSDiffusion(captions="instruction")
    assert made(view, sample, 0, (64, 256))[1].instructed
    cropped = made(view, sample, 0, (128, 128))[1]
    assert (cropped.instructed, len(cropped.references)) == (False, 1)
    assert cropped.caption == "A cup and a dog and a car."


def test_subjects_are_assigned_to_pictures_even_where_the_first_choice_is_in_the_way() -> None:
    def pair(subject: int, picture: int) -> tuple[Seen, Seen]:
        return Seen(subject, 0, 0), Seen(subject, 1, picture)

    pairs = [pair(0, 1), pair(1, 1), pair(0, 2), pair(2, 3), pair(0, 3)]
    chosen = assigned((1, 2, 3), pairs)
    assert chosen is not None
    assert [(one.subject, there.picture) for one, there in chosen] == [(1, 1), (0, 2), (2, 3)]
    assert assigned((2, 2), pairs) is None, "one subject stands for one picture"
    assert assigned((), pairs) == []
    drawn = {
        tuple(there.subject for _, there in assigned((1,), pairs, np.random.default_rng(n)) or ()) for n in range(9)
    }
    assert drawn == {(0,), (1,)}


def mixed(number: int) -> tuple[Any, list[bytes]]:
    """Every third row is a cross sample, whose target is the second picture; the others are videos."""
    sample = scene("cross", [APART[1], APART[0], APART[2]]) if number % 3 == 0 else VIDEO
    if number % 3 == 0:
        sample = directed(sample, 1, (COUNTED, (2, 0)))
        face = {"box": [20.0, 60.0, 60.0, 90.0], "landmarks": None, "det_score": 0.9, "embedding": [0.5] * 8}
        sample.row["subjects"][0]["appearances"][0]["face"] = face | {"pose": [1.0, 2.0, 3.0], "sharpness": 0.5}
    kind = sample.row["kind"]
    return sample.row | {"sample_id": f"{kind}/test-{number}/0"}, [bytes(data) for data in sample._images]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_samples(tmp_path_factory.mktemp("cross") / "data", 2, 9, mixed)


def batches(url: str, view: View, count: int = 3, kinds: tuple[str, ...] | None = None, **more: Any) -> list[Example]:
    loading = Loading(**({"global_batch": 6, "buckets": ((192, 256),), "threads": 0} | more))
    with Loader([Source(url=url, kinds=kinds)], view, loading) as loader:
        return [example for _ in range(count) for example in next(loader).examples]


@pytest.mark.parametrize("name", RECIPES)
def test_every_view_reads_them_out_of_parquet(url: str, name: str) -> None:
    view: Any = RECIPES[name]
    wanted = view if name.startswith("base/") else replace(view, captions="any")
    found = catalogue(Index(url), wanted, ("cross",))
    assert set(found.pictures.tolist()) == {1}
    assert len(found.rows) == 6
    examples = batches(url, wanted, kinds=("cross",))
    assert {one.sample_id.split("/")[0] for one in examples} == {"cross"}
    assert all(1 not in origins(one) for one in examples)
    assert list(map(content, examples)) == list(map(content, batches(url, wanted, kinds=("cross",), threads=2)))
    kinds = {one.sample_id.split("/")[0] for one in batches(url, wanted)}
    assert kinds == {"cross", "video"}


def test_a_view_of_a_plugin_that_knows_of_no_targets_gets_none_that_is_forbidden(url: str) -> None:
    class Careless(Base):
        def targets(self, row: Any) -> list[int] | str:
            return list(range(len(row["pictures"])))

    found = catalogue(Index(url), Careless(), ("cross",))
    assert set(found.pictures.tolist()) == {1}

    class Wrong(Base):
        def targets(self, row: Any) -> list[int] | str:
            return [0]

    with pytest.raises(Refused, match="does not allow such a picture as its target: 6"):
        catalogue(Index(url), Wrong(), ("cross",))


def test_embeddings_of_faces_stay_on_the_disk(url: str) -> None:
    index = Index(url)
    stored = pq.read_table(Path(url) / index.files[0].path, columns=["subjects"]).to_pylist()
    read = index.read(index.groups[0], ["subjects", "target"]).to_pylist()

    def faces(rows: Any) -> Iterator[Any]:
        for row in rows:
            yield from (one["face"] for entry in row["subjects"] for one in entry["appearances"] if one["face"])

    assert [face["embedding"] for face in faces(stored)] == [[0.5] * 8] * 3
    assert [face["embedding"] for face in faces(read)] == [None] * 3
    assert [face["pose"] for face in faces(read)] == [[1.0, 2.0, 3.0]] * 3


def test_a_dataset_from_before_these_columns_gives_the_same_stream(tmp_path: Path) -> None:
    def plain(number: int) -> tuple[Any, list[bytes]]:
        return VIDEO.row | {"sample_id": f"video/test-{number}/0"}, [bytes(data) for data in VIDEO._images]

    now = write_samples(tmp_path / "now", 1, 6, plain)
    before = write_samples(tmp_path / "before", 1, 6, plain)
    (file,) = Index(before).files
    table = pq.read_table(Path(before) / file.path)
    new = {"role", "pair_pose_change", "identity", "look", "embedding", "pose", "sharpness", "named"}
    leaves = pq.ParquetFile(Path(before) / file.path).schema
    old = [leaves.column(at).path for at in range(len(leaves))]
    old = [one for one in old if not set(one.split(".")) & new and one.split(".")[0] not in ("target", "instructions")]
    narrow = pq.ParquetFile(Path(before) / file.path).read(columns=old)
    assert {"target", "instructions"} & set(narrow.column_names) == set()
    assert "identity" not in str(narrow.schema.field("subjects").type)
    assert narrow.num_rows == table.num_rows
    Folder(before).remove(file.path)
    pq.write_table(narrow, Path(before) / file.path)
    for view in RECIPES.values():
        assert list(map(content, batches(now, view, 1))) == list(map(content, batches(before, view, 1)))


def test_what_says_no_target_is_drawn_as_in_november() -> None:
    """The digest is that of refloom before samples had targets: targets, texts, drops, crops, phrases, boxes, sizes."""
    digest = hashlib.sha256()
    for name in (one for one in sorted(RECIPES) if not one.startswith("base/toys/")):  # which came later
        for sample in (VIDEO, IMAGE, scene("group", FRAMES, similarity=0.7, faces=True)):
            view = RECIPES[name]
            digest.update(repr((name, view.targets(sample.row))).encode())
            for number in range(4 if view.accepts(sample.row) else 0):
                one = made(view, sample, number)[1]
                facts = [(each.phrase, each.boxes, [image.shape for image in each.images]) for each in one.references]
                digest.update(repr((one.caption, one.drops, one.sizes, facts)).encode())
    assert digest.hexdigest() == "13935672c445a8cd588a1c3780d1c5676d7129cbb0d041aebd4ca44963ad07aa"


def test_a_row_says_which_of_its_pictures_may_be_the_target() -> None:
    assert may_be_target(VIDEO.row) == [0, 1, 2]
    assert may_be_target(CROSS.row) == [0]
