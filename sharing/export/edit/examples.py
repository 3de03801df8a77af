"""From a sample to an example: which image is made, and from which references. Pure decisions over a row.

A sample that says its target keeps it; of a group or a video one is drawn. References come from other images than the
target: crops of the target itself teach copying, and are given only where `same_image` asks for them. A directed record
(a target that its source chose) gives its own images, whole, for that is what its source says.
"""

from collections.abc import Iterable, Sequence

from refloom.sharing.export.draws import rank
from refloom.sharing.export.edit import instructions
from refloom.sharing.export.edit.settings import Edit, Example, LeftOut, Reference, Row


def example(row: Row, edit: Edit) -> Example:
    """The example that a sample gives.

    Args:
        row: of `samples`, without its bytes.
        edit: settings.

    Raises:
        LeftOut: it gives none.
    """
    own = _own(row, edit) if edit.instructions == "own" else None
    if own is not None:
        return own
    for target in _targets(row, edit):
        references = _directed(row, target, edit) if _is_directed(row) else _by_subject(row, target, edit)
        if references:
            text = instructions.templated(row, target, references, edit.seed)
            return Example(target, tuple(references), text, "template")
    if row["kind"] == "image" and row.get("target") is None and not edit.same_image:
        raise LeftOut("one image: its own crops are given with --same-image")
    raise LeftOut(f"no subject of a target has a reference ({edit.reference}) on another image")


def _own(row: Row, edit: Edit) -> Example | None:
    """The example of one of the sample's own instructions, which speak of whole images by number."""
    target, texts = row.get("target"), [one for one in row.get("instructions") or [] if one["text"].strip()]
    if target is None or not texts:
        return None
    entry = min(texts, key=lambda one: rank(edit.seed, row["sample_id"], "instruction", one["text"]))
    indices = list(entry["references"] or _others(row, target))
    if not indices:
        raise LeftOut("a target without a reference")
    if target in indices or not all(0 <= index < len(row["pictures"]) for index in indices):
        raise LeftOut("its instruction counts images that are no references of it")
    _refuse_more(len(indices), edit)
    references = tuple(Reference(index, "image", _seen_on(row, index)) for index in indices)
    return Example(target, references, instructions.own(entry["text"]), entry["from"] or "source")


def _is_directed(row: Row) -> bool:
    """Whether its source chose the target; that of a cross sample refloom did, subject by subject."""
    return row.get("target") is not None and row["kind"] != "cross"


def _targets(row: Row, edit: Edit) -> list[int]:
    """Indices of images that may be the target, in the order in which they are tried."""
    if row.get("target") is not None:
        return [row["target"]]
    if row["kind"] == "image" and not edit.same_image:
        return []
    free = [index for index, picture in enumerate(row["pictures"]) if picture.get("role") != "reference"]
    return sorted(free, key=lambda index: rank(edit.seed, row["sample_id"], "target", index))


def _others(row: Row, target: int) -> list[int]:
    return [index for index in range(len(row["pictures"])) if index != target]


def _seen_on(row: Row, picture: int) -> tuple[int, ...]:
    """Subjects that an image shows."""
    return tuple(
        number
        for number, subject in enumerate(row["subjects"])
        if any(appearance["picture"] == picture for appearance in subject["appearances"])
    )


def _directed(row: Row, target: int, edit: Edit) -> list[Reference]:
    """A record's own references, whole; named after those of their subjects that the target shows too."""
    shown = set(_seen_on(row, target))
    _refuse_more(len(row["pictures"]) - 1, edit)
    return [
        Reference(index, "image", tuple(number for number in _seen_on(row, index) if number in shown))
        for index in _others(row, target)
    ]


def _by_subject(row: Row, target: int, edit: Edit) -> list[Reference]:
    """References of each subject of the target, the first subject's first."""
    chosen = []
    for number in _seen_on(row, target):
        subject = row["subjects"][number]
        form = _form(subject, edit)
        found = [
            one for one in subject["appearances"] if _may_be(row, one, target, form) and _shows(subject, one, edit)
        ]
        found.sort(key=lambda one: rank(edit.seed, row["sample_id"], number, one["picture"], one["object_id"]))
        kept = sorted(found[: edit.per_subject], key=lambda one: int(one["picture"]))
        chosen += [(turn, number, Reference(one["picture"], form, (number,), one)) for turn, one in enumerate(kept)]
    if edit.most is not None and edit.reference != "image":
        chosen = sorted(chosen, key=lambda one: one[:2])[: edit.most]  # a second of one subject after the first of all
        chosen.sort(key=lambda one: (one[1], one[0]))
    return _merged(reference for _, _, reference in chosen)[: edit.most]


def _may_be(row: Row, appearance: Row, target: int, form: str) -> bool:
    """Whether it may be a reference: it lies on another image, or there is but one and it is cut out of that."""
    return bool(appearance["picture"] != target or (row["kind"] == "image" and form != "image"))


def _shows(subject: Row, appearance: Row, edit: Edit) -> bool:
    return edit.reference != "face" or subject["kind"] == "face" or appearance["face"] is not None


def _form(subject: Row, edit: Edit) -> str:
    """What a reference is cut to: a subject that is a whole image is that image."""
    whole = subject["kind"] == "whole" and edit.reference != "face"
    return "image" if whole else edit.reference


def _merged(references: Iterable[Reference]) -> list[Reference]:
    """Each whole image once, for all its subjects."""
    found: dict[object, Reference] = {}
    for number, one in enumerate(references):
        key: object = one.picture if one.form == "image" else (number,)
        known = found.get(key)
        subjects = one.subjects if known is None else (*known.subjects, *one.subjects)
        found[key] = Reference(one.picture, one.form, subjects, None if one.form == "image" else one.appearance)
    return list(found.values())


def _refuse_more(count: int, edit: Edit) -> None:
    if edit.most is not None and count > edit.most:
        raise LeftOut(f"more references than {edit.layout} holds")


def counted(references: Sequence[Reference]) -> list[str]:
    """Words for what is worth counting of the references of an example."""
    boxed = sum(one.form == "cutout" and (one.appearance or {}).get("mask") is None for one in references)
    return ["references without a mask, given by their boxes"] * boxed
