"""The page of training batches: everything is in it, nothing runs, and nothing of a dataset becomes markup."""

from pathlib import Path
from typing import Any

import pytest
from chromium import tab
from loading import image_row, write_samples
from scenes import directed, scene

from refloom.training.data.loader import Loading, Source
from refloom.training.views.base import Base
from refloom.training.views.captions import Dropout
from refloom.training.views.easyref import EasyRef
from refloom.training.views.ezigen import EZIGen
from refloom.training.views.ip_adapter import IPAdapter
from refloom.training.views.mip import MIP
from refloom.training.views.ms_diffusion import MSDiffusion
from refloom.training.views.view import View
from refloom.training.watch.preview import preview, render

HOSTILE = '</p><script>document.title="taken"</script>\x00\u202e&'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    def make(number: int) -> tuple[Any, list[bytes]]:
        row, data = image_row(number)
        row["pictures"][0]["captions"] = [HOSTILE]
        row["subjects"][0]["phrase"] = HOSTILE
        return row, data if number else [b"not a picture"]

    url = write_samples(tmp_path_factory.mktemp("preview") / "data", 2, 6, make)
    shown = []
    views: dict[str, View] = {
        "base/<b>": Base(dropout=Dropout(text=1.0, image=0, both=0)),
        "ezigen": EZIGen(min_area_px=10, min_mask_share=0.0),
    }
    for name, view in views.items():
        loading = Loading(global_batch=4, buckets=((64, 64),), threads=0)
        shown.append(preview(name, [Source(url=url)], view, loading, batches=3))
    assert [one.accepted for one in shown] == [12, 12]
    return render(shown)


def test_every_example_is_shown_with_its_drops_and_its_losses(page: str) -> None:
    assert page.count('<article class="example">') == 24
    assert page.count('class="target"') == 24
    assert page.count("text dropped") == 12
    assert page.count('class="mask"') == 12
    assert page.count("image/test/0</bdi> is damaged") == 2
    assert "<b>" not in page
    assert "<script" not in page
    assert "\x00" not in page


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of cross samples with an instruction that is hostile, in views with and without boxes."""

    def make(number: int) -> tuple[Any, list[bytes]]:
        apart = [{"cup": (20, 60, 100, 160), "dog": (150, 50, 250, 175)}, {"cup": (20, 60, 120, 160)}]
        sample = directed(scene("cross", [*apart, {"dog": (30, 50, 150, 150)}]), 0, (HOSTILE + "cup, dog", (2, 1)))
        return sample.row | {"sample_id": f"cross/test/{number}"}, [bytes(data) for data in sample._images]

    url = write_samples(tmp_path_factory.mktemp("cross") / "data", 1, 4, make)
    views: dict[str, View] = {
        "mip": MIP(captions="instruction"),
        "ms_diffusion": MSDiffusion(captions="any"),
        "easyref": EasyRef(stage="multi"),
        "ip_adapter": IPAdapter(others=False),
    }
    loading = Loading(global_batch=4, buckets=((96, 128),), threads=0)
    source = [Source(url=url, kinds=("cross",))]
    return render([preview(name, source, view, loading, batches=1) for name, view in views.items()])


def test_a_cross_sample_is_shown_with_its_references_their_numbers_and_where_they_are_from(cross: str) -> None:
    mip, ms_diffusion, easyref, own = cross.split("<section>")[1:]
    for section in (mip, ms_diffusion, easyref, own):
        assert section.count('<article class="example">') == section.count('class="target"') == 4
        assert section.count(">cross/test/") == 4
    assert mip.count("<strong>1</strong> <bdi>dog</bdi> <code>pictures[2]</code>") == 4
    assert mip.count("<strong>2</strong> <bdi>cup</bdi> <code>pictures[1]</code>") == 4
    assert mip.count('<span class="said">instruction</span>') == 4
    assert mip.count('class="mask"') == ms_diffusion.count('class="mask"') == 8
    assert (mip.count('class="mark"'), ms_diffusion.count('class="mark"')) == (0, 8), (
        "boxes where the method reads them"
    )
    assert mip.count(">1</text>") == mip.count(">2</text>") == 4
    assert 0 < ms_diffusion.count('class="said"') < 4
    assert easyref.count("<code>pictures[1]</code>") == easyref.count("<code>pictures[2]</code>") == 4
    assert own.count("<strong>1</strong> <i>itself</i>") == 4
    assert "<script" not in cross


@pytest.mark.browser
@pytest.mark.parametrize("name", ["page", "cross"])
def test_a_browser_shows_it_without_complaint(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    page = request.getfixturevalue(name)
    file = tmp_path / "preview.html"
    file.write_text(page, "utf-8")
    with tab() as one:
        one.open(file.as_uri())
        assert one.value("document.title") == "Training batches – refloom"
        assert one.value("[...document.images].every(image => image.naturalWidth > 0)")
        assert one.value("getComputedStyle(document.querySelector('.marks')).display") != "none"
        one.click("#marks")
        assert one.value("getComputedStyle(document.querySelector('.marks')).display") == "none"
        one.resize(360, 800)
        assert one.value("document.documentElement.scrollWidth") <= 360
        assert one.errors == []
