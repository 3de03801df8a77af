"""Which pictures' bytes may be given away, by source and license. Pure decisions over text; no law firm wrote this.

Forbidden is what a license says it forbids; unknown is everything that is not known to allow it, and no license at all.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from refloom.schemas.errors import Refused

NO_LICENSE = "none"
"""How pictures without a license are named in `--accept-license`."""

_FORBIDDEN = re.compile(
    r"sa-?1b|segment anything|\bresearch (purposes?|use|license|only)\b|all rights reserved|\bno redistribution"
    r"|not be redistributed|do not (re)?distribute",
    re.IGNORECASE,
)
_FREE = re.compile(
    r"\bcc[ -]?0\b|\bcc[ -]zero\b|public domain|no known copyright|united states government work|\bpddl\b"
    r"|creativecommons\.org/publicdomain/",
    re.IGNORECASE,
)
_COMMONS = re.compile(
    r"\bcc[ -]by\b|creative commons|creativecommons\.org/licenses/|^attribution\b|\bodc-by\b", re.IGNORECASE
)
_OPEN = re.compile(r"^(the )?(mit|apache|bsd|isc|cdla-permissive|unlicense)\b", re.IGNORECASE)
_CONDITIONS = (
    ("attribution", r""),
    ("noncommercial", r"-nc\b|non-?commercial"),
    ("share-alike", r"-sa\b|share-?alike"),
    ("no derivatives", r"-nd\b|no-?deriv"),
)

Licensed = tuple[str, str | None]
"""Source and license of pictures, as the columns `source` and `license` have them."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the license of a picture lets others do with its bytes.

    Attributes:
        permission: allowed | forbidden | unknown | accepted (unknown, and the publisher answers for it).
        conditions: that go with the permission, e.g. attribution.
    """

    permission: str
    conditions: tuple[str, ...] = ()

    @property
    def allows(self) -> bool:
        """Whether the bytes may be published."""
        return self.permission in ("allowed", "accepted")


def terms(source: str, license_text: str | None, accepted: Collection[str] = ()) -> Terms:
    """The terms of pictures of one source under one license.

    Args:
        source: kind of source; SA-1B's pictures are under its research license unless another one is stated.
        license_text: as the source states it.
        accepted: texts that the publisher accepts, `none` for no license; they do not lift what a license forbids.
    """
    text = (license_text or "").strip()
    if _FORBIDDEN.search(text) or (source == "sa1b" and not text):
        return Terms("forbidden")
    if _FREE.search(text):
        return Terms("allowed")
    if _COMMONS.search(text):
        found = tuple(name for name, pattern in _CONDITIONS if re.search(pattern, text, re.IGNORECASE))
        return Terms("allowed", found)
    if _OPEN.search(text):
        return Terms("allowed", ("attribution",))
    names = {name.strip().casefold() for name in accepted}
    return Terms("accepted" if (text or NO_LICENSE).casefold() in names else "unknown")


def check(pictures: Mapping[Licensed, int], accepted: Collection[str]) -> None:
    """Refuse if the bytes of any picture may not be published.

    Args:
        pictures: source and license to the number of pictures that would be published.
        accepted: as for `terms`.

    Raises:
        Refused: names the sources, licenses, counts and remedies.
    """
    refused: Counter[tuple[str, str, str]] = Counter()
    free: set[str] = set()
    for (source, text), count in pictures.items():
        own = terms(source, text, accepted)
        if own.allows:
            free.add(source)
        else:
            refused[own.permission, source, text or "no license stated"] += count
    if not refused:
        return
    free -= {source for _, source, _ in refused}
    lines = [
        f"  {permission}: {source}, {text}: {count:,} pictures"
        for (permission, source, text), count in sorted(refused.items())
    ]
    remedies = ["publish ids, masks and scores without bytes: --no-images (`refloom rehydrate` joins them again)"]
    if free:
        remedies.append(f"publish only what may be given away: --only-sources {' '.join(sorted(free))}")
    else:
        remedies.append("publish only sources that may be given away: --only-sources SOURCE")
    if any(permission == "unknown" for permission, *_ in refused):
        remedies.append(
            "if you hold the right to give the unknown ones away: --accept-license 'TEXT', the text as above, "
            f"{NO_LICENSE} where no license is stated"
        )
    raise Refused(
        "\n".join(
            [
                "the bytes of some pictures may not be given away, so nothing was published:",
                *lines,
                "either " + "; or ".join(remedies),
            ]
        )
    )
