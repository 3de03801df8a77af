"""Croissant 1.0: tables as record sets, their files as file sets over the folder that croissant.json lies in.

Format: https://docs.mlcommons.org/croissant/docs/croissant-spec.html. What mlcroissant makes of it has been tried: a
file set that is contained in nothing is read from the folder of croissant.json, its patterns are fnmatch's, the JSON
path of a list is asked of each of its members, and a table without a file cannot be read.
"""

from typing import Any

import pyarrow as pa

from refloom.schemas.fields import IMAGE, metadata_of

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
CONFORMS = "http://mlcommons.org/croissant/1.0"
_PARQUET = "application/x-parquet"


def file_object(path: str, size: int, sha256: str) -> dict[str, Any]:
    """One file: path below the folder, bytes."""
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": _PARQUET,
        "sha256": sha256,
    }


def file_set(table: str, pattern: str) -> dict[str, Any]:
    """The files of a table.

    Args:
        table: its name.
        pattern: of their paths below the folder.
    """
    return {
        "@type": "cr:FileSet",
        "@id": f"{table}-files",
        "name": f"{table}-files",
        "encodingFormat": _PARQUET,
        "includes": pattern,
    }


def record_set(table: str, doc: str, key: str, schema: pa.Schema, *, long_names: bool = False) -> dict[str, Any]:
    """A table.

    Args:
        table: its name.
        doc: what it holds.
        key: its key column.
        schema: of its rows.
        long_names: a field's name is its id, `<table>/<column>`, not the column's.
    """
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": doc,
        "key": {"@id": f"{table}/{key}"},
        "field": [_field(field, f"{table}/{field.name}", table, field.name, "$", long_names) for field in schema],
    }


def _field(field: pa.Field, identity: str, table: str, column: str, path: str, long_names: bool) -> dict[str, Any]:
    """A column, or the part of one at a JSON path: structs become sub-fields, lists are repeated."""
    kind, repeated, inside = field.type, False, path
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        # of a column that is a list each member is asked, so that the path begins inside
        kind, repeated, inside = kind.value_type, True, inside if inside == "$" else f"{inside}[*]"
    source: dict[str, Any] = {"fileSet": {"@id": f"{table}-files"}, "extract": {"column": column}}
    if kind.equals(IMAGE):
        source["transform"] = {"jsonPath": f"{inside}.bytes"}
    elif path != "$":
        source["transform"] = {"jsonPath": path}
    value: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": identity,
        "name": identity if long_names else field.name,
        "description": metadata_of(field).get("doc", field.name),
        "source": source,
    }
    if repeated:
        value["repeated"] = True
    if pa.types.is_struct(kind) and not kind.equals(IMAGE):
        value["subField"] = [
            _field(inner, f"{identity}/{inner.name}", table, column, f"{inside}.{inner.name}", long_names)
            for inner in kind
        ]
    else:
        value["dataType"] = _data_type(kind)
    return value


def _data_type(kind: pa.DataType) -> str:
    if kind.equals(IMAGE):
        return "sc:ImageObject"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
