"""The dataset card (README.md with the Hub's YAML) and croissant.json, both derived from the manifests."""

from collections import Counter
from typing import Any

import yaml

from refloom.schemas import strict, tables
from refloom.schemas.croissant import CONFORMS, CONTEXT, file_object, file_set, record_set
from refloom.schemas.dataset import STAGES, Dataset
from refloom.schemas.features import card_features
from refloom.schemas.fingerprint import of_parts
from refloom.schemas.lineage import Lineage
from refloom.schemas.manifest import Counts

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def write(dataset: Dataset) -> None:
    """Write README.md and croissant.json anew."""
    for name, data in files(dataset).items():
        dataset.folder.write(name, data)


def renew(dataset: Dataset, changed: object) -> None:
    """Derive dataset.json and the card anew where units have `changed`, or a run that was killed left them behind.

    Whether that was so is asked of the manifests alone: a finished job that is run again reads no rows.
    """
    there = all(dataset.folder.exists(name) for name in ("README.md", "croissant.json"))
    if not changed and there and dataset.index_problem is None and dataset.index == dataset.derived_index():
        return
    write(dataset)
    dataset.write_index()  # last: where it says what the manifests say, the card does too


def files(dataset: Dataset) -> dict[str, bytes]:
    """README.md and croissant.json as they follow from the manifests."""
    described = strict.dumps(croissant(dataset), indent=1, sort_keys=True)
    return {"README.md": readme(dataset).encode(), "croissant.json": described.encode() + b"\n"}


def readme(dataset: Dataset) -> str:
    """The card as text."""
    summary = dataset.table_summary()
    configs = _configs(dataset, summary)
    header = {
        "configs": configs,
        "license": "other",
        "license_name": "per-row",
        "size_categories": [_size(summary)],
        "tags": ["reference-conditioned-generation", "subject-driven-generation", "refloom"],
        "task_categories": ["text-to-image", "image-to-image"],
        "dataset_info": [
            {
                "config_name": config["config_name"],
                "features": card_features(tables.TABLES[config["config_name"]].schema),
            }
            for config in configs
        ],
    }
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000).strip(),
        "---",
        "",
        "# Grouped reference data",
        "",
    ]
    lines += [
        "Made with refloom. Every row keeps its source, license and scores; every item that was left out "
        "has its reason in `ledger/`.",
        "",
    ]
    lines += ["## Tables", "", "| table | rows | units | what |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {entry['rows']:,} | {entry['units']} | {tables.TABLES[name].doc} |"
        for name, entry in summary.items()
    ]
    lines += ["", "## Funnel", "", "| stage | items | in | kept | rejected | failed |", "|---|---|---|---|---|---|"]
    for stage in STAGES:
        lines += [_funnel_row(stage, kind, counts) for kind, counts in sorted(dataset.counts(stage).items())]
    lines += _quality(dataset)
    lines += ["", "## Licenses", "", *_licenses(dataset), ""]
    if (lineage := Lineage.load(dataset.folder)) is not None:
        lines += ["## Lineage", "", *lineage.lines(), ""]
    return "\n".join(lines)


def _configs(dataset: Dataset, summary: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Viewer configs: samples by split once they exist, else images; only tables that have files."""
    configs: list[dict[str, Any]] = []
    directories = {
        directory
        for stage in STAGES
        for manifest in dataset.manifests(stage).values()
        for directory, entry in manifest.tables.items()
        if entry.rows and not directory.startswith("ledger/")
    }
    splits = sorted(directory for directory in directories if directory.startswith("samples/"))
    if splits:
        files = [{"split": split.split("/")[1], "path": f"{split}/*.parquet"} for split in splits]
        configs.append({"config_name": "samples", "data_files": files, "default": True})
    for name in summary:
        if name in directories:
            config = {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/*.parquet"}]}
            configs.append(config | ({"default": True} if name == "images" and not splits else {}))
    return configs


def _size(summary: dict[str, dict[str, Any]]) -> str:
    rows = summary.get("samples", summary.get("images", {"rows": 0}))["rows"]
    return next((name for bound, name in _SIZES if rows < bound), "n>10M")


def _funnel_row(stage: str, kind: str, counts: Counts) -> str:
    def words(reasons: Counter[str]) -> str:
        return ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items())) or "0"

    return (
        f"| {stage} | {kind} | {counts.input:,} | {counts.kept:,} | {words(counts.rejected)} | {words(counts.failed)} |"
    )


def _quality(dataset: Dataset) -> list[str]:
    """What `quality` is made of and on what that was fitted, as most units were scored; nothing before that."""
    made = Counter(strict.dumps(one.config.get("quality", {})) for one in dataset.manifests("quality").values())
    if not made:
        return []
    settings = strict.loads(made.most_common(1)[0][0])
    weights = settings.get("weights", {})
    names = [
        f"`{name}`" + (f" (weight {weights[name]:g})" if weights.get(name, 1) != 1 else "") + more
        for key, more in (("object_components", ""), ("optional_components", " where it is known"))
        for name in settings.get(key, ())
    ]
    lines = ["", "## Quality", "", "`quality` of objects is the weighted geometric mean of the ramps of: "]
    lines[-1] += f"{', '.join(names)}."
    if settings.get("fitted_on"):
        lines.append(f"Chosen by judgements: {settings['fitted_on']}. It ranks references; it is no measure of truth.")
    return lines


def _licenses(dataset: Dataset) -> list[str]:
    found: Counter[str] = Counter()
    blurred = 0
    for unit in dataset.units():
        rows = dataset.read("images", ["source", "license", "faces_blurred"], unit=unit).to_pylist()
        found.update(f"{row['source']}: {row['license'] or 'not stated by the source'}" for row in rows)
        blurred += sum(row["faces_blurred"] for row in rows)
    lines = [f"- {name}: {number:,} pictures" for name, number in sorted(found.items())]
    if blurred:
        lines.append(f"- {blurred:,} pictures come from a source that blurs faces and license plates")
    return lines or ["- none yet"]


def croissant(dataset: Dataset) -> dict[str, Any]:
    """Croissant 1.0 metadata: every Parquet file with its sha256, every table that has rows as a record set."""
    manifests = [manifest for stage in STAGES for manifest in dataset.manifests(stage).values()]
    summary = dataset.table_summary()
    held = [name for name, entry in summary.items() if entry["rows"]]
    lineage = Lineage.load(dataset.folder)
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": "refloom-dataset",
        "description": "Grouped reference data for training reference adapters.",
        "license": "each picture's own, see images.license",
        "distribution": [
            *(file_object(file.path, file.bytes, file.sha256) for manifest in manifests for file in manifest.files),
            *(file_set(name, f"{name}/{'*/' if name == 'samples' else ''}*.parquet") for name in held),
        ],
        "recordSet": [
            record_set(name, tables.TABLES[name].doc, tables.TABLES[name].key, tables.TABLES[name].schema)
            for name in held
        ],
        **({"isBasedOn": _based_on(lineage)} if lineage is not None else {}),
    }


def _based_on(lineage: Lineage) -> list[dict[str, Any]]:
    """The datasets that this one was made of, by name and fingerprints; where they lay stays out of it."""
    asked = strict.dumps(lineage.asked, sort_keys=True)
    return [
        {
            "@type": "sc:Dataset",
            "name": one.name,
            "description": f"refloom {lineage.how} {asked}",
            "version": of_parts(one.tables),
        }
        for one in lineage.sources
    ]
