"""Why a file is none that weights can be read from, told from its own bytes, and what to do about it.

Libraries say it in their own terms, at length, and some advise what is unsafe; nothing here shows what they say.
"""

import struct
import zipfile
from pathlib import Path
from typing import Any

from refloom.inference.checkpoints.picklescan import FOREIGN, MOST_DESCRIBED_BYTES, scan
from refloom.schemas import strict
from refloom.schemas.errors import Refused
from refloom.schemas.wording import size, some

SAFETENSORS, TORCH = "safetensors", "torch"
"""The two forms that weights are read from."""
AGAIN = "get it again"
_HEAD_BYTES = 1024
_MOST_HEADER_BYTES = 100_000_000
"""Of a safetensors file, as its library has it."""
_DTYPES = frozenset(
    (
        "BOOL",
        "U8",
        "I8",
        "I16",
        "U16",
        "I32",
        "U32",
        "I64",
        "U64",
        "F16",
        "BF16",
        "F32",
        "F64",
        "C64",
        "F8_E4M3",
        "F8_E5M2",
    )
)
_OTHERS = (
    (b"\x1f\x8b", "a gzip archive: unpack it with gunzip, and give what is inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it, and give what is inside"),
    (b"Rar!", "a rar archive: unpack it, and give what is inside"),
    (b"\xfd7zXZ", "an xz archive: unpack it with unxz, and give what is inside"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it with unzstd, and give what is inside"),
    (b"BZh", "a bzip2 archive: unpack it with bunzip2, and give what is inside"),
    (b"GGUF", "a GGUF file, of other software: give the weights as .safetensors"),
    (b"\x89HDF", "an HDF5 file, of other software: give the weights as .safetensors"),
    (b"\x93NUMPY", "an array of NumPy: give the weights as .safetensors"),
    (b"PAR1", "a Parquet file: give the file of the weights"),
    (b"\x89PNG", "a picture: give the file of the weights"),
    (b"\xff\xd8\xff", "a picture: give the file of the weights"),
)


def check(file: Path, wanted: str) -> None:
    """Refuse a file that is not of a form, as far as its bytes can tell before it is read.

    Args:
        file: to read.
        wanted: `SAFETENSORS` or `TORCH`.

    Raises:
        Refused: with the cause and the remedy; also where a pickle asks for anything that would run code.
    """
    cause = problem(file, wanted)
    if cause is not None:
        raise refusal(file, cause)


def refusal(file: Path, cause: str) -> Refused:
    """The error of a file that cannot be read."""
    return Refused(f"{file} cannot be read as tensors: {cause}")


def damage(file: Path, wanted: str) -> Refused:
    """The error of a file that its library cannot read although `check` passed."""
    return refusal(file, problem(file, wanted) or f"it is damaged inside; {AGAIN}")


def of_any(file: Path) -> str | None:
    """Why a file is none of tensors, whatever it is called; None if it may be some."""
    head, found = _head(file)
    return found or _stranger(head, file)


def problem(file: Path, wanted: str) -> str | None:
    """Why a file is none of a form, and the remedy; None if its bytes tell nothing against it.

    Args:
        file: to read.
        wanted: as for `check`.
    """
    head, found = _head(file)
    found = found or _stranger(head, file)
    if found is not None:
        return found
    if _is_safetensors(head):
        if wanted == SAFETENSORS:
            return _of_safetensors(file)
        return "it is a safetensors file under another name: rename it to end in .safetensors"
    found = _of_torch(head, file)
    if found is None and wanted == SAFETENSORS:
        return "it is a pickle of torch under another name: rename it to end in .bin"
    return found


def _of_torch(head: bytes, file: Path) -> str | None:
    if head.startswith(b"PK"):
        return _of_zip(file)
    if _is_pickle(head):
        return _of_pickle(file)
    if head.lstrip().startswith(b"{"):
        return "it is a text in json: give the file of the weights, or an index, whose name ends in .index.json"
    if head[257:262] == b"ustar":
        return "it is a tar archive: unpack it, or where torch wrote it, save it again with a torch of today"
    return f"it is neither a safetensors file nor one of torch.save: it is damaged or something else; {AGAIN}"


def _head(file: Path) -> tuple[bytes, str | None]:
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except FileNotFoundError:
        return b"", "there is no such file"
    except IsADirectoryError:
        return b"", "it is a folder: give the file in it"
    except OSError as error:
        return b"", f"the system says {error.strerror or type(error).__name__}"
    if not head:
        return b"", f"it is empty; {AGAIN}"
    return head, None


def _stranger(head: bytes, file: Path) -> str | None:
    """What it is, if it is something well known that holds no weights."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-LFS, not the file itself: run `git lfs pull` in its repository"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b"<body")):
        return (
            "it is a web page: the download got a page in the file's place; fetch it from the link of the file itself"
        )
    if not any(head):
        whole = file.stat().st_size
        return f"its first {min(whole, _HEAD_BYTES)} bytes are all zero: the download left a hole in it; {AGAIN}"
    return next((f"it is {what}" for magic, what in _OTHERS if head.startswith(magic)), None)


def _is_safetensors(head: bytes) -> bool:
    # the length of the header, and the brace that opens it; other forms have no small number there
    if head[8:9] != b"{":
        return False
    other = head[:8].isascii() and head[:8].decode("ascii").isprintable()
    return head[5:8] == bytes(3) or not (other or head.startswith((b"PK", b"\x80")))


def _is_pickle(head: bytes) -> bool:
    # protocols from 2 on name themselves; of the older ones, what opens a global, a mapping or a list
    return head[:1] == b"\x80" or head[:2] in (b"(d", b"(l", b"(i") or (head[:1] == b"c" and b"\n" in head[:200])


def _of_safetensors(file: Path) -> str | None:
    whole = file.stat().st_size
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > _MOST_HEADER_BYTES:
            return f"it says that its header has {length:,} bytes, more than any has: it is damaged; {AGAIN}"
        if length > whole - 8:
            return f"it is cut off inside its header, after {size(whole)}; {AGAIN}"
        raw = stream.read(length)
    try:
        header: Any = strict.loads(raw)
        tensors = {name: one for name, one in header.items() if name != "__metadata__"}
        end = max((int(one["data_offsets"][1]) for one in tensors.values()), default=0)
        odd = sorted({str(one["dtype"]) for one in tensors.values()} - _DTYPES)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError):
        return f"its header is damaged; {AGAIN}"
    if end > whole - 8 - length:
        return f"it is cut off: {whole:,} of {end + 8 + length:,} bytes are there; {AGAIN}"
    if end < whole - 8 - length:
        return f"it has {whole - 8 - length - end:,} bytes more than its header says: it is damaged; {AGAIN}"
    if odd:
        return f"its tensors are of the types {some(odd)}: give weights in fp32, bf16 or fp16"
    return None


def _of_zip(file: Path) -> str | None:
    cut = f"it is a zip file that is cut off or damaged, as by a download that ended early; {AGAIN}"
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            described = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
            if any(name.endswith("/constants.pkl") for name in names):
                return "it is a program of TorchScript, which is code: give the weights as .safetensors"
            if len(described) != 1:
                held = some(sorted(names)) or "nothing"
                return f"it is a zip file that torch did not write, with {held}: unpack it, and give what is inside"
            packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if packed or sum(entry.file_size for entry in entries) > file.stat().st_size:
                return (
                    "it is a zip file that would grow when it is unpacked, which torch.save does not write: "
                    f"{AGAIN}, from its authors"
                )
            if described[0].file_size > MOST_DESCRIBED_BYTES:
                return f"its description of tensors has {size(described[0].file_size)}: it is damaged; {AGAIN}"
            with archive.open(described[0]) as stream:
                foreign = scan(stream, 1)
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, LookupError, struct.error, OverflowError):
        return cut
    return cut if foreign is None else _code(foreign)


def _of_pickle(file: Path) -> str | None:
    with file.open("rb") as stream:
        foreign = scan(stream, 1)
        if foreign:
            return _code(foreign)
        # a magic number, the protocol and the system come first in what torch wrote before it wrote zip files
        stream.seek(0)
        legacy = foreign is not None and b"l\xfc\x9cF\xf9 j\xa8P\x19." in stream.read(32)
        stream.seek(0)
        foreign = scan(stream, 5) if legacy else foreign
    if foreign is None:
        return f"it is a pickle that is cut off or damaged; {AGAIN}"
    if not legacy:
        return "it is a pickle that torch.save did not write: have whoever made it save its tensors with safetensors"
    return _code(foreign)


def _code(foreign: list[str]) -> str | None:
    if not foreign:
        return None
    if FOREIGN in foreign:
        foreign = [name for name in foreign if name != FOREIGN] or [FOREIGN]
    return (
        f"it is a pickle with code, which was not run: it wants {some(foreign)}. Get the weights as .safetensors, or "
        "have whoever made it save its state_dict, which is tensors alone"
    )
