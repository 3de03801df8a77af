"""From spills to a finished publication: files, card, croissant.json, and MANIFEST.json as the last act."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from refloom.ingest.engine.pool import Status
from refloom.schemas import strict
from refloom.schemas.fields import VERSION
from refloom.schemas.fingerprint import of_parts
from refloom.schemas.parquet import File
from refloom.schemas.publication import MANIFEST
from refloom.sharing.publish import card as publishcard
from refloom.sharing.publish import croissant, shards
from refloom.sharing.publish.shards import Provider, Shard
from refloom.sharing.publish.spill import Spill
from refloom.sharing.publish.staging import Workbench

Show = Callable[[str], Callable[[Status], None]]
"""Makes the progress display of a phase, given its title."""


def silent(title: str) -> Callable[[Status], None]:
    """Shows nothing."""
    return lambda status: None


def assemble(
    bench: Workbench,
    parts: list[tuple[str, str]],
    settings: dict[str, Any],
    facts: dict[str, Any],
    provider: Provider | None,
    show: Show,
    *,
    missing: Callable[[], int] = lambda: 0,
) -> dict[str, Any]:
    """Write every file that is not there yet, and what describes them.

    Args:
        bench: with the spills of all parts.
        parts: table and split of each spill.
        settings: `Publish.to_json`.
        facts: from `refloom.sharing.publish.cardfacts`, with the counts of takedown and sources.
        provider: of pictures' bytes, or None for a publication without them.
        show: makes the progress display.
        missing: pictures that could not be given; asked at the end.

    Returns:
        The content of MANIFEST.json.
    """
    spills = [Spill(bench.spill, table, split) for table, split in parts]
    planned = [
        (spill, shards.plan(spill, settings["shard_bytes"], images=provider is not None))
        for spill in spills
        if len(spill)
    ]
    todo = [shard for _, listed in planned for shard in listed]
    bench.sweep(todo)
    status = Status(units=len(todo), weight=sum(len(spill) for spill in spills))
    report = show("write")

    def on_row_group(rows: int, size: int) -> None:
        status.tally["begun"] += rows
        status.tally["bytes"] += size
        report(status)

    files: list[File] = []
    for spill, listed in planned:
        for shard in listed:
            file = bench.done(shard)
            if file is None:
                before = provider.nulls if provider is not None else 0
                file = shards.write(shard, spill, bench.folder, provider, on_row_group)
                if (
                    provider is None or provider.nulls == before
                ):  # what could not be found this time is looked for again next time
                    bench.finish(shard, file)
            else:
                status.weight -= file.rows
            files.append(file)
            status.done += 1
            status.weight_done += file.rows
            report(status)
    for spill in spills:
        spill.close()
    return _describe(bench, todo, files, settings, facts, missing())


def _canonical(value: dict[str, Any]) -> dict[str, Any]:
    ordered: dict[str, Any] = json.loads(json.dumps(value, sort_keys=True))
    return ordered


def _describe(
    bench: Workbench,
    listed: list[Shard],
    files: list[File],
    settings: dict[str, Any],
    facts: dict[str, Any],
    missing: int,
) -> dict[str, Any]:
    rows: dict[str, Counter[str]] = {}
    for shard in listed:
        rows.setdefault(shard.table, Counter())[shard.split] += shard.stop - shard.start
    about = {
        "version": VERSION,
        "options": settings,
        "rows": {table: dict(sorted(counts.items())) for table, counts in sorted(rows.items())},
        "facts": facts,
        "fingerprint": of_parts({file.path: file.sha256 for file in files}),
        **({"missing": missing} if missing else {}),
    }
    about = _canonical(about)  # so that the card is the same when it is made again
    files.sort(key=lambda file: file.path)
    data = [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256, "rows": file.rows} for file in files]
    described = []
    for path, text in (
        ("README.md", publishcard.readme(about, data)),
        ("croissant.json", strict.dumps(croissant.document(about, data), indent=1, ensure_ascii=False) + "\n"),
    ):
        with bench.folder.create(path) as sink:
            sink.write(text.encode())
            described.append((path, sink))
    others = [{"path": path, "bytes": sink.size, "sha256": sink.sha256} for path, sink in described]
    manifest = about | {"files": [*data, *others]}
    bench.folder.write(MANIFEST, strict.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
    bench.clean(again=bool(missing))
    return manifest
