"""The page of a report in a browser: on a telephone and on a desk everything that counts is in sight."""

from collections.abc import Iterator

import pytest
from chromium import Tab, tab
from reporting import reported

from refloom.schemas.dataset import Dataset
from refloom.viewing.report import write_page

pytestmark = pytest.mark.browser

WIDTHS = (360, 420, 1400)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Tab]:
    page = tmp_path_factory.mktemp("layout") / "page.html"
    write_page(Dataset(str(reported(tmp_path_factory))), str(page))
    with tab() as one:
        one.resize(1400, 900)
        one.open(f"file://{page}")
        one.value("document.querySelectorAll('details').forEach(part => part.open = true)")
        yield one


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_makes_the_page_itself_wider_than_the_window(browser, width):
    browser.resize(width, 900)
    assert browser.value("document.documentElement.scrollWidth") == width
    assert browser.errors == []


@pytest.mark.parametrize("width", WIDTHS)
def test_all_numbers_of_the_funnel_are_in_sight(browser, width):
    browser.resize(width, 900)
    cells = "[...document.querySelectorAll('.funnel td.number, .funnel .bar')]"
    edges = browser.value(f"{cells}.map(one => one.getBoundingClientRect().right)")
    assert len(edges) > 20
    assert max(edges) <= width
    assert browser.value("document.querySelector('.funnel').parentNode.scrollWidth") <= width


def test_on_a_telephone_the_numbers_of_the_funnel_lie_under_the_bar_with_their_names(browser):
    browser.resize(420, 900)
    row = "document.querySelector('.funnel tbody tr')"
    bar = browser.value(f"{row}.querySelector('.bar').getBoundingClientRect().bottom")
    tops = browser.value(f"[...{row}.querySelectorAll('.grow ~ .number')].map(one => one.getBoundingClientRect().top)")
    assert len(tops) == 3
    assert min(tops) >= bar
    named = f"[...{row}.querySelectorAll('.number')].map(one => getComputedStyle(one, '::before').content)"
    assert browser.value(named) == [f'"{name} "' for name in ("in", "kept", "rejected", "failed")]
    browser.resize(1400, 900)
    assert set(browser.value(named)) == {"none"}


@pytest.mark.parametrize("width", WIDTHS)
def test_names_of_settings_and_scores_are_never_broken_in_tables(browser, width):
    browser.resize(width, 900)
    lines = browser.value(
        "[...document.querySelectorAll('#scores td:first-child code, .effects td code, .settings td:first-child code,"
        " #sizes td code')].map(code => [code.textContent, code.getClientRects().length])"
    )
    assert len(lines) > 60
    assert [name for name, count in lines if count > 1] == []


def test_what_lies_beyond_the_edge_of_a_table_casts_a_shadow_on_it(browser):
    browser.resize(420, 900)
    style = "getComputedStyle(document.querySelector('#thresholds .scroll'))"
    assert browser.value("(t => t.scrollWidth > t.clientWidth)(document.querySelector('#thresholds .scroll'))")
    assert browser.value(f"{style}.backgroundAttachment") == "local, local, scroll, scroll"


def test_the_sides_of_a_strip_are_stacked_on_a_telephone_and_the_words_hold_for_both(browser):
    sides = "[...document.querySelector('.sides').children].map(one => one.getBoundingClientRect().left)"
    browser.resize(1400, 900)
    left, right = browser.value(sides)
    assert left < right
    browser.resize(420, 900)
    assert len(set(browser.value(sides))) == 1
    lead = browser.value("document.querySelector('#thresholds .lead').textContent").lower()
    assert "just rejected" in lead
    assert not {"left", "right", "above", "below"} & set(lead.replace(".", " ").split())
