"""The local page: searches that find what is there, answers that are safe, and a real browser that uses it."""

import http.client
import io
import json
import math
import re
import threading
from collections.abc import Iterator
from importlib.resources import files
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from chromium import Tab, tab
from drawing import gradient
from helpers import HERE, ingest, write_coco, write_ytvis
from PIL import Image

from refloom.curation.annotate.faults import faults, unknown
from refloom.curation.annotate.settings import Filter, Models
from refloom.curation.compose.settings import Compose
from refloom.curation.config import Curation
from refloom.curation.job import curate
from refloom.curation.select.settings import Select
from refloom.ingest.sources.coco import Coco
from refloom.ingest.sources.subjects import Subjects
from refloom.ingest.sources.ytvis import YouTubeVis
from refloom.schemas import pictures
from refloom.schemas.dataset import Dataset
from refloom.schemas.unit import UnitKey, UnitWriter
from refloom.viewing.browse.index import build
from refloom.viewing.browse.library import Kept
from refloom.viewing.browse.query import Query
from refloom.viewing.browse.search import search
from refloom.viewing.browse.server import _FILES, Browser

CONFIG = Curation(
    models=Models(face="none", image_embedding="none", classifier="none"),
    filter=Filter(min_area_px=20, min_area_share=0.0),
    select=Select(min_area_share=0.05, min_short_side_px=12.0, min_quality=0.2),
    compose=Compose(frames_per_sample=2, samples_per_video=1, min_face_px=8),
)
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    root = tmp_path_factory.mktemp("browse")
    images, instances, captions = write_coco(root / "coco", 40, size=(160, 120))
    value = json.loads(instances.read_text())
    value["categories"][1]["name"] = EVIL
    instances.write_text(json.dumps(value))
    ingest(Coco(images=str(images), instances=str(instances), captions=str(captions)), root / "data")
    ingest(YouTubeVis(frames=str(root / "yt/JPEGImages"), annotations=str(write_ytvis(root / "yt"))), root / "data")
    for number in range(3):
        (root / "subjects/duck").mkdir(parents=True, exist_ok=True)
        (root / "subjects/duck" / f"{number}.jpg").write_bytes(pictures.encode_jpeg(gradient(90, 60, number)))
    ingest(Subjects(directory=str(root / "subjects"), phrase_from_folder=True), root / "data")
    found = Dataset(str(root / "data"))
    for unit in found.units():
        _write_faces(found, unit)
    curate(found.url, CONFIG, HERE)
    return Dataset(found.url)


def _write_faces(dataset: Dataset, unit: str) -> None:
    with UnitWriter(dataset.folder, UnitKey("face", unit, "x")) as out:
        for image_id in dataset.read("images", ["image_id"], unit=unit)["image_id"].to_pylist()[:2]:
            face = {"face_id": f"{image_id}@0", "image_id": image_id, "det_score": 0.9}
            face |= {"box": [4.0, 4.0, 24.0, 24.0], "landmarks": [[10.0, 10.0]] * 5, "crop_box": [0.0, 0.0, 40.0, 40.0]}
            face["crop"] = {"bytes": pictures.encode_jpeg(gradient(64, 64, 4)), "path": "x.jpg"}
            out.add("faces", face)
            out.expect("image", 1)
            out.keep("image")


@pytest.fixture(scope="module")
def server(dataset) -> Iterator[Browser]:
    with Browser(dataset) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def ids(index, query: Query) -> list[str]:
    listing = index.listings[query.view]
    return [str(listing.ids[int(row)].as_py()) for row in search(index, query)]


# -- searching -----------------------------------------------------------------------------------------------------


def test_the_index_holds_every_row_once(dataset):
    index = build(dataset)
    for view, table in (
        ("pictures", "images"),
        ("objects", "objects"),
        ("faces", "faces"),
        ("groups", "groups"),
        ("samples", "samples"),
    ):
        assert len(index.listings[view]) == dataset.table_summary()[table]["rows"]
    verdicts = dataset.read("selection", ["verdict"])["verdict"].to_pylist()
    assert dict(index.verdicts.present())["keep"] == verdicts.count("keep")


def test_a_search_finds_ids_and_words_in_any_case(dataset):
    index = build(dataset)
    assert ids(index, Query(text="COCO/000000000003")) == ["coco/000000000003"]
    cats = {row["object_id"] for row in dataset.read("objects").to_pylist() if row["category"] == "cat"}
    assert set(ids(index, Query(view="objects", text="CAT"))) == cats
    assert {one.split("#")[0] for one in cats} == set(ids(index, Query(text="cat")))
    assert ids(index, Query(text="duck", view="pictures")) == [f"subjects/duck/{n}.jpg" for n in range(3)]
    assert ids(index, Query(text="duck", view="groups"))
    assert ids(index, Query(text="duck", view="samples"))
    assert ids(index, Query(text="no such thing")) == []


def test_filters_hold_together_and_scores_order(dataset):
    index = build(dataset)
    scores = {row["object_id"]: row["quality"] for row in dataset.read("object_scores").to_pylist()}
    verdicts = {row["object_id"]: row for row in dataset.read("selection").to_pylist()}
    found = ids(index, Query(view="objects", verdict="keep", source="coco", low=0.6, high=0.9, order="lowest"))
    assert found == sorted(found, key=lambda one: scores[one])
    assert set(found) == {
        key
        for key, row in verdicts.items()
        if row["verdict"] == "keep" and key.startswith("coco/") and 0.6 <= (scores[key] or 0) <= 0.9
    }
    reasons = {row["reason"] for row in verdicts.values() if row["reason"]}
    assert reasons
    for reason in reasons:
        wanted = {key for key, row in verdicts.items() if row["reason"] == reason}
        assert set(ids(index, Query(view="objects", verdict=reason))) == wanted
        assert set(ids(index, Query(verdict=reason))) == {key.split("#")[0] for key in wanted}
    rejected = ids(index, Query(view="objects", verdict="reject"))
    assert len(rejected) == sum(row["verdict"] == "reject" for row in verdicts.values())


def test_a_dataset_in_any_state_is_held(tmp_path):
    empty = build(Dataset(str(tmp_path / "empty"), create=True))
    assert [len(search(empty, Query(view=view))) for view in empty.listings] == [0] * 5
    assert ids(empty, Query(source="coco", text="x")) == []
    images, instances, _ = write_coco(tmp_path / "coco", 2)
    fresh = build(ingest(Coco(images=str(images), instances=str(instances)), tmp_path / "data"))
    assert len(ids(fresh, Query(view="objects", verdict="undecided"))) == 4


def test_units_beyond_the_limit_are_said_to_be_left_out(dataset):
    index = build(dataset, max_rows=1)
    assert len(index.left_out) == len(index.units) - 1
    assert len(index.listings["pictures"]) == 40


def test_addresses_say_the_whole_query_and_nonsense_is_left_out():
    from urllib.parse import parse_qs, urlsplit

    query = Query(view="objects", text="a b&c", low=0.25, verdict="keep", order="highest", page=3)
    again = Query.parse(parse_qs(urlsplit(query.address()).query))
    assert math.isnan(again.high)
    assert again.address() == query.address()
    odd = {"view": ["../etc"], "min": ["nan"], "max": ["1e999"], "page": ["-4"], "order": ["drop"]}
    assert Query.parse(odd).address() == "/"


def test_what_was_used_last_is_kept_and_made_once():
    made: list[int] = []
    kept: Kept[int] = Kept(2)
    for key in (1, 2, 1, 3, 1, 2):
        kept.get(key, lambda key=key: made.append(key) or key)
    assert made == [1, 2, 3, 2]


# -- answers -------------------------------------------------------------------------------------------------------


def ask(server: Browser, path: str, host: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    connection.request(method, path, headers={"Host": host} if host is not None else {})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
        ("[bad", 400),
    ],
)
def test_names_of_others_are_not_answered(server, host, status):
    assert ask(server, "/", host)[0] == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_pages_of_others_are_not_answered(server, headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    connection.request("GET", "/", headers=headers)
    assert connection.getresponse().status == 403
    connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/browse.css/../server.py",
        "/dataset.json",
        "/picture?id=../../etc/passwd",
        "/tile?view=pictures&id=%2fetc%2fpasswd",
        "/tile?view=__class__&id=x",
        "/sample?id=",
    ],
)
def test_no_address_leads_to_a_file(server, path):
    status, _, body = ask(server, path)
    assert status == 404
    assert "root:" not in body


def test_only_reading_is_possible(server):
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, "/", method=method)[0] in (405, 501)
    status, headers, body = ask(server, "/", method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["content-length"]) > 1000


def test_every_answer_forbids_what_is_not_needed(server):
    for path in ("/", "/browse.js", "/nowhere", "/tile?" + urlencode({"view": "pictures", "id": "coco/000000000001"})):
        headers = ask(server, path)[1]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_words_of_a_dataset_and_of_an_address_never_become_markup(server):
    pages = [
        "/?" + urlencode({"view": "objects", "q": EVIL}),
        "/grid?" + urlencode({"q": '"><script>alert(1)</script>'}),
    ]
    pages += ["/picture?" + urlencode({"id": "coco/000000000001", "show": '"><b>'}), "/?view=samples"]
    pages += ["/tile?" + urlencode({"view": "samples", "id": "image/coco/000000000001"})]
    for path in pages:
        status, _, body = ask(server, path)
        assert status == 200
        assert "<img" not in body
        assert "<script>" not in body
        assert '<b>"' not in body
        for attributes in re.findall(r"<\w+([^<>]*)>", body):
            assert not re.search(r"\son\w+=", re.sub(r'"[^"]*"', "", attributes))
    assert "&lt;img src=x" in ask(server, pages[0])[2]


def test_addresses_that_are_too_long_or_full_are_refused(server):
    assert ask(server, "/?q=" + "a" * 5000)[0] == 414
    assert ask(server, "/?" + "&".join(f"a{n}=1" for n in range(50)))[0] == 400


def test_every_thing_has_a_page_and_a_picture(server, dataset):
    for view, page in (("pictures", "picture"), ("groups", "group"), ("samples", "sample")):
        for row in range(len(server.index.listings[view])):
            identity = quote(server.library.identity(view, row), safe="")
            assert ask(server, f"/{page}?id={identity}")[0] == 200
    for view in server.index.listings:
        identity = quote(server.library.identity(view, 0), safe="")
        status, _, body = ask(server, f"/tile?view={view}&id={identity}")
        assert status == 200
        assert body.startswith("<svg")


def test_a_picture_says_all_of_its_objects(server, dataset):
    _, _, body = ask(server, "/picture?id=coco/000000000001")
    rows = [row for row in dataset.read("object_scores").to_pylist() if row["image_id"] == "coco/000000000001"]
    for row in rows:
        assert row["object_id"].partition("#")[2] in body
        assert f"{row['quality']:.3f}" in body
    assert body.count('class="line"') == len(rows)
    assert "Faces (1)" in body
    assert "A cat and a dog, number 1" in body


def test_a_picture_says_what_pulled_the_quality_of_its_objects_down(server, dataset):
    _, _, body = ask(server, "/picture?id=coco/000000000001")
    rows = [row for row in dataset.read("object_scores").to_pylist() if row["image_id"] == "coco/000000000001"]
    told = [
        [f"pulled down: {', '.join(map(str, low[:3]))}"] if (low := faults(row, "object", CONFIG.quality)) else []
        for row in rows
    ]
    assert any(told)
    for (line,) in filter(None, told):
        assert line in body
    assert body.count("pulled down: ") == sum(map(len, told))
    absent = [unknown(row, "object", CONFIG.quality) for row in rows]
    assert body.count("made without: ") == sum(map(bool, absent))


def test_the_first_page_comes_without_a_picture_being_decoded(dataset, monkeypatch):
    """It waits for columns of few bytes only; how long that takes is for benchmarks."""
    monkeypatch.setattr(pictures, "decode", lambda *_: pytest.fail("a picture was decoded"))
    with Browser(dataset) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        assert ask(made, "/")[0] == 200
        made.shutdown()


# -- a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(server) -> Iterator[Tab]:
    with tab() as found:
        found.resize(1280, 900)
        yield found


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)


@pytest.mark.browser
def test_typing_shrinks_the_results_a_picture_opens_and_its_masks_are_seen(page, server):
    page.open(server.address)
    page.until("document.querySelectorAll('#results svg.shot').length >= 12")
    assert page.value("document.querySelector('#results').dataset.count") == "51"
    page.type("/")
    assert page.value("document.activeElement.id") == "q"
    page.type("duck")
    page.until("document.querySelector('#results').dataset.count === '3'")
    assert page.value("location.search") == "?q=duck"
    page.until("document.querySelectorAll('#results svg.shot').length === 3")

    page.value("document.querySelector('#q').value = ''")
    page.type("000000000001")
    page.until("document.querySelector('#results').dataset.count === '1'")
    page.until("document.querySelectorAll('#results svg path.line').length === 2")
    page.click("#results a.cell")
    page.until("location.pathname === '/picture' && document.readyState === 'complete'")
    assert page.value("document.querySelectorAll('.large path.line').length") == 2
    assert page.value("document.querySelectorAll('.large .mark.face').length") == 1
    seen = pixels(page.screenshot())
    page.type("o")
    bare = pixels(page.screenshot())
    assert (np.abs(seen - bare).sum(axis=2) > 30).mean() > 0.005  # the marks are drawn, and go with the switch
    page.type("o")
    page.click("i.key")
    assert page.value("document.querySelectorAll('.large .mark.on').length") == 1
    page.press("Escape")
    page.until("location.pathname === '/' && document.readyState === 'complete'")
    assert page.value("document.querySelector('#q').value") == "000000000001"
    assert page.errors == []


@pytest.mark.browser
def test_keys_move_open_and_turn_pages(page, server):
    page.open(server.address)
    page.type("l")
    page.type("l")
    first = page.value("[...document.querySelectorAll('a.cell')].indexOf(document.activeElement)")
    assert first == 1
    page.press("ArrowLeft")
    page.press("Enter")
    page.until("location.pathname === '/picture' && document.readyState === 'complete'")
    here = page.value("location.search")
    page.type("n")
    page.until(f"location.search !== {json.dumps(here)} && document.readyState === 'complete'")
    page.press("Escape")
    page.until("location.pathname === '/' && document.readyState === 'complete'")
    page.type("n")
    page.until("document.querySelector('#results')?.dataset.page === '2' && document.readyState === 'complete'")
    page.type("5")
    page.until("location.search.includes('samples') && document.readyState === 'complete'")
    page.type("?")
    assert page.value("document.querySelector('#keys').open") is True
    page.press("Escape")
    assert page.errors == []


@pytest.mark.browser
def test_nothing_of_a_dataset_runs_and_nothing_is_loaded_from_elsewhere(page, server):
    for path in ("?view=objects", "?view=faces", "?view=groups", "?view=samples", "picture?id=coco/000000000002"):
        page.open(server.address + path)
        page.until("!document.querySelector('.shot.waits') || document.querySelectorAll('svg.shot').length > 8")
        assert page.value("document.querySelectorAll('img, iframe').length") == 0
        names = page.value("performance.getEntriesByType('resource').map((one) => one.name)")
        assert all(name.startswith((server.address, "data:")) for name in names)
    assert page.errors == []


@pytest.mark.browser
def test_filters_are_kept_in_the_address_and_narrow_pages_fit(page, server):
    page.open(server.address + "?view=objects")
    page.value(
        "(() => { const s = document.querySelector('select[name=verdict]'); s.value = 'reject';"
        " s.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    page.until("location.search === '?view=objects&verdict=reject'")
    wanted = len(search(server.index, Query(view="objects", verdict="reject")))
    assert page.until("document.querySelector('#results').dataset.count") == str(wanted)
    page.resize(420, 800, dark=True)
    for path in ("", "picture?id=coco/000000000001", "sample?id=image/coco/000000000001"):
        page.open(server.address + path)
        wide = (
            "[...document.querySelectorAll('main *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
        )
        beyond = page.value(f"{wide}.filter((e) => !e.closest('.scroll')).map((e) => e.outerHTML.slice(0, 80))")
        assert beyond == []
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
    page.resize(1280, 900)
    assert page.errors == []


@pytest.mark.parametrize("path", _FILES)
def test_what_pages_load_is_there(path: str):
    package, name, _ = _FILES[path]
    assert files(package).joinpath(name).is_file()
