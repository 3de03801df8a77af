"""README.md of a publication: the Hub's YAML, and what a reader has to know. Text out of plain facts."""

from typing import Any

import yaml

from refloom.schemas.dataset import STAGES
from refloom.schemas.features import card_features
from refloom.schemas.manifest import Counts
from refloom.sharing.publish.options import PICTURES
from refloom.sharing.publish.rows import doc_of, schema_of

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_LEFT_OUT = {
    "dropped": "left out whole",
    "shrunk": "kept without the pictures taken down",
    "of other sources": "of sources that are not published here",
}


def readme(about: dict[str, Any], files: list[dict[str, Any]]) -> str:
    """The card as text.

    Args:
        about: MANIFEST.json without its files.
        files: path, bytes, sha256 and rows of every data file.
    """
    header = _header(about, files)
    parts = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000).strip(),
        "---",
        "",
        "# Grouped reference data",
        "",
        "Pictures with their masked objects, the same subject grouped over the frames of a video or the pictures of a "
        "folder, every object scored. Made with refloom.",
        "",
        *_tables(about, files),
        *_pictures(about),
        *_metadata(about),
        *_people(about),
        *_takedown(about),
        *_funnel(about),
        *_models(about),
        *_settings(about),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _header(about: dict[str, Any], files: list[dict[str, Any]]) -> dict[str, Any]:
    default = next((name for name in ("samples", "images") if name in about["rows"]), next(iter(about["rows"])))
    largest = sum(about["rows"][default].values())
    configs, infos = [], []
    for table, splits in sorted(about["rows"].items(), key=lambda item: (item[0] != default, item[0])):
        listed = [{"split": split, "path": f"data/{table}/{split}-*.parquet"} for split in splits]
        configs.append({"config_name": table, "data_files": listed, **({"default": True} if table == default else {})})
        sizes = {
            split: sum(file["bytes"] for file in files if file["path"].startswith(f"data/{table}/{split}-"))
            for split in splits
        }
        infos.append(
            {
                "config_name": table,
                "features": card_features(schema_of(table)),
                "splits": [
                    {"name": split, "num_bytes": sizes[split], "num_examples": rows} for split, rows in splits.items()
                ],
                "download_size": sum(sizes.values()),
                "dataset_size": sum(sizes.values()),
            }
        )
    return {
        "configs": configs,
        "license": "other",
        "license_name": "per-picture",
        "size_categories": [next((name for bound, name in _SIZES if largest < bound), "n>10M")],
        "source_datasets": sorted({one["source"] for one in about["facts"]["pictures"]}),
        "tags": ["reference-conditioned-generation", "subject-driven-generation", "refloom"],
        "task_categories": ["text-to-image", "image-to-image"],
        "dataset_info": infos,
    }


def _tables(about: dict[str, Any], files: list[dict[str, Any]]) -> list[str]:
    lines = ["## Tables", "", "| table | split | rows | files | MB | what |", "|---|---|---|---|---|---|"]
    for table, splits in about["rows"].items():
        for split, rows in splits.items():
            own = [file["bytes"] for file in files if file["path"].startswith(f"data/{table}/{split}-")]
            lines.append(f"| `{table}` | {split} | {rows:,} | {len(own):,} | {sum(own) / 1e6:,.1f} | {doc_of(table)} |")
    lines += [
        "",
        "Rows are ordered by the hash of their key, so that every file is a fair draw. `MANIFEST.json` has the "
        f"sha256 of every file; the data's fingerprint is `{about['fingerprint']}`.",
        "",
    ]
    if not about["options"]["images"]:
        lines += [
            "## Pictures are not included",
            "",
            f"The bytes of pictures and face crops are null. `{PICTURES}` says which bytes belong where, by sha256. "
            "With a copy of the source of your own (a folder of pictures, SA-1B's tars, or a refloom dataset):",
            "",
            "    refloom rehydrate THIS_FOLDER YOUR_COPY DEST",
            "",
            "gives the same files with the bytes in them. A picture whose sha256 differs stays null and is named.",
            "",
        ]
    if about.get("missing"):
        lines += [f"{about['missing']:,} pictures were not found in the copy of the source and are null.", ""]
    return lines


def _pictures(about: dict[str, Any]) -> list[str]:
    facts = about["facts"]
    if not facts["pictures"]:
        return []
    lines = [
        "## Sources and licenses",
        "",
        "| source | license | pictures | may be given on | conditions |",
        "|---|---|---|---|---|",
    ]
    words = {"allowed": "yes", "accepted": "the publisher says so", "unknown": "not known", "forbidden": "**no**"}
    for one in facts["pictures"]:
        lines.append(
            f"| {one['source']} | {one['license'] or 'none stated'} | {one['pictures']:,} | "
            f"{words.get(one['permission'], 'not known')} | {', '.join(one['conditions']) or '-'} |"
        )
    lines += ["", "Every picture keeps its own license, in the column `license` of its row.", ""]
    if facts["withheld"] and about["options"]["images"]:
        lines += [
            f"**Do not give this copy on**: it holds pictures of {', '.join(facts['withheld'])}, whose license does "
            "not allow that.",
            "",
        ]
    if facts["faces_blurred"]:
        lines += [
            f"{facts['faces_blurred']:,} pictures come from a source that blurs faces and license plates: no faces "
            "were looked for in them.",
            "",
        ]
    return lines


def _people(about: dict[str, Any]) -> list[str]:
    count = about["facts"]["faces"]
    if not count:
        return []
    left_out = "left out (`embedding` is null; in samples `pose` and `sharpness` of faces too)."
    embeddings = f"Identity embeddings are {'included.' if about['options']['face_embeddings'] else left_out}"
    return [
        "## Personal data",
        "",
        f"Faces are marked in this data ({count:,} marks): pictures and positions of faces are personal data, and in "
        f"many places the law says what may be done with them. {embeddings} Nobody is named. Do not use this data to "
        "identify people.",
        "",
    ]


def _metadata(about: dict[str, Any]) -> list[str]:
    """What became of places, names and thumbnails in the files of pictures."""
    said = about["facts"].get("metadata")
    if said is None:
        return []
    if said["kept"]:
        text = (
            "Pictures keep the metadata of their files as the source has it: places, names, serial numbers and "
            "thumbnails may be among it."
        )
    else:
        text = (
            "Metadata was stripped from the files of pictures (Exif, maker notes, thumbnails, IPTC, XMP, comments); "
            f"pixels, orientation and colour profiles are the source's. {said['stripped']:,} pictures had any: "
            "`published_sha256` is of the bytes here, `sha256` of the source's."
        )
        if said["withheld"]:
            text += (
                f" {said['withheld']:,} pictures are withheld, their bytes are null: nobody knows how to take their "
                "metadata out."
            )
    return ["## Metadata of pictures", "", text, ""]


def _takedown(about: dict[str, Any]) -> list[str]:
    counts = about["facts"].get("left_out", {})
    lines = [
        "## Takedown",
        "",
        "To have something removed, tell whoever published this its `image_id`, `video_id`, `group_id`, `sample_id` "
        "or `source_url`. They put it on a list, publish again with `refloom publish --takedown LIST`, and it is gone "
        "from every table: samples lose the picture and what is seen on it, or go whole where too little is left.",
        "",
    ]
    if counts.get("takedown"):
        lines += [
            f"{counts['takedown']['ids']:,} ids are on the list of this publication; "
            f"they name {counts['takedown']['pictures']:,} pictures.",
            "",
        ]
    if counts.get("rows"):
        lines += ["| table | what became of rows | rows |", "|---|---|---|"]
        for name, number in sorted(counts["rows"].items()):
            table, _, what = name.partition(" ")
            lines.append(f"| `{table}` | {_LEFT_OUT.get(what, what)} | {number:,} |")
        lines.append("")
    return lines


def _funnel(about: dict[str, Any]) -> list[str]:
    lines = [
        "## Funnel",
        "",
        "What became of everything that went in, before publishing; input = kept + rejected + failed.",
        "",
        "| stage | items | in | kept | rejected | failed |",
        "|---|---|---|---|---|---|",
    ]
    for stage, kinds in in_order(about["facts"]["funnel"]):
        for kind, value in kinds.items():
            counts = Counts.from_json(value)
            words = [
                ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items())) or "0"
                for reasons in (counts.rejected, counts.failed)
            ]
            lines.append(f"| {stage} | {kind} | {counts.input:,} | {counts.kept:,} | {words[0]} | {words[1]} |")
    return [*lines, ""]


def in_order(by_stage: dict[str, Any]) -> list[tuple[str, Any]]:
    """Entries of a dict by stage in the order of the stages."""
    return [(stage, by_stage[stage]) for stage in STAGES if stage in by_stage]


def _models(about: dict[str, Any]) -> list[str]:
    models = about["facts"]["models"]
    if not models:
        return ["## Models", "", "No model took part; what one would have said is null.", ""]
    lines = ["## Models", "", "| role | model and revision | license |", "|---|---|---|"]
    lines += [f"| {one['role']} | `{one['model']}` | {one['license'] or 'not known'} |" for one in models]
    return [*lines, "", "What a model that is not listed would have said is null.", ""]


def _settings(about: dict[str, Any]) -> list[str]:
    text = yaml.safe_dump(about["facts"]["settings"], sort_keys=True, default_flow_style=None, width=110)
    return ["## Thresholds in force", "", "```yaml", text.strip(), "```", ""]
