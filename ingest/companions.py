"""What lies beside a picture and says something of it: captions as text, and records as json.

    N.txt, N.caption    beside N.jpg (kohya, SimpleTuner, img2dataset); N.jpg.txt is taken too
    N.json              beside N.jpg (img2dataset): {caption | text ...: str | [str], url, license, original_width ...}

In a folder each line of a text is a caption, as trainers take it; in a tar the whole text is one, as webdataset takes
it. What names pictures from elsewhere, line by line, is in `captionlines`.
"""

import codecs
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from refloom.ingest import jsons
from refloom.ingest.annotationfile import text_or_none, texts_of

MAX_BYTES = 4 << 20
TEXTS = ("text", "caption", "captions", "prompt")
_URLS = ("source_url", "url")
_TEXT_FILES = (".txt", ".caption")
_FILES = (*_TEXT_FILES, ".json")
_LARGEST_PX = 1 << 20


@dataclass(slots=True)
class Said:
    """What records and texts say of one picture.

    Attributes:
        texts: captions as they stand, equal ones once.
        url: where it came from.
        license: of the picture.
        original_size: (h, w) before it was resized.
    """

    texts: list[Any] = field(default_factory=list)
    url: str | None = None
    license: str | None = None
    original_size: list[int] | None = None

    def add(self, other: "Said") -> None:
        """Take what another one says beside this."""
        self.texts = texts_of([*self.texts, *other.texts])
        self.url = self.url or other.url
        self.license = self.license or other.license
        self.original_size = self.original_size or other.original_size

    def to_json(self) -> list[Any]:
        """For `Said(*list)`."""
        return [self.texts, self.url, self.license, self.original_size]


def said_by(record: dict[str, Any]) -> Said:
    """What a record says; its keys may be in any case."""
    record = {str(key).lower(): value for key, value in record.items()} | record
    texts = [text for key in TEXTS for text in texts_of(record.get(key))]
    sides: list[Any] = [record.get("original_height"), record.get("original_width")]
    return Said(
        texts_of(texts),
        next((url for key in _URLS if (url := text_or_none(record.get(key)))), None),
        text_or_none(record.get("license")),
        sides if all(type(side) is int and 0 < side < _LARGEST_PX for side in sides) else None,
    )


def beside(pictures: Sequence[str], others: Iterable[str], *, samples: bool = False) -> dict[str, list[str]]:
    """Picture to the names of the texts and records beside it.

    Args:
        pictures, others: names with their folders.
        samples: files of one sample share the name up to its first dot, as in webdataset; a record goes to the
            picture of such a sample if there is only one.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in others:
        base, extension = posixpath.splitext(name)
        if extension.lower() in _FILES:
            found[base].append(name)
    alone: dict[str, int] = defaultdict(int)
    for picture in pictures:
        alone[_sample(picture)] += 1
    result = {}
    for picture in pictures:
        names = [*found.get(posixpath.splitext(picture)[0], []), *found.get(picture, [])]
        if not names and samples and alone[_sample(picture)] == 1:
            names = found.get(_sample(picture), [])
        if names:
            result[picture] = sorted(names, key=lambda name: (name.lower().endswith(".json"), name))
    return result


def _sample(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def read(files: Iterable[tuple[str, bytes]], *, lines: bool) -> tuple[Said, list[tuple[str, str]]]:
    """What companions say of their picture, and (name, why) of those that are no json.

    Args:
        files: name and content of each.
        lines: each line of a text is a caption.
    """
    said, wrong = Said(), []
    texts: list[str] = []
    for name, data in files:
        if len(data) > MAX_BYTES:
            wrong.append((name, f"{len(data):,} bytes beside a picture"))
        elif name.lower().endswith(_TEXT_FILES):
            texts.append(_text(data))
        else:
            try:
                record = jsons.loads(data)
            except ValueError as error:
                wrong.append((name, f"the record is not json ({error})"[:200]))
                continue
            said.add(said_by(record) if isinstance(record, dict) else Said())
    whole = [text.strip() for text in said.texts if isinstance(text, str)]
    split = [
        line
        for text in texts
        # a record that has the whole text says that its lines are not captions of their own
        for line in ([text] if not lines or text.strip() in whole else text.split("\n"))
        if line.strip()
    ]
    said.texts = texts_of([*split, *said.texts])
    return said, wrong


def _text(data: bytes) -> str:
    """A text without the end of its last line; bytes that are no text stay, so that the caption is refused."""
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # as Windows' editors write it
        text = data.decode("utf-16", "replace" if len(data) % 2 else "surrogatepass")
    else:
        text = data.decode("utf-8-sig", "surrogateescape")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n")


def unread(name: str, data: bytes) -> str | None:
    """A note on a json beside pictures that says nothing of them; None if it does, or cannot be read."""
    try:
        record = jsons.loads(data)
    except ValueError:
        return None
    if isinstance(record, dict) and said_by(record) != Said():
        return None
    if isinstance(record, dict) and {"image", "annotations"} <= record.keys():
        return f"{name} and others like it are records of SA-1B: `refloom ingest sa1b` takes them with their masks"
    return f"{name} has none of {', '.join(TEXTS)}, so json beside pictures gives no captions here"
