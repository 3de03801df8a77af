"""The page of a run: all that counts is there, nothing runs, no data becomes markup, and it fits a telephone."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from chromium import tab
from tinypipes import picture

from refloom.schemas import pictures
from refloom.schemas.pages import curves as plots
from refloom.training.recipes import book
from refloom.training.run import log as run_log
from refloom.training.run.flops import peak_of_name
from refloom.training.watch import page

HOSTILE = '</p><script>document.title="taken"</script>\x00‮&'


def write_run(run: Path, steps: int = 600, validations: int = 30) -> Path:
    run.mkdir()
    recipe = book.load("debug/ms_diffusion", [f"steps={2 * steps}", f"models.base={json.dumps(HOSTILE[:60])}"])
    (run / page.RECIPE).write_text(book.dump(recipe))
    rng = np.random.default_rng(0)
    with (run / run_log.FILE).open("w") as log:
        for step in range(1, steps + 1):
            bad = step % 100 == 0
            line = {"step": step, "samples": 4 * step, "lr": 1e-4 * min(1.0, step / 100), "bad_steps": int(bad)}
            line |= {
                "loss": math.nan if bad else 0.2 + math.exp(-step / 150) + 0.1 * rng.random(),
                "gradient_norm": 1.0,
            }
            line |= run_log.speed(0.5 + 0.1 * rng.random(), 4, 60 * 10**12, 312e12) | {"memory_bytes": 70 << 30}
            line["lost"] = [{"sample_id": HOSTILE, "by": "image/b", "reason": "truncated"}] if step == 7 else []
            log.write(json.dumps(line) + "\n")
    cases = run / "validation" / "cases"
    cases.mkdir(parents=True)
    for name in ("0-1.jpg", "0-2.jpg", "0-target.jpg", "1-1.jpg"):
        (cases / name).write_bytes(pictures.encode_jpeg(picture(len(name), 48, 64)))
    one = {
        "prompt": HOSTILE,
        "sample_id": HOSTILE,
        "seed": 0,
        "height": 48,
        "width": 64,
        "target": "cases/0-target.jpg",
    }
    placed = [{"phrase": HOSTILE, "boxes": [[0.1, 0.2, 0.6, 0.9]], "images": [f"cases/0-{at}.jpg"]} for at in (1, 2)]
    other = one | {"prompt": "", "sample_id": None, "target": None}
    bare = [{"phrase": None, "boxes": None, "images": ["cases/1-1.jpg"]}]
    (cases.parent / "cases.json").write_text(json.dumps([one | {"references": placed}, other | {"references": bare}]))
    for number in range(validations):
        folder = cases.parent / f"step-{20 * number:09d}"
        folder.mkdir()
        (folder / "0.png").write_bytes((cases / "0-1.jpg").read_bytes())
        if number != 3:
            (folder / "1.png").write_bytes((cases / "1-1.jpg").read_bytes())
    (cases.parent / "step-000000900.partial").mkdir()
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("page") / "run & <b>")


def test_all_that_counts_is_on_the_page(run: Path) -> None:
    text = page.render(run)
    titles = ("Loss", "Gradient norm", "Learning rate", "Samples per second", "Memory, GiB", "MFU, %", "Bad steps")
    assert [title for title in titles if f">{title}<" not in text] == []
    assert text.count('class="mark s') == 2
    assert text.count("what was made") + text.count("not made") == 2 * page.STEPS_SHOWN
    assert f"{page.STEPS_SHOWN} of 30 validations are shown" in text
    assert "truncated" in text
    assert "optimizer:" in text
    assert "<script" not in text
    assert "<h1><bdi>run &amp; &lt;b&gt;</bdi></h1>" in text
    assert "\x00" not in text


def test_a_run_that_has_just_begun_has_a_page(run: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / page.RECIPE).write_bytes((run / page.RECIPE).read_bytes())
    assert "No step has been logged yet" in page.write(fresh).read_text()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1400, False), (420, False), (1400, True)])
def test_a_browser_shows_it_without_complaint(run: Path, width: int, dark: bool) -> None:
    file = page.write(run)
    with tab() as one:
        one.resize(width, 900, dark=dark)
        one.open(file.as_uri())
        assert one.value("document.title").endswith("refloom train")
        assert one.value("document.documentElement.scrollWidth") == width
        one.value("[...document.images].forEach(image => image.loading = 'eager')")
        one.until("[...document.images].every(image => image.complete)")
        assert one.value("[...document.images].every(image => image.naturalWidth > 0)")
        assert one.value("document.querySelectorAll('svg image').length") == 1
        colours = "(e => [getComputedStyle(e).color, getComputedStyle(e).stroke])"
        ink = one.value(f"{colours}(document.querySelector('h1'))")[0]
        assert (ink == "rgb(229, 234, 232)") == dark
        assert one.value(f"{colours}(document.querySelector('.curve .line'))")[1] not in ("none", ink)
        assert one.errors == []


def test_curves_leave_out_what_is_not_finite_and_stay_small() -> None:
    steps, values = plots.thinned(range(5), [1.0, None, math.nan, math.inf, 3.0])
    assert (steps.tolist(), values.tolist()) == ([0, 4], [1, 3])
    steps, values = plots.thinned(range(100_000), [float(value % 2) for value in range(100_000)])
    assert len(steps) == len(values) == plots.POINTS
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert plots.curve("x", [1, 2], [None, math.nan]) is None
    assert "<circle" in str(plots.curve("x", [1], [0.0]))
    assert plots.moving_mean(np.arange(48.0))[24] == 24
    assert page.evenly(range(100), 4) == [0, 33, 66, 99]


def test_peaks_are_of_the_right_device_and_never_made_up() -> None:
    known = {
        "NVIDIA H100 80GB HBM3": 989e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H100 NVL": 835e12,
        "NVIDIA H200": 989e12,
        "NVIDIA A100-SXM4-40GB": 312e12,
        "NVIDIA L4": 121e12,
        "NVIDIA L40S": 362e12,
    }
    assert {name: peak_of_name(name) for name in known} == known
    for name in ("NVIDIA A10G", "NVIDIA L40", "Tesla V100-SXM2-16GB", "NVIDIA GeForce RTX 4090", "AMD Instinct MI300X"):
        assert peak_of_name(name) is None
    assert run_log.speed(2.0, 8, 10**12, None) == {
        "seconds_per_step": 2.0,
        "samples_per_second": 4.0,
        "tflops_per_second": 0.5,
        "mfu": None,
    }
    assert run_log.speed(2.0, 8, 10**12, 1e12)["mfu"] == 0.5
