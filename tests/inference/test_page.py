"""The page of `refloom ui`: what its clicks mean, and a real browser that uses it from upload to gallery."""

import contextlib
import json
import time

import numpy as np
import pytest
import tinypipes as tiny
from adapting import ms_adapter
from chromium import tab
from PIL import Image

from refloom.inference.pipeline import ReferencePipeline
from refloom.schemas.errors import Refused

VALUES = {
    "negative": "",
    "width": 64,
    "height": 64,
    "images": 2,
    "steps": 2,
    "guidance": 5,
    "reference_guidance": 0,
    "strength": 1.0,
    "seed": 3,
}


@pytest.fixture(scope="module", autouse=True)
def gradio() -> None:
    """Imported by the tests of this page alone, for it takes seconds."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'refloom[ui]'")


@pytest.fixture(scope="module")
def pipeline():
    pipe = tiny.sdxl_pipe()
    with ReferencePipeline(pipe, ms_adapter(pipe)) as made:
        yield made


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(tiny.picture(1)).save(tmp_path / "cat.png")
    return str(tmp_path / "cat.png")


def test_two_clicks_are_a_box_in_whatever_order_and_of_the_chosen_subject():
    from refloom.inference.page import Places

    drawn = Places().clicked(1, 0.8, 0.1).clicked(1, 0.2, 0.6)
    assert drawn.boxes == (None, (0.2, 0.1, 0.8, 0.6), None, None)
    assert drawn.clicked(0, 0.5, 0.5).clicked(2, 0.1, 0.1).boxes == drawn.boxes, "half a box of each"
    assert drawn.clicked(0, 0.5, 0.5).clicked(0, 0.51, 0.9).boxes == drawn.boxes, "a box of no width"
    assert drawn.cleared(1) == Places()
    canvas = np.asarray(drawn.drawn(128, 64)).astype(int)
    assert canvas.shape == (192, 384, 3)
    assert canvas[19, 200, 2] > canvas[19, 200, 0], "the second subject's blue"
    assert (canvas[100, 200] == canvas[0, 0]).all()


def test_references_are_read_again_only_when_they_change(pipeline, picture):
    from refloom.inference.page import Places, Studio

    studio, reads = Studio(pipeline, {}), []
    hook = pipeline.adapter.image_encoder.model.register_forward_hook(lambda *_: reads.append(1))
    subject, none = ([(picture, None)], " cat ", 1.0, False), (None, "", 1.0, False)
    for places in (Places(), Places(), Places().clicked(1, 0, 0).clicked(1, 1, 1)):
        studio.references([none, subject, none, none], places)
    hook.remove()
    assert len(reads) == 2
    assert pipeline.references[0].phrase == "cat"
    assert pipeline.references[0].boxes == ((0, 0, 1, 1),)
    shown = []
    made = studio.generate({"prompt": "a cat", **VALUES}, lambda at, unit: shown.append(at))
    assert shown == [(1, 2), (2, 2)]
    assert [caption for _, caption in made] == ["seed 3", "seed 4"]
    wanted = pipeline.generate("a cat", seed=4, height=64, width=64, num_inference_steps=2, guidance_scale=5.0)
    assert np.abs(np.asarray(made[1][0]).astype(int) - np.asarray(wanted.images[0])).max() <= 1
    with pytest.raises(Refused, match="no references"):
        studio.references([none] * 4, Places())


def click_on_the_canvas(page, x, y) -> None:
    """Until the canvas shows it: a click is lost while the page still moves what lies under the mouse."""
    shown = "document.querySelector('#canvas img')"
    for _ in range(3):
        places, before = [], page.value(f"{shown}.src")
        while len(places) < 10 or len(set(places[-10:])) > 1:
            places.append(page.value(f"JSON.stringify({shown}.getBoundingClientRect())"))
            time.sleep(0.05)
        page.click("#canvas img", x, y)
        with contextlib.suppress(AssertionError):
            page.until(f"{shown}.src != {json.dumps(before)}", 30)
            return
    raise AssertionError("the canvas never shows the click")


@pytest.mark.browser
def test_in_a_browser_pictures_a_phrase_two_clicks_and_a_prompt_make_pictures(pipeline, picture):
    from refloom.inference.page import serving

    with serving(pipeline, {}, "127.0.0.1", 0) as address, tab() as page:
        page.resize(1400, 1000)
        page.open(address)
        page.until("!!document.querySelector('#run') && !!document.querySelector('#pictures-0 input[type=file]')", 90)
        for _ in range(9):  # until the page listens
            page.click("#run")
            with contextlib.suppress(AssertionError):
                page.until("document.body.innerText.includes('there are no references')", 10)
                break
        else:
            raise AssertionError("the error is never shown")
        page.upload("#pictures-0 input[type=file]", [picture])
        page.until("!!document.querySelector('#pictures-0 img')", 90)
        for selector, text in (("#phrase-0 textarea, #phrase-0 input", "cat"), ("#prompt textarea", "a cat outside")):
            page.click(selector)
            page.type(text)
        for selector, number in (("#width", 96), ("#steps", 2), ("#seed", 5)):
            field = f"{selector} input[type=number]"
            page.value(
                f"(() => {{ const field = document.querySelector({json.dumps(field)}); field.value = {number};"
                " field.dispatchEvent(new Event('input', {bubbles: true}));"
                " field.dispatchEvent(new Event('change', {bubbles: true})); field.blur(); })()"
            )
        shown = "document.querySelector('#canvas img')"
        page.until(f"{shown}.naturalWidth == 384 && {shown}.naturalHeight == 256", 90)
        for x, y in ((0.25, 0.25), (0.75, 0.75)):
            click_on_the_canvas(page, x, y)
        page.click("#run")
        page.until("!!document.querySelector('#results img')", 90)
        size = page.until(
            "(() => { const one = document.querySelector('#results img');"
            " return one.naturalWidth && [one.naturalWidth, one.naturalHeight]; })()",
            90,
        )
        assert size == [96, 64]
        (reference,) = pipeline.references
        assert reference.phrase == "cat"
        assert np.allclose(reference.boxes, [(0.25, 0.25, 0.75, 0.75)], atol=0.02)
        assert np.array_equal(reference.images[0], tiny.picture(1))
        assert "seed 5" in page.value("document.querySelector('#results').innerText + document.body.innerHTML")
