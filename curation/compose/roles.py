"""What part a subject plays in an image, where its class says so: person, clothes or another object."""

from typing import Any

Row = dict[str, Any]

_PEOPLE = frozenset({"person", "people", "man", "woman", "boy", "girl", "child", "kid", "baby", "human", "pedestrian"})
_WORN = frozenset(
    {
        "apron",
        "backpack",
        "blouse",
        "boots",
        "cardigan",
        "clothes",
        "clothing",
        "coat",
        "dress",
        "footwear",
        "gloves",
        "handbag",
        "hat",
        "helmet",
        "hoodie",
        "jacket",
        "jeans",
        "necklace",
        "necktie",
        "pants",
        "sandals",
        "scarf",
        "shirt",
        "shoe",
        "shoes",
        "shorts",
        "skirt",
        "sneakers",
        "socks",
        "sunglasses",
        "sweater",
        "swimsuit",
        "t-shirt",
        "trousers",
        "uniform",
    }
)
"""What is worn or carried, by the names that COCO, LVIS and Open Images have for it, also behind other words."""
_WORN_ALONE = frozenset(
    {"bag", "belt", "boot", "cap", "glasses", "glove", "purse", "sandal", "sneaker", "sock", "suit", "tie", "vest"}
)
"""Behind other words these are other things: a bottle cap, a conveyor belt."""


def role_of(subject: Row) -> str | None:
    """Person, clothes or object; None where neither class nor face says it. Scene and style only a source can say.

    Args:
        subject: of a sample, with kind, category, identity and appearances.
    """
    category = subject["category"]
    if category:
        words = category.lower().replace("_", " ").split()
        if words and words[-1] in _PEOPLE:
            return "person"
        is_worn = bool(words) and (words[-1] in _WORN or (len(words) == 1 and words[0] in _WORN_ALONE))
        return "clothes" if is_worn else "object"
    if subject["kind"] == "face" or subject["identity"] is not None:
        return "person"
    if subject["kind"] == "object" and any(one["face"] is not None for one in subject["appearances"]):
        return "person"
    return None
