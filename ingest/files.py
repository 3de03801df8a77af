"""Files of a source: names that stay inside their folder, layouts that people use, pictures among other files."""

import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from refloom.ingest import spelling
from refloom.ingest.annotationfile import is_text
from refloom.ingest.source import Link
from refloom.schemas import headers, ids
from refloom.schemas.errors import Failed, Refused, Rejected
from refloom.schemas.fingerprint import of_json
from refloom.schemas.storage import Folder

MAX_FILE_BYTES = 512 << 20
_SAMPLE = 64
_MOST_EXTENSIONS = 20
_EXTENSION_CHARACTERS = 40
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX"})
_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".jp2", ".mpo"}
)


def safe_name(name: object) -> str:
    """A name from an annotation file as a path below the source's folder.

    Raises:
        Rejected: `bad_record` if it is no text, `unsafe_path` if it is absolute, a URL, or climbs.
    """
    if not isinstance(name, str) or not is_text(name) or "\x00" in name:
        raise Rejected("bad_record", f"file name is {name!r}"[:100])
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or "://" in name or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise Rejected("unsafe_path", f"{name[:100]!r} does not lie in the source's folder")
    return posixpath.normpath(name.replace("\\", "/"))


def safe_names(names: Iterable[object]) -> list[str]:
    """The names that `safe_name` lets pass."""
    safe = []
    for name in names:
        try:
            safe.append(safe_name(name))
        except Rejected:
            continue
    return safe


def table_name(name: str) -> str:
    """A file's name as a table can hold it: itself, or with its bytes that are no text percent-encoded."""
    return name if is_text(name) else ids.encode(name)


def stem(path: str) -> str:
    """`/data/dreambooth/` to `dreambooth`, `records.jsonl` to `records`: what a key calls a folder or file."""
    base = posixpath.basename(path.rstrip("/"))
    return next((base.removesuffix(end) for end in (".jsonl", ".ndjson", ".csv", ".tar") if base.endswith(end)), base)


def is_junk(name: str) -> bool:
    """Whether a file is what an operating system leaves behind (AppleDouble, thumbnails)."""
    base = posixpath.basename(name)
    return base in _JUNK or base.startswith("._") or "__MACOSX" in name.split("/")


@dataclass(frozen=True, slots=True)
class PictureFile:
    """One picture file below a folder; loads its bytes and says where they lie.

    Attributes:
        folder: the source's folder.
        name: relative, safe.
        root: name of the folder in dataset.json, for links.
    """

    folder: Folder
    name: str
    root: str

    def load(self) -> bytes:
        """The bytes.

        Raises:
            Failed: `missing_file` or `io_error`.
            Rejected: `unsafe_path` for a folder or device, `not_an_image` for a giant.
        """
        try:
            return self._load()
        except FileNotFoundError as error:
            other = spelling.spelled(self.folder, self.name)
            if other is None:
                raise Failed("missing_file", self.name) from error
            return PictureFile(self.folder, other, self.root).load()
        except OSError as error:
            raise Failed("io_error", f"{self.name}: {type(error).__name__}") from error

    def _load(self) -> bytes:
        if self.folder.is_local:
            return self._load_local()
        size = self.folder.size(self.name)
        if size > MAX_FILE_BYTES:
            raise Rejected("not_an_image", f"a file of {size} bytes")
        return self.folder.read(self.name)

    def _load_local(self) -> bytes:
        """One open and one fstat; opening a pipe would hang, so it is opened without waiting."""
        handle = os.open(self.folder.at(self.name), os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb", buffering=0) as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise Rejected("unsafe_path", f"{self.name} is no regular file")
            if found.st_size > MAX_FILE_BYTES:
                raise Rejected("not_an_image", f"a file of {found.st_size} bytes")
            return file.read()

    def link(self) -> Link:
        """The whole file, under the name that it has on the disk."""
        try:
            return Link(self.root, self.name, 0, self.folder.size(self.name))
        except FileNotFoundError:
            other = spelling.spelled(self.folder, self.name)
            if other is None:
                raise
            return Link(self.root, other, 0, self.folder.size(other))

    @property
    def linker(self) -> Callable[[], Link] | None:
        """`link`, or None for a name that no table can hold: such a picture keeps its bytes even under --link."""
        return self.link if is_text(self.name) else None


def total_bytes(folder: Folder, names: Sequence[object]) -> int:
    """Size of many files, scaled up from an even sample of them; absent files count 0. For forecasts only."""
    sample = names[:: max(1, len(names) // _SAMPLE)]
    total = 0
    for name in safe_names(sample):
        try:
            total += folder.size(name)
        except OSError:
            continue
    return total * len(names) // len(sample) if sample else 0


def weigh(folder: Folder, names: Iterable[str]) -> tuple[int, str]:
    """Bytes of all files together, and a fingerprint that changes when one is added, removed or resized."""
    wanted = sorted(set(names))
    if not folder.is_local:
        for parent in {posixpath.dirname(name) for name in wanted}:
            folder.names(parent)  # an object store then knows the sizes: one request a folder, not one a file
    sizes: list[tuple[str, int | None]] = []
    for name in wanted:
        try:
            sizes.append((name, folder.size(name)))
        except OSError:
            sizes.append((name, _size_elsewhere(folder, name)))
    return sum(size or 0 for _, size in sizes), of_json(sizes)


def _size_elsewhere(folder: Folder, name: str) -> int | None:
    """Size of a file that lies under another spelling; None where it does not."""
    try:
        other = spelling.spelled(folder, name)
        return None if other is None else folder.size(other)
    except (OSError, Failed):
        return None


def find_prefix(folder: Folder, names: Sequence[str], candidates: Iterable[str], what: str) -> str:
    """Which subfolder the names of an annotation file are relative to.

    Args:
        folder: that the user gave.
        names: some file names of the annotation file.
        candidates: subfolders to try, "" for the folder itself, best first.
        what: names the option, for the message.

    Returns:
        The candidate below which most of the names exist.

    Raises:
        Refused: none of the names exists below any candidate.
    """
    tried = list(dict.fromkeys(candidates))
    found = {prefix: sum(spelling.exists(folder, posixpath.join(prefix, name)) for name in names) for prefix in tried}
    best = max(tried, key=lambda prefix: found[prefix])
    if names and not found[best]:
        looked = ", ".join(posixpath.join(folder.url, prefix) for prefix in tried)
        raise Refused(f"none of the first {len(names)} files, e.g. {names[0]}, lies below {looked}: check {what}")
    return best


def picture_names(folder: Folder, below: str = "", *, recursive: bool = True) -> tuple[list[str], list[str]]:
    """Files that are pictures by their extension or first bytes, and those that are not, each sorted.

    Hidden files may be pictures; what operating systems leave behind is none, whatever it is called. A link to a folder
    is followed, unless it leads back to a folder that holds it.
    """
    return _picture_names(folder, below, recursive, frozenset())


def _picture_names(folder: Folder, below: str, recursive: bool, above: frozenset[str]) -> tuple[list[str], list[str]]:
    pictures: list[str] = []
    others: list[str] = []
    for name in sorted(folder.names(below), key=_order):
        path = posixpath.join(below, name)
        is_picture = not is_junk(name) and (named_like_picture(name) or _sniffs(folder, path))
        (pictures if is_picture else others).append(path)
    if recursive:
        above |= {os.path.realpath(folder.at(below))} if folder.is_local else set()
        for name in sorted(folder.folders(below), key=_order):
            path = posixpath.join(below, name)
            if name in _JUNK or (above and os.path.realpath(folder.at(path)) in above):
                continue
            deeper, rest = _picture_names(folder, path, recursive, above)
            pictures += deeper
            others += rest
    return pictures, others


def named_like_picture(name: str) -> bool:
    """Whether the extension is that of a picture."""
    return posixpath.splitext(name)[1].lower() in _EXTENSIONS


def occurrences(identities: Iterable[str]) -> list[int]:
    """How often each of the ids came before it."""
    seen: Counter[str] = Counter()
    counts = []
    for identity in identities:
        counts.append(seen[identity])
        seen[identity] += 1
    return counts


def passed_over(names: Sequence[str], where: str) -> list[str]:
    """A note on files that are no pictures, by extension; no note if there are none."""
    if not names:
        return []
    counts = Counter(
        "left by an operating system" if is_junk(name) else posixpath.splitext(name)[1].lower() or "no extension"
        for name in names
    )
    shown = sorted(counts.most_common(_MOST_EXTENSIONS))
    kinds = ", ".join(f"{table_name(extension)[:_EXTENSION_CHARACTERS]} {count:,}" for extension, count in shown)
    if rest := len(names) - sum(count for _, count in shown):
        kinds += f", {rest:,} with other extensions"
    return [f"passed over in {where}, as no pictures: {kinds}"]


def _order(name: str) -> bytes:
    return os.fsencode(name)


def _sniffs(folder: Folder, path: str) -> bool:
    if folder.is_local and not os.path.isfile(folder.at(path)):
        return True  # opening a pipe waits for ever; admission says what it is
    try:
        with folder.open(path) as file:
            return headers.looks_like_picture(file.read(16))
    except OSError:
        return True  # let admission say what is wrong with it
