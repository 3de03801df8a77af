"""MS-Bench: 40 subjects of seven kinds, combined by two and three (spec B.5.1).

FOLDER/<kind>/<subject>.jpg or .png, one photograph of each subject.

Combinations are unordered and without repetition inside a kind, and all with all across kinds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

from refloom.inference.adapters.reference import Box
from refloom.inference.evaluation.cases import Benchmark, Case, FilePicture, Subject, refuse_count, refuse_missing
from refloom.inference.evaluation.folders import photographs

NAME = "ms-bench"
COMBINATIONS = 1148
SAMPLES = 4488
_TITLE = "MS-Bench"

_KINDS: Mapping[str, Mapping[str, str]] = {
    "living": {
        **dict.fromkeys(("cat", "cat1", "cat2"), "cat"),
        **dict.fromkeys(("dog", "dog1", "dog2", "dog5", "dog6", "dog7", "dog8"), "dog"),
    },
    "object": {
        "backpack": "backpack",
        "clock": "clock",
        "colorful_sneaker": "sneaker",
        "duck_toy": "toy",
        "flower": "flower",
        "grey_sloth_plushie": "stuffed animal",
        "lantern": "lantern",
        "teapot": "teapot",
        "teddybear": "stuffed animal",
        "wolf_plushie": "stuffed animal",
    },
    "upwearing": {"cap": "cap", "cap1": "cap", "hat": "hat", "hat1": "hat", "hat2": "hat"},
    "midwearing": {
        "coat": "coat",
        "jacket": "jacket",
        "shirt": "shirt",
        "shirt1": "shirt",
        "sweater": "sweater",
        "t-shirt": "t-shirt",
    },
    "downwearing": {"jeans": "jeans", "shorts1": "shorts", "trousers": "trousers"},
    "wholewearing": {"dress": "dress", "dress1": "dress"},
    "scene": {"barn": "barn", "forest": "forest", "mountain": "mountain", "waterfall": "waterfall"},
}
"""Kind to the names of its subjects, and what prompts call them."""

_PLACES = (
    "in a room",
    "in the snow",
    "in the jungle",
    "on the beach",
    "on the grass",
    "on a cobblestone street",
)
_LEFT, _RIGHT = (0.0, 0.25, 0.5, 0.75), (0.5, 0.25, 1.0, 0.75)
_MIDDLE, _WHOLE = (0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 1.0, 1.0)
_THIRDS = ((0.0, 0.25, 0.35, 0.75), (0.35, 0.25, 0.65, 0.75), (0.65, 0.25, 1.0, 0.75))
_HEAD, _BODY = (0.25, 0.0, 0.75, 0.25), (0.25, 0.25, 0.75, 1.0)
_CHEST, _LEGS = (0.25, 0.25, 0.75, 0.6), (0.25, 0.6, 0.75, 1.0)

_TWO, _THREE = "a {0} and a {1} {place}", "a {0}, a {1}, and a {2} {place}"
_WEARS = "a {0} wearing a {1} {place}"
_BEFORE = "a {0} with a {1} in the background"


@dataclass(frozen=True, slots=True)
class Group:
    """Combinations of one sort.

    Attributes:
        kinds: of the subjects, in order.
        pattern: of its prompts; one for each place if it has one.
        boxes: of the subjects.
        size: combinations of it.
    """

    kinds: tuple[str, ...]
    pattern: str
    boxes: tuple[Box, ...]
    size: int

    def combine(self) -> Iterator[tuple[str, ...]]:
        """Names of the subjects of each combination."""
        distinct = list(dict.fromkeys(self.kinds))
        for parts in product(*(combinations(sorted(_KINDS[kind]), self.kinds.count(kind)) for kind in distinct)):
            yield tuple(name for part in parts for name in part)

    def prompts(self, words: tuple[str, ...]) -> list[str]:
        """Of a combination whose subjects have these names."""
        places = _PLACES if "{place}" in self.pattern else ("",)
        return [self.pattern.format(*words, place=place) for place in places]


GROUPS = (
    Group(("living", "living"), _TWO, (_LEFT, _RIGHT), 45),
    Group(("living", "object"), _TWO, (_LEFT, _RIGHT), 100),
    Group(("object", "object"), _TWO, (_LEFT, _RIGHT), 45),
    Group(("living", "upwearing"), _WEARS, (_MIDDLE, _HEAD), 50),
    Group(("living", "midwearing"), _WEARS, (_MIDDLE, _MIDDLE), 60),
    Group(("living", "wholewearing"), _WEARS, (_MIDDLE, _BODY), 20),
    Group(("midwearing", "downwearing"), "a woman wearing a {0} and {1} {place}", (_CHEST, _LEGS), 18),
    Group(("living", "scene"), _BEFORE, (_MIDDLE, _WHOLE), 40),
    Group(("object", "scene"), _BEFORE, (_MIDDLE, _WHOLE), 40),
    Group(("living", "living", "living"), _THREE, _THIRDS, 120),
    Group(("object", "object", "object"), _THREE, _THIRDS, 120),
    Group(
        ("living", "object", "scene"),
        "a {0} and {1} with a {2} in the background",
        (_LEFT, _RIGHT, _WHOLE),
        400,
    ),
    Group(
        ("upwearing", "midwearing", "downwearing"),
        "a woman wearing a {0}, a {1}, and a {2} {place}",
        (_HEAD, _CHEST, _LEGS),
        90,
    ),
)


def read(folder: str) -> Benchmark:
    """The benchmark from its published photographs.

    Raises:
        Refused: photographs are missing, or the combinations are not of the published number.
    """
    files: dict[tuple[str, str], Path] = {}
    for kind in _KINDS:
        files |= {(kind, file.stem): file for file in photographs(Path(folder) / kind)}
    wanted = [(kind, name) for kind, names in _KINDS.items() for name in names]
    refuse_missing(_TITLE, folder, [f"{kind}/{name}.jpg" for kind, name in wanted if (kind, name) not in files])
    cases: list[Case] = []
    found = 0
    for group in GROUPS:
        sort = "_".join(group.kinds)
        every = list(group.combine())
        refuse_count(_TITLE, f"{sort} combinations", len(every), group.size)
        found += len(every)
        for names in every:
            words = tuple(_KINDS[kind][name] for kind, name in zip(group.kinds, names, strict=True))
            pictures = [FilePicture(str(files[key])) for key in zip(group.kinds, names, strict=True)]
            subjects = tuple(
                Subject(word, (picture,), (picture,), box)
                for word, picture, box in zip(words, pictures, group.boxes, strict=True)
            )
            for index, prompt in enumerate(group.prompts(words)):
                cases.append(Case(f"{sort}/{'+'.join(names)}/{index}", sort, prompt, subjects))
    refuse_count(_TITLE, "combinations", found, COMBINATIONS)
    refuse_count(_TITLE, "samples", len(cases), SAMPLES)
    notes = ("How many pictures of a sample, and which seeds and steps were published, is unknown; here it is one.",)
    return Benchmark(NAME, _TITLE, tuple(cases), 1, "samples", None, notes)
