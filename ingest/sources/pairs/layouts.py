"""What a record of each layout says: references, target, instruction, captions, scores. Pure functions of one record.

| layout | record | of |
|---|---|---|
| omnigen2 | `{task_type, instruction, input_images: [path], output_image: path}` | OmniGen2, MICo-150K |
| uno | `{image_paths: [path] (or image_path), prompt, image_tgt_path}`, or the labels that UNO-1M is published with: \
`{img_path1, img_path2, caption: {img_path1, img_path2, subject}, vlm_filter_cot: {score_part, score_final}}` | UNO |
| diffsynth | `{image: path, prompt, edit_image: [path] or path}` | DiffSynth-Studio |
| musubi | `{image_path, control_path or control_path_0, control_path_1 ..., caption}` | musubi-tuner |
| bagel | `{image_list: [bytes], instruction}`: the last image is made of the others | BAGEL, MICo-150K |
| subjects200k | `{image: bytes, collection, quality_assessment, description}`: two images side by side | Subjects200K |

Of UNO's published labels the second image is made of the first, as its own filter has it. Either half of a Subjects200K
image may be made of the other: OminiControl trains both ways, so that such a record has no target.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from refloom.ingest.admission import text_problem
from refloom.ingest.annotationfile import as_float, is_number, is_text
from refloom.ingest.files import MAX_FILE_BYTES
from refloom.ingest.source import Score
from refloom.schemas import strict
from refloom.schemas.errors import Rejected

MAX_REFERENCES = 1000
_CONTROL = re.compile(r"control_path_(\d{1,6})")
_UNO, _SUBJECTS200K = "UNO-1M vlm_filter_cot", "Subjects200K quality_assessment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directed:
    """One record.

    Attributes:
        references: names of files as they stand there, or bytes, in the record's order.
        target: likewise, of the image that is made of them; None where either may be.
        instructions: texts that ask for the target.
        captions: of each reference, and of the target last, where the record describes them; else empty.
        scores: how good the source calls the record.
        phrase: words for the subject that all images show.
        category: its class name.
        rest: what else the record says.
    """

    references: list[Any]
    target: Any
    instructions: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    phrase: str | None = None
    category: str | None = None
    rest: dict[str, Any] = field(default_factory=dict)


def omnigen2(record: Mapping[str, Any]) -> Directed:
    """A record of OmniGen2, of which `task_type` is kept beside."""
    return _asking(record, _many(record, "input_images"), "output_image", "instruction", "input_images")


def uno(record: Mapping[str, Any]) -> Directed:
    """A record of UNO, as its trainer reads it or as its labels are published; the prompt is the target's caption."""
    if "img_path1" in record:
        return _uno_label(record)
    references = _many(record, "image_paths" if "image_paths" in record else "image_path")
    texts = _texts(record, "prompt")
    return Directed(
        references=references,
        target=_one(record, "image_tgt_path"),
        instructions=texts,
        captions=[*([] for _ in references), texts],
        scores=_scores(record),
        rest=_rest(record, "image_paths", "image_path", "image_tgt_path", "prompt"),
    )


def _uno_label(record: Mapping[str, Any]) -> Directed:
    caption, judged = _inner(record, "caption"), _inner(record, "vlm_filter_cot")
    subject = caption.get("subject")
    words = [word for word in subject if is_text(word)] if isinstance(subject, list) else []
    texts = _texts(caption, "img_path2")
    parts = _given(_inner(judged, "score_part"), _UNO, "score_part.")
    rest = {key: value for key, value in caption.items() if key not in ("img_path1", "img_path2")}
    return Directed(
        references=[_one(record, "img_path1")],
        target=_one(record, "img_path2"),
        instructions=texts,
        captions=[_texts(caption, "img_path1"), texts],
        scores=[*_given(judged, _UNO, skip=("score_part",)), *parts],
        phrase=words[0] if len(words) == 1 else None,
        rest=_rest(record, "img_path1", "img_path2", "caption", "vlm_filter_cot") | rest,
    )


def diffsynth(record: Mapping[str, Any]) -> Directed:
    """A record of DiffSynth-Studio; a table of plain texts (CSV) has several references as a json list."""
    given = record.get("edit_image")
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = strict.loads(given)
        except ValueError as error:
            raise Rejected("bad_record", f"edit_image begins as a json list and is none ({error})"[:200]) from error
    return _asking(record, _many({"edit_image": given}, "edit_image"), "image", "prompt", "edit_image")


def musubi(record: Mapping[str, Any]) -> Directed:
    """A record of musubi-tuner; the numbers of its control images say their order."""
    numbered = sorted((int(found[1]), key) for key in record if (found := _CONTROL.fullmatch(key)))
    keys = (["control_path"] if record.get("control_path") is not None else []) + [key for _, key in numbered]
    references = [record[key] for key in keys if record[key] is not None]
    return _asking(record, references, "image_path", "caption", *keys)


def bagel(record: Mapping[str, Any]) -> Directed:
    """A row of BAGEL's Parquet; rows of several turns, each with an instruction of its own, ask for several images."""
    images = record.get("image_list")
    if not isinstance(images, list) or not images or len(images) > MAX_REFERENCES:
        raise Rejected("bad_record", f"image_list is no list of 1 to {MAX_REFERENCES} images")
    turns = record.get("instruction_list")
    if record.get("instruction") is None and turns is not None:
        if not isinstance(turns, list) or len(turns) > 1 or len(images) != 2:
            raise Rejected("bad_record", "instruction_list asks for several images in turn: split the row into turns")
        texts = _texts({"instruction_list": turns[0] if turns else None}, "instruction_list")
    else:
        texts = _texts(record, "instruction")
    *references, target = [_held(image, "image_list") for image in images]
    return Directed(
        references=references,
        target=target,
        instructions=texts,
        captions=_of_target_alone(references, texts),
        scores=_scores(record),
        rest=_rest(record, "image_list", "instruction", "instruction_list"),
    )


def subjects200k(record: Mapping[str, Any]) -> Directed:
    """A row of Subjects200K; its one image, which holds both, is the only reference here."""
    said, judged = _inner(record, "description"), _inner(record, "quality_assessment")
    item, category = said.get("item"), said.get("category")
    return Directed(
        references=[_held(record.get("image"), "image")],
        target=None,
        captions=[_texts(said, "description_0"), _texts(said, "description_1")],
        scores=_given(judged, _SUBJECTS200K),
        phrase=item if is_text(item) else None,
        category=category if is_text(category) else None,
        rest=_rest(record, "image", "description", "quality_assessment")
        | {key: said[key] for key in ("description_valid",) if said.get(key) is not None},
    )


LAYOUTS: dict[str, Callable[[Mapping[str, Any]], Directed]] = {
    "omnigen2": omnigen2,
    "bagel": bagel,
    "uno": uno,
    "subjects200k": subjects200k,
    "diffsynth": diffsynth,
    "musubi": musubi,
}
IN_PARQUET = ("bagel", "subjects200k")
"""Layouts that hold the images themselves."""
_TELLING: tuple[tuple[str, frozenset[str]], ...] = (
    ("omnigen2", frozenset({"output_image"})),
    ("uno", frozenset({"image_tgt_path"})),
    ("uno", frozenset({"img_path1", "img_path2"})),
    ("diffsynth", frozenset({"edit_image"})),
    ("musubi", frozenset({"image_path", "control_path"})),
    ("musubi", frozenset({"image_path", "control_path_0"})),
    ("musubi", frozenset({"image_path", "control_path_1"})),
    ("bagel", frozenset({"image_list"})),
    ("subjects200k", frozenset({"image", "description"})),
    ("subjects200k", frozenset({"image", "quality_assessment"})),
)


def told_by(keys: Iterable[str]) -> str | None:
    """The layout of a record with these keys; None if no layout has them."""
    there = set(keys)
    return next((layout for layout, telling in _TELLING if telling <= there), None)


def _asking(record: Mapping[str, Any], references: list[Any], target: str, text: str, *others: str) -> Directed:
    """A record whose text asks for its target.

    Args:
        record: as it stands there.
        references: of it.
        target, text: their keys.
        others: further keys that are read.
    """
    texts = _texts(record, text)
    return Directed(
        references=references,
        target=_one(record, target),
        instructions=texts,
        captions=_of_target_alone(references, texts),
        scores=_scores(record),
        rest=_rest(record, target, text, *others),
    )


def _one(record: Mapping[str, Any], key: str) -> Any:
    if record.get(key) is None:
        raise Rejected("bad_record", f"the record has no {key}")
    return record[key]


def _many(record: Mapping[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if value is None:
        return []
    names = value if isinstance(value, list) else [value]
    if len(names) > MAX_REFERENCES:
        raise Rejected("bad_record", f"{key} has {len(names):,} images, more than {MAX_REFERENCES:,}")
    return names


def _held(image: Any, key: str) -> bytes:
    """The bytes of an image in a table: as they are, or of Hugging Face's Image."""
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        raise Rejected("bad_record", f"{key} holds an image without bytes")
    if len(data) > MAX_FILE_BYTES:
        raise Rejected("not_an_image", f"{key} holds an image of {len(data):,} bytes")
    return data


def _of_target_alone(references: list[Any], texts: list[str]) -> list[list[str]]:
    """Captions by a record's text: it describes an image that is made of no other."""
    return [] if references else [texts]


def _texts(record: Mapping[str, Any], key: str) -> list[str]:
    """A text, or alternatives of one; empty where the record says nothing."""
    value = record.get(key)
    texts = [] if value is None or value == "" else value if isinstance(value, list) else [value]
    for text in texts:
        if (problem := text_problem(text, key)) is not None:
            raise problem
    return list(dict.fromkeys(texts))


def _inner(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key)
    if value is not None and not isinstance(value, dict):
        raise Rejected("bad_record", f"{key} is {type(value).__name__}, not an object")
    return value or {}


def _scores(record: Mapping[str, Any]) -> list[Score]:
    """Numbers of a record whose names say that they are scores."""
    named = {key: value for key, value in record.items() if "score" in key.lower() and is_number(value)}
    return _given(named, "source")


def _given(judged: Mapping[str, Any], model: str, before: str = "", skip: Iterable[str] = ()) -> list[Score]:
    """Scores by their names; null is none.

    Raises:
        Rejected: `bad_record`, one is no finite number.
    """
    scores = []
    for name, value in judged.items():
        if value is None or name in skip:
            continue
        number = as_float(value)
        if not isinstance(number, float) or not math.isfinite(number) or not is_text(name):
            raise Rejected("bad_record", f"the score {name!r} is {value!r}"[:200])
        scores.append(Score(f"{before}{name}", number, model))
    return scores


def _rest(record: Mapping[str, Any], *taken: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in taken and value is not None}
