"""The models that refloom knows, by role, and which of them is taken. Importing it imports no model library."""

import difflib
from collections.abc import Mapping
from dataclasses import replace

from refloom.inference.models.catalog import captioners, classifiers, detectors, faces, images, segmenters, texts
from refloom.inference.models.entry import Entry
from refloom.schemas.errors import Refused
from refloom.schemas.plugins import Registry

Entries = Mapping[str, tuple[Entry, ...]]
"""Role to its models, the best first."""

ENTRIES: Entries = {
    "segmenter": segmenters.ENTRIES,
    "face": faces.ENTRIES,
    "image_embedding": images.ENTRIES,
    "text_embedding": texts.ENTRIES,
    "captioner": captioners.ENTRIES,
    "classifier": classifiers.ENTRIES,
    "detector": detectors.ENTRIES,
}
"""Refloom's own models. Thresholds by role:

segmenter: none; a model's own bounds for automatic masks are `options`.
face: `min_det_score` of a detection that is kept; `same_identity`, the cosine from which two faces are one person. Its
marks may say `sure_det_score`, from which a face is seen well enough to join; without it no score is asked.
image_embedding: `similar`, the cosine from which two cut-outs can show one subject; `near_copy`, the cosine from which
they are copies of one picture.
text_embedding: `min_phrase_cosine`, the cosine from which a cut-out may show what a phrase says; `min_probability`,
from which a name out of the vocabulary is taken for a cut-out: the softmax, over all names, of their cosines.
captioner: none.
classifier: none; its settings of quality are ramps of what it says.
detector: `min_score`, from which something is what a phrase names.
"""

ADDED: Registry[Entry] = Registry("models", "model", {}, of=Entry)
"""Those of plugins; `auto` takes one where none of refloom's own is there."""


def resolve(role: str, choice: str = "auto", entries: Entries | None = None) -> Entry | None:
    """The entry to use for a role; to be called once, on the driver.

    Args:
        role: a key of `entries`.
        choice: `auto` for the best one that is present, `none` for no model, or a name.
        entries: the known models; `ENTRIES` unless given.

    Returns:
        The entry; None for `none`, and for `auto` where no model of the role is present: what it would have
        computed then stays null.

    Raises:
        Refused: no such role, no such model (with the nearest name), or the named one is absent (with the remedy).
    """
    known = _of_role(role, entries)
    if choice == "none":
        return None
    if choice == "auto":
        return next((entry for entry in known if entry.present() is None), None)
    entry = by_name(role, choice, entries)
    if entry.present() is not None:
        raise Refused(entry.describe_absence())
    return entry


def by_name(role: str, name: str, entries: Entries | None = None) -> Entry:
    """The entry of that name, present or not.

    Raises:
        Refused: no such role or model, with the nearest name.
    """
    known = {entry.name: entry for entry in _of_role(role, entries)}
    if name not in known:
        raise Refused(f"unknown {role} model {name!r}; {_suggest(name, [*known, 'auto', 'none'])}")
    return known[name]


def named(name: str, entries: Entries | None = None) -> tuple[Entry, ...]:
    """The entries of that name in whatever roles; they share their files.

    Raises:
        Refused: no such model, with the nearest name.
    """
    known = [entry for of_role in (ENTRIES if entries is None else entries).values() for entry in of_role]
    if found := tuple(entry for entry in known if entry.name == name):
        return found
    names = list(dict.fromkeys(entry.name for entry in known))
    raise Refused(f"unknown model {name!r}; {_suggest(name, names)}")


def _of_role(role: str, entries: Entries | None) -> tuple[Entry, ...]:
    known = ENTRIES if entries is None else entries
    if role not in known:
        raise Refused(f"unknown model role {role!r}; {_suggest(role, list(known))}")
    return known[role] if entries is not None else (*known[role], *_added(role))


def _added(role: str) -> tuple[Entry, ...]:
    """The models of plugins for a role."""
    return tuple(
        replace(entry, plugin=f"{plugin.name}-{plugin.version}")
        for name in ADDED
        if (entry := ADDED[name]).role == role and (plugin := ADDED.plugin_of(name)) is not None
    )


def entries() -> dict[str, tuple[Entry, ...]]:
    """Role to all models that are known here, those of plugins after refloom's."""
    return {role: _of_role(role, None) for role in ENTRIES}


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
