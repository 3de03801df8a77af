"""croissant.json of a publication: Croissant 1.0 with the fields for responsible AI (RAI 1.0).

Formats: https://docs.mlcommons.org/croissant/docs/croissant-spec.html and .../croissant-rai-spec.html. A table is a
RecordSet, its files a FileSet over the folder `data/<table>`, every file a FileObject with its sha256; the fields are
written in `refloom.schemas.croissant`.
"""

from typing import Any

from refloom.schemas.croissant import CONFORMS, CONTEXT, file_object, file_set, record_set
from refloom.sharing.publish.card import in_order
from refloom.sharing.publish.rows import doc_of, key_of, schema_of


def document(about: dict[str, Any], files: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole document; arguments as for `publishcard.readme`."""
    # a table without a row has no file, and nothing to read
    held = [table for table in about["rows"] if any(one["path"].startswith(f"data/{table}/") for one in files)]
    licenses = sorted({one["license"] or "none stated" for one in about["facts"]["pictures"]})
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [CONFORMS, "http://mlcommons.org/croissant/RAI/1.0"],
        "name": "grouped-reference-data",
        "description": "Pictures with their masked objects, grouped by subject and scored, for training adapters that "
        "take reference pictures. Made with refloom.",
        "version": f"{about['version']}.0.0",
        "license": licenses or ["none stated"],
        "keywords": ["reference-conditioned generation", "subject-driven generation"],
        **_responsible(about),
        "distribution": [
            *(file_object(one["path"], one["bytes"], one["sha256"]) for one in files),
            *(file_set(table, f"data/{table}/*.parquet") for table in held),
        ],
        "recordSet": [
            record_set(table, doc_of(table), key_of(table), schema_of(table), long_names=True) for table in held
        ],
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
