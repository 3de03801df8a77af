"""Benchmarks from files of the published form: their counts, prompts, places, and what is missing, by name."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import evaluating
import numpy as np
import pytest
from drawing import gradient

from refloom import cli
from refloom.inference.evaluation import benchmarks, concept101, dreambench, dreamedit, msbench
from refloom.inference.evaluation.cases import Benchmark
from refloom.inference.evaluation.evaluation import fingerprint
from refloom.inference.evaluation.folders import read_json
from refloom.schemas import pictures
from refloom.schemas.errors import Refused


def test_concept101_has_1212_prompts_of_101_pairs_with_classes_in_their_places(tmp_path):
    benchmark = concept101.read(str(evaluating.concept101(tmp_path)))
    assert len(benchmark.cases) == 1212
    assert len({case.case_id for case in benchmark.cases}) == 1212
    assert len({case.part for case in benchmark.cases}) == 101
    assert (benchmark.images, benchmark.average) == (1, "parts")
    first, last = benchmark.cases[0], benchmark.cases[11]
    assert first.prompt == "photo number 0 of a wooden pot and a cat."
    assert last.prompt == "a wooden pot on top of a cat", "templates end in a space now and then"
    assert [subject.phrase for subject in first.subjects] == ["wooden pot", "cat"]


def test_concept101_shows_adapters_the_box_in_pixels_of_a_short_side_of_800_and_scores_see_the_photograph(tmp_path):
    benchmark = concept101.read(str(evaluating.concept101(tmp_path)))
    subject = benchmark.cases[0].subjects[0]
    whole = subject.photographs[0].pixels()
    assert whole.shape == (48, 64, 3)
    shown = subject.references[0].pixels()
    x1, y1, x2, y2 = 12, 6, 36, 42  # 200, 100, 600, 700 times 48 / 800
    assert shown.shape == (36, 36, 3)
    assert (shown[:, :6] == 255).all(), "a white square around it"
    assert np.array_equal(shown[:, 6:30], whole[y1:y2, x1:x2])


def test_concept101_names_what_is_missing_and_refuses_other_counts(tmp_path):
    root = evaluating.concept101(tmp_path / "a")
    (root / "json_data/toy_3/img.1.json").unlink()
    shutil.rmtree(root / "benchmark_dataset/toy_5")
    with pytest.raises(Refused, match=r"json_data/toy_3/img\.1\.json, benchmark_dataset/toy_5/\* missing"):
        concept101.read(str(root))
    with pytest.raises(Refused, match="has 1,212 prompts, these files make 1,111"):
        concept101.read(str(evaluating.concept101(tmp_path / "b", evaluating.TEMPLATES[1:])))
    with pytest.raises(Refused, match="has 101 pairs, these files make 100"):
        concept101.read(str(evaluating.concept101(tmp_path / "c", pairs=100)))
    root = evaluating.concept101(tmp_path / "d")
    (root / "json_data/toy_3/img.1.json").write_text(json.dumps({"mask": [{"value": 0}]}))
    with pytest.raises(Refused, match=r"toy_3/img\.1\.json has no box"):
        concept101.read(str(root))


def test_ms_bench_has_1148_combinations_and_4488_samples_in_the_published_mix(tmp_path):
    benchmark = msbench.read(str(evaluating.ms_bench(tmp_path)))
    assert len(benchmark.cases) == 4488
    assert len({case.case_id for case in benchmark.cases}) == 4488
    assert len({case.case_id.rpartition("/")[0] for case in benchmark.cases}) == 1148
    assert Counter(len(case.subjects) for case in benchmark.cases) == {2: 2108, 3: 2380}
    assert Counter(case.part for case in benchmark.cases)["living_object_scene"] == 400


@pytest.mark.parametrize(
    ("case_id", "prompt", "boxes"),
    [
        (
            "living_living/cat+dog6/1",
            "a cat and a dog in the snow",
            [(0, 0.25, 0.5, 0.75), (0.5, 0.25, 1, 0.75)],
        ),
        (
            "living_upwearing/dog+hat2/4",
            "a dog wearing a hat on the grass",
            [(0.25, 0.25, 0.75, 0.75), (0.25, 0, 0.75, 0.25)],
        ),
        (
            "midwearing_downwearing/t-shirt+shorts1/5",
            "a woman wearing a t-shirt and shorts on a cobblestone street",
            [(0.25, 0.25, 0.75, 0.6), (0.25, 0.6, 0.75, 1)],
        ),
        (
            "object_scene/teddybear+barn/0",
            "a stuffed animal with a barn in the background",
            [(0.25, 0.25, 0.75, 0.75), (0, 0, 1, 1)],
        ),
        (
            "living_object_scene/cat1+clock+forest/0",
            "a cat and clock with a forest in the background",
            [(0, 0.25, 0.5, 0.75), (0.5, 0.25, 1, 0.75), (0, 0, 1, 1)],
        ),
        (
            "upwearing_midwearing_downwearing/cap1+coat+jeans/2",
            "a woman wearing a cap, a coat, and a jeans in the jungle",
            [(0.25, 0, 0.75, 0.25), (0.25, 0.25, 0.75, 0.6), (0.25, 0.6, 0.75, 1)],
        ),
        (
            "object_object_object/backpack+clock+flower/3",
            "a backpack, a clock, and a flower on the beach",
            [(0, 0.25, 0.35, 0.75), (0.35, 0.25, 0.65, 0.75), (0.65, 0.25, 1, 0.75)],
        ),
    ],
)
def test_ms_bench_prompts_and_boxes_are_those_of_the_spec(tmp_path, case_id, prompt, boxes):
    cases = {case.case_id: case for case in msbench.read(str(evaluating.ms_bench(tmp_path))).cases}
    assert cases[case_id].prompt == prompt
    assert [subject.box for subject in cases[case_id].subjects] == boxes


def test_the_command_line_knows_every_benchmark_there_is():
    parser = cli.build_parser()._subparsers._group_actions[0].choices["evaluate"]
    (listed,) = (action.metavar for action in parser._actions if action.dest == "benchmark")
    assert set(listed.strip("{}").split(",")) == set(benchmarks.READERS.own)


def test_ms_bench_names_missing_photographs(tmp_path):
    evaluating.ms_bench(tmp_path)
    (tmp_path / "living/cat1.jpg").unlink()  # as in some mirrors
    with pytest.raises(Refused, match=r"not all of MS-Bench: living/cat1\.jpg missing"):
        msbench.read(str(tmp_path))


def test_dreambench_has_750_prompts_four_pictures_each_without_the_rare_token(tmp_path):
    benchmark = dreambench.read(str(evaluating.dreambench(tmp_path)))
    assert (len(benchmark.cases), benchmark.images, benchmark.average) == (750, 4, "pairs")
    prompts = {case.case_id: case for case in benchmark.cases}
    assert prompts["dog6/03"].prompt == "a dog wearing hat 3"
    assert prompts["bear_plushie/00"].prompt == "a stuffed animal in place 0"
    (subject,) = prompts["dog6/03"].subjects
    assert (len(subject.photographs), benchmark.references) == (3, 1)
    shutil.rmtree(tmp_path / "dog6")
    with pytest.raises(Refused, match=r"dog6/\* missing"):
        dreambench.read(str(tmp_path))


def test_dreambench_reads_the_published_sheet(shared):
    classes, things, live = dreambench.read_sheet(shared / "subjects/dreambooth/prompts_and_classes.txt")
    assert (len(classes), len(things), len(live)) == (30, 25, 25)
    assert (classes["bear_plushie"], classes["dog8"]) == ("stuffed animal", "dog")
    assert live[10].format("", "dog").split() == ["a", "dog", "wearing", "a", "red", "hat"]


def test_dreamedit_has_600_cases_with_masks_or_boxes_and_shared_sources(tmp_path):
    benchmark = dreamedit.read(str(evaluating.dreamedit(tmp_path)))
    assert Counter(case.part for case in benchmark.cases) == {"replacement": 300, "addition": 300}
    cases = {case.case_id: case for case in benchmark.cases}
    added, replaced = cases["addition/dog7/4"], cases["replacement/backpack_dog/4"]
    assert added.source.file.endswith("addition_source/dog/found4.jpg")
    assert replaced.source.file.endswith("replacement_source/backpack/found4.jpg")
    area = added.area(added.source.pixels())  # 128, 256, 384, 512 of 512 on 64x32
    assert area.shape == (32, 64)
    assert np.array_equal(np.argwhere(area)[[0, -1]], [[16, 16], [31, 47]])
    assert area.sum() == 16 * 32
    assert replaced.area(replaced.source.pixels()).sum() == 16 * 32
    (tmp_path / "masks/replacement_source/cat/found2.png").unlink()
    with pytest.raises(Refused, match=r"masks/replacement_source/cat/found2\.png missing"):
        dreamedit.read(str(tmp_path))


def test_groups_leave_their_first_picture_out_and_take_its_caption(tmp_path):
    benchmark = benchmarks.read("groups", evaluating.groups(tmp_path))
    assert [case.case_id for case in benchmark.cases] == ["group/look/1", "group/look/2"]
    case = benchmark.cases[1]
    assert (case.prompt, case.part, case.subjects[0].phrase) == ("A dog, number 2-0", "look", "dog")
    wanted = [pictures.decode(pictures.encode_jpeg(gradient(64, 48, 20 + n), 95)) for n in range(4)]
    assert np.array_equal(case.target.pixels(), wanted[0])
    references = case.subjects[0].references
    assert len(references) == 3
    assert all(np.array_equal(one.pixels(), want) for one, want in zip(references, wanted[1:], strict=True))
    with pytest.raises(Refused, match="has no group"):
        benchmarks.read("groups", evaluating.groups(tmp_path / "none", sizes=()))
    with pytest.raises(Refused, match="did you mean ms-bench"):
        benchmarks.read("msbench", str(tmp_path))


def test_groups_know_the_subject_on_each_picture_and_a_target_that_the_source_says(tmp_path):
    url = evaluating.groups(tmp_path / "a", sizes=(3,))
    (subject,) = benchmarks.read("groups", url).cases[0].subjects
    assert subject.truth.box == (0, 0, 64, 48)
    assert [crop.index for crop in subject.crops] == [1, 2]
    row, drawn = evaluating.cross_row(0, (2,))
    directed = row | {"kind": "group", "sample_id": "group/look/9"}
    (case,) = benchmarks.read("groups", evaluating.held_out(tmp_path / "b", [(directed, drawn)])).cases
    assert (case.target.index, [one.index for one in case.subjects[0].references]) == (1, [0, 2])
    assert case.prompt == "A cat and a dog"


def test_cross_samples_have_their_target_left_out_and_each_subjects_own_references_and_place(tmp_path):
    url = evaluating.held_out(tmp_path, [evaluating.cross_row(3, (1, 2))])
    benchmark = benchmarks.read("cross", url)
    (case,) = benchmark.cases
    assert (case.case_id, case.part, case.prompt) == ("cross/c/3", "2 subjects", "A cat and a dog")
    cat, dog = case.subjects
    assert (cat.phrase, cat.box, dog.box) == ("cat", (0, 8 / 48, 24 / 64, 40 / 48), (0.5, 8 / 48, 56 / 64, 40 / 48))
    assert ([one.index for one in cat.crops], [one.index for one in dog.crops]) == ([0], [2, 3])
    assert (case.target.index, case.target.box, cat.truth.index) == (1, None, 1)
    wanted = pictures.decode(pictures.encode_jpeg(gradient(64, 48, 301), 95))
    assert np.array_equal(case.target.pixels(), wanted)
    shown = cat.truth.pixels()  # 24x32 in a square of 32
    assert shown.shape == (32, 32, 3)
    assert np.array_equal(shown[:, 4:28], wanted[8:40, :24])
    assert (case.shown(None), case.shown(1)) == (3, 2)


def test_cross_samples_that_say_nothing_are_left_out_and_counted(tmp_path):
    good, bare = evaluating.cross_row(0, (1,)), evaluating.cross_row(1, (1,), captions=())
    aimless = evaluating.cross_row(2, (1,))
    aimless[0]["target"] = None
    nameless = evaluating.cross_row(3, (1,), captions=())
    nameless[0]["subjects"][0] |= {"phrase": None, "category": None}
    url = evaluating.held_out(tmp_path, [good, bare, aimless, nameless])
    benchmark = benchmarks.read("cross", url)
    assert [case.case_id for case in benchmark.cases] == ["cross/c/0", "cross/c/1"]
    assert benchmark.cases[1].prompt == "a photo of a cat"
    assert benchmark.notes[-1] == "2 samples are left out: nothing says what they show, or where."
    with pytest.raises(Refused, match="has no cross sample"):
        benchmarks.read("cross", evaluating.groups(tmp_path / "groups"))


def test_the_pictures_of_a_case_of_before_have_the_fingerprint_of_before(tmp_path):
    """Evaluations that were begun go on: what is only measured by is no part of what is made."""
    (case,) = benchmarks.read("groups", evaluating.groups(tmp_path, sizes=(3,))).cases
    without = replace(case, subjects=tuple(replace(one, crops=(), truth=None) for one in case.subjects))
    prints = [fingerprint(Benchmark("groups", "G", (one,), 1, "samples")) for one in (case, without)]
    assert prints[0] == prints[1]
    moved = replace(case.subjects[0], references=case.subjects[0].crops)
    assert fingerprint(Benchmark("groups", "G", (replace(case, subjects=(moved,)),), 1, "samples")) != prints[0]


@pytest.mark.parametrize("hole", ["{1:>99999999999}", "{1.__class__}", "{0!r:x}"])
def test_a_template_of_dreambench_is_text_and_no_format(tmp_path, hole):
    sheet = evaluating.dreambench(tmp_path) / "prompts_and_classes.txt"
    text = sheet.read_text()
    sheet.write_text(text.replace("'a {0} {1} in place 3'", f"'a {{0}} {{1}} {hole}'"))
    prompts = [case.prompt for case in dreambench.read(str(tmp_path)).cases]
    assert any(prompt.endswith(hole) for prompt in prompts)
    assert max(map(len, prompts)) < 100


def test_json_of_a_benchmark_that_is_nested_without_end_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[" * 200_000)
    with pytest.raises(Refused, match="is no json"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "box", [[0, 0, float("nan"), 1], [0, 0, float("inf"), 1], [0, 0, 10**400, 1], [5, 5, 5, 9], [1, 2, 3]]
)
def test_a_box_of_concept101_that_is_none_is_refused(tmp_path, box):
    mark = tmp_path / "x.json"
    mark.write_text(json.dumps({"mask": [{}, {"box": box}]}))
    with pytest.raises(Refused, match="has no box of an object"):
        concept101._boxed(mark, tmp_path / "x.jpg")
