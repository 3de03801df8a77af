"""Who may ask a page that runs on this machine: the person at its browser, and no page from elsewhere.

A web page that the person visits can send requests here, and by a name of its own that it lets point to this machine
(DNS rebinding) it could read the answers. Both show in what the browser sends along: Host, Origin, and Sec-Fetch.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

_ELSEWHERE = ("cross-site", "same-site")
"""What a browser says of a request that another page made, be it of another port of this machine."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Of every answer, besides a Content-Security-Policy of the page's own."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a server on this machine answers to.

    Attributes:
        host: that it was told to listen on.
    """

    host: str

    def refusal(self, headers: Sequence[tuple[str, str]]) -> str | None:
        """Why a request is not answered; None where it is.

        Args:
            headers: of the request, names in small letters.

        Raises:
            ValueError: its Host is no host.
        """
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or not self.knows(hosts[0]):
            return "this server answers to localhost only"
        for origin in (value for name, value in headers if name == "origin"):
            if not _is_same(origin, hosts[0]):
                return "this server answers to its own pages only"
        sent = {name: value for name, value in headers if name.startswith("sec-fetch-")}
        opens_a_page = sent.get("sec-fetch-mode") == "navigate" and sent.get("sec-fetch-dest") == "document"
        if sent.get("sec-fetch-site") in _ELSEWHERE and not opens_a_page:
            return "this server answers to its own pages only"
        return None

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server by an address, as localhost, or as it was told to listen.

        Raises:
            ValueError: it is no host.
        """
        name = urlsplit(f"//{host}").hostname or ""
        if "@" in host or "/" in host or not name:
            return False
        if name in ("localhost", self.host.lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_same(origin: str, host: str) -> bool:
    """Whether an Origin is the page that a Host names; `null`, which is of sandboxes and files, is none."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
