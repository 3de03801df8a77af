"""Ids of images, objects, tracks and faces, and the names of units. Pure text, no I/O.

    image   <source>/<name>            coco/000000000139   ytvis/<video>/<frame>   sa1b/223751
    object  <image_id>#<annotation>    `#<track>` in videos, `#whole` for a whole picture
    track   <source>/<video>#<track>
    face    <image_id>@<n>             n counts by descending det_score

    `~<n>` behind or instead of a part is a number that refloom gave where the source does not tell things apart;
    `<source>/<set>/<name>` is a picture of a set that is told apart by its `--name`.

Text is NFC; `%`, `#`, `@`, control characters and bytes that are not UTF-8 are percent-encoded.
"""

import hashlib
import re
import unicodedata

_RESERVED = re.compile("[%#@\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_NOT_UNIT = re.compile(r"[^a-z0-9._-]+")
_FOUND = re.compile(r"sam\d+")


def encode(text: str) -> str:
    """Make `text` fit to be a part of an id.

    Args:
        text: any string; undecodable bytes as `os.fsdecode` gives them (lone surrogates U+DC80..U+DCFF).

    Returns:
        NFC text whose reserved characters are `%XX` of their UTF-8 (or raw) bytes.
    """
    if text.isascii() and not _RESERVED.search(text):
        return text
    return _RESERVED.sub(_percent, unicodedata.normalize("NFC", text))


def _percent(match: re.Match[str]) -> str:
    char = match.group()
    raw = bytes([ord(char) - 0xDC00]) if "\udc80" <= char <= "\udcff" else char.encode("utf-8", "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in raw)


def image_id(source: str, *parts: str) -> str:
    """`image_id("ytvis", "cat", "00005") == "ytvis/cat/00005"`; every part is encoded."""
    return "/".join([source, *(encode(part) for part in parts)])


def object_id(image: str, annotation: str | int) -> str:
    """Id of the annotation `annotation` on the image with id `image`."""
    return f"{image}#{encode(str(annotation))}"


def track_id(source: str, video: str, track: str | int) -> str:
    """Id of one instance through a video."""
    return f"{source}/{encode(video)}#{encode(str(track))}"


def face_id(image: str, index: int) -> str:
    """Id of the `index`-th face (0 = highest det_score) of an image."""
    return f"{image}@{index}"


def is_found(object_or_face_id: str) -> bool:
    """Whether an object is one that the mask stage found on a bare picture (`#sam<n>`); `objects` does not hold it."""
    return _FOUND.fullmatch(object_or_face_id.rpartition("#")[2]) is not None


def image_of(object_or_face_id: str) -> str:
    """The image id inside an object id or a face id."""
    return re.split("[#@]", object_or_face_id, maxsplit=1)[0]


def unit_key(text: str) -> str:
    """Lower-case `text` to the characters of a unit name; where more than case is lost, a hash keeps it apart.

    Args:
        text: the `--name` and stem of an ingest, for example `coco.instances_val2017`.

    Returns:
        A name of at most 60 characters, which leaves room for a unit number.
    """
    slug = _NOT_UNIT.sub("-", text.lower()).strip("-.") or "unit"
    if slug == text and len(slug) <= 60:
        return slug
    if slug == text.lower() and len(slug) <= 51 and text.isascii():
        return slug
    return f"{slug[:51].rstrip('-.')}-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
