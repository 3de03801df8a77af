"""Hugging Face features of a schema, so that `datasets.load_dataset` and the Hub's viewer show pictures as pictures.

They are written as `datasets` 2 and 3 know them, which 4 and later read too: these call a list of values `Sequence`,
and a list of structs is a json list. The word `List` of 4 would shut the older ones out.
"""

import json
from typing import Any

import pyarrow as pa

from refloom.schemas.fields import IMAGE


def of_type(kind: pa.DataType) -> Any:
    """The feature of one Arrow type, in the json form that `datasets` stores."""
    if kind.equals(IMAGE):
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: of_type(field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        if _is_plain_struct(kind.value_type):  # a `Sequence` of structs would be a struct of lists
            return [of_type(kind.value_type)]
        length = {"length": kind.list_size} if pa.types.is_fixed_size_list(kind) else {}
        return {"feature": of_type(kind.value_type), **length, "_type": "Sequence"}
    return {"dtype": _dtype(kind), "_type": "Value"}


def _is_plain_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and not kind.equals(IMAGE)


def _dtype(kind: pa.DataType) -> str:
    names = {pa.float32(): "float32", pa.float64(): "float64", pa.float16(): "float16"}
    return names.get(kind, str(kind))


def with_features(schema: pa.Schema) -> pa.Schema:
    """The schema with its features under the metadata key `huggingface`."""
    features = {field.name: of_type(field.type) for field in schema}
    info = json.dumps({"info": {"features": features}}, sort_keys=True)
    return schema.with_metadata({**(schema.metadata or {}), b"huggingface": info.encode()})


def card_features(schema: pa.Schema) -> list[dict[str, Any]]:
    """The features as the `dataset_info.features` list of a dataset card."""
    return [{"name": field.name, **_card_type(field.type)} for field in schema]


def _card_type(kind: pa.DataType) -> dict[str, Any]:
    if kind.equals(IMAGE):
        return {"dtype": "image"}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **_card_type(field.type)} for field in kind]}
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _card_type(kind.value_type)
        body: Any = inner["dtype"] if set(inner) == {"dtype"} else inner.get("struct", inner)
        listed: dict[str, Any] = {"list" if _is_plain_struct(kind.value_type) else "sequence": body}
        if pa.types.is_fixed_size_list(kind):
            listed["length"] = kind.list_size
        return listed
    return {"dtype": _dtype(kind)}
