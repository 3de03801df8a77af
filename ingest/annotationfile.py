"""What COCO-like annotation files share: their outermost shape, ids, categories and licenses."""

import math
import posixpath
import re
from typing import Any

from refloom.ingest import references
from refloom.ingest.references import References
from refloom.schemas.errors import Refused

# json has these types and no subclasses of them; asking for the type is a fifth of the time of isinstance with a union
_NUMBER_TYPES = frozenset({int, float})


def id_text(record: Any) -> str:
    """A record's id as text; `no-id` where it has none."""
    said = references.text(record.get("id")) if isinstance(record, dict) else None
    return "no-id" if said is None else said


def json_stem(path: str) -> str:
    """`annotations/instances_val2017.json.gz` to `instances_val2017`."""
    return posixpath.basename(path).removesuffix(".gz").removesuffix(".json")


def object_of_lists(value: Any, path: str, wanted: dict[str, str]) -> dict[str, Any]:
    """Check the outermost shape of an annotation file.

    Args:
        value: the parsed json.
        path: for the message.
        wanted: key to what it lists, for the message.

    Raises:
        Refused: it is not an object, or lacks one of the lists.
    """
    if not isinstance(value, dict):
        kind = "a list, as detection results are" if isinstance(value, list) else f"a {type(value).__name__}"
        raise Refused(f"{path} holds {kind}, not an object with {', '.join(wanted)}: give the annotation file")
    for key, what in wanted.items():
        if not isinstance(value.get(key), list):
            raise Refused(f"{path} has no list `{key}`, so it has no {what}: give the annotation file of this format")
    return value


def category_names(root: dict[str, Any], path: str) -> References[str]:
    """Category names by their ids.

    Raises:
        Refused: the file has annotations and no categories.
    """
    categories = root.get("categories")
    named = [
        (item.get("id"), item["name"])
        for item in (categories if isinstance(categories, list) else [])
        if isinstance(item, dict) and is_text(item.get("name"))
    ]
    names = References(reversed(named))
    if not names and root["annotations"]:
        raise Refused(
            f"{path} has no categories, so no annotation can be named: add the `categories` list of the format"
        )
    return names


def license_names(root: dict[str, Any]) -> References[str]:
    """Licenses as `name (url)` by their ids."""
    licenses = root.get("licenses")
    named = []
    for item in licenses if isinstance(licenses, list) else []:
        if isinstance(item, dict) and is_text(item.get("name")):
            url = text_or_none(item.get("url"))
            named.append((item.get("id"), f"{item['name']} ({url})" if url else item["name"]))
    return References(reversed(named))


def split_in(path: str) -> str | None:
    """The source's split as the name of an annotation file tells it."""
    found = re.search(r"train|val|test", json_stem(path))
    return found.group(0) if found else None


def text_or_none(value: Any) -> str | None:
    """The value if it is a text with something in it."""
    return value if is_text(value) else None


def is_text(value: Any) -> bool:
    """Whether a table can hold a json value as text: something stands in it, and no lone surrogate."""
    if not isinstance(value, str) or not value.strip():
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def texts_of(value: Any) -> list[Any]:
    """Captions that a record gives as one text, as a list, or not at all; equal ones once, in order.

    What is no text stays, so that it is counted and refused where captions are judged.
    """
    texts = [] if value is None else value if isinstance(value, list) else [value]
    first: dict[Any, Any] = {}
    for position, text in enumerate(texts):
        first.setdefault(text.strip() if isinstance(text, str) else position, text)
    return list(first.values())


def as_float(value: Any) -> Any:
    """A json number as a float that a table can hold, infinite where none can; what is no number stays what it is."""
    if is_number(value):
        return float(value) if abs(value) < 1 << 53 else math.inf
    return value


def is_number(value: Any) -> bool:
    """Whether a json value is a number."""
    return type(value) in _NUMBER_TYPES
