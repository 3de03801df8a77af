"""ONNX graphs in the place of insightface's networks: small, and it is known where they must fire."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

WINDOW_PX = 40
"""Side of the red square that the detector of these tests takes for a face, in its input."""

FIVE = np.array([[-9, -8], [9, -8], [0, 0], [-7, 9], [7, 9]], np.float32)
"""Where it sees the points, around the middle, in its input: left eye, right eye, nose, left and right mouth corner."""

ANGLES = (20.0, -30.0, 10.0)
"""Pitch, yaw and roll of every head, in degrees."""


def scene(width: int, height: int, *squares: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """A grey picture with red squares (left, top, side), each with a mark of its own in it."""
    picture = np.full((height, width, 3), 90, np.uint8)
    picture += np.random.default_rng(seed).integers(0, 9, picture.shape[:2], np.uint8)[..., None]
    for index, (left, top, side) in enumerate(squares):
        picture[top : top + side, left : left + side] = (255, 0, 0)
        mark = side // 10
        corner = left + side // 4 + index * mark, top + side // 3
        picture[corner[1] : corner[1] + mark, corner[0] : corner[0] + mark] = (200, 30, 30)
    return picture


def constant(name: str, values: object, kind: type = np.float32) -> "onnx.TensorProto":
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(values, kind), name)


def save(
    file: Path,
    nodes: "list[onnx.NodeProto]",
    constants: "list[onnx.TensorProto]",
    shape: list[int | str],
    outputs: dict[str, list[int | str]],
) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        file.stem,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, file)


def save_detector(file: Path, *, points: bool = True, spread: float = 1.0) -> None:
    """SCRFD's nine outputs for strides 8, 16 and 32, two anchors a cell; only stride 8 ever fires.

    A cell's score is 3 r - 2, r the share of pure red in the window around its anchor, the cell's upper left corner.
    """
    from onnx import helper

    red = np.zeros((1, 3, WINDOW_PX, WINDOW_PX), np.float32)
    red[0, 0], red[0, 1:] = 1.5 / WINDOW_PX**2, -0.75 / WINDOW_PX**2
    half = WINDOW_PX // 2
    nodes, constants = (
        [],
        [
            constant("red", red),
            constant("less", [-2.0]),
            constant("nothing", [0.0]),
            constant("column", [-1, 1], np.int64),
        ],
    )
    for stride in (8, 16, 32):
        pads = [half, half, half - stride, half - stride]  # as many windows as cells
        nodes.append(
            helper.make_node("Conv", ["input", "red", "less"], [f"seen{stride}"], strides=[stride] * 2, pads=pads)
            if stride == 8
            else helper.make_node(
                "AveragePool", ["first"], [f"seen{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        seen = f"seen{stride}"
        if stride > 8:
            nodes.append(helper.make_node("Min", [seen, "nothing"], [f"dark{stride}"]))
            seen = f"dark{stride}"
        nodes.append(helper.make_node("Clip", [seen, "nothing"], [f"share{stride}"]))
        nodes.append(helper.make_node("Reshape", [f"share{stride}", "column"], [f"one{stride}"]))
        nodes.append(helper.make_node("Concat", [f"one{stride}"] * 2, [f"two{stride}"], axis=1))
        nodes.append(helper.make_node("Reshape", [f"two{stride}", "column"], [f"score{stride}"]))
        for kind, values in (("box", [half] * 4), ("points", (FIVE * spread).reshape(-1))):
            constants.append(constant(f"{kind}_of{stride}", [np.array(values) / stride]))
            constants.append(constant(f"zeros_{kind}{stride}", np.zeros((1, len(values)))))
            nodes.append(
                helper.make_node("MatMul", [f"score{stride}", f"zeros_{kind}{stride}"], [f"empty_{kind}{stride}"])
            )
            nodes.append(helper.make_node("Add", [f"empty_{kind}{stride}", f"{kind}_of{stride}"], [f"{kind}{stride}"]))
    nodes.insert(0, helper.make_node("Split", ["input"], ["first", "second", "third"], axis=1))
    kinds = {"score": 1, "box": 4} | ({"points": 10} if points else {})
    outputs = {f"{kind}{stride}": ["n", width] for kind, width in kinds.items() for stride in (8, 16, 32)}
    save(file, nodes, constants, [1, 3, "height", "width"], outputs)


def save_identity(file: Path) -> None:
    """112x112 to 512 numbers: a random projection of the crop at 8x8."""
    from onnx import helper

    weights = np.random.default_rng(0).normal(size=(3 * 14 * 14, 512))
    nodes = [
        helper.make_node("AveragePool", ["input"], ["coarse"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["coarse"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
    ]
    save(file, nodes, [constant("weights", weights)], ["n", 3, 112, 112], {"embedding": ["n", 512]})


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """About x, then y, then z, as `insightface.utils.transform.matrix2angle` takes it apart."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians([pitch, yaw, roll])), np.sin(np.radians([pitch, yaw, roll]))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def save_points(file: Path) -> None:
    """192x192 to 1,103 points in space, the last 68 of them a head turned by `ANGLES`; another one in a black crop."""
    from insightface.data import get_object
    from onnx import helper

    head = get_object("meanshape_68.pkl") @ rotation(*ANGLES).T
    every = np.zeros((1103, 3))
    every[-68:] = head / np.abs(head).max() / 2
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Neg", ["mean"], ["dark"]),
        helper.make_node("Add", ["dark", "grey"], ["darker"]),
        helper.make_node("Relu", ["darker"], ["black"]),
        helper.make_node("Flatten", ["black"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "points"], ["fc1"]),
    ]
    weights = np.random.default_rng(0).normal(size=(3, 3309))
    constants = [constant("grey", [-0.7]), constant("weights", weights), constant("points", every.reshape(-1))]
    save(file, nodes, constants, ["n", 3, 192, 192], {"fc1": ["n", 3309]})
