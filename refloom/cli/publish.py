"""What `refloom publish` and `rehydrate` do, between the command line and the library."""

import argparse

from refloom.ingest.engine.progress import Progress, Stages
from refloom.schemas.dataset import Dataset
from refloom.schemas.storage import absolute_url
from refloom.sharing.publish import takedown
from refloom.sharing.publish.hub import push
from refloom.sharing.publish.options import Publish
from refloom.sharing.publish.publication import Outlook, Published, check_disk, look_ahead
from refloom.sharing.publish.publication import publish as run
from refloom.sharing.publish.rehydration import read_manifest
from refloom.sharing.publish.rehydration import rehydrate as join

_MOST_SHOWN = 20


def settings(options: argparse.Namespace) -> Publish:
    """The settings that the options ask for."""
    return Publish(
        tables=tuple(name for text in options.tables for name in text.split(",") if name),
        images=not options.no_images,
        face_embeddings=options.include_face_embeddings,
        shard_bytes=round(options.shard_mb * 1e6),
        only_sources=tuple(options.only_sources),
        accept_licenses=tuple(options.accept_license),
        takedown=takedown.read(options.takedown) if options.takedown else (),
    )


def publish(options: argparse.Namespace) -> int:
    """`refloom publish DATASET DEST`: 0; with `--push` also sends it."""
    dataset, dest, wanted = Dataset(absolute_url(options.dataset)), absolute_url(options.dest), settings(options)
    if options.dry_run:
        return _dry_run(look_ahead(dataset, wanted), dest, wanted)
    with Stages({"read": "byte"}) as phases:
        done = run(dataset, dest, wanted, replace=options.replace, show=phases)
    _warn(done.unknown)
    print(f"{dest} was complete already" if done.was_there else f"published: {dest}")
    _print_files(done)
    if options.push:
        with Progress("push", "file") as progress:
            pushed = push(
                dest,
                options.push,
                private=not options.public,
                endpoint=options.endpoint,
                forget_history=options.forget_history,
                on_status=progress,
            )
        print(
            f"{pushed.url}: {pushed.sent:,} files sent, {pushed.there:,} were there already, {pushed.removed:,} removed"
        )
    return 0


def _warn(unknown: tuple[str, ...]) -> None:
    for name in unknown[:_MOST_SHOWN]:
        print(f"note: the takedown list names {name}, which the dataset does not hold")
    if len(unknown) > _MOST_SHOWN:
        print(f"note: and {len(unknown) - _MOST_SHOWN} more that it does not hold")


def _print_files(done: Published) -> None:
    manifest = done.manifest
    for table, splits in manifest["rows"].items():
        for split, rows in splits.items():
            own = [one["bytes"] for one in manifest["files"] if one["path"].startswith(f"data/{table}/{split}-")]
            print(f"  {table:14} {split:10} {rows:>12,} rows {len(own):>6,} files {sum(own) / 1e6:>12,.1f} MB")
    print(f"  fingerprint {manifest['fingerprint']}")


def _dry_run(outlook: Outlook, dest: str, wanted: Publish) -> int:
    _warn(outlook.unknown)
    total = 0
    for name, (files, size) in outlook.files.items():
        total += size
        print(f"  {name:24} about {files:,} files, {size / 1e6:,.1f} MB")
    needed = total + outlook.spill_bytes
    print(f"  {outlook.pictures:,} pictures, {'with' if wanted.images else 'without'} their bytes")
    print(f"  about {needed / 1e9:,.2f} GB of disk needed, {outlook.spill_bytes / 1e9:,.2f} of them for a while")
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
