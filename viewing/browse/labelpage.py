"""The page on which a person judges objects, one after another."""

from refloom.schemas.pages.markup import Html, join, tag
from refloom.schemas.tables import FLAGS
from refloom.viewing.browse import layout
from refloom.viewing.browse.labelling import ORDERS, Labelling

SCORES = {
    3: "whole or nearly, recognisable, clear",
    2: "a part hidden or cut off, or somewhat blurred or dark",
    1: "mostly hidden, a fragment, very blurred, dark or tiny",
    0: "cannot be told, or a wrong outline",
}
FLAG_KEYS = dict(zip(FLAGS, "otfbdymgx", strict=True))
"""Flag to its key."""
_ORDER_WORDS = {"random": "in random order", "uncertain": "the most uncertain first"}
_KEYS = (
    ("3 2 1 0", "judge, and go on"),
    (" ".join(FLAG_KEYS.values()), "flags, before the score"),
    ("u, Backspace", "take the last judgement back"),
    ("← →", "to earlier ones and forward again; a score replaces the one there"),
    ("Space", "leave it for later"),
    ("r, q", "random order; the most uncertain first"),
    ("?", "this list"),
)


def page(name: str, labelling: Labelling, token: str) -> str:
    """The page.

    Args:
        name: of the dataset.
        labelling: what is judged.
        token: that its script sends along with each judgement.
    """
    facts = {"id": "judge", "class": "judge", "data-token": token, "data-total": len(labelling.rows)}
    shown = tag(
        "figure",
        {"class": "stand"},
        tag("div", {"class": "white"}, tag("img", {"id": "cutout", "alt": "the object alone, on white"})),
        tag("figcaption", {}, tag("b", {"id": "name"}), tag("code", {"id": "object"})),
    )
    question = tag("p", {"class": "soft"}, "Given this cut-out alone, as the one reference of its subject, how good?")
    side = tag(
        "div",
        {"class": "side"},
        tag("h1", {}, "How good a reference?"),
        question,
        tag("div", {"class": "scores"}, *(_score(score, meaning) for score, meaning in SCORES.items())),
        tag("div", {"class": "flags", "aria-label": "flags"}, *(_flag(flag, key) for flag, key in FLAG_KEYS.items())),
        tag("div", {"class": "moves"}, _button("back", "u", "undo"), _button("skip", "Space", "later")),
        tag("label", {"class": "order"}, "Next ", _orders(labelling)),
        tag("progress", {"id": "bar", "max": len(labelling.rows), "value": 0}),
        tag("p", {"id": "progress", "class": "soft", "aria-live": "polite"}),
        tag("p", {"id": "trouble", "role": "alert", "hidden": True}),
    )
    noscript = tag("noscript", {}, tag("p", {"class": "soft"}, "Judging needs the page's script, which is off."))
    main = tag("main", facts, shown, side, noscript)
    return layout.page(name, "label", layout.top(name, has_switches=False), main, part="label", keys=_KEYS)


def _button(identity: str, key: str, word: str) -> Html:
    return tag("button", {"type": "button", "id": identity}, tag("kbd", {}, key), f" {word}")


def _score(score: int, meaning: str) -> Html:
    attributes = {"type": "button", "class": "score", "data-score": score, "aria-pressed": "false"}
    return tag("button", attributes, tag("kbd", {}, str(score)), tag("span", {}, meaning))


def _flag(flag: str, key: str) -> Html:
    attributes = {"type": "button", "class": "flag", "data-flag": flag, "data-key": key, "aria-pressed": "false"}
    return tag("button", attributes, tag("kbd", {}, key), f" {flag.replace('_', ' ')}")


def _orders(labelling: Labelling) -> Html:
    orders = ORDERS if labelling.has_quality else ORDERS[:1]
    words = {name: _ORDER_WORDS[name] for name in orders}
    if "uncertain" in words:
        words["uncertain"] += f" (quality near {labelling.threshold:g})"
    options = join(tag("option", {"value": name}, said) for name, said in words.items())
    return tag("select", {"id": "order", "autocomplete": "off"}, options)
