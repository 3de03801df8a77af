"""To whom a page on this machine answers."""

import pytest

from refloom.schemas.guard import Guard


def refusal(host: str | None, listening: str = "127.0.0.1", **headers: str) -> str | None:
    sent = [("host", host)] if host is not None else []
    return Guard(listening).refusal([*sent, *((name.replace("_", "-"), value) for name, value in headers.items())])


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7860", "127.0.0.1:1", "[::1]:80", "192.168.1.7:8000", "LOCALHOST"]
)
def test_addresses_and_localhost_are_answered(host):
    assert refusal(host) is None
    assert refusal(host, origin=f"http://{host}", sec_fetch_site="same-origin") is None


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil/127.0.0.1",
    ],
)
def test_names_that_somebody_else_points_here_are_not(host):
    assert refusal(host) == "this server answers to localhost only"


def test_the_name_it_was_told_to_listen_on_is_answered_and_two_hosts_are_not():
    assert refusal("desk.lan:80", "desk.lan") is None
    assert refusal("desk.lan:80", "0.0.0.0")
    assert Guard("127.0.0.1").refusal([("host", "localhost"), ("host", "localhost")])


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:8080",
        "null",
        "file://",
        "http://127.0.0.1:1.evil.example",
        "http://[x",
    ],
)
def test_pages_from_elsewhere_are_not_answered(origin):
    assert refusal("127.0.0.1:1", origin=origin) == "this server answers to its own pages only"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_fetches_is_not_answered_and_a_link_to_this_one_is(site):
    assert refusal("127.0.0.1:1", sec_fetch_site=site, sec_fetch_mode="no-cors", sec_fetch_dest="image")
    assert refusal("127.0.0.1:1", sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="iframe")
    assert not refusal("127.0.0.1:1", sec_fetch_site=site, sec_fetch_mode="navigate", sec_fetch_dest="document")
    assert not refusal("127.0.0.1:1", sec_fetch_site="none", sec_fetch_mode="navigate", sec_fetch_dest="document")


def test_what_is_no_host_says_so():
    with pytest.raises(ValueError):
        refusal("[bad")
