"""What `refloom subset`, `merge`, `tag` and `diff` do, between the command line and the library."""

import argparse

from refloom.schemas import strict, tags
from refloom.schemas.dataset import Dataset
from refloom.schemas.errors import Refused
from refloom.schemas.storage import absolute_url
from refloom.schemas.wording import several, shown
from refloom.sharing.datasets import diff as diffs
from refloom.sharing.datasets import merge as merges
from refloom.sharing.datasets import subset as subsets
from refloom.sharing.datasets.choice import ids_of
from refloom.sharing.datasets.tag import tag as keep


def subset(options: argparse.Namespace) -> int:
    """`refloom subset DATASET DEST`: 0."""
    done = subsets.subset(
        options.dataset,
        options.dest,
        ids=(*options.named, *(ids_of(options.ids) if options.ids else ())),
        where=options.where,
        split=options.split,
        share=options.share,
        seed=options.seed,
        tag=options.tag,
        dry_run=options.dry_run,
        workers=options.workers,
        address=options.address,
        item_timeout=options.item_timeout,
        show=True,
    )
    pictures, samples = several(done.of_images, "picture"), several(done.of_samples, "sample")
    print(f"  {done.images:,} of {pictures}, {done.samples:,} of {samples}")
    _say_made(done.url, was_there=done.was_there, dry_run=options.dry_run)
    return 0


def merge(options: argparse.Namespace) -> int:
    """`refloom merge A B DEST`: 0."""
    done = merges.merge(
        options.datasets,
        options.dest,
        dry_run=options.dry_run,
        workers=options.workers,
        address=options.address,
        item_timeout=options.item_timeout,
        show=True,
    )
    for line in merges.lines(done):
        print(line)
    _say_made(done.url, was_there=done.was_there, dry_run=options.dry_run)
    return 0


def _say_made(url: str, *, was_there: bool, dry_run: bool) -> None:
    if was_there:
        print(f"{url} was complete already")
    else:
        print(f"nothing was written to {url}" if dry_run else f"made: {url}")


def tag(options: argparse.Namespace) -> int:
    """`refloom tag DATASET NAME`, `--list` or `--delete NAME`: 0."""
    asked = [options.name is not None, options.list, options.delete is not None]
    if sum(asked) != 1:
        raise Refused("give one of: a NAME to keep the dataset under, --list, or --delete NAME")
    url = absolute_url(options.dataset)
    if options.list:
        dataset = Dataset(url)
        held = [tags.read(dataset.folder, name) for name in dataset.tags()]
    else:
        held = [keep(url, options.name or options.delete, delete=options.delete is not None)]
    if options.json:
        print(strict.dumps([{"name": one.name, "tables": one.tables} for one in held], indent=1))
        return 0
    for one in held:
        rows = {name: one.tables.get(name, {"rows": 0})["rows"] for name in ("images", "samples")}
        known = one.tables.get("samples", one.tables.get("images", {})).get("fingerprint", "")
        print(
            f"{one.name:20} {rows['images']:>12,} pictures {rows['samples']:>12,} samples  {shown(known[:16])}"
            + (", removed" if options.delete else "")
        )
    if options.name:
        print(f"{url.rstrip('/')}/{tags.path_of(options.name)} is a dataset to read, like any other")
    if options.list and not held:
        print("no tags")
    return 0


def diff(options: argparse.Namespace) -> int:
    """`refloom diff DATASET A B`: 0, whether or not there is a difference."""
    found = diffs.diff(options.dataset, options.before, options.after)
    if options.json:
        print(strict.dumps(diffs.as_json(found), indent=1))
        return 0
    for line in diffs.lines(found):
        print(line)
    return 0
