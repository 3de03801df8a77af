"""What `refloom export` does, between the command line and the library."""

import argparse

from refloom.schemas.wording import quoted
from refloom.sharing.export.api import export as write

_NEXT = {
    "coco": "refloom ingest coco --images {0}/images --instances {0}/instances.json --captions {0}/captions.json",
    "easyref": "refloom ingest easyref {0}/records.json --images {0}/images",
    "subject10k": "refloom ingest subject10k {0}",
}


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
        show=True,
    )
    if done.was_there:
        print(f"{done.url} holds this export already")
    for word, count in done.written.items():
        print(f"  {count:>9,} {word}")
    if options.format in _NEXT:
        print(f"{done.url}: `{_NEXT[options.format].format(quoted(done.url))} --out DATASET` takes it in again")
    else:
        print(done.url)
    return 1 if done.failed else 0
