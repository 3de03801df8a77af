"""Models that transformers loads from a folder of files which a repository publishes."""

from collections.abc import Mapping
from types import MappingProxyType

from refloom.inference.models.entry import Entry, Package, Stored
from refloom.inference.models.remote import on_hub

_NOTHING: Mapping[str, float] = MappingProxyType({})


def folder_entry(
    name: str,
    repository: str,
    files: tuple[str, ...],
    *,
    role: str,
    license: str,  # noqa: A002  the field's name
    size_bytes: int,
    loader: str,
    thresholds: Mapping[str, float] = _NOTHING,
    options: Mapping[str, float] = _NOTHING,
) -> Entry:
    """An entry whose files lie under its name in the weights folder.

    Args:
        name: of the entry.
        repository: `OWNER/NAME`.
        files: of the repository that are needed.
        role, license, size_bytes, loader, thresholds, options: see `Entry`.
    """
    return Entry(
        name=name,
        role=role,
        license=license,
        size_bytes=size_bytes,
        source=f"https://huggingface.co/{repository}",
        get=f"pip install transformers && hf download {repository} {' '.join(files)} "
        f'--local-dir "${{REFLOOM_WEIGHTS:-$HOME/.cache/refloom/weights}}/{name}"',
        packages=(Package("transformers", ("transformers",)), Package("torch", ("torch",))),
        weights=tuple(Stored(f"{name}/{file}") for file in files),
        remotes=on_hub(repository, *files),
        loader=loader,
        thresholds=dict(thresholds),
        options=dict(options),
    )
