"""What a pickle would import, read from its opcodes; nothing of it is built or run."""

import pickletools
import re
from typing import IO

MOST_DESCRIBED_BYTES = 64_000_000
"""Of the pickle in torch's zip files, which holds names and shapes; those of 10,000 tensors have about 1 MB."""
FOREIGN = "something that cannot be named"
_TENSORS = re.compile(
    r"torch\.(\w+Storage|Size|device|dtype|float\w*|bfloat16|half|double|u?int\d+|bool|complex\d+|Tensor)"
    r"|torch\.storage\.(Untyped|Typed)Storage|torch\.nn\.parameter\.(Parameter|Buffer)"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.serialization\._get_layout|collections\.(OrderedDict|Counter)"
    r"|(builtins|__builtin__)\.(set|complex)"
)
"""Of which mappings of tensors and plain values are made."""


def scan(stream: IO[bytes], count: int) -> list[str] | None:
    """What pickles want besides tensors and plain values, as `module.name`, each once; None if they are damaged.

    Args:
        stream: at the first one.
        count: of pickles, one behind the other.
    """
    found: dict[str, None] = {}
    try:
        for _ in range(count):
            found |= dict.fromkeys(_globals(stream))
    except Exception:  # a damaged pickle can raise anything in here
        return None
    return [name for name in found if not _TENSORS.fullmatch(name)]


def _globals(stream: IO[bytes]) -> list[str]:
    found: list[str] = []
    texts: list[str] = []
    memo: dict[int, str | None] = {}
    last: str | None = None  # the text that was put on the stack just now
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "MEMOIZE":
            memo[len(memo)] = last
            continue
        if name.endswith("PUT"):
            memo[int(str(argument))] = last
            continue
        last = memo.get(int(str(argument))) if name.endswith("GET") else argument if "UNICODE" in name else None
        if last is not None:
            texts = [*texts[-1:], last]
        elif name in ("GLOBAL", "INST"):
            found.append(".".join(str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            found.append(".".join(texts) if len(texts) == 2 else FOREIGN)
        elif name in ("EXT1", "EXT2", "EXT4"):
            found.append(FOREIGN)
    return found
