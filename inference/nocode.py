"""No code of a model's folder is run, and nobody is asked whether it may.

Every call of an Auto class or of a pipeline says `trust_remote_code=False` itself, which a test sees. Here is what that
does not reach: parts that a pipeline loads by the names in its `model_index.json`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CODE_KEYS = ("auto_map", "custom_pipelines")
_MAX_JSON_BYTES = 64 << 20


@contextmanager
def without_code() -> Iterator[None]:
    """Inside, transformers refuses code of a folder where it would ask on the terminal, and perhaps be told yes."""
    from transformers import dynamic_module_utils

    asked_for_s = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = asked_for_s


def code_of(folder: Path) -> str | None:
    """What in a folder asks for code of its own, for the message of a load that failed; None where nothing does."""
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        try:
            values = json.loads(file.read_text("utf-8")) if file.stat().st_size <= _MAX_JSON_BYTES else None
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(values, dict) and (named := _named(file, values)):
            return f"{file.relative_to(folder)} names code of its own ({named}), which is never run: get a model that "
    return None


def _named(file: Path, values: dict[str, object]) -> str | None:
    for key in _CODE_KEYS:
        if values.get(key):
            return key
    if file.name != "model_index.json":
        return None
    code = {path.stem for path in [*file.parent.glob("*.py"), *file.parent.glob("*/*.py")]}
    for name, part in values.items():
        module = part[0] if isinstance(part, list) and part else None
        if isinstance(module, str) and module in code:
            return name
    return None
