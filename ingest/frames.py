"""Which of a picture's two frames its annotations are in: the stored one, or the upright one.

A picture with an orientation can be looked at in two ways, and tools differ: one writes the size that is stored and
draws on what it shows upright, another writes and draws upright. The declared size names a frame, and the annotations
themselves often fit only one. What is drawn wins over what is declared, because a wrong choice turns every object.

    annotations that fit one frame only        that frame
    no such annotations                        as those pictures of the unit that have some, and declare alike
    nobody has                                 as declared; upright where nothing is declared, or both sizes are equal
    some fit one frame only, some the other    nobody can say: the annotations are rejected
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from refloom.ingest.numbers import four_numbers, is_absent_box, whole
from refloom.ingest.source import Annotation, Picture
from refloom.schemas import headers, masks
from refloom.schemas.boxes import CLIP_PX
from refloom.schemas.errors import RefloomError, Rejected
from refloom.schemas.headers import Header

Frame = Literal["stored", "upright"]
Declared = Literal["stored", "upright", "both", "none"]

_MOST = 3 / 4
"""Share of the telling annotations that must agree; the others are then taken for bad boxes."""


class Choice(NamedTuple):
    """The frame of a picture's annotations.

    Attributes:
        frame: which one.
        width, height: of it, pixels.
        note: a word of `refloom.schemas.notes` where the frame is not simply the declared one; None otherwise.
    """

    frame: Frame
    width: int
    height: int
    note: str | None = None


Unit = Callable[[Declared], set[Frame]]
"""What those pictures of a unit say whose annotations fit one frame only, by what their sizes declare."""


def declared_size(declared: tuple[Any, Any] | None) -> tuple[int, int] | None:
    """(width, height) as whole numbers; None where the source does not say, which some write as 0.

    Raises:
        Rejected: `bad_record`.
    """
    if declared is None:
        return None
    sides = (whole(declared[0]), whole(declared[1]))
    if sides == (0, 0):
        return None
    if sides[0] is None or sides[1] is None:
        raise Rejected("bad_record", f"width and height are {declared[0]!r} and {declared[1]!r}"[:100])
    return sides[0], sides[1]


def by_size(
    picture: Picture, own: tuple[int, int] | None
) -> list[tuple[tuple[int, int] | Rejected | None, list[Annotation]]]:
    """A picture's annotations by the size that they are in, each set in one frame of its own.

    Several records may be of one file, and each answers for its own size.

    Args:
        picture: its annotations declare a size where its record is not the only one.
        own: the picture's, as `declared_size` returned it.

    Returns:
        Size, or what is wrong with it (which costs these annotations and not the picture), and the annotations.
    """
    if all(annotation.declared_size is None for annotation in picture.annotations):
        return [(own, picture.annotations)]
    sizes: dict[Any, tuple[int, int] | Rejected | None] = {}
    groups: dict[Any, list[Annotation]] = defaultdict(list)
    for annotation in picture.annotations:
        size: tuple[int, int] | Rejected | None = own
        if annotation.declared_size is not None:
            try:
                size = declared_size(annotation.declared_size)
            except Rejected as problem:
                size = problem
        key = str(size) if isinstance(size, Rejected) else size
        sizes.setdefault(key, size)
        groups[key].append(annotation)
    return [(sizes[key], annotations) for key, annotations in groups.items()]


def choose(
    size: tuple[int, int] | None, header: Header, annotations: Sequence[Annotation], unit: Unit | None = None
) -> Choice | Rejected:
    """The frame that the annotations of one picture are in.

    Args:
        size: what `declared_size` returned.
        header: of the picture.
        annotations: those without a problem.
        unit: asked only where the annotations themselves do not tell.

    Returns:
        The frame, or why there is none (`size_mismatch`).
    """
    says = declares(size, header)
    if isinstance(says, Rejected):
        return says
    declared: Frame = "stored" if says == "stored" else "upright"
    if header.orientation == 1 or not annotations:
        return _choice(declared, header)
    found = drawn(header, annotations)
    if len(found) > 1:
        return Rejected("size_mismatch", "some boxes fit the stored picture only, others the upright picture only")
    if found:
        (own,) = found
        return _choice(own, header, "frame_by_boxes" if own != declared else None)
    others = unit(says) if unit is not None else set()
    if len(others) > 1 and says != "both":
        return Rejected("size_mismatch", "pictures that declare alike are drawn in two frames; this one does not tell")
    if len(others) == 1:
        (own,) = others
        return _choice(own, header, "frame_by_unit" if own != declared else None)
    return _choice(declared, header, "frame_undecided")


def _choice(frame: Frame, header: Header, note: str | None = None) -> Choice:
    width, height = sides(frame, header)
    return Choice(frame, width, height, note)


def sides(frame: Frame, header: Header) -> tuple[int, int]:
    """(width, height) of one frame of a picture, pixels."""
    return (header.stored_width, header.stored_height) if frame == "stored" else (header.width, header.height)


def declares(size: tuple[int, int] | None, header: Header) -> Declared | Rejected:
    """Which frame a declared size names, or that it is of another picture (`size_mismatch`)."""
    if size is None:
        return "none"
    stored, upright = size == sides("stored", header), size == sides("upright", header)
    if stored and upright:
        return "both"
    if stored or upright:
        return "stored" if stored else "upright"
    told = f"record says {size[0]}x{size[1]}, the picture is {header.width}x{header.height}"
    return Rejected("size_mismatch", told)


def drawn(header: Header, annotations: Sequence[Annotation]) -> set[Frame]:
    """The frames that annotations fit, of those that fit one only; both where they contradict each other."""
    stored, upright = sides("stored", header), sides("upright", header)
    if stored == upright:
        return set()
    count: Counter[Frame] = Counter()
    for annotation in annotations:
        fits: list[Frame] = [frame for frame in ("stored", "upright") if _fits(annotation, sides(frame, header))]
        if len(fits) == 1:
            count[fits[0]] += 1
    if not count:
        return set()
    ((most, votes),) = count.most_common(1)
    return {most} if votes >= _MOST * count.total() else set(count)


def _fits(annotation: Annotation, size: tuple[int, int]) -> bool:
    width, height = size
    segmentation = annotation.segmentation
    if isinstance(segmentation, dict) and segmentation:
        sizes = segmentation.get("size")
        if isinstance(sizes, list) and len(sizes) == 2 and (whole(sizes[1]), whole(sizes[0])) != size:
            return False
    extent = _extent(annotation)
    if extent is None:
        return True
    x0, y0, x1, y1 = extent
    return x0 >= -CLIP_PX and y0 >= -CLIP_PX and x1 <= width + CLIP_PX and y1 <= height + CLIP_PX


def _extent(annotation: Annotation) -> tuple[float, float, float, float] | None:
    """What an annotation covers, xyxy: its box, or what its polygons span; None where neither says."""
    values = None if is_absent_box(annotation.bbox) else four_numbers(annotation.bbox)
    if values is not None:
        x0, y0, third, fourth = values
        short = annotation.box_px_short
        return values if annotation.box_is_xyxy else (x0, y0, x0 + third + short, y0 + fourth + short)
    points = masks.points(annotation.segmentation)
    if points is None:
        return None
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    return float(x0), float(y0), float(x1), float(y1)


class UnitFrames:
    """What the pictures of a unit say together; they are looked at once, when the first one cannot tell by itself.

    Args:
        pictures: reads the unit anew.
        begin: called with the id of each picture that is looked at; may raise Failed to have it passed over.
    """

    def __init__(self, pictures: Callable[[], Iterator[Picture]], begin: Callable[[str], None]) -> None:
        self._pictures, self._begin = pictures, begin
        self._found: dict[Declared, set[Frame]] | None = None

    def __call__(self, says: Declared) -> set[Frame]:
        """The frames that pictures are drawn in whose size declares the same; those of all where it names both."""
        if self._found is None:
            self._found = defaultdict(set)
            for picture in self._pictures():
                self._look(picture, self._found)
        return set().union(*self._found.values()) if says == "both" else self._found.get(says, set())

    def _look(self, picture: Picture, found: dict[Declared, set[Frame]]) -> None:
        if picture.problem is not None:
            return
        try:
            self._begin(picture.image_id)
            header = headers.read(picture.load())
            if header.orientation == 1:
                return
            told = []
            for size, annotations in by_size(picture, declared_size(picture.declared_size)):
                says = size if isinstance(size, Rejected) else declares(size, header)
                told.append((says, drawn(header, [one for one in annotations if one.problem is None])))
        except RefloomError:
            raise  # a full disk or a lost lease is not the picture's fault
        except Exception:
            return  # whatever is wrong with it is said when its own turn comes
        for says, own in told:
            if not isinstance(says, Rejected) and len(own) == 1:
                found[says] |= own
