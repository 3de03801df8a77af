"""Samples as a trainer gets them: pictures with numbered subjects, their names, and captions with their mentions."""

from typing import Any

from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, foreign, join, section, tag
from refloom.viewing.report.album import Album, Shot, subject_name
from refloom.viewing.report.figures import Figures
from refloom.viewing.report.picks import Choice, Row
from refloom.viewing.targets import COLOURS, note, number_of
from refloom.viewing.tile import picture

_CAPTIONS = 5


def samples(figures: Figures, choice: Choice, album: Album) -> Html | None:
    """A few samples of each kind."""
    if not figures["totals"]["samples"]:
        return None
    parts: list[Child] = []
    for kind, rows in choice.samples.items():
        if rows:
            parts.append(tag("h3", {}, f"{kind.capitalize()} samples"))
            parts += [_sample(album.sample_rows[row["id"]], album) for row in rows if row["id"] in album.sample_rows]
    lead = (
        "What a trainer reads. A number and a colour is one subject; the same colour marks where captions name it, "
        "grey stripes where a word names several. A cross sample has a target and references on other images; below a "
        "reference stands how like it is to the subject on the target, and how much its pose differs."
    )
    return section("samples", "Samples", lead, *parts)


def _sample(row: Row, album: Album) -> Html:
    shots = album.samples.get(row["sample_id"], [])
    left_out = len(row["pictures"]) - len(shots)
    quality = (row["scores"] or {}).get("min_quality")
    kind = "single" if len(row["pictures"]) == 1 else "many few" if len(row["pictures"]) <= 3 else "many"
    return tag(
        "article",
        {"class": f"sample {kind}"},
        tag("div", {"class": "shots"}, *(_shot(row, index, shot) for index, shot in enumerate(shots))),
        tag(
            "div",
            {"class": "about"},
            tag("h4", {}, foreign(row["sample_id"])),
            tag(
                "p",
                {"class": "soft facts"},
                foreign(row["why"]),
                f" · lowest quality {wording.value(quality)}" if quality is not None else None,
                f" · {wording.several(left_out, 'more picture')} not shown" if left_out > 0 else None,
            ),
            tag("ul", {"class": "subjects"}, *(_subject(place, one) for place, one in enumerate(row["subjects"]))),
            _captions(row),
        ),
    )


def _shot(row: Row, index: int, shot: Shot) -> Html:
    """A picture of a sample; where one is to be made of the others, with what it is in that."""
    said = note(row, index)
    if said is None:
        return picture(shot)
    kind = "target" if index == row["target"] else "reference"
    return tag("figure", {"class": f"part {kind}"}, picture(shot), tag("figcaption", {}, said))


def _subject(place: int, subject: dict[str, Any]) -> Html:
    appearances = len(subject["appearances"])
    mentions = len(subject["mentions"] or [])
    notes = [wording.several(appearances, "appearance")] if appearances > 1 else []
    notes += [wording.several(mentions, "mention")] if mentions else []
    similarity = [value for value in subject["similarity"] or [] if value is not None and value == value]
    if similarity:
        ends = dict.fromkeys(wording.value(float(end)) for end in (min(similarity), max(similarity)))
        notes.append(f"similarity {' to '.join(ends)}")
    if subject.get("role"):
        notes.append(subject["role"])
    return tag(
        "li",
        {"title": subject["subject_id"]},
        number_of(place),
        " ",
        foreign(subject_name(subject)),
        tag("small", {}, f" {', '.join(notes)}") if notes else None,
    )


def _captions(row: Row) -> Html:
    """The captions of the sample's pictures, each only once, with the spans that name a subject marked."""
    lines: dict[str, Html] = {}
    for index, shown in enumerate(row["pictures"]):
        for place, caption in enumerate(shown["captions"] or []):
            key = f"{shown['caption_from']}: {caption}"
            if key in lines or len(lines) >= _CAPTIONS:
                continue
            spans = [
                (mention["start"], mention["end"], subject_place)
                for subject_place, subject in enumerate(row["subjects"])
                for mention in subject["mentions"] or []
                if (mention["picture"], mention["caption"]) == (index, place)
            ]
            origin = tag("small", {}, f"{shown['caption_from']} ") if shown["caption_from"] != "source" else None
            lines[key] = tag("li", {}, origin, tag("bdi", {}, marked(caption, spans)))
    return tag("ul", {"class": "captions"}, *lines.values())


def marked(caption: str, spans: list[tuple[int, int, int]]) -> Html:
    """A caption with spans marked; a span that several subjects claim has the colour of none of them.

    Args:
        caption: any text.
        spans: (start, end, subject); of spans that overlap the first is marked, those outside the text are passed over.
    """
    claims: dict[tuple[int, int], list[int]] = {}
    for start, end, subject in sorted(set(spans)):
        claims.setdefault((start, end), []).append(subject)
    parts: list[Child] = []
    position = 0
    for (start, end), subjects in claims.items():
        if not position <= start < end <= len(caption):
            continue
        parts += [caption[position:start], _mention(caption[start:end], subjects)]
        position = end
    return join([*parts, caption[position:]])


def _mention(words: str, subjects: list[int]) -> Html:
    if len(subjects) == 1:
        return tag("mark", {"class": f"s{subjects[0] % COLOURS}"}, words)
    numbers = [str(subject + 1) for subject in subjects]
    return tag("mark", {"class": "shared", "title": f"subjects {wording.listed(numbers)}"}, words)
