"""What each file of a face pack must be, known from what its graph takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from refloom.inference.checkpoints import cause as filecause
from refloom.inference.models.entry import Entry
from refloom.schemas.errors import Refused


@dataclass(frozen=True, slots=True)
class Role:
    """What one of the files must be.

    Attributes:
        name: in words.
        side_px: of the square pictures that it takes; None takes any size.
        probe_px: of the black picture that it is tried with.
        gives: shapes of its outputs for that picture, without the batch.
    """

    name: str
    side_px: int | None
    probe_px: int
    gives: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        side = "any size" if self.side_px is None else f"{self.side_px}x{self.side_px} px"
        widths = sorted({shape[-1] for shape in self.gives})
        return f"{self.name}, which takes pictures of {side} and gives rows of {', '.join(map(str, widths))}"


def _detector(probe_px: int) -> Role:
    # two anchors a cell at strides 8, 16 and 32, first all scores, then all boxes, then all points
    cells = [2 * (probe_px // stride) ** 2 for stride in (8, 16, 32)]
    gives = tuple((count, width) for width in (1, 4, 10) for count in cells)
    return Role("a detector of faces with five points", None, probe_px, gives)


ROLES = (
    _detector(128),
    Role("an identity network", 112, 112, ((512,),)),
    Role("a network of 68 points in space", 192, 192, ((3309,),)),
)
"""Of the files of a pack, in the order of its entry: SCRFD, ArcFace, and 1k3d68 with 1,103 points, 68 of them last."""


def check(entry: Entry, files: Sequence[Path]) -> None:
    """Refuse a pack with a file that is damaged, or is another network than its name says.

    Args:
        entry: of the pack, for messages.
        files: in the order of `ROLES`; the last one may be absent.

    Raises:
        Refused: names the file.
    """
    for file, role in zip(files, ROLES, strict=False):
        problem = filecause.of_any(file)
        if problem is None:
            problem = _misfit(file, role)
        if problem is not None:
            why = problem.removesuffix(f"; {filecause.AGAIN}")
            raise Refused(f"the weights of {entry.name} are damaged: {file.name}: {why}; get them again: {entry.get}")


def _misfit(file: Path, role: Role) -> str | None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception:  # ONNX Runtime has an error of its own for each of its states, without a base
        return "it is no ONNX graph, or cut off"
    other = f"it is not {role}"
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
        return other
    sides = [side for side in inputs[0].shape[2:] if isinstance(side, int)]
    if any(side != role.side_px for side in sides):
        return other
    try:
        black = np.zeros((1, 3, role.probe_px, role.probe_px), np.float32)
        given = [np.asarray(value) for value in session.run(None, {inputs[0].name: black})]
    except Exception:  # as above
        return f"{other}: ONNX Runtime {onnxruntime.__version__} fails on a black picture of {role.probe_px} px"
    # some graphs give the batch as a dimension of its own
    shapes = tuple(value.shape[1:] if value.shape[:1] == (1,) and value.ndim > 1 else value.shape for value in given)
    if shapes != role.gives:
        return other
    if not all(np.isfinite(value).all() for value in given):
        return "it gives values that are no numbers"
    return None
