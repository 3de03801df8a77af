"""The page of training batches: everything is in it, nothing runs, and nothing of a dataset becomes markup."""

from pathlib import Path
from typing import Any

import pytest
from chromium import tab
from loading import image_row, write_samples

from refloom.training.data.loader import Loading, Source
from refloom.training.views.base import Base
from refloom.training.views.captions import Dropout
from refloom.training.views.ezigen import EZIGen
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


@pytest.mark.browser
def test_a_browser_shows_it_without_complaint(page: str, tmp_path: Path) -> None:
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
