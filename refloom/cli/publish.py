"""What `refloom publish`, `takedown` and `rehydrate` do, between the command line and the library."""

import argparse

from refloom.ingest.engine.pool import Status
from refloom.ingest.engine.progress import Progress, Stages
from refloom.schemas import strict
from refloom.schemas.dataset import Dataset
from refloom.schemas.storage import absolute_url
from refloom.sharing.publish import api
from refloom.sharing.publish import takedown as takedowns
from refloom.sharing.publish import takedownwords as words
from refloom.sharing.publish.api import Published
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import PublicationPlan, check_disk, look_ahead
from refloom.sharing.publish.rehydration import read_manifest
from refloom.sharing.publish.rehydration import rehydrate as join
from refloom.sharing.publish.removal import remove

_MOST_SHOWN = 20


def publish(options: argparse.Namespace) -> int:
    """`refloom publish DATASET DEST`: 0; with `--push` also sends it."""
    asked = {
        "tables": [name for text in options.tables for name in text.split(",") if name],
        "images": not options.no_images,
        "face_embeddings": options.include_face_embeddings,
        "shard_bytes": round(options.shard_mb * 1e6),
        "only_sources": options.only_sources,
        "accept_licenses": options.accept_license,
        "takedown": options.takedown or (),
        "ignore_unknown": options.ignore_unknown,
        "keep_metadata": options.keep_metadata,
    }
    if options.dry_run:
        dataset, dest = Dataset(absolute_url(options.dataset)), absolute_url(options.dest)
        wanted = api.settings(**asked)
        return _dry_run(look_ahead(dataset, wanted), dest, wanted)
    done = api.publish(
        options.dataset,
        options.dest,
        **asked,
        replace=options.replace,
        show=True,
    )
    for line in words.told(done.takedown):
        print(line)
    print(f"{done.folder} was complete already" if done.was_there else f"published: {done.folder}")
    _print_files(done)
    if options.push:
        pushed = api.send(
            options.dataset,
            done.folder,
            options.push,
            public=options.public,
            endpoint=options.endpoint,
            forget_history=options.forget_history,
            show=True,
        )
        print(
            f"{pushed.url}: {pushed.sent:,} files sent, {pushed.there:,} were there already, {pushed.removed:,} removed"
        )
    return 0


def takedown(options: argparse.Namespace) -> int:
    """`refloom takedown DATASET LIST`: 0; an entry that names nothing is refused."""
    url = absolute_url(options.dataset)
    entries = takedowns.read(options.list) if options.list else ()
    progress = Progress("takedown", "unit")

    def tell(stage: str, number: int, total: int) -> None:
        status = Status(units=total, weight=total)
        status.done = status.weight_done = number
        progress(status)

    try:
        done = remove(url, entries, ignore_unknown=options.ignore_unknown, dry_run=options.dry_run, tell=tell)
    finally:
        progress.close()
    if options.json:
        print(strict.dumps(words.as_json(done), indent=1))
    else:
        for line in words.lines(url, done, dry_run=options.dry_run):
            print(line)
    return 0


def _print_files(done: Published) -> None:
    manifest = done.manifest
    for table, splits in manifest["rows"].items():
        for split, rows in splits.items():
            own = [one["bytes"] for one in manifest["files"] if one["path"].startswith(f"data/{table}/{split}-")]
            print(f"  {table:14} {split:10} {rows:>12,} rows {len(own):>6,} files {sum(own) / 1e6:>12,.1f} MB")
    metadata = manifest["facts"].get("metadata") or {"kept": True}
    if metadata["kept"]:
        print("  pictures keep the metadata of their files")
    else:
        print(f"  metadata stripped from {metadata['stripped']:,} pictures, {metadata['withheld']:,} withheld for it")
    print(f"  fingerprint {manifest['fingerprint']}")


def _dry_run(plan: PublicationPlan, dest: str, wanted: Publish) -> int:
    for line in words.told(plan.takedown):
        print(line)
    total = 0
    for name, (files, size) in plan.files.items():
        total += size
        print(f"  {name:24} about {files:,} files, {size / 1e6:,.1f} MB")
    needed = total + plan.spill_bytes
    print(f"  {plan.pictures:,} pictures, {'with' if wanted.images else 'without'} their bytes")
    print(f"  about {needed / 1e9:,.2f} GB of disk needed, {plan.spill_bytes / 1e9:,.2f} of them for a while")
    print(f"  {check_disk(dest, 0) / 1e9:,.2f} GB free" + (": NOT ENOUGH" if check_disk(dest, 0) < needed else ""))
    return 0


def rehydrate(options: argparse.Namespace) -> int:
    """`refloom rehydrate PUBLISHED SOURCE DEST`: 0, or 1 if pictures are missing or have other bytes."""
    published, dest = absolute_url(options.published), absolute_url(options.dest)
    if options.dry_run:
        _, manifest = read_manifest(published)
        rows = manifest["rows"].get("pictures", {}).get("train", 0)
        print(f"  {rows:,} pictures to find in {options.source}")
        return 0
    with Stages() as phases:
        done = join(published, absolute_url(options.source), dest, replace=options.replace, show=phases)
    for what, ids in (("is not in the copy", done.missing), ("has other bytes in the copy", done.differing)):
        for name in sorted(ids)[:_MOST_SHOWN]:
            print(f"{name} {what}: left null")
        if len(ids) > _MOST_SHOWN:
            print(f"... and {len(ids) - _MOST_SHOWN:,} more")
    lost = len(done.missing) + len(done.differing)
    print(f"rehydrated: {dest}" + (f", {lost:,} pictures stayed null" if lost else ""))
    return 1 if lost else 0
