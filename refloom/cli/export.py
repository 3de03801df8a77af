"""What `refloom export` does, between the command line and the library."""

import argparse

from refloom.schemas import roots
from refloom.schemas.dataset import Dataset
from refloom.schemas.storage import absolute_url
from refloom.schemas.wording import quoted
from refloom.sharing.export.api import export as write
from refloom.sharing.export.formats import FORMATS


def export(options: argparse.Namespace) -> int:
    """`refloom export DATASET OUT --format F`: 0, or 1 if the bytes of some pictures were not there."""
    done = write(
        options.dataset,
        options.out,
        options.format,
        split=options.split,
        limit=options.limit,
        kept=options.kept,
        per_shard=options.per_shard,
        keep_metadata=options.keep_metadata,
        layout=options.layout,
        reference=options.reference,
        per_subject=options.per_subject,
        seed=options.seed,
        same_image=options.same_image,
        instructions=options.instructions,
        prefix=options.prefix,
        redistributable=options.redistributable,
        workers=options.workers,
        address=options.address,
        item_timeout=options.item_timeout,
        show=True,
    )
    if done.was_there:
        print(f"{done.url} holds this export already")
    for word, count in done.written.items():
        print(f"  {count:>9,} {word}")
    again = FORMATS[options.format].again
    if again is not None:
        print(f"{done.url}: `{again.format(quoted(done.url))} --out DATASET` takes it in again")
    else:
        print(done.url)
    if not done.failed:
        return 0
    for line in roots.moved(Dataset(absolute_url(options.dataset))):
        print(line)
    return 1
