"""The pages of one picture, one group and one sample."""

from typing import Any
from urllib.parse import urlencode

from refloom.curation.annotate.settings import Quality
from refloom.schemas import wording
from refloom.schemas.pages.markup import Child, Html, details, foreign, join, table, tag
from refloom.viewing import why
from refloom.viewing.browse import drawings as shots
from refloom.viewing.browse import layout as frame
from refloom.viewing.browse.grid import cell, link
from refloom.viewing.browse.library import Library, Row
from refloom.viewing.report.album import subject_name
from refloom.viewing.report.samplesheet import marked
from refloom.viewing.targets import note, number_of
from refloom.viewing.tile import picture as shown
from refloom.viewing.tile import tile

_FACTS = (
    "source",
    "split",
    "width",
    "height",
    "orientation",
    "video_id",
    "frame_index",
    "license",
    "source_url",
    "sha256",
)
_SHOWN_SCORES = ("quality", "area_share", "sharpness", "mask_confidence", "phrase_cosine")
_MEMBERS = 400


def picture_page(library: Library, name: str, row: int, show: str) -> str:
    """A picture with everything on it.

    Args:
        library: the dataset.
        name: of the dataset.
        row: of the picture in the index.
        show: id of an object or face that is pointed out.
    """
    identity = library.identity("pictures", row)
    columns = ["image_id", *_FACTS, "captions", "faces_blurred"]
    facts = library.one("images", library.unit_of("pictures", row), identity, columns) or {}
    objects, faces = library.objects_on(row), library.faces_on(row)
    keys = {one["object_id"]: f"o{number}" for number, one in enumerate(objects)}
    keys |= {one["face_id"]: f"f{number}" for number, one in enumerate(faces)}
    large = shots.canvas(library, row, shots.spots(objects, faces), shots.LARGE_PX, labels=True)
    body = [
        tag("div", {"class": "large", "data-show": keys.get(show)}, large),
        tag("div", {"class": "side"}, _heading(identity, "picture"), _captions(facts), _facts(facts)),
        _objects(objects, library.quality),
        _faces(faces),
        _links(library, "groups", library.groups_of(row)),
        _links(library, "samples", library.samples_of(row)),
    ]
    return frame.page(name, identity, frame.top(name, _back()), tag("main", {"class": "detail picture"}, *body))


def _back() -> Html:
    return tag("a", {"class": "back", "href": "/", "id": "back"}, "← results")


def _heading(identity: str, what: str) -> Html:
    return join([tag("p", {"class": "kicker"}, what), tag("h1", {}, foreign(identity))])


def _captions(facts: Row) -> Html | None:
    captions = facts.get("captions") or []
    return tag("ul", {"class": "captions"}, *(tag("li", {}, foreign(one)) for one in captions)) if captions else None


def _facts(facts: Row) -> Html:
    rows: list[Html] = []
    for key in _FACTS:
        value = facts.get(key)
        if value is not None:
            rows += [tag("dt", {}, key.replace("_", " ")), tag("dd", {}, _fact(key, value))]
    if facts.get("faces_blurred"):
        rows += [tag("dt", {}, "faces"), tag("dd", {}, "blurred by the source")]
    return tag("dl", {"class": "facts"}, *rows)


def _fact(key: str, value: Any) -> Html:
    text = str(value)
    if key == "source_url" and text.startswith(("https://", "http://")):
        return tag("a", {"href": text, "rel": "noreferrer noopener", "target": "_blank"}, foreign(text))
    return tag("code", {}, text) if key == "sha256" else foreign(text)


def _objects(objects: list[Row], quality: Quality | None) -> Html:
    if not objects:
        return tag("section", {}, tag("h2", {}, "Objects"), tag("p", {"class": "soft"}, "None."))
    more = [name for name in _score_names(objects) if name not in _SHOWN_SCORES]
    brief = [name for name in _SHOWN_SCORES if any(one["scores"].get(name) is not None for one in objects)]
    head: list[Child] = ["", "object", "verdict", *brief]
    rows = [_object(number, one, brief, quality) for number, one in enumerate(objects)]
    wide = [[str(n + 1), *(_score(one, name) for name in more)] for n, one in enumerate(objects)]
    return tag(
        "section",
        {"class": "objects"},
        tag("h2", {}, f"Objects ({len(objects)})"),
        table(head, rows, words=3, kind="list"),
        details("All components", table(["", *more], wide)) if more else None,
    )


def _score_names(objects: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for one in objects for name in one["scores"]))


def _score(one: Row, name: str) -> str:
    value = one["scores"].get(name)
    return value if isinstance(value, str) else wording.value(value)


def _object(number: int, one: Row, brief: list[str], quality: Quality | None) -> list[Child]:
    kind = shots.kind_of(one["verdict"])
    name = one["phrase"] or one["category"]
    small = tag("small", {}, f" {one['object_id'].partition('#')[2]}" + (" · no mask" if one["mask"] is None else ""))
    key = tag("i", {"class": f"key {kind}", "data-key": f"o{number}", "tabindex": 0, "role": "button"}, str(number + 1))
    verdict = tag("span", {"class": f"verdict {kind}"}, {"keep": "kept"}.get(one["verdict"], one["verdict"]))
    label = foreign(name) if name else tag("i", {}, one["kind"] if one["kind"] != "object" else "no class")
    reasons = [tag("small", {"class": "why"}, line) for line in why.lines(one["scores"], one["kind"], quality)]
    return [key, join([label, small, *reasons]), verdict, *(_score(one, score) for score in brief)]


def _faces(faces: list[Row]) -> Html | None:
    if not faces:
        return None
    tiles = []
    for number, face in enumerate(faces):
        lines = [face["face_id"], f"in {face['object_id']}" if face["object_id"] else "in no object"]
        lines += [f"sharpness: {wording.value(face['sharpness'])}"]
        key = tag(
            "i", {"class": "key face", "data-key": f"f{number}", "tabindex": 0, "role": "button"}, str(number + 1)
        )
        shot = shots.face_drawing(face)
        tiles.append(tile(shot, key, "\n".join(lines), badge=f"score {wording.value(face['det_score'])}"))
    return tag(
        "section", {"class": "faces"}, tag("h2", {}, f"Faces ({len(faces)})"), tag("div", {"class": "sheet"}, *tiles)
    )


def _links(library: Library, view: str, rows: list[int]) -> Html | None:
    if not rows:
        return None
    listing = library.index.listings[view]
    items = []
    for row in rows:
        name = listing.name.at(row)
        words = tag("small", {}, " ", foreign(name)) if name else None
        anchor = tag("a", {"href": link(library.index, view, row)}, foreign(library.identity(view, row)))
        items.append(tag("li", {}, anchor, words))
    return tag("section", {"class": "links"}, tag("h2", {}, f"In {view}"), tag("ul", {"class": "plain"}, *items))


def group_page(library: Library, name: str, row: int) -> str:
    """A group with its members, each cut out of its picture."""
    index = library.index
    identity = library.identity("groups", row)
    found = library.one("groups", library.unit_of("groups", row), identity, _GROUP_COLUMNS) or {"members": []}
    facts: list[Html] = []
    for key in _GROUP_COLUMNS[1:]:
        value = found.get(key)
        if value is not None and key != "members":
            text = wording.value(value) if isinstance(value, float) else str(value)
            facts += [tag("dt", {}, key.replace("_", " ")), tag("dd", {}, foreign(text))]
    places = dict(zip(found["members"], index.members[index.members[:, 1] == row, 0].tolist(), strict=False))
    tiles: list[Child] = []
    for member in found["members"][:_MEMBERS]:
        at = places.get(member, -1)
        if at < 0:
            tiles.append(tile("not held", foreign(member), member))
            continue
        quality = wording.value(float(index.listings["objects"].score[at]))
        verdict = index.verdicts.at(at) or "undecided"
        kind = {"keep": "kept", "reject": "rejected"}.get(shots.kind_of(verdict), "")
        title = f"{member}\n{verdict}\nquality: {quality}"
        words = foreign(member.rpartition("/")[2])
        tiles.append(cell(link(index, "objects", at), "objects", member, words, quality, kind, title))
    left = len(found["members"]) - _MEMBERS
    note = tag("p", {"class": "soft"}, f"and {left:,} more") if left > 0 else None
    called = index.listings["groups"].name.at(row)
    side = [_heading(called or identity, f"{found.get('kind', '')} group of {len(found['members'])}")]
    side += [tag("p", {"class": "soft"}, foreign(identity))] if called else []
    body = [tag("div", {"class": "side"}, *side, tag("dl", {"class": "facts"}, *facts))]
    members = tag("section", {}, tag("h2", {}, "Members"), tag("div", {"class": "sheet cells"}, *tiles), note)
    return frame.page(name, identity, frame.top(name, _back()), tag("main", {"class": "detail"}, *body, members))


_GROUP_COLUMNS = (
    "group_id",
    "kind",
    "members",
    "video_id",
    "min_similarity",
    "mean_similarity",
    "max_similarity",
    "frame_gap",
    "area_ratio",
)


def sample_page(library: Library, name: str, row: int) -> str | None:
    """A sample as a trainer gets it: pictures with numbered subjects, captions with mentions; None if it is gone."""
    identity = library.identity("samples", row)
    columns = ["sample_id", "kind", "why", "scores", "target", "pictures", "subjects", "images"]
    found = library.one("samples", library.unit_of("samples", row), identity, columns)
    if found is None:
        return None
    drawn = shots.sample_drawings(found)
    pictures = []
    for index, (shot, picture) in enumerate(zip(drawn, found["pictures"], strict=True)):
        href = f"/picture?{urlencode({'id': picture['image_id']})}"
        name_of = tag("a", {"href": href}, foreign(picture["image_id"]))
        under = tag("figcaption", {}, note(found, index), name_of)
        pictures.append(tag("figure", {"class": picture["role"]}, shown(shot), under, _sample_captions(found, index)))
    subjects = [_subject(place, subject) for place, subject in enumerate(found["subjects"])]
    said = found["scores"] or {}
    scores = {key: value for key, value in said.items() if isinstance(value, float)}
    scores |= {one["name"]: one["value"] for one in said.get("named") or []}
    facts = [
        join([tag("dt", {}, key.replace("_", " ")), tag("dd", {}, wording.value(value))])
        for key, value in scores.items()
    ]
    side = tag(
        "div",
        {"class": "side"},
        _heading(identity, f"{found['kind']} sample"),
        tag("p", {"class": "sentence"}, foreign(found["why"])),
        tag("ul", {"class": "subjects"}, *subjects),
        tag("dl", {"class": "facts"}, *facts),
    )
    kind = "one" if len(drawn) == 1 else "several"
    body = [side, tag("div", {"class": f"sample shots {kind}"}, *pictures)]
    return frame.page(name, identity, frame.top(name, _back()), tag("main", {"class": "detail"}, *body))


def _subject(place: int, subject: Row) -> Html:
    notes = [subject["kind"], wording.several(len(subject["appearances"]), "appearance")]
    qualities = [one["quality"] for one in subject["appearances"] if one["quality"] is not None]
    notes += [f"quality {wording.value(min(qualities))}"] if qualities else []
    faces = sum(one["face"] is not None for one in subject["appearances"])
    notes += [wording.several(faces, "face")] if faces and subject["kind"] != "face" else []
    notes += [subject["role"]] if subject["role"] else []
    return tag(
        "li",
        {"title": subject["subject_id"]},
        number_of(place),
        " ",
        foreign(subject_name(subject)),
        tag("small", {}, f" {', '.join(notes)}"),
    )


def _sample_captions(found: Row, index: int) -> Html | None:
    picture = found["pictures"][index]
    lines = []
    for place, caption in enumerate(picture["captions"] or []):
        spans = [
            (mention["start"], mention["end"], owner)
            for owner, subject in enumerate(found["subjects"])
            for mention in subject["mentions"] or []
            if (mention["picture"], mention["caption"]) == (index, place)
        ]
        origin = tag("small", {}, f"{picture['caption_from']} ") if picture["caption_from"] != "source" else None
        lines.append(tag("li", {}, origin, tag("bdi", {}, marked(caption, spans))))
    return tag("ul", {"class": "captions"}, *lines) if lines else None
