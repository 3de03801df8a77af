"""To whom `refloom ui` answers, with what, and which doors of gradio and FastAPI are shut."""

import http.client
import json
import os
from urllib.parse import urlsplit

import pytest
import tinypipes as tiny
from adapting import ms_adapter

from refloom.inference.pipeline import ReferencePipeline


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'refloom[ui]'")
    from refloom.inference.page import serving

    pipe = tiny.sdxl_pipe()
    with ReferencePipeline(pipe, ms_adapter(pipe)) as pipeline, serving(pipeline, {}, "127.0.0.1", 0) as served:
        yield urlsplit(served)


def ask(address, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    data = json.dumps(body).encode() if body is not None else b""
    sent = {"Host": address.netloc, "Content-Type": "application/json", "Content-Length": str(len(data))}
    for name, value in (sent | {name.replace("_", "-"): value for name, value in headers.items()}).items():
        connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


PATHS = ["/", "/config", "/gradio_api/info", "/gradio_api/queue/join", "/gradio_api/upload", "/nowhere", "/theme.css"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_or_a_page_from_elsewhere_is_refused_whatever_it_asks(address, path, method):
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"rebound.evil.example:{address.port}"},
        {"Host": "[bad"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
    ):
        status, answered, body = ask(address, path, method, {}, **headers)
        assert status == 403, headers
        assert len(body) < 100
        assert "access-control-allow-origin" not in answered


CLOSED = [
    "/docs",
    "/redoc",
    "/openapi.json",
    "/docs/oauth2-redirect",
    "/gradio_api/openapi.json",
    "/gradio_api/vibe-code",
]
CLOSED += ["/gradio_api/vibe-edit", "/monitoring", "/gradio_api/dev/reload", "/gradio_api/proxy=http://127.0.0.1:1/x"]


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_doors_that_the_page_has_no_use_for_are_shut(address, path, method):
    status, headers, body = ask(address, path, method, {})
    assert status == 404
    assert body == b"there is no such thing here"
    assert headers["content-security-policy"]


def test_its_own_page_is_answered_and_every_answer_says_what_it_may_load(address):
    for path in PATHS:
        status, headers, _ = ask(address, path, Origin=f"http://{address.netloc}", Sec_Fetch_Site="same-origin")
        assert status != 403, path
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "*" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert ask(address, "/", Host=f"localhost:{address.port}")[0] == 200
    assert ask(address, "/", Host="evil.example")[1]["content-security-policy"]


@pytest.mark.parametrize("file", ["/etc/passwd", "pyproject.toml", "../../etc/passwd", "/proc/self/environ"])
def test_no_address_leads_to_a_file(address, file):
    for path in (f"/gradio_api/file={file}", f"/file={file}", f"/gradio_api/proxy=http://127.0.0.1:1/{file}"):
        status, _, body = ask(address, path.replace("pyproject.toml", os.path.abspath("pyproject.toml")))
        assert status in (400, 403, 404), path
        assert b"root:" not in body


def test_a_reference_named_by_a_path_of_this_machine_is_not_read(address):
    """A picture comes by upload; a path that a request makes up is not followed."""
    config = json.loads(ask(address, "/config")[2])
    run = next(one for one in config["dependencies"] if len(one["inputs"]) > 20)
    inputs = {one["id"]: one for one in config["components"]}
    values = [inputs[at]["props"].get("value") for at in run["inputs"]]
    values[1] = [{"image": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "caption": None}]
    body = {"data": values, "fn_index": run["id"], "session_hash": "x"}
    assert ask(address, "/gradio_api/queue/join", "POST", body)[0] == 200
    told = ask(address, "/gradio_api/queue/data?session_hash=x")[2].decode()
    assert '"success":false' in told
    assert "root:" not in told
