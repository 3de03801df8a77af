"""Features on disk. A unit is a row group of the samples; it is committed as a unit of a dataset is.

    features.json                     written last: settings, fingerprint of the samples, bytes of every unit
    examples/unit-<unit>-000.parquet  a row for each variant of each target, or one for a sample that was lost
    tensors/unit-<unit>-000.parquet   a row for each tensor; a text or a picture that comes again is there once
    ledger/features/, manifests/features/, runs/

16-bit tensors are stored as they were computed, bit for bit. fp32 becomes fp16, with an error of at most 2^-11 of the
value (2^-25 below 6e-5), unless fp16 does not reach so far. The VAE's posterior is always computed in fp32.
"""

import zlib
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from refloom.schemas.errors import Rejected
from refloom.schemas.fields import field

STAGE = "features"
VERSION = 1
"""Hand-bumped when features change without their settings changing."""

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

_REFERENCE = pa.struct(
    [
        field("phrase", pa.string(), "the subject's"),
        field("boxes", pa.list_(pa.list_(pa.float64())), "xyxy in 0-1 of the target; null for anywhere"),
        field("scale", pa.float64(), "strength"),
        field("pictures", pa.list_(pa.string()), "keys of the tensors of its pictures", required=True),
    ]
)

SCHEMAS = {
    "examples": pa.schema(
        [
            field("row", pa.int32(), "of the sample in its row group", required=True),
            field("sample_id", pa.string(), "of the sample", required=True),
            field("problem", pa.string(), "why there is nothing of this sample; null where there is"),
            field("picture", pa.int32(), "number of the target picture"),
            field("variant", pa.int32(), "number of the variant, from 0"),
            field("caption", pa.string(), "of the target; empty if it has none"),
            field("original_size", pa.list_(pa.int32()), "height and width before resizing"),
            field("crop_top_left", pa.list_(pa.int32()), "top and left of the crop"),
            field("target_size", pa.list_(pa.int32()), "height and width of the target"),
            field("references", pa.list_(_REFERENCE), "in the order of the example; null where pictures are read"),
            field("target", pa.string(), "key of the target's latents"),
            field("tensors", pa.list_(pa.string()), "keys of all that the example may need"),
        ]
    ),
    "tensors": pa.schema(
        [
            field("key", pa.string(), "what it is of", required=True),
            field("dtype", pa.string(), f"one of {', '.join(DTYPES)}", required=True),
            field("shape", pa.list_(pa.int32()), "of the tensor", required=True),
            field("crc32", pa.uint32(), "of the bytes", required=True),
            field("data", pa.binary(), "little endian, row after row", required=True),
        ]
    ),
}


def pack(key: str, tensor: Tensor) -> dict[str, Any]:
    """A row of `tensors`.

    Args:
        key: what it is of.
        tensor: of any shape and floating type.
    """
    tensor = narrowed(tensor.detach()).cpu().contiguous()
    data = (
        tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else tensor[None].view(torch.uint8).numpy().tobytes()
    )
    name = str(tensor.dtype).removeprefix("torch.")
    return {"key": key, "dtype": name, "shape": list(tensor.shape), "crc32": zlib.crc32(data), "data": data}


def narrowed(tensor: Tensor) -> Tensor:
    """16 bits: as they are, or fp32 as fp16; fp32 where fp16 does not reach."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor
    half = tensor.half()
    return half if bool(half.isfinite().all()) else tensor.float()


def unpack(row: dict[str, Any]) -> Tensor:
    """The tensor of a row of `tensors`; its bytes are copied.

    Raises:
        Rejected: the bytes are not those that were written, or are of no tensor.
    """
    data = bytearray(row["data"].as_buffer() if isinstance(row["data"], pa.Scalar) else row["data"])
    if zlib.crc32(data) != row["crc32"]:
        raise Rejected("decode_error", f"the features {row['key'][:80]!r} are damaged")
    try:
        return torch.frombuffer(data, dtype=DTYPES[row["dtype"]]).reshape(row["shape"])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise Rejected("decode_error", f"the features {row['key'][:80]!r} are of no shape and type") from error
