"""What an export for editing trainers is asked for, and what one sample becomes of it."""

from dataclasses import dataclass
from typing import Annotated, Any

from refloom.schemas.errors import Refused
from refloom.schemas.ranges import COUNT, Flag, Text, Whole, Word, check_fields

LAYOUTS = ("omnigen2", "diffsynth", "musubi", "bagel", "uno", "ai-toolkit")
REFERENCES = ("cutout", "box", "image", "face")
INSTRUCTIONS = ("own", "template")
MOST_REFERENCES = {"ai-toolkit": 3}
"""Layouts that hold no more than so many references of an image."""

SEED = Whole(0, 2**63 - 1)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Settings of `--format edit`.

    Attributes:
        layout: one of `LAYOUTS`.
        reference: what of a subject is given: a `cutout` on a white square, its `box`, the whole `image`, its `face`.
        per_subject: most references of one subject.
        seed: draws targets, references, captions and words.
        same_image: samples of one image give its subjects' own crops, which teach copying.
        instructions: `own`: a sample's own texts, with whole images in the order that they count them, and templates
            where it has none; `template`: templates everywhere.
        prefix: written in front of the names of files; None leaves them relative to the export's folder.
        redistributable: leave samples out that show an image whose license does not allow to give it away.
    """

    layout: Annotated[str, Word(LAYOUTS)]
    reference: Annotated[str, Word(REFERENCES)] = "cutout"
    per_subject: Annotated[int, COUNT] = 1
    seed: Annotated[int, SEED] = 0
    same_image: Annotated[bool, Flag()] = False
    instructions: Annotated[str, Word(INSTRUCTIONS)] = "own"
    prefix: Annotated[str | None, Text(none=True)] = None
    redistributable: Annotated[bool, Flag()] = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.same_image and self.reference == "image":
            raise Refused("--same-image gives crops: with --reference image the reference would be the target itself")

    @property
    def most(self) -> int | None:
        """References that the layout holds of an image; None for any number."""
        return MOST_REFERENCES.get(self.layout)


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference image of an example.

    Attributes:
        picture: index into the sample's `pictures`.
        form: cutout | box | image | face.
        subjects: indices of the subjects that it is given for; empty where a record gives it and says no more.
        appearance: that it is cut from; None for a whole image.
    """

    picture: int
    form: str
    subjects: tuple[int, ...]
    appearance: Row | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """What one sample becomes: an image to make, what it is made from, and the words that ask for it.

    Attributes:
        target: index into the sample's `pictures`.
        references: in the order in which the instruction counts them, from 1.
        instruction: one line.
        instruction_from: source | model | template.
    """

    target: int
    references: tuple[Reference, ...]
    instruction: str
    instruction_from: str


class LeftOut(Exception):
    """A sample that gives no example: why, in a few words that are counted."""
