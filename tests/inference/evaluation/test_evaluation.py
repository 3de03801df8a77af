"""`refloom evaluate` on tiny models, from the files of a benchmark to the tables: resumed, repeated, failing."""

import json

import evaluating
import numpy as np
import pytest
from PIL import Image
from shop import shop
from tinymodels import put_clip, put_dinov2, put_grounding, use

from refloom.inference.evaluation import gallery
from refloom.inference.evaluation.page import SHOWN, chosen
from refloom.inference.pipeline import ReferencePipeline


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Bases and adapters, which nothing changes."""
    return shop(tmp_path_factory)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The benchmarks, and the weights of what measures."""
    root = tmp_path_factory.mktemp("sets")
    evaluating.ms_bench(root / "ms-bench")
    evaluating.dreamedit(root / "dreamedit")
    (root / "dreambench").symlink_to(root / "dreamedit/subjects")
    evaluating.groups(root / "groups")
    evaluating.held_out(root / "cross", [evaluating.cross_row(0, (1, 2)), evaluating.cross_row(1, (1,))])
    (root / "weights").mkdir()
    put_clip(root / "weights")
    put_dinov2(root / "weights")
    return root


@pytest.fixture
def detector(call, sets, tmp_path, monkeypatch):
    """A weights folder with a detector, too."""
    folder = use(tmp_path / "weights", monkeypatch)
    folder.mkdir()
    put_grounding(folder)
    for one in (sets / "weights").iterdir():
        (folder / one.name).symlink_to(one)
    return folder


@pytest.fixture
def call(call, models, sets, monkeypatch):
    """A command in this process, with its exit code and what it printed."""
    use(sets / "weights", monkeypatch)

    def run(benchmark, out, *more, adapter="ms_diffusion", base="sdxl", encoder=True, workers=0):
        arguments = ["evaluate", "--benchmark", benchmark, "--data", sets / benchmark, "--out", out]
        arguments += ["--base", models / base, "--adapter", models / adapter, "--device", "cpu", "--workers", workers]
        arguments += ["--image-encoder", models / "encoder"] if encoder else []
        side = ["--height", 64, "--width", 64] if base == "sdxl" else []
        arguments += [*side, "--steps", 1, "--face-model", "none", *more]
        return call(*arguments)

    return run


def made(out):
    """Name to bytes of every picture."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.glob("pictures/*/*.png"))}


def test_an_evaluation_makes_measures_and_sets_the_published_numbers_beside(call, tmp_path):
    out = tmp_path / "out"
    code, printed, noted = call("ms-bench", out, "--limit", 3)
    assert (code, noted.count("case") > 0) == (0, True)
    assert "3 of 3 pictures measured" in printed
    results = json.loads((out / "results.json").read_text())
    assert results["pictures"] == {"asked": 3, "made": 3, "measured": 3}
    assert (results["whole"], results["failures"]) == (False, {})
    lines = {line["name"]: line for line in results["metrics"]}
    for name in ("clip_t", "clip_score", "clip_i", "dino", "m_dino", "dino_box", "m_dino_box"):
        assert -1 <= lines[name]["value"] <= 2.5
        assert lines[name]["protocol"].startswith(f"{name}/")
        assert (lines[name]["pictures"], lines[name]["why"]) == (3, None)
    assert lines["face_sim"]["value"] is None
    assert lines["face_sim"]["why"] == "none was asked for"
    assert lines["dino_bg"]["why"] == "ms-bench has no pictures to edit"
    assert lines["dino"]["encoder"].startswith("dinov2-base@")
    (first, _) = results["published"]
    assert first["rows"][0][0] == "MS-Diffusion"
    assert first["ours"][first["columns"].index("m_dino")] == lines["m_dino"]["value"]
    assert "ours dinov2-base" in first["comparable"]
    record = json.loads((out / "pictures/00001-living_living-cat+cat1-1/0.json").read_text())
    assert record["prompt"] == "a cat and a cat in the snow"
    cases = json.loads((out / "scores/cases-00000.json").read_text())["rows"]
    mean = np.mean([row["scores"]["dino"][0] for row in cases])
    assert lines["dino"]["value"] == pytest.approx(mean)

    text = (out / "results.md").read_text()
    assert f"| DINO | {lines['dino']['value']:.4f} | 3 | `dino/dinov2-base/" in text
    assert "| Face |  | 0 |  | null: none was asked for |" in text
    assert "| MS-Diffusion | 0.6980 | 0.4250 | 0.1080 | 0.3410 |" in text
    page = (out / "results.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3 * (2 + 1), "two references and a picture of each case"
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page

    before = {file: file.stat().st_mtime_ns for file in [*out.glob("pictures/*/*"), *out.glob("scores/*")]}
    assert call("ms-bench", out, "--limit", 3)[0] == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before, "nothing is done twice"
    assert call("ms-bench", out, "--limit", 3, "--metrics", "clip_t")[0] == 0
    assert {file: file.stat().st_mtime_ns for file in before if file.suffix == ".png"}.items() <= before.items()
    assert [line["name"] for line in json.loads((out / "results.json").read_text())["metrics"]] == ["clip_t"]


def test_a_picture_is_what_the_pipeline_makes_of_its_seed_whoever_makes_it(call, models, sets, tmp_path):
    assert call("dreambench", tmp_path / "a", "--limit", 1, "--batch", 3, adapter="ip_adapter")[0] == 0
    records = [json.loads((tmp_path / f"a/pictures/00000-dog-00/{n}.json").read_text()) for n in range(4)]
    assert len({record["seed"] for record in records}) == 4
    parts = models / "sdxl", models / "ip_adapter"
    with ReferencePipeline.from_pretrained(*parts, image_encoder=models / "encoder") as pipeline:
        from refloom.inference.adapters.reference import Reference

        pipeline.set_references([Reference(sets / "dreambench/dog/00.jpg", "dog")])
        wanted = pipeline.generate(
            "a dog wearing hat 0", num_inference_steps=1, height=64, width=64, seed=records[2]["seed"]
        )
    seen = np.asarray(Image.open(tmp_path / "a/pictures/00000-dog-00/2.png")).astype(int)
    assert np.abs(seen - np.asarray(wanted.images[0])).max() <= 1
    results = json.loads((tmp_path / "a/results.json").read_text())
    assert {line["name"]: line["pictures"] for line in results["metrics"]}["clip_i"] == 4
    rows = json.loads((tmp_path / "a/scores/cases-00000.json").read_text())["rows"]
    assert [row["scores"]["clip_i"][1] for row in rows] == [3] * 4, "all photographs count, though one was seen"


def test_a_stopped_run_goes_on_and_ends_as_if_it_had_not_been_stopped(call, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert call("ms-bench", whole, "--limit", 10, "--metrics", "clip_t")[0] == 0
    write = gallery.write_picture
    done = []

    def stop_at_the_fourth(*arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(write(*arguments))

    monkeypatch.setattr(gallery, "write_picture", stop_at_the_fourth)
    code, _, error = call("ms-bench", stopped, "--limit", 10, "--metrics", "clip_t")
    assert (code, "run the same command again to resume" in error) == (3, True)
    early = made(stopped)
    assert len(early) == 4
    assert not (stopped / "results.json").exists()
    (stopped / "pictures/00004-half").mkdir()
    monkeypatch.setattr(gallery, "write_picture", write)
    (file := next(stopped.glob("pictures/00002*/0.json"))).unlink()  # a picture without its record is not there
    times = {name: (stopped / name).stat().st_mtime_ns for name in early}
    assert call("ms-bench", stopped, "--limit", 10, "--metrics", "clip_t")[0] == 0
    again = {name for name, before in times.items() if (stopped / name).stat().st_mtime_ns != before}
    assert again == {str(file.with_suffix(".png").relative_to(stopped))}
    assert made(stopped) == made(whole)
    results = [json.loads((out / "results.json").read_text()) for out in (whole, stopped)]
    assert results[0] == results[1]
    assert call("ms-bench", stopped, "--limit", 11, "--metrics", "clip_t")[0] == 0
    assert len(made(stopped)) == 11


@pytest.mark.processes
def test_workers_make_the_same_pictures_and_scores(call, tmp_path, ray_session):
    # the session's Ray may be older than this test's weights folder: the dlib of the packages measures there
    more = ["--limit", 9, "--metrics", "face_sim", "--face-model", "dlib"]
    assert call("ms-bench", tmp_path / "one", *more)[0] == 0
    assert call("ms-bench", tmp_path / "two", *more, workers=2)[0] == 0
    assert len(made(tmp_path / "one")) == 9, "a unit and a bit of another"
    assert made(tmp_path / "one") == made(tmp_path / "two")
    results = [json.loads((tmp_path / out / "results.json").read_text()) for out in ("one", "two")]
    assert results[0] == results[1]
    assert results[0]["metrics"][0]["why"] == "no photograph shows a face"


def test_groups_are_compared_with_their_references_and_with_the_picture_left_out(call, tmp_path):
    assert call("groups", tmp_path / "out", adapter="ip_adapter")[0] == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    values = {line["name"]: line["value"] for line in results["metrics"]}
    assert (results["whole"], results["pictures"]["measured"]) == (True, 2)
    assert None not in (values["clip_i"], values["clip_i_target"], values["dino_target"])
    assert values["clip_i_target"] != values["clip_i"]
    assert list(results["parts"]) == ["look"]
    assert results["published"][0]["comparable"].startswith("their clip encoder is not known")


def test_cross_samples_show_how_much_is_copied_and_what_is_found(call, detector, tmp_path):
    out = tmp_path / "out"
    more = ["--metrics", "dino,clip_i_inst,dino_inst,copy_image,image_truth,image_reference,copy_face"]
    code, printed, noted = call("cross", out, *more)
    assert code == 0, printed + noted
    assert "detector: grounding-dino-tiny@" in printed
    results = json.loads((out / "results.json").read_text())
    assert results["parts"].keys() == {"1 subject", "2 subjects"}
    lines = {line["name"]: line for line in results["metrics"]}
    assert "/found-by-grounding-dino-tiny-0.35/max-of-3,none=0/" in lines["dino_inst"]["protocol"]
    for name in ("dino_inst", "image_truth", "image_reference"):
        low, high = lines[name]["interval"]
        assert -1 <= low <= lines[name]["value"] <= high <= 1
    rows = json.loads((out / "scores/cases-00000.json").read_text())["rows"]
    for row, subjects in zip(rows, (2, 1), strict=True):
        for name in ("copy_image", "image_truth", "image_reference"):
            value = row["scores"][name]
            assert (value[1] if value else 0) + sum(row["remarks"][name].values()) == subjects
        assert row["scores"]["dino_inst"][1] == subjects, "a miss counts, too"
    assert lines["copy_face"]["why"] == "none was asked for"
    assert [(table["references"], table["cases"]) for table in results["tables"]] == [("1", 1), ("2-3", 1)]
    assert all(table["protocol"].endswith(f"shown={table['references']}") for table in results["tables"])
    page, text = (out / "results.html").read_text(), (out / "results.md").read_text()
    for said in (page, text):
        assert "found-by-grounding-dino-tiny-0.35" in said
        assert "cross/mean-over-samples/refs=all/shown=2-3" in said
    assert "1 reference</bdi></h2>" in page

    code, printed, _ = call("cross", out, *more, "--detector", "none")
    assert (code, "note: subjects are looked for in their boxes alone: no detector was asked for" in printed) == (
        0,
        True,
    )
    boxed = {line["name"]: line for line in json.loads((out / "results.json").read_text())["metrics"]}
    assert "/boxes/max-of-3,none=0/" in boxed["dino_inst"]["protocol"]
    assert boxed["dino_inst"]["value"] != lines["dino_inst"]["value"], "measured anew"
    assert boxed["dino"] == lines["dino"]


def test_groups_show_how_much_of_a_whole_picture_is_copied(call, tmp_path):
    more = ["--metrics", "copy_image,image_truth,image_reference,dino_inst"]
    code, printed, _ = call("groups", tmp_path / "out", *more, adapter="ip_adapter")
    assert (code, "note: whole pictures are compared: no detector is there" in printed) == (0, True)
    results = json.loads((tmp_path / "out/results.json").read_text())
    lines = {line["name"]: line for line in results["metrics"]}
    assert lines["copy_image"]["protocol"] == (
        "copy_image/dinov2-base/white-square/whole/(a_truth-a_ref)/a_between,nearest-ref,a_between>=0.1/"
        "mean-over-samples/refs=all"
    )
    assert -1 <= lines["copy_image"]["value"] <= 1
    assert (lines["dino_inst"]["value"], lines["dino_inst"]["pictures"]) == (None, 0)
    assert "`refloom models get grounding-dino-base` fetches one" in lines["dino_inst"]["why"]
    assert [table["references"] for table in results["tables"]] == ["2-3"]


def test_editing_is_measured_inside_and_outside(call, tmp_path):
    more = ["--limit", 2, "--set", "iterations=1", "--metrics", "clip_t,dino,dino_fg,dino_bg,dino_source"]
    code, printed, error = call("dreamedit", tmp_path / "out", *more, adapter="ezigen", base="sd", encoder=False)
    assert code == 0, printed + error
    values = {
        line["name"]: line["value"] for line in json.loads((tmp_path / "out/results.json").read_text())["metrics"]
    }
    assert values["dino_bg"] == pytest.approx(1, abs=0.05), "EZIGen pastes what is outside the mask"
    assert values["dino_fg"] < 0.99
    code, _, error = call("dreamedit", tmp_path / "no", *more[:2], adapter="ms_diffusion")
    assert (code, "the ms_diffusion adapter has no editing of its own" in error) == (2, True)


def test_a_case_that_cannot_be_made_costs_itself_and_is_tried_again(call, sets, tmp_path):
    broken = sets / "ms-bench/living/cat1.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(b"\0" * len(whole))
    try:
        code, printed, _ = call("ms-bench", tmp_path / "out", "--limit", 8, "--metrics", "clip_t,dino")
    finally:
        broken.write_bytes(whole)
    assert code == 1
    assert "failed living_living/cat+cat1/0: " in printed
    assert "cat1.jpg cannot be used" in printed
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["pictures"] == {"asked": 8, "made": 2, "measured": 2}
    assert len(results["failures"]) == 6
    assert results["pictures"]["made"] + len(results["failures"]) == results["pictures"]["asked"]
    assert "cat1.jpg" in (tmp_path / "out/results.html").read_text()
    assert call("ms-bench", tmp_path / "out", "--limit", 8, "--metrics", "clip_t,dino")[0] == 0
    assert json.loads((tmp_path / "out/results.json").read_text())["failures"] == {}
    assert not list((tmp_path / "out").glob("pictures/*/failed.json"))


def test_a_picture_that_cannot_be_measured_costs_its_row_and_is_tried_again(call, tmp_path):
    out = tmp_path / "out"
    assert call("ms-bench", out, "--limit", 2, "--metrics", "clip_t")[0] == 0
    before = (out / "results.json").read_bytes()
    (file,) = out.glob("pictures/00001*/0.png")
    whole = file.read_bytes()
    file.write_bytes(whole[:60])
    (out / "scores/cases-00000.json").unlink()
    code, printed, _ = call("ms-bench", out, "--limit", 2, "--metrics", "clip_t")
    assert (code, "1 of 2 pictures measured" in printed) == (1, True)
    assert "failed living_living/cat+cat1/1/0: " in printed
    file.write_bytes(whole)
    assert call("ms-bench", out, "--limit", 2, "--metrics", "clip_t")[0] == 0
    assert (out / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--metrics", "dinno"], "did you mean dino"),
        (["--clip", "vit"], "--clip vit is none of"),
        (["--dino", "dino-vits16"], "hf download facebook/dino-vits16"),
        (["--detector", "grounding-dino-base"], "hf download IDEA-Research/grounding-dino-base"),
        (["--detector", "grounding-dino"], "did you mean grounding-dino-"),
        (["--limit", "0"], "--limit is a whole number from 1, not 0"),
        (["--batch", "0"], "--batch is a whole number from 1, not 0"),
        (["--data", "/nowhere/at/all"], "living/cat.jpg, living/cat1.jpg"),
        (["--set", "guidance=3"], "takes no guidance; did you mean guidance_scale"),
        (["--height", "63"], "multiple of 2"),
        (["--adapter", "./gone"], "there is no adapter ./gone"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once_with_the_remedy(call, tmp_path, change, message):
    code, _, error = call("ms-bench", tmp_path / "out", "--limit", 1, *change)
    assert (code, message in error) == (2, True), error
    assert not (tmp_path / "out/pictures").exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(call, tmp_path):
    code, printed, _ = call("dreambench", tmp_path / "out", "--dry-run", adapter="ip_adapter")
    assert code == 0
    assert "DreamBench: 750 of 750 cases, 3,000 pictures" in printed
    assert "3,000 pictures to make in 94 units" in printed
    assert "dino           dino/dinov2-base/short-8:7-bicubic-centre/whole/cos/mean-over-pairs/refs=1" in printed
    assert "dino_box       null: dreambench has no places in the result" in printed
    assert not (tmp_path / "out").exists()


def test_another_evaluation_is_not_mixed_in_and_new_weights_are_another(call, tmp_path):
    assert call("ms-bench", tmp_path / "out", "--limit", 1, "--metrics", "clip_t")[0] == 0
    code, _, error = call("ms-bench", tmp_path / "out", "--limit", 1, "--seed", 1)
    assert (code, "making.seed: 0 -> 1" in error) == (2, True)
    code, _, error = call("ms-bench", tmp_path / "out", "--limit", 1, adapter="ip_adapter")
    assert (code, "weights.adapter" in error) == (2, True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("mine")
    code, _, error = call("ms-bench", tmp_path / "other", "--limit", 1)
    assert (code, "holds other files" in error) == (2, True)


def test_the_page_escapes_what_benchmarks_say_and_shows_cases_from_all_over(tmp_path, sets):
    from refloom.inference.evaluation import metrics, outcome, report
    from refloom.inference.evaluation.cases import Benchmark, Case, FilePicture, Subject
    from refloom.schemas.storage import Folder

    hostile = "<script>alert(1)</script>"
    photo = FilePicture(str(sets / "ms-bench/living/cat.jpg"))
    case = Case(hostile, hostile, hostile, (Subject(hostile, (photo,), (photo,)),))
    benchmark = Benchmark("groups", "B", (case,), 1, "samples", None, (hostile,))
    exhibits = [gallery.Exhibit(n, case, 1) for n in range(100)]
    settings = {"models": {"adapter": hostile, "base": "b"}}
    line = outcome.Line(metrics.BY_NAME["dino"], None, 0, None, None, hostile)
    found = outcome.Outcome(settings, [line], [], {hostile: hostile}, 100, 0, 0, False)
    report.write(Folder(tmp_path), benchmark, exhibits, found)
    page = (tmp_path / "results.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    shown = [exhibit.number for exhibit in chosen(exhibits)]
    assert (len(shown), shown[0], shown[-1]) == (SHOWN, 0, 97)
