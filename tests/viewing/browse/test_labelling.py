"""Judging objects on the local page: an order that can go on, a guarded POST, judgements that nobody loses."""

import http.client
import io
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pyarrow as pa
import pytest
from chromium import Tab, tab
from curating import LOOSE, coco, curated
from helpers import HERE
from PIL import Image

from refloom import cli
from refloom.curation.job import curate
from refloom.schemas import labels
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.lease import Lease
from refloom.schemas.verify import verify
from refloom.viewing.browse.labelling import Labelling, in_order
from refloom.viewing.browse.server import TOKEN, Browser

SCENES = [{"cup": (10, 8, 60, 56), "spoon": (2, 60, 30, 76)}, {"cup": (20, 20, 90, 70)}, {"<b>": (4, 4, 50, 70)}]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("labelling")
    curated(root, coco(root / "coco", SCENES))
    return root / "data"


@pytest.fixture
def dataset(made, tmp_path) -> Dataset:
    shutil.copytree(made, tmp_path / "data")
    return Dataset(str(tmp_path / "data"))


@pytest.fixture
def server(dataset) -> Iterator[Browser]:
    with Browser(dataset, label=True, labeller="ada") as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def ask(server: Browser, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """GET, or POST of json with the headers of the page's own script unless others are given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    own = {"Content-Type": "application/json", TOKEN: server.token} if body is not None else {}
    sent = {name: value for name, value in (own | headers).items() if value}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, body=data, headers=sent)
    answer = connection.getresponse()
    found = answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return found


def coming(server: Browser, order: str = "random", start: int = 0) -> list[dict[str, Any]]:
    status, body, _ = ask(server, "/label/next?" + urlencode({"order": order, "from": start, "count": 9}))
    assert status == 200
    cards: list[dict[str, Any]] = json.loads(body)["cards"]
    return cards


def saved(dataset: Dataset) -> dict[str, labels.Label]:
    return labels.read(Dataset(dataset.url))


# -- the order -----------------------------------------------------------------------------------------------------


def test_a_random_order_depends_on_ids_alone_and_the_uncertain_come_by_distance():
    ids = pa.array([f"coco/{number}#1" for number in range(200)])
    quality = np.linspace(0, 1, 200)
    quality[7] = np.nan
    random = in_order("random", ids, quality, 0.3)
    assert sorted(random) == list(range(200))
    assert abs(np.corrcoef(random, np.arange(200))[0, 1]) < 0.3
    assert [ids[place] for place in in_order("random", ids[50:], quality[50:], 0.9) + 50] == [
        ids[place] for place in random if place >= 50
    ]
    uncertain = in_order("uncertain", ids, quality, 0.3)
    distance = np.abs(quality[uncertain] - 0.3)
    assert (np.diff(distance[:-1]) >= 0).all()
    assert uncertain[-1] == 7


def test_what_was_judged_does_not_come_again_and_a_new_session_goes_on(server, dataset):
    first, second, *_ = coming(server)
    assert ask(server, "/label", {"object_id": first["object_id"], "score": 2, "flags": ["dark"]})[0] == 200
    assert coming(server)[0]["object_id"] == second["object_id"]
    assert first["object_id"] not in {card["object_id"] for card in coming(server, "uncertain")}
    other = Browser(Dataset(dataset.url), label=True)
    with other:
        assert other.labelling is not None
        assert other.labelling.progress()["judged"] == 1
        assert other.labelling.coming("random", 0, 9)[0]["object_id"] == second["object_id"]


def test_the_uncertain_come_first_by_the_threshold_that_objects_were_selected_with(tmp_path, made):
    shutil.copytree(made, tmp_path / "data")
    dataset = Dataset(str(tmp_path / "data"))
    with Browser(dataset, label=True) as server:
        assert server.labelling is not None
        quality = dict(zip(*dataset.read("object_scores", ["object_id", "quality"]).to_pydict().values(), strict=True))
        threshold = LOOSE.select.min_quality
        assert server.labelling.threshold == threshold
        found = [card["object_id"] for card in server.labelling.coming("uncertain", 0, 9)]
        assert len(found) == 4
        distances = [abs(quality[name] - threshold) for name in found]
        assert distances == sorted(distances)


def test_objects_without_quality_can_be_judged_before_curation(tmp_path):
    dataset = curated(tmp_path, coco(tmp_path / "coco", SCENES), until="measure")
    with Browser(dataset, label=True) as server:
        assert server.labelling is not None
        assert len(server.labelling.rows) == 4
        assert not server.labelling.has_quality


def test_a_dataset_without_objects_is_refused(tmp_path):
    dataset = curated(tmp_path, coco(tmp_path / "coco", [{}]), until="measure")
    with pytest.raises(Refused, match="no objects to judge"):
        Browser(dataset, label=True)
    assert cli.main(["browse", dataset.url, "--label"]) == 2
    assert cli.main(["browse", dataset.url, "--labeller", "ada"]) == 2


# -- what is shown -------------------------------------------------------------------------------------------------


def test_an_object_is_shown_alone_on_white(server, dataset):
    (row,) = [one for one in dataset.read("objects").to_pylist() if one["category"] == "spoon"]
    status, body, headers = ask(server, "/label/cutout?id=" + quote(row["object_id"], safe=""))
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    pixels = np.asarray(Image.open(io.BytesIO(body)).convert("L"), np.float64)
    assert pixels.shape[0] == pixels.shape[1] == 4 * 28  # small objects are not blown up without end
    height = 112 * 16 // 28
    assert pixels[: (112 - height) // 2 - 4].min() > 240
    assert pixels[56 - height // 4 : 56 + height // 4].mean() < 240
    assert ask(server, "/label/cutout?id=coco/nobody%231")[0] == 404


def test_words_of_a_dataset_are_not_markup_and_quality_is_not_told(server):
    status, body, headers = ask(server, "/label")
    assert status == 200
    assert "unsafe" not in headers["content-security-policy"]
    assert b"<b>" not in body.replace(b'<b id="name">', b"")
    cards = coming(server)
    assert {card["name"] for card in cards} == {"cup", "spoon", "<b>"}  # text, which the script sets as text
    assert all(set(card) == {"place", "object_id", "name"} for card in cards)


def test_without_label_there_is_no_such_page_and_nothing_is_written(dataset):
    with Browser(dataset) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path in ("/label", "/label/next", "/label/cutout?id=x"):
            assert ask(server, path)[0] == 404
        assert ask(server, "/label", {"object_id": "x", "score": 1, "flags": []})[0] == 405
        server.shutdown()


# -- what is written -----------------------------------------------------------------------------------------------


def test_a_judgement_is_written_replaced_and_taken_back(server, dataset):
    (name, *_) = [card["object_id"] for card in coming(server)]
    status, body, _ = ask(server, "/label", {"object_id": name, "score": 1, "flags": ["tiny", "dark"]})
    assert (status, json.loads(body)["scores"]) == (200, {"0": 0, "1": 1, "2": 0, "3": 0})
    found = saved(dataset)[name]
    assert (found.score, found.flags, found.labeller) == (1, ("dark", "tiny"), "ada")
    assert ask(server, "/label", {"object_id": name, "score": 3, "flags": []})[0] == 200
    assert (saved(dataset)[name].score, saved(dataset)[name].flags) == (3, ())
    status, body, _ = ask(server, "/label", {"object_id": name, "score": None, "flags": []})
    assert (status, json.loads(body)["judged"]) == (200, 0)
    assert saved(dataset) == {}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({TOKEN: ""}, 403),
        ({TOKEN: "guessed"}, 403),
        ({TOKEN: "\xe9"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_pages_of_others_cannot_judge(server, dataset, change, status):
    name = coming(server)[0]["object_id"]
    assert ask(server, "/label", {"object_id": name, "score": 3, "flags": []}, **change)[0] == status
    assert saved(dataset) == {}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 413),
        (b"{", 400),
        (b"[]", 400),
        (b"x" * 5000, 413),
        ({"object_id": "coco/000000000001#100", "score": 4, "flags": []}, 400),
        ({"object_id": "coco/000000000001#100", "score": True, "flags": []}, 400),
        ({"object_id": "coco/000000000001#100", "score": 1, "flags": ["ugly"]}, 400),
        ({"object_id": "coco/000000000001#100", "score": 1}, 400),
        ({"object_id": "coco/nobody#1", "score": 1, "flags": []}, 404),
        ({"object_id": "../../etc/passwd", "score": 1, "flags": []}, 404),
    ],
)
def test_what_is_no_judgement_is_refused(server, dataset, body, status):
    assert ask(server, "/label", body)[0] == status
    assert saved(dataset) == {}


def test_other_addresses_and_methods_write_nothing(server):
    for path in ("/", "/label/next", "/label?x=1"):
        assert ask(server, path, {"object_id": "x", "score": 1, "flags": []})[0] == 405


def test_another_writer_is_told_in_one_line(server, dataset):
    name = coming(server)[0]["object_id"]
    with Lease(dataset.folder):
        status, body, _ = ask(server, "/label", {"object_id": name, "score": 3, "flags": []})
    assert status == 409
    assert b"is being written by process" in body
    assert b"\n" not in body
    assert saved(dataset) == {}


def test_what_is_derived_follows_when_the_page_is_left(server, dataset):
    labelling = server.labelling
    assert isinstance(labelling, Labelling)
    assert labelling.close() is None
    name = coming(server)[0]["object_id"]
    ask(server, "/label", {"object_id": name, "score": 3, "flags": []})
    with Lease(dataset.folder):
        assert "follow with the next run" in (labelling.close() or "")
    assert labelling.close() is None
    found = verify(Dataset(dataset.url), decode_per_unit=0, derived=True)
    assert found.sound, found.problems
    assert not any(curate(dataset.url, LOOSE, HERE).due.values())


# -- a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> Iterator[Tab]:
    with tab() as found:
        found.resize(1400, 900)
        yield found


def judged(page: Tab, count: int) -> None:
    page.until(f"document.querySelector('#judge').dataset.judged === '{count}'")


@pytest.mark.browser
def test_keys_judge_flag_undo_and_go_back(page, server, dataset):
    order = [card["object_id"] for card in coming(server)]
    shown = "document.querySelector('#judge').dataset.object"
    page.open(server.address + "label")
    page.until(f"{shown} === {json.dumps(order[0])} && document.querySelector('#cutout').naturalWidth > 0")
    page.type("od2")
    judged(page, 1)
    assert page.value(shown) == order[1]
    assert (saved(dataset)[order[0]].score, saved(dataset)[order[0]].flags) == (2, ("occluded", "dark"))
    page.type("3")
    judged(page, 2)
    page.type("u")
    judged(page, 1)
    assert page.value(shown) == order[1]
    assert set(saved(dataset)) == {order[0]}
    page.press("ArrowLeft")
    assert page.value(shown) == order[0]
    assert page.value("[...document.querySelectorAll('.flag[aria-pressed=true]')].map((b) => b.dataset.flag)") == [
        "occluded",
        "dark",
    ]
    page.type("o0")  # takes a flag off, and another score
    page.until("document.querySelector('#progress').textContent.includes('0: 1')")
    assert (saved(dataset)[order[0]].score, saved(dataset)[order[0]].flags) == (0, ("dark",))
    assert page.value(shown) == order[1]
    page.type(" ")
    assert page.value(shown) == order[2]
    page.click(".score[data-score='1']")
    judged(page, 2)
    assert page.errors == []


@pytest.mark.browser
def test_a_judgement_waits_for_another_writer_and_outlives_a_reload(page, server, dataset):
    page.open(server.address + "label")
    page.until("document.querySelector('#cutout').naturalWidth > 0")
    with Lease(dataset.folder):
        page.type("3")
        page.until("document.querySelector('#trouble').textContent.includes('is being written by process')")
        assert page.value("document.querySelector('#trouble').textContent").startswith("1 judgement waits")
        page.open(server.address + "label?again")
        page.until("document.querySelector('#trouble').textContent.includes('is being written by process')")
        assert saved(dataset) == {}
    judged(page, 1)
    page.until("document.querySelector('#trouble').hidden")
    assert [label.score for label in saved(dataset).values()] == [3]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_fits(page, server, width):
    page.resize(width, 900)
    page.open(server.address + "label")
    page.until("document.querySelector('#cutout').naturalWidth > 0")
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("document.querySelector('.flags').getBoundingClientRect().bottom") < 900
