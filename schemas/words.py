"""Where a text has the words of a phrase, whatever their case, script, spelling or number. The one rule for it.

Captions (`curation.compose.mentions`) and prompts (`inference.adapters.phrases`) are both searched here. Spans are half-open
and count characters of the text as it was given, though letters may change their number when case is ignored (İ, ß) and
a sign may be many code points (emoji with joiners, letters with accents).
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

Span = tuple[int, int]

_IRREGULAR = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "mouse": "mice",
    "knife": "knives",
    "wolf": "wolves",
    "calf": "calves",
    "loaf": "loaves",
    "scarf": "scarves",
    "elf": "elves",
    "thief": "thieves",
    "sheep": "sheep",
    "deer": "deer",
    "aircraft": "aircraft",
    "skis": "skis",
    "scissors": "scissors",
    "jeans": "jeans",
    "shorts": "shorts",
    "trousers": "trousers",
    "fish": "fish",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "ox": "oxen",
    "leaf": "leaves",
    "shelf": "shelves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "hero": "heroes",
}
_LAST_PARTS = ("person", "woman", "child", "mouse", "knife", "wolf", "fish", "tooth", "leaf", "shelf")
"""Irregular nouns that are so at the end of compounds too: bookshelf, goldfish, grandchild."""
_MEN = re.compile(
    "(business|camera|crafts|door|fire|fisher|gentle|horse|mail|milk|police|post|sales|snow|space|swords|work)man"
)
"""Compounds of man; others only end like it: human, German, talisman."""

_JOINER, _NON_JOINER = "\u200d", "\u200c"
_KEYCAP = "\u20e3"
_INVISIBLE = ("\u00ad", "\u2060", "\ufeff")
_VARIANTS = ("\ufe0e", "\ufe0f")
"""Say whether a sign is drawn as text or as emoji: no other word."""

# scripts that write words without spaces between: Han with its marks, Hiragana; Thai, Lao, Burmese, Khmer
_SPACELESS = re.compile(
    "[\u3005-\u3007\u3040-\u309f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
_KATAKANA = re.compile("[\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
_PARTICLES = re.compile(
    "들?(?:이|가|은|는|을|를|의|에|에서|에게|와|과|랑|이랑|도|로|으로|만|까지|부터|처럼|보다|하고)?"
)
"""What Korean writes behind a noun without a space."""

_SIGNS_FROM = 0x2190
"""Symbols before this are letters' company (™, ©, °), not things that a phrase may name."""

_GAP = r"[\s_'’\-‐‑\u200b]"
"""What may stand between two words of a phrase, whatever stands there in the phrase itself: no end of a clause."""

_ARTICLES = ("a", "an", "the")


def occurrences(text: str, phrase: str) -> list[Span]:
    """Where a text has the words of a phrase, in their order, the last of them singular or plural.

    Case, the encoding of accents, a leading article and what joins the words (spaces, hyphens, underscores) do not
    matter. A word is found where it stands alone, not inside another: `cat` in neither `category` nor `cat_5`. Scripts
    without spaces have no such borders, an emoji is a word by itself, and a sequence of joined emoji is one.

    Args:
        text: any.
        phrase: a few words or emoji.

    Returns:
        Characters of each, in order and apart.
    """
    pattern = _pattern(phrase)
    if pattern is None:
        return []
    folded, found, at = _folded(text), [], 0
    while match := pattern.search(folded.text, at):
        start, stop = match.span()
        if folded.starts_word(start) and folded.ends_word(stop):
            found.append((folded.starts[start], folded.stops[stop - 1]))
            at = stop
        else:
            at = start + 1
    return found


def words_of(phrase: str) -> list[str]:
    """The words that are looked for, case folded: runs of letters and digits, and emoji one by one."""
    return [word for word, _ in _words(phrase)]


def is_plural(found: str, phrase: str) -> bool:
    """Whether what was found of a phrase is its plural, and not the phrase itself."""
    found_words, words = words_of(found), words_of(phrase)
    return bool(words) and bool(found_words) and found_words[-1] != words[-1]


def plural(noun: str) -> str:
    """The plural of an English noun in lower case, by the regular rules and a few exceptions."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if _MEN.fullmatch(noun):
        return noun[:-3] + "men"
    for last in _LAST_PARTS:
        if noun.endswith(last):
            return noun.removesuffix(last) + _IRREGULAR[last]
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + "s"


@dataclass(frozen=True, slots=True)
class _Folded:
    """A text without case, and where each character of it comes from.

    Attributes:
        text: case folded; what looks the same is the same.
        starts, stops: of each character of it, the sign of the original that it comes from.
        kinds: of each: `w` for letters and digits, `k` Katakana, `h` Hangul, `s` of a script without spaces, `e`
            emoji, a space for everything else.
    """

    text: str
    starts: Sequence[int]
    stops: Sequence[int]
    kinds: str

    def starts_word(self, at: int) -> bool:
        """Whether a word may start before this character."""
        return at == 0 or (self.starts[at - 1] != self.starts[at] and self._parted(at))

    def ends_word(self, at: int) -> bool:
        """Whether a word may end before this character."""
        if at == len(self.text):
            return True
        if self.starts[at - 1] == self.starts[at]:
            return False
        return self._parted(at) or (self.kinds[at] == "h" and self._is_particle(at))

    def _parted(self, at: int) -> bool:
        before, after = self.kinds[at - 1], self.kinds[at]
        return before != after or before not in "wkh"

    def _is_particle(self, at: int) -> bool:
        stop = next((place for place in range(at, len(self.kinds)) if self.kinds[place] != "h"), len(self.kinds))
        return _PARTICLES.fullmatch(self.text[at:stop]) is not None


@lru_cache(maxsize=256)
def _folded(text: str) -> _Folded:
    if text.isascii():
        kinds = "".join("w" if char.isalnum() or char == "_" else " " for char in text)
        return _Folded(text.lower(), range(len(text)), range(1, len(text) + 1), kinds)
    parts: list[str] = []
    starts: list[int] = []
    stops: list[int] = []
    kinds_of: list[str] = []
    for start, stop in _signs(text):
        kind = _kind(text[start:stop])
        part = _fold(text[start:stop], kind)
        parts.append(part)
        starts += [start] * len(part)
        stops += [stop] * len(part)
        kinds_of.append(kind * len(part))
    return _Folded("".join(parts), starts, stops, "".join(kinds_of))


def _signs(text: str) -> Iterator[Span]:
    """What is seen as one: a letter with its marks, a flag, emoji that are joined."""
    start = 0
    while start < len(text):
        stop = start + 1
        drawn = _is_drawn(text[start])
        if _is_regional(text[start]) and stop < len(text) and _is_regional(text[stop]):
            stop += 1
        while stop < len(text) and (_attaches(text[stop]) or (drawn and _goes_on(text, stop))):
            stop += 1
        yield start, stop
        start = stop


def _attaches(char: str) -> bool:
    return unicodedata.category(char)[0] == "M" or char in (_JOINER, _NON_JOINER, *_INVISIBLE)


def _is_regional(char: str) -> bool:
    """Half a flag."""
    return 0x1F1E6 <= ord(char) <= 0x1F1FF


def _goes_on(text: str, at: int) -> bool:
    """Whether a picture goes on: a tone of skin, the flag of a region, or another picture behind a joiner."""
    number = ord(text[at])
    tone_or_tag = 0x1F3FB <= number <= 0x1F3FF or 0xE0020 <= number <= 0xE007F
    return tone_or_tag or (text[at - 1] == _JOINER and _is_drawn(text[at]))


def _is_drawn(char: str) -> bool:
    """Whether a character is a picture by itself."""
    shape = 0x25A0 <= ord(char) <= 0x27BF and unicodedata.category(char) == "Sm"
    return shape or 0x1F3FB <= ord(char) <= 0x1F3FF or (unicodedata.category(char) == "So" and ord(char) >= _SIGNS_FROM)


def _kind(sign: str) -> str:
    base = sign[0]
    if _is_drawn(base) or _KEYCAP in sign or (_VARIANTS[1] in sign and not base.isalnum() and not base.isspace()):
        return "e"
    for kind, script in (("s", _SPACELESS), ("k", _KATAKANA), ("h", _HANGUL)):
        if script.match(base):
            return kind
    return "w" if base.isalnum() or base == "_" or unicodedata.category(base)[0] == "M" else " "


def _fold(sign: str, kind: str) -> str:
    for char in (*_VARIANTS, *_INVISIBLE, *(() if kind == "e" else (_JOINER, _NON_JOINER))):
        sign = sign.replace(char, "")
    if kind == "e":
        return sign
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", sign).casefold())
    return folded.replace("i\u0307", "i").replace("ı", "i")


@lru_cache(maxsize=4096)
def _words(phrase: str) -> tuple[tuple[str, str], ...]:
    """The words of a phrase without a leading article, and what stands before each."""
    folded = _folded(phrase.replace("_", " "))
    found: list[tuple[str, str]] = []
    before, at = "", 0
    while at < len(folded.text):
        stop, kind = at + 1, folded.kinds[at]
        while stop < len(folded.text) and (
            folded.starts[stop] == folded.starts[at] if kind == "e" else kind != " " and folded.kinds[stop] not in " e"
        ):
            stop += 1
        if kind == " ":
            before += folded.text[at:stop]
        else:
            found.append((folded.text[at:stop], before))
            before = ""
        at = stop
    has_article = len(found) > 1 and found[0][0] in _ARTICLES and not found[1][1].strip()
    return tuple(found[1:] if has_article else found)


@lru_cache(maxsize=4096)
def _pattern(phrase: str) -> re.Pattern[str] | None:
    """What finds the words in a folded text; None without any."""
    words = _words(phrase)
    if not words:
        return None
    parts: list[str] = []
    for at, (word, before) in enumerate(words):
        if at:
            own = re.escape(before.strip())
            often = "*" if _stands_alone(words[at - 1][0]) or _stands_alone(word) else "+"
            parts.append(rf"(?:{_GAP}{often}" + (rf"|\s*{own}\s*)" if own else ")"))
        forms = {word, plural(word)} if at == len(words) - 1 and _folded(word).kinds[-1] == "w" else {word}
        parts.append("(?:" + "|".join(map(re.escape, sorted(forms, key=len, reverse=True))) + ")")
    return re.compile("".join(parts))


def _stands_alone(word: str) -> bool:
    """Whether a word needs no space around it."""
    return set(_folded(word).kinds) <= set("se")
