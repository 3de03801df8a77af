"""croissant.json of a publication: Croissant 1.0 with the fields for responsible AI (RAI 1.0).

Formats: https://docs.mlcommons.org/croissant/docs/croissant-spec.html and .../croissant-rai-spec.html. A table is a
RecordSet, its files a FileSet over the folder `data/<table>`, every file a FileObject with its sha256.
"""

from typing import Any

import pyarrow as pa

from refloom.schemas.fields import IMAGE, metadata_of
from refloom.sharing.publish.card import in_order
from refloom.sharing.publish.rows import doc_of, key_of, schema_of

_CONTEXT: dict[str, Any] = {
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
_REPOSITORY = "repository"


def document(about: dict[str, Any], files: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole document; arguments as for `publishcard.readme`."""
    licenses = sorted({one["license"] or "none stated" for one in about["facts"]["pictures"]})
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": "grouped-reference-data",
        "description": "Pictures with their masked objects, grouped by subject and scored, for training adapters that "
        "take reference pictures. Made with refloom.",
        "version": f"{about['version']}.0.0",
        "license": licenses or ["none stated"],
        "keywords": ["reference-conditioned generation", "subject-driven generation"],
        **_responsible(about),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": _REPOSITORY,
                "name": _REPOSITORY,
                "description": "This folder; MANIFEST.json has the sha256 of every file in it.",
                "contentUrl": ".",
                "encodingFormat": "git+https",
                "sha256": about["fingerprint"],
            },
            *(_file(one) for one in files),
            *(_file_set(table) for table in about["rows"]),
        ],
        "recordSet": [_record_set(table) for table in about["rows"]],
    }


def _responsible(about: dict[str, Any]) -> dict[str, Any]:
    facts, options = about["facts"], about["options"]
    sources = ", ".join(sorted({one["source"] for one in facts["pictures"]})) or "the sources named in the rows"
    people = []
    if facts["faces"]:
        people.append(
            f"Pictures of people: {facts['faces']} faces are marked with box and landmarks; identity embeddings are "
            + ("included." if options["face_embeddings"] else "left out.")
        )
    if facts["faces_blurred"]:
        people.append(f"Faces and license plates are blurred by the source in {facts['faces_blurred']} pictures.")
    dropped = [
        f"{stage} {kind}: {reason} {number}"
        for stage, kinds in in_order(facts["funnel"])
        for kind, counts in kinds.items()
        for reason, number in counts["rejected"].items()
    ]
    takedown = facts.get("left_out", {}).get("takedown")
    return {
        "rai:dataCollection": f"Pictures and annotations of public sets ({sources}), taken in without change; "
        "nothing was crawled.",
        "rai:dataCollectionType": ["Secondary Data Analysis"],
        "rai:dataAnnotationProtocol": "Masks, boxes, classes and captions are the sources' own where they have them; "
        "what a model made is listed under rai:machineAnnotationTools and null where no model was there.",
        "rai:machineAnnotationTools": [
            f"{one['role']}: {one['model']} ({one['license'] or 'license not known'})" for one in facts["models"]
        ]
        or ["none"],
        "rai:dataPreprocessingProtocol": [
            "Pictures keep their source's bytes unless compose.max_side_px re-encodes them.",
            "Items were rejected for these reasons: " + ("; ".join(dropped) or "none"),
        ],
        "rai:dataManipulationProtocol": [
            f"Thresholds and settings of {stage}: {value}" for stage, value in in_order(facts["settings"])
        ]
        or ["none"],
        "rai:dataLimitations": [
            "Quality scores are measured on pixels and masks and say nothing of content.",
            "Classes, captions and people are distributed as in the sources; no balance was sought.",
            "Values of models that were not there are null.",
            *([] if options["images"] else ["The bytes of pictures are not included."]),
        ],
        "rai:dataBiases": "Those of the sources: mostly photographs shared online, of common things.",
        "rai:personalSensitiveInformation": people or ["No faces were marked; people may be seen in pictures."],
        "rai:dataUseCases": ["Training and comparing adapters that generate pictures from reference pictures."],
        "rai:dataReleaseMaintenancePlan": "Ids on a takedown list are left out of every later publication"
        + (f"; {takedown['ids']} ids are left out of this one." if takedown else "."),
    }


def _file(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": one["path"],
        "name": one["path"],
        "contentUrl": one["path"],
        "contentSize": f"{one['bytes']} B",
        "encodingFormat": "application/x-parquet",
        "sha256": one["sha256"],
    }


def _file_set(table: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{table}-files",
        "name": f"{table}-files",
        "containedIn": {"@id": _REPOSITORY},
        "encodingFormat": "application/x-parquet",
        "includes": f"data/{table}/*.parquet",
    }


def _record_set(table: str) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": doc_of(table),
        "key": {"@id": f"{table}/{key_of(table)}"},
        "field": [_field(field, f"{table}/{field.name}", table, field.name, "$") for field in schema_of(table)],
    }


def _field(field: pa.Field, identity: str, table: str, column: str, path: str) -> dict[str, Any]:
    """A column, or the part of one at a JSON path: structs become sub-fields, lists are repeated."""
    kind, repeated, inside = field.type, False, path
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, repeated, inside = kind.value_type, True, inside + "[*]"
    source: dict[str, Any] = {"fileSet": {"@id": f"{table}-files"}, "extract": {"column": column}}
    if path != "$":
        source["transform"] = {"jsonPath": path}
    value: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": identity,
        "name": identity,
        "description": metadata_of(field).get("doc", field.name),
        "source": source,
    }
    if repeated:
        value["repeated"] = True
    if pa.types.is_struct(kind) and not kind.equals(IMAGE):
        value["subField"] = [
            _field(inner, f"{identity}/{inner.name}", table, column, f"{inside}.{inner.name}") for inner in kind
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
