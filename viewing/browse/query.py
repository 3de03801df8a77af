"""What is searched for, and how it is written in an address; anything that is not understood is left out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

VIEWS = ("pictures", "objects", "faces", "groups", "samples")
ORDERS = ("stored", "lowest", "highest")
PAGE_SIZE = 36
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A search.

    Attributes:
        view: what is listed.
        text: part of an id, phrase or category; any case.
        source: of the picture, or of the first one of a group or sample.
        kind: of objects, groups or samples.
        verdict: keep, reject, undecided, or a reason.
        low, high: bounds of the view's score, NaN where there is none.
        order: of the results.
        page: from 1.
    """

    view: str = "pictures"
    text: str = ""
    source: str = ""
    kind: str = ""
    verdict: str = ""
    low: float = math.nan
    high: float = math.nan
    order: str = "stored"
    page: int = 1

    @classmethod
    def parse(cls, parameters: Mapping[str, Sequence[str]]) -> "Query":
        """Read the parameters of an address, as `urllib.parse.parse_qs` gives them."""

        def one(name: str) -> str:
            return parameters.get(name, [""])[0].strip()[:_MAX_TEXT]

        page = one("page")
        return cls(
            view=one("view") if one("view") in VIEWS else VIEWS[0],
            text=one("q"),
            source=one("source"),
            kind=one("kind"),
            verdict=one("verdict"),
            low=_number(one("min")),
            high=_number(one("max")),
            order=one("order") if one("order") in ORDERS else ORDERS[0],
            page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 10 else 1,
        )

    def address(self, **changes: str | int) -> str:
        """The address of this search, with changes; what is as it would be anyhow is left out."""
        other = replace(self, **changes)  # type: ignore[arg-type]
        values = {
            "view": other.view if other.view != VIEWS[0] else "",
            "q": other.text,
            "source": other.source,
            "kind": other.kind,
            "verdict": other.verdict,
            "min": "" if math.isnan(other.low) else f"{other.low:g}",
            "max": "" if math.isnan(other.high) else f"{other.high:g}",
            "order": other.order if other.order != ORDERS[0] else "",
            "page": str(other.page) if other.page > 1 else "",
        }
        written = urlencode({key: value for key, value in values.items() if value})
        return f"/?{written}" if written else "/"


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
