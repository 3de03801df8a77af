"""Where captions name a subject: character spans of its phrase, of its plural, or of a common other word for it."""

import re

from refloom.schemas.words import Span, occurrences, plural

_OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "person": ("man", "woman", "boy", "girl", "child", "kid", "lady", "guy", "player", "rider", "skier", "surfer"),
    "airplane": ("plane", "jet", "aeroplane", "aircraft"),
    "motorcycle": ("motorbike", "bike"),
    "bicycle": ("bike",),
    "couch": ("sofa",),
    "tv": ("television", "screen"),
    "cell phone": ("phone", "cellphone", "smartphone", "mobile phone"),
    "potted plant": ("plant",),
    "dining table": ("table",),
    "sports ball": ("ball",),
    "wine glass": ("glass",),
    "teddy bear": ("teddy", "stuffed bear"),
    "hot dog": ("hotdog",),
    "donut": ("doughnut",),
    "giant panda": ("panda",),
    "boat": ("ship",),
    "sedan": ("car",),
    "truck": ("lorry",),
    "cow": ("bull", "cattle"),
    "laptop": ("computer",),
}
_HEADS = re.compile(
    "(bath|bed|bowl|collar|depot|feeder|food|garage|house|kennel|lane|path|platform|rack|road|shelter|stable|station|"
    "storage|terminal|track|tunnel|yard)s?"
)
"""Nouns that make a class name before them say what they are for: a train tunnel shows no train."""
_MANY = re.compile(r"two|three|four|five|six|seven|eight|nine|ten|many|several|some|few|[2-9]|\d\d+")

_OTHER_THING_AFTER: dict[str, tuple[str, ...]] = {"dog": ("hot",), "bear": ("teddy", "stuffed", "gummy")}
"""Words that make a class name after them another thing."""


def spans(caption: str, phrase: str) -> list[tuple[int, int]]:
    """Where a caption names a phrase.

    The phrase itself wins; only where it does not occur are other common words for it looked for. What is one is
    `schemas.words`' rule: whole words, singular or plural, in any case and script. A name that only says what the noun
    after it is for is none: `train tracks`, `bus stop`.

    Args:
        caption: any text.
        phrase: a few words, e.g. a class name.

    Returns:
        (start, end) characters of every match, in order.
    """
    name = _normal(phrase)
    if not name:
        return []
    for words in ((name,), _OTHER_WORDS.get(name, ())):
        found = sorted(
            span
            for word in words
            for span in occurrences(caption, word)
            if not _is_other_thing(caption, span, word) and not _is_modifier(caption, span, word)
        )
        if found:
            return [span for span in found if not any(_inside(span, other) for other in found)]
    return []


def _inside(span: tuple[int, int], other: tuple[int, int]) -> bool:
    return other[0] <= span[0] and span[1] <= other[1] and span != other


def _is_other_thing(caption: str, span: Span, words: str) -> bool:
    """Whether the word before a name makes it another thing: `hot dog`."""
    others = _OTHER_THING_AFTER.get(words)
    return others is not None and re.search(rf"\b({'|'.join(others)})[\s_-]$", caption[: span[0]], re.I) is not None


def _is_modifier(caption: str, span: Span, words: str) -> bool:
    """Whether a name only says what the noun after it is for: `train tracks`, `bus stop`, `two bus stops`.

    Stop and stand are verbs too: `men stand`, `the bus stops`. After a plural, and as `stops` after a singular that no
    number comes before, they are taken for verbs.
    """
    after = re.match(r"[\s_-]+(\w+)", caption[span[1] :])
    if after is None:
        return False
    head = after.group(1).lower()
    if _HEADS.fullmatch(head):
        return True
    if caption[slice(*span)].lower().endswith(plural(words.split(" ")[-1])):
        return False
    before = re.search(r"(\w+)[\s_-]+$", caption[: span[0]])
    counted = before is not None and _MANY.fullmatch(before.group(1).lower()) is not None
    return head in ("stop", "stand") or (counted and head in ("stops", "stands"))


def readable(name: str) -> str:
    """A class name as words: `giant_panda` to `giant panda`."""
    return re.sub(r"[\s_]+", " ", name).strip()


def _normal(phrase: str) -> str:
    return re.sub(r"[\s_-]+", " ", phrase).strip().lower()


def template(phrases: list[str]) -> str | None:
    """A caption made of phrases: `a photo of a cat and two dogs`; None without any."""
    counts: dict[str, int] = {}
    for phrase in phrases:
        counts[phrase] = counts.get(phrase, 0) + 1
    parts = [_counted(phrase, number) for phrase, number in counts.items()]
    if not parts:
        return None
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"a photo of {listed}"


_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _counted(phrase: str, number: int) -> str:
    if number == 1:
        return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"
    *front, last = phrase.split(" ")
    many = " ".join([*front, plural(last)])
    return f"{_NUMBERS[number - 2] if number - 2 < len(_NUMBERS) else 'many'} {many}"
